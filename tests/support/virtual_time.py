"""An event loop whose time passes only in sleeps: hours of waiting in a moment, and tasks that can be paused."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine, Generator
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

T = TypeVar("T")

START = datetime(2026, 3, 4, tzinfo=UTC)


class _Selector(selectors.DefaultSelector):  # type: ignore[misc, valid-type]
    """Instead of waiting, tells the loop how long it would have waited."""

    def __init__(self) -> None:
        super().__init__()
        self.passed = 0.0

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None:
            raise RuntimeError("nothing is left that could ever happen")
        self.passed += max(0.0, timeout)
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """`time()` begins at 0."""

    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.passed


def run_virtually(work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which may sleep as long as it likes. Tasks that it leaves behind are cancelled."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(work)


class VirtualClock:
    """Implements `ports.Clock` on the running loop's time, as a machine of its own has it."""

    def __init__(self, offset: float = 0.0, rate: float = 1.0) -> None:
        self._offset = offset
        self._rate = rate

    def now(self) -> datetime:
        return START + timedelta(seconds=asyncio.get_running_loop().time())

    def monotonic(self) -> float:
        return self._offset + self._rate * asyncio.get_running_loop().time()


class Pausable:
    """A process in one coroutine: while it is paused nothing of it runs, whatever it was waiting for."""

    def __init__(self, work: Coroutine[Any, Any, None]) -> None:
        self._work = work
        self._running = asyncio.Event()
        self._running.set()

    @property
    def paused(self) -> bool:
        return not self._running.is_set()

    def pause(self) -> None:
        self._running.clear()

    def resume(self) -> None:
        self._running.set()

    async def run(self) -> None:
        await self

    def __await__(self) -> Generator[Any, Any, None]:
        error: BaseException | None = None
        while True:
            try:
                waited_for = self._work.throw(error) if error else self._work.send(None)
            except StopIteration:
                return
            error = None
            try:
                yield waited_for
            except BaseException as raised:
                error = raised
            while self.paused:
                try:
                    yield from self._running.wait().__await__()
                except asyncio.CancelledError as cancelled:
                    error = error or cancelled
