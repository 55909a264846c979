"""Liveness: what it costs to find the silent among very many, in memory, without NATS or a database around it."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from bench.stage import row
from jetway.core import commands as c
from jetway.core.heartbeat import EMPTY
from jetway.core.ids import ServiceKey, ServiceType
from jetway.core.lifecycle import step
from jetway.core.liveness import Thresholds
from jetway.core.record import ServiceRecord
from jetway.services.index import Index
from jetway.services.liveness import Verdicts
from jetway.services.metrics import Metrics
from jetway.services.presence import PresenceTable

_MANY = int(os.environ.get("JETWAY_TEST_BENCH_SERVICES", "250000"))
_INTERVAL = 30


class _Clock:
    """Moves when it is told to."""

    def __init__(self) -> None:
        self._now, self._seconds = datetime.now(UTC), 1000.0

    def now(self) -> datetime:
        return self._now

    def monotonic(self) -> float:
        return self._seconds

    def advance(self, seconds: float) -> None:
        self._now += timedelta(seconds=seconds)
        self._seconds += seconds


class _World:
    """Services of one kind, each heard at its own moment within an interval."""

    def __init__(self) -> None:
        self.clock, self.index = _Clock(), Index()
        self.presence = PresenceTable(self.clock, default_interval=_INTERVAL, thresholds=Thresholds())
        self.verdicts = Verdicts(self.index, self.presence, self.clock, Metrics())
        self.keys = [ServiceKey(ServiceType.POLLER, f"p{number}") for number in range(_MANY)]
        made = _record()
        for key in self.keys:
            self.index.apply(replace(made, service_id=key.service_id, poller_id=key.service_id))
        self.presence.listening()

    def beat(self, share: float) -> float:
        """Everybody whose turn is in this second of the interval; seconds for each."""
        some = self.keys[int(share * _MANY) : int((share + 1 / _INTERVAL) * _MANY)]
        began = time.perf_counter()
        for key in some:
            self.presence.note(key, EMPTY, self.clock.now())
        return (time.perf_counter() - began) / len(some)

    async def sweep(self) -> tuple[int, float, float]:
        """Services looked at, seconds of a processor, and the longest that the event loop was held."""
        worst, stop = 0.0, False

        async def watch() -> None:
            nonlocal worst
            last = time.perf_counter()
            while not stop:
                await asyncio.sleep(0)
                worst, last = max(worst, time.perf_counter() - last), time.perf_counter()

        watching = asyncio.create_task(watch())
        await asyncio.sleep(0)
        began = time.process_time()
        looked = await self.verdicts.sweep()
        seconds = time.process_time() - began
        stop = True
        await watching
        return looked, seconds, worst


def _record() -> ServiceRecord:
    spec = c.ServiceSpec(
        service_type=ServiceType.POLLER, service_id="p", label="p", parent_id="", poller_id="p", site="north"
    )
    context = c.Context(now=datetime.now(UTC), actor="bench", transition_id="x", epoch=1)
    made = step(None, c.Register(spec=spec), context)
    assert isinstance(made, ServiceRecord)
    return made


def run() -> None:
    """Measure and print."""
    asyncio.run(_run())


async def _run() -> None:
    world = _World()
    beats, steady = [], []
    for second in range(6 * _INTERVAL):
        beats.append(world.beat(second % _INTERVAL / _INTERVAL))
        world.clock.advance(1)
        swept = await world.sweep()
        if second >= 3 * _INTERVAL:
            steady.append(swept)
    looked = sum(count for count, _, _ in steady) / len(steady)
    cost = sum(seconds for _, seconds, _ in steady) / len(steady)
    held = max(worst for _, _, worst in steady)
    row(
        f"liveness of {_MANY:,} services that beat every {_INTERVAL} s",
        f"{cost * 1000:.1f} ms CPU a second",
        f"{looked:,.0f} looked at a second; loop held ≤ {held * 1000:.1f} ms;"
        f" a heartbeat {min(beats) * 1e6:.2f} µs",
    )
    await _all_fall_silent(world)


async def _all_fall_silent(world: _World) -> None:
    world.clock.advance(2 * _INTERVAL + 1)
    late, seconds, held = await world.sweep()
    row(f"{late:,} services late at one moment", f"{seconds:.2f} s CPU", f"loop held ≤ {held * 1000:.1f} ms")
    world.clock.advance(_INTERVAL)
    offline, seconds, held = await world.sweep()
    row(f"{offline:,} of them offline", f"{seconds:.2f} s CPU", f"loop held ≤ {held * 1000:.1f} ms")
    world.presence.deaf()
    world.presence.listening()
    for key in world.keys:
        world.presence.note(key, EMPTY, world.clock.now())
    world.presence.deaf()
    world.clock.advance(600)
    world.presence.listening()
    looked, seconds, held = await world.sweep()
    row(f"{looked:,} put off after a gap", f"{seconds:.2f} s CPU", f"loop held ≤ {held * 1000:.1f} ms")
