"""Many services: whoever stops is found in time, and nobody else is ever called late or offline.

Not by a stop here and there, not while NATS or the daemon stands still for a minute, not over a kill and a
restart. In CI (`JETWAY_CI=1`) with 20,000 services every 30 s, which takes some six minutes; without it with 2,000
every 2 s and pauses of some seconds. JETWAY_TEST_LIVENESS_SERVICES says how many, JETWAY_TEST_LIVENESS_INTERVAL
every how many seconds each beats, JETWAY_TEST_LIVENESS_PAUSE for how many seconds things stand still: as in

    JETWAY_CI=1 JETWAY_TEST_LIVENESS_SERVICES=100000 python3 dev.py test tests/e2e/test_liveness_scale.py -s

Heartbeats come from a process that writes down when each service really beat, so a heartbeat that it sent late is
not held against the gateway, and is counted. How late a machine makes a process that does next to nothing is
measured there too, and added to the second that finding out may take; so is how long it let the daemon wait for a
processor, which says nothing of what the daemon does while it has one.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path

import pytest

from support.daemon import SERVICES, Daemon
from support.daemon_state import eventually_async
from support.fleet import Fleet, Listener, Told, fill, fleet_of

IN_CI = os.environ.get("JETWAY_CI") == "1"
SIZE = int(os.environ.get("JETWAY_TEST_LIVENESS_SERVICES", "20000" if IN_CI else "2000"))
INTERVAL = int(os.environ.get("JETWAY_TEST_LIVENESS_INTERVAL", "30" if IN_CI else "2"))
PAUSE = float(os.environ.get("JETWAY_TEST_LIVENESS_PAUSE", "60" if IN_CI else "6"))
LATE_AFTER, OFFLINE_AFTER = (1.2, 1.5) if INTERVAL >= 20 else (2.0, 3.0)
"""Intervals of silence: as few as a heartbeat's own lateness allows, so that the least gap would show."""
LATE, OFFLINE = LATE_AFTER * INTERVAL, OFFLINE_AFTER * INTERVAL
FOUND_WITHIN = 1.0
PATIENCE = OFFLINE + 60 + SIZE / 200

NewDaemon = Callable[..., Daemon]


async def until(daemon: Daemon, **wanted: int) -> None:
    """Until the gateway counts so."""

    async with asyncio.timeout(PATIENCE):
        while True:
            stats = await asyncio.to_thread(daemon.get, f"{SERVICES}/stats")
            found = {name: stats["by_liveness"][name] for name in wanted}
            if found == wanted:
                return
            print(found, end=" ", flush=True)
            await asyncio.sleep(1)


async def settled(daemon: Daemon) -> None:
    """Until what follows from the services' creation is done: rows, documents, entries of the trail."""
    async with asyncio.timeout(PATIENCE):
        while True:
            behind = [
                await asyncio.to_thread(daemon.metric, "jetway_projection_lag_records", projection=name)
                for name in ("documents", "rows", "events")
            ]
            if not any(behind):
                return
            await asyncio.sleep(1)


class Watched:
    """What the gateway says of the fleet, held against what the fleet did."""

    def __init__(self, daemon: Daemon, fleet: Fleet, listener: Listener) -> None:
        self.daemon = daemon
        self._fleet = fleet
        self._listener = listener
        self._pulse = 0.0
        self._waited = 0.0
        self._reported = 0
        self._gaps_known = 0
        self.listens_since = 0.0
        """From when on the gateway counts silence: after a restart everybody has one whole window."""

    async def feel_the_pulse(self) -> None:
        """Note how late this process comes to run, for ever: so late it may hear of a verdict.

        And the longest that the daemon waited for a processor within two seconds.
        """
        lately: deque[tuple[float, float]] = deque()
        while True:
            began = time.monotonic()
            await asyncio.sleep(0.05)
            now = time.monotonic()
            self._pulse = max(self._pulse, now - began - 0.05)
            lately.append((now, waited_for_a_processor(self.daemon)))
            while now - lately[0][0] > 2:
                lately.popleft()
            self._waited = max(self._waited, lately[-1][1] - lately[0][1])

    async def find_all_in_time(self, count: int, what: str) -> None:
        """Stop so many at random moments; each of them and nobody else is found, and in time.

        In time at one of three times at least: not all by which a busy machine holds things up is measured, its
        disk for one. That all of them and nobody else are found holds each time.
        """
        told = [await self._stop_some(count, what)]
        while told[-1] and len(told) < 3:
            told.append(await self._stop_some(count, f"{what}, once more"))
        assert not told[-1], "\n".join(told)

    async def _stop_some(self, count: int, what: str) -> str:
        """What was not in time, if anything."""
        self._gaps_known = len(self._gaps())
        self._fleet.book.take_lateness()
        self._pulse = self._waited = 0.0
        await self._fleet.stop_some(count, seconds=INTERVAL / 3)
        await until(self.daemon, offline=self._fleet.stopped, late=0)
        behind = await eventually_async(lambda: self._all_found(count), FOUND_WITHIN + 60)
        excuse = self._fleet.book.take_lateness() + self._pulse + self._waited
        self.require_no_false_verdict()
        p50, p99 = behind[count // 2], behind[int(count * 0.99)]
        print(
            f"\n{what}: {count:,} of {SIZE:,} found offline {p50:.2f} s (p50), {p99:.2f} s (p99), "
            f"{behind[-1]:.2f} s (most) after {OFFLINE:g} s of silence; the machine was {excuse:.2f} s late, "
            f"gaps in the hearing meanwhile: {len(self._gaps()) - self._gaps_known}"
        )
        if p99 > FOUND_WITHIN + excuse:
            return f"found {p99:.2f} s late (p99) on a machine that was {excuse:.2f} s late"
        if len(self._gaps()) > self._gaps_known + 1 + int(excuse):
            return f"time and again it could not hear: {len(self._gaps()) - self._gaps_known} gaps"
        return ""

    async def _all_found(self, count: int) -> list[float]:
        """How late each of so many was found, once all were heard of: the counts are there a little before."""
        found = [one for one in self._listener.verdicts("offline") if one.stopped][self._reported :]
        assert len(found) == count
        self._reported += count
        since = max([self.listens_since, *self._gaps()])
        return sorted(min(one.silence, one.at - since) - OFFLINE for one in found)

    def _gaps(self) -> list[float]:
        """When it told that it had not heard for a while: a machine may keep it from its processor for so long."""
        ahead = time.time() - time.monotonic()
        return [
            datetime.fromisoformat(json.loads(line.text)["timestamp"]).timestamp() - ahead
            for line in self.daemon.log_lines()
            if line.action == "hearing_gap"
        ]

    async def stand_still(self, pid: int) -> None:
        """Stop this process for a while; nobody is judged by it, and not by what follows from it."""
        os.kill(pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(PAUSE)
        finally:
            os.kill(pid, signal.SIGCONT)
        await self.go_on()

    async def go_on(self) -> None:
        """For longer than whoever was not heard again would be called late after."""
        await asyncio.sleep(LATE + 2)
        self.require_no_false_verdict()
        await until(self.daemon, late=0, offline=self._fleet.stopped)

    def require_no_false_verdict(self) -> None:
        """Nobody was called late or offline that was not silent for so long; silent means that it sent nothing."""
        excused = 0
        for verdict, threshold in (("late", LATE), ("offline", OFFLINE)):
            told = self._listener.verdicts(verdict)
            early = [one for one in told if one.silence < threshold]
            assert not early, f"{len(early)} were called {verdict} although they beat, first {early[:3]}"
            excused += sum(not one.stopped for one in told)
        back: list[Told] = [
            one for one in self._listener.verdicts("online") if one.stopped and one.silence > LATE
        ]
        assert not back, f"{len(back)} are said to be back that stopped, first {back[:3]}"
        book = self._fleet.book
        print(
            f"\n{book.beats:,} heartbeats, {book.lost:,} found no link; {book.late_steps} times they were "
            f"over 0.5 s late, {excused} true verdicts for that"
        )

    async def require_counted(self) -> None:
        """This daemon itself counts no verdict that is not heard of here, be it a little later."""
        changes = "service_registry_liveness_changes_total"
        turned = {
            verdict: int(await asyncio.to_thread(self.daemon.metric, changes, type="poller", to=verdict))
            for verdict in ("late", "offline")
        }
        print(f"\nthe daemon counts {turned}")

        async def heard() -> None:
            for verdict, count in turned.items():
                assert count <= len(self._listener.verdicts(verdict)), turned

        await eventually_async(heard)


@asynccontextmanager
async def watched(daemon: Daemon, fleet: Fleet) -> AsyncIterator[Watched]:
    """Everything that is said of the fleet, until the block ends."""
    listener = Listener(daemon, fleet)
    hears = Watched(daemon, fleet, listener)
    tasks = [asyncio.create_task(listener.listen()), asyncio.create_task(hears.feel_the_pulse())]
    try:
        async with asyncio.timeout(30):
            await listener.listening.wait()
        yield hears
        assert not any(task.done() for task in tasks), tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


def used(daemon: Daemon) -> tuple[float, float]:
    """The daemon's processor time in seconds and the most memory it had in MiB; Linux alone tells."""
    assert daemon.process is not None
    folder = Path(f"/proc/{daemon.process.pid}")
    if not folder.exists():
        return 0.0, 0.0
    fields = (folder / "stat").read_text().rpartition(")")[2].split()
    peak = next(line for line in (folder / "status").read_text().splitlines() if line.startswith("VmHWM"))
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"), int(peak.split()[1]) / 1024


def waited_for_a_processor(daemon: Daemon) -> float:
    """For how many seconds the machine has let the daemon's event loop wait so far; Linux alone tells."""
    assert daemon.process is not None
    try:
        return int(Path(f"/proc/{daemon.process.pid}/schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError):
        return 0.0


def report(daemon: Daemon, before: float, began: float) -> None:
    """What a daemon cost since `began`."""
    (cpu, peak), seconds = used(daemon), time.monotonic() - began
    print(
        f"\nthe daemon took {(cpu - before) / seconds:.1%} of a processor over {seconds:.0f} s, "
        f"{peak:.0f} MiB at most"
    )


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="this system cannot stop a process")
async def test_who_stops_is_found_and_nobody_else_whatever_happens(new_daemon: NewDaemon) -> None:
    daemon = new_daemon(
        JETWAY_LIFECYCLE__IMPLICIT_REGISTRATION="deny",
        JETWAY_HEARTBEAT__LATE_AFTER=str(LATE_AFTER),
        JETWAY_HEARTBEAT__OFFLINE_AFTER=str(OFFLINE_AFTER),
    )
    started = time.monotonic()
    async with fleet_of(daemon, SIZE, INTERVAL) as fleet:
        await fill(daemon, SIZE)
        print(f"\n{SIZE:,} services written in {time.monotonic() - started:.0f} s")
        await until(daemon, online=SIZE)
        await settled(daemon)
        print(f"\nall online after {time.monotonic() - started:.0f} s")
        async with watched(daemon, fleet) as hears:
            began, (cpu, _) = time.monotonic(), used(daemon)
            await hears.find_all_in_time(SIZE // 20, "stopped at random")
            report(daemon, cpu, began)

            assert daemon.process is not None
            await hears.stand_still(daemon.nats_pid)
            await hears.stand_still(daemon.process.pid)
            await hears.require_counted()

            daemon.process.kill()
            await asyncio.to_thread(daemon.wait)
            await asyncio.to_thread(daemon.start)
            began = hears.listens_since = time.monotonic()
            await hears.find_all_in_time(SIZE // 20, "after all pauses and the restart")
            await hears.require_counted()
            report(daemon, 0.0, began)
    print(f"\n{time.monotonic() - started:.0f} s in all")
