"""Many pollers that beat as edge hosts do, some of which stop; and what the gateway says of each of them.

Times are seconds of the clock that never jumps. Only how the ledger is filled knows the product.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import nats

from jetway.core import commands as c
from jetway.core.ids import Lineage, ServiceType
from jetway.core.lifecycle import step
from jetway.core.record import ServiceRecord, encode_record
from support.daemon import SERVICES, Daemon
from support.heartbeats import Book

_AT_ONCE = 1024
_EPOCH = 1
"""Before every epoch of a daemon, so that whatever it writes is newer."""


class Fleet:
    """Pollers `p0`, `p1`, ..., each of which beats once in `interval` seconds, from a process of their own."""

    def __init__(self, book: Book, process: subprocess.Popen[bytes], size: int) -> None:
        self.book = book
        self.size = size
        self._process = process

    def silence(self, number: int, now: float) -> float:
        """For how long this one has sent nothing."""
        return now - self.book.last_beat[number]

    def is_stopped(self, number: int) -> bool:
        return self.book.stopped_at[number] > 0

    @property
    def stopped(self) -> int:
        """How many have stopped so far."""
        return sum(map(bool, self.book.stopped_at))

    async def stop_some(self, count: int, seconds: float) -> None:
        """Let so many stop for good within `seconds`, chosen and timed at random."""
        wanted = self.stopped + count
        assert self._process.stdin is not None
        self._process.stdin.write(f"{count} {seconds}\n".encode())
        self._process.stdin.flush()
        async with asyncio.timeout(seconds + 30):
            while self.stopped < wanted:
                self.require_running()
                await asyncio.sleep(0.2)

    def require_running(self) -> None:
        assert self._process.poll() is None, "the heartbeats ended"


@dataclass(frozen=True, slots=True)
class Told:
    """A verdict, when it was heard of, and for how long the service had been silent then."""

    service_id: str
    liveness: str
    silence: float
    at: float
    stopped: bool


class Listener:
    """Hears of every verdict by the gateway's stream of changes, also after the gateway was away."""

    def __init__(self, daemon: Daemon, fleet: Fleet) -> None:
        self._daemon = daemon
        self._fleet = fleet
        self._known: dict[str, str] = {}
        self.told: list[Told] = []
        self.listening = asyncio.Event()

    async def listen(self) -> None:
        """For ever."""
        while True:
            with contextlib.suppress(aiohttp.ClientError, OSError):
                await self._listen_once()
            self.listening.clear()
            await asyncio.sleep(0.1)

    async def _listen_once(self) -> None:
        headers = {"Authorization": f"Bearer {self._daemon.token}"}
        endless = aiohttp.ClientTimeout(total=None, sock_read=None)
        async with (
            aiohttp.ClientSession(headers=headers, timeout=endless) as session,
            session.get(f"{self._daemon.url}{SERVICES}/watch", max_line_size=1 << 20) as stream,
        ):
            assert stream.status == 200
            self.listening.set()
            async for line in stream.content:
                if line.startswith(b"data: ") and b'"liveness"' in line:
                    self._take(json.loads(line.removeprefix(b"data: ")))

    def _take(self, service: dict[str, Any]) -> None:
        service_id, verdict = service["service_id"], service["liveness"]
        if self._known.get(service_id, "online") == verdict:
            return
        self._known[service_id] = verdict
        number = int(service_id[1:])
        now = time.monotonic()
        silence, stopped = self._fleet.silence(number, now), self._fleet.is_stopped(number)
        self.told.append(Told(service_id, verdict, silence, now, stopped))

    def verdicts(self, liveness: str) -> Sequence[Told]:
        """What was told of that verdict."""
        return [told for told in self.told if told.liveness == liveness]


@asynccontextmanager
async def fleet_of(daemon: Daemon, size: int, interval: int) -> AsyncIterator[Fleet]:
    """A fleet that beats until the block ends, over a link that comes back by itself."""
    path = daemon.state.parent / "heartbeats.book"
    book = Book(path, size)
    address = urlsplit(daemon.nats_url)
    arguments = [f"{address.hostname}:{address.port}", str(path), str(size), str(interval)]
    process = _started(arguments)
    fleet = Fleet(book, process, size)
    try:
        yield fleet
        fleet.require_running()
    finally:
        process.kill()
        await asyncio.to_thread(process.communicate)


def _started(arguments: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "support.heartbeats", *arguments],
        stdin=subprocess.PIPE,
        cwd=Path(__file__).parents[1],
    )


async def fill(daemon: Daemon, size: int) -> None:
    """Put pollers into the ledger as the daemon leaves them that were heard once."""
    link = await nats.connect(daemon.nats_url, pending_size=64 << 20)
    stream = link.jetstream(publish_async_max_pending=_AT_ONCE)
    try:
        for start in range(0, size, _AT_ONCE):
            some = map(_record, range(start, min(size, start + _AT_ONCE)))
            await asyncio.gather(
                *[stream.publish(f"$KV.registry.{one.key}", encode_record(one), timeout=60) for one in some]
            )
    finally:
        await link.close()


def _record(number: int) -> ServiceRecord:
    lineage = Lineage(ServiceType.POLLER, f"p{number}")
    context = c.Context(now=datetime.now(UTC), actor="fleet", transition_id=lineage.service_id, epoch=_EPOCH)
    made = step(None, c.Admit(lineage=lineage, approval_required=False, heard=True), context)
    assert isinstance(made, ServiceRecord), made
    return made
