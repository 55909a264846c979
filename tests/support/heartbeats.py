"""A process of its own that beats for many pollers and keeps book of when each last did, at next to no cost.

    python -m support.heartbeats HOST:PORT BOOK SIZE INTERVAL

Each of `p0`, `p1`, ... beats once in an interval, evenly spread. A line `COUNT SECONDS` on the standard input
lets so many, chosen at random, stop for good within the next seconds. All times are of the clock that never
jumps, which every process of a machine shares. BOOK is a file of numbers, see `Book`.

Nothing of the product and no library of NATS is used here: some hundred heartbeats are one call of the kernel.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import random
import select
import socket
import sys
import time
from pathlib import Path

_STEP_SECONDS = 0.02
_MOST_UNSENT = 1 << 20
"""Bytes that wait for a link that takes none; more heartbeats are lost, as on an edge host."""
_HEADER = 4
_BEATS, _LOST, _LATENESS, _LATE_STEPS = range(_HEADER)


class Book:
    """Numbers in a file that two processes map: what the one writes the other reads at once."""

    def __init__(self, path: Path, size: int) -> None:
        length = 8 * (_HEADER + 2 * size)
        with path.open("a+b") as file:
            file.truncate(length)
            numbers = memoryview(mmap.mmap(file.fileno(), length)).cast("d")
        self.totals = numbers[:_HEADER]
        """Heartbeats so far; those lost because there was no link; the worst lateness since it was set to 0, in
        seconds; and how often a step was late by more than half a second."""
        self.last_beat = numbers[_HEADER : _HEADER + size]
        """When each beat last, 0 for never. Lost ones count: whoever sent them lives."""
        self.stopped_at = numbers[_HEADER + size :]
        """When each stopped, 0 for those that beat."""

    @property
    def beats(self) -> int:
        return int(self.totals[_BEATS])

    @property
    def lost(self) -> int:
        return int(self.totals[_LOST])

    @property
    def late_steps(self) -> int:
        return int(self.totals[_LATE_STEPS])

    def take_lateness(self) -> float:
        """How late a heartbeat was at worst since the last call, in seconds: the machine was that busy."""
        worst, self.totals[_LATENESS] = self.totals[_LATENESS], 0.0
        return worst

    def note_lateness(self, seconds: float) -> None:
        self.totals[_LATENESS] = max(self.totals[_LATENESS], seconds)
        self.totals[_LATE_STEPS] += seconds > 0.5


class Link:
    """A connection to NATS that comes back by itself and never makes anybody wait."""

    def __init__(self, host: str, port: int) -> None:
        self._address = (host, port)
        self._socket: socket.socket | None = None
        self._unsent = bytearray()
        self._tried_at = 0.0

    def send(self, data: bytes) -> bool:
        """Whether it took `data`; False where there is no link, or it stands still."""
        if self._socket is None and not self._connect():
            return False
        if len(self._unsent) > _MOST_UNSENT:
            self.flush()
            return False
        self._unsent += data
        self.flush()
        return self._socket is not None

    def flush(self) -> None:
        """Hand on what waits, as far as the kernel takes it; answer the server's pings."""
        if self._socket is None:
            return
        try:
            self._answer()
            while self._unsent:
                del self._unsent[: self._socket.send(self._unsent)]
        except BlockingIOError:
            pass
        except OSError:
            self._socket.close()
            self._socket = None
            self._unsent.clear()

    def _answer(self) -> None:
        assert self._socket is not None
        if select.select([self._socket], [], [], 0)[0]:
            told = self._socket.recv(65536)
            if not told or b"-ERR" in told:
                raise ConnectionResetError(told)
            self._unsent += b"PONG\r\n" * told.count(b"PING\r\n")

    def _connect(self) -> bool:
        if time.monotonic() - self._tried_at < 0.1:
            return False
        self._tried_at = time.monotonic()
        link = socket.socket()
        link.settimeout(1)  # of this machine: refused at once, or in the queue of a server that stands still
        try:
            link.connect(self._address)
        except OSError:
            link.close()
            return False
        link.setblocking(False)
        self._socket = link
        self._unsent[:] = b'CONNECT {"verbose":false,"pedantic":false,"name":"heartbeats"}\r\n'
        return True


class Generator:
    """Beats for all of them."""

    def __init__(self, book: Book, link: Link, size: int, interval: float) -> None:
        self._book, self._link, self._size, self._interval = book, link, size, interval
        payload = json.dumps({"healthy": True, "interval_seconds": int(interval)}).encode()
        self._messages = [
            b"PUB edge.heartbeat.poller.p%d %d\r\n%s\r\n" % (number, len(payload), payload)
            for number in range(size)
        ]
        self._stops: list[tuple[float, int]] = []
        self._chosen: set[int] = set()

    def run(self) -> None:
        """Until the standard input ends."""
        began, sent = time.monotonic(), 0
        os.set_blocking(0, False)
        while True:
            now = time.monotonic()
            if not self._obey(now):
                return
            while self._stops and self._stops[-1][0] <= now:
                self._book.stopped_at[self._stops.pop()[1]] = now
            due = int((now - began) / self._interval * self._size)
            if due > sent:
                self._book.note_lateness(now - began - sent * self._interval / self._size)
                self._beat(range(max(sent, due - self._size), due))
            else:
                self._link.flush()
            sent = due
            time.sleep(_STEP_SECONDS)

    def _beat(self, numbers: range) -> None:
        alive = [one for number in numbers if not self._book.stopped_at[one := number % self._size]]
        taken = self._link.send(b"".join([self._messages[number] for number in alive]))
        now = time.monotonic()
        for number in alive:
            self._book.last_beat[number] = now
        self._book.totals[_BEATS if taken else _LOST] += len(alive)

    def _obey(self, now: float) -> bool:
        with contextlib.suppress(BlockingIOError):
            told = os.read(0, 4096)
            for line in told.splitlines():
                count, seconds = line.split()
                self._choose(int(count), float(seconds), now)
            return bool(told)
        return True

    def _choose(self, count: int, seconds: float, now: float) -> None:
        beating = [number for number in range(self._size) if number not in self._chosen]
        some = random.sample(beating, count)
        self._chosen.update(some)
        self._stops += [(now + random.uniform(0, seconds), number) for number in some]
        self._stops.sort(reverse=True)


def main() -> None:
    address, path, size, interval = sys.argv[1:]
    host, _, port = address.rpartition(":")
    Generator(Book(Path(path), int(size)), Link(host, int(port)), int(size), float(interval)).run()


if __name__ == "__main__":
    main()
