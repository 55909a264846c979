"""Threads that own a connection each, and calls handed to them from the event loop."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Generic, Protocol, TypeVar

from jetway.core.errors import UnavailableError


class Connection(Protocol):
    """What a thread owns."""

    def interrupt(self) -> None:
        """End what is running; from any thread."""

    def close(self) -> None:
        """Let go."""


_LOOKS_EVERY = 0.1

T = TypeVar("T")
C = TypeVar("C", bound=Connection)


class Job(Generic[C, T]):
    """One call: waiting, running, or done. A waiting one is withdrawn by cancelling `future`."""

    def __init__(self, work: Callable[[C], T]) -> None:
        self.future: Future[T] = Future()
        self._work = work
        self._connection: C | None = None
        # Held while interrupting, so that the interrupt cannot hit the connection's next call.
        self._lock = threading.Lock()

    def perform(self, connection: C) -> T:
        """Run on `connection`, in the thread that owns it."""
        with self._lock:
            self._connection = connection
        try:
            return self._work(connection)
        finally:
            with self._lock:
                self._connection = None

    def interrupt(self) -> None:
        """End the statement that is running, if one is; from any thread."""
        with self._lock:
            if self._connection is not None:
                self._connection.interrupt()


class ConnectionThreads(Generic[C]):
    """`count` threads that take calls in order. A connection that failed is closed and opened anew."""

    def __init__(
        self,
        name: str,
        connect: Callable[[], C],
        is_spoilt: Callable[[C, Exception | None], bool],
        *,
        count: int,
        limit: int,
    ) -> None:
        """`is_spoilt`: whether a connection is done for after a call, which may have raised an error.

        `limit`: how many calls may wait for a free thread.
        """
        self._connect = connect
        self._is_spoilt = is_spoilt
        self._limit = limit
        self._jobs: queue.SimpleQueue[Job[C, Any] | None] = queue.SimpleQueue()
        self._open = False
        self._running: set[Job[C, Any]] = set()
        # Daemon threads: a program that forgot to close must still be able to end.
        self._threads = [
            threading.Thread(target=self._serve, name=f"{name}-{number}", daemon=True)
            for number in range(1, count + 1)
        ]

    @property
    def is_open(self) -> bool:
        """Whether it takes calls."""
        return self._open

    def start(self) -> None:
        """Begin to take calls; once."""
        self._open = True
        for thread in self._threads:
            thread.start()

    def submit(self, work: Callable[[C], T]) -> Job[C, T]:
        """Put a call into the queue. Raises UnavailableError when it is full or closed."""
        if not self._open:
            raise UnavailableError("the database is not open")
        if self._jobs.qsize() >= self._limit:
            raise UnavailableError(f"the database is too busy: {self._limit} calls are waiting for it")
        job = Job(work)
        self._jobs.put(job)
        return job

    def stop(self) -> None:
        """Take no more calls; those that wait are still served."""
        if self._open:
            self._open = False
            for _ in self._threads:
                self._jobs.put(None)

    def join(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds for all threads to end; whether they did. Blocks."""
        ends = time.monotonic() + timeout
        started = [thread for thread in self._threads if thread.ident is not None]
        for thread in started:
            thread.join(max(0.0, ends - time.monotonic()))
        return not any(thread.is_alive() for thread in started)

    def cut_off(self, timeout: float) -> bool:
        """After `stop`: withdraw what waits, end what runs; whether all threads ended in time. Blocks."""
        ends = time.monotonic() + timeout
        while not self.join(0):
            self._withdraw()
            for job in list(self._running):
                job.interrupt()
            if self.join(_LOOKS_EVERY):
                break
            if time.monotonic() > ends:
                return False
        return True

    def _withdraw(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                job = self._jobs.get_nowait()
                if job is not None:
                    job.future.cancel()
        for _ in self._threads:
            self._jobs.put(None)

    def _serve(self) -> None:
        connection: C | None = None
        while (job := self._jobs.get()) is not None:
            if job.future.set_running_or_notify_cancel():
                self._running.add(job)
                try:
                    connection = self._perform(job, connection)
                finally:
                    self._running.discard(job)
        _close(connection)

    def _perform(self, job: Job[C, Any], connection: C | None) -> C | None:
        failure: Exception | None = None
        result: Any = None
        try:
            connection = connection or self._connect()
            result = job.perform(connection)
        except Exception as error:
            failure = error
        if connection is not None and self._is_spoilt(connection, failure):
            # Whatever the database complained of, the next call gets a connection in a known state.
            _close(connection)
            connection = None
        if failure is None:
            job.future.set_result(result)
        else:
            job.future.set_exception(failure)
        return connection


def _close(connection: Connection | None) -> None:
    if connection is not None:
        # It is given up either way.
        with contextlib.suppress(Exception):
            connection.close()
