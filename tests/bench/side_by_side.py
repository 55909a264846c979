"""Side by side: keeping many services alive and noticing who is silent, with Jetway, etcd leases and Redis keys.

One client program, in Python, asks all of them the same over one connection. ZooKeeper is not among them: an
ephemeral node lives as long as its session, so every service would need a TCP connection and pings of its own,
and nothing could be compared at the same concurrency.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from statistics import median

from bench.rivals import AT_ONCE, MissingError, Rival, etcd, jetway, redis
from bench.stage import row

_SILENCE_SECONDS = 15
_INTERVAL_SECONDS = 5
_STEADY_SECONDS = 20
_AFTER_SECONDS = 20
_PAUSE_SECONDS = 30
_ACKNOWLEDGED = 20_000
_UNACKNOWLEDGED = 100_000
_STOPPED_SHARE = 10
"""Every tenth service stops."""


def run(arguments: list[str]) -> None:
    """Measure and print one line each."""
    count = int(arguments[arguments.index("--services") + 1]) if "--services" in arguments else 10_000
    print(
        f"\n{count:,} services, silence {_SILENCE_SECONDS} s, a refresh every {_INTERVAL_SECONDS} s, "
        f"{AT_ONCE} at once where acknowledged, one client process and connection\n\n"
        "| what | acknowledged | unacknowledged | server CPU each | CPU while steady | memory | "
        f"declared dead after the {_SILENCE_SECONDS} s | false, steady | false, {_PAUSE_SECONDS} s pause |\n"
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        flush=True,
    )
    for rival in (jetway, etcd, redis):
        try:
            asyncio.run(_compare(rival, count))
        except MissingError as missing:
            print(f"skipped: {missing}", file=sys.stderr)


async def _compare(rival: Callable[[int], AbstractAsyncContextManager[Rival]], count: int) -> None:
    async with rival(_SILENCE_SECONDS) as server:
        await server.register(count)
        acknowledged, _ = await _acknowledged(server, count)
        unacknowledged, each = await _unacknowledged(server, count)
        async with _Beating(server, count) as beating:
            await asyncio.sleep(_INTERVAL_SECONDS + 1)
            server.failed.clear()
            cpu, began = _cpu(server), time.monotonic()
            await asyncio.sleep(_STEADY_SECONDS)
            busy = (_cpu(server) - cpu) / (time.monotonic() - began)
            steady, memory = len(server.failed), _memory(server)
            found = await _detection(server, beating)
            paused = await _pause(server, beating)
        rates = f"{acknowledged:,.0f}/s | {unacknowledged:,.0f}/s | {each * 1e6:.0f} µs"
        row(
            server.name,
            f"{rates} | {busy:.0%} | {memory:.0f} MiB",
            f"{found} | {steady} | {paused}",
        )


async def _acknowledged(server: Rival, count: int) -> tuple[float, float]:
    """Refreshes per second, so many at once, and the server's processor seconds for each."""
    numbers = iter(range(_ACKNOWLEDGED))

    async def work() -> None:
        for number in numbers:
            await server.acknowledged(number % count)

    cpu, began = _cpu(server), time.monotonic()
    await asyncio.gather(*(work() for _ in range(AT_ONCE)))
    await server.settle(_ACKNOWLEDGED)
    return _ACKNOWLEDGED / (time.monotonic() - began), (_cpu(server) - cpu) / _ACKNOWLEDGED


async def _unacknowledged(server: Rival, count: int) -> tuple[float, float]:
    """The same without waiting for answers; counted until the last one was taken in."""
    cpu, began = _cpu(server), time.monotonic()
    for number in range(_UNACKNOWLEDGED):
        await server.refresh(number % count)
    await server.settle(_UNACKNOWLEDGED)
    return _UNACKNOWLEDGED / (time.monotonic() - began), (_cpu(server) - cpu) / _UNACKNOWLEDGED


class _Beating:
    """Everybody refreshes in turn, evenly spread over the interval; who is stopped does not."""

    def __init__(self, server: Rival, count: int) -> None:
        self._server, self.count = server, count
        self.stopped: frozenset[int] = frozenset()
        self.last = [0.0] * count
        """When each was refreshed last."""

    async def __aenter__(self) -> _Beating:
        self._task = asyncio.create_task(self._beat())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _beat(self) -> None:
        began, sent = time.monotonic(), 0
        while True:
            due = int((time.monotonic() - began) / _INTERVAL_SECONDS * self.count)
            # Who was held up refreshes once, not once for every turn missed.
            for turn in range(max(sent, due - self.count), due):
                number = turn % self.count
                if number not in self.stopped:
                    await self._server.refresh(number)
                    self.last[number] = time.monotonic()
            sent = due
            await asyncio.sleep(0.01)


async def _detection(server: Rival, beating: _Beating) -> str:
    """Stop every tenth; how long after its silence was over each was declared dead."""
    server.failed.clear()
    beating.stopped = frozenset(range(0, beating.count, _STOPPED_SHARE))
    await asyncio.sleep(_SILENCE_SECONDS + _AFTER_SECONDS)
    # Where only the number is told, the k-th verdict belongs to the k-th that fell silent.
    fell = sorted((beating.last[number], number) for number in beating.stopped)
    told = [(when, who) for when, who in server.failed if who is None or who in beating.stopped]
    at = {who: when for when, who in told}
    ordered = sorted(when for when, _ in told)
    known = all(who is not None for _, who in told)
    ends = (
        [at[n] - last for last, n in fell if n in at]
        if known
        else [w - f for w, (f, _) in zip(ordered, fell, strict=False)]
    )
    delays = sorted(end - server.silence for end in ends)
    if not delays:
        return f"none of {len(fell)}"
    missing = "" if len(told) == len(fell) else f", {len(told):,} of {len(fell):,}"
    return f"p50 {median(delays):.2f} s, p99 {delays[int(len(delays) * 0.99)]:.2f} s{missing}"


async def _pause(server: Rival, beating: _Beating) -> int:
    """How many of those who went on were declared dead when the server stood still."""
    server.failed.clear()
    os.kill(server.paused, signal.SIGSTOP)
    try:
        await asyncio.sleep(_PAUSE_SECONDS)
    finally:
        os.kill(server.paused, signal.SIGCONT)
    await asyncio.sleep(_AFTER_SECONDS)
    return sum(who not in beating.stopped for _, who in server.failed)


def _cpu(server: Rival) -> float:
    """Processor seconds of all of its processes so far."""
    stats = [Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split() for pid in server.pids]
    return sum(int(stat[11]) + int(stat[12]) for stat in stats) / os.sysconf("SC_CLK_TCK")


def _memory(server: Rival) -> float:
    """Resident MiB of all of its processes."""
    texts = [Path(f"/proc/{pid}/status").read_text() for pid in server.pids]
    return sum(int(text.split("VmRSS:")[1].split()[0]) for text in texts) / 1024
