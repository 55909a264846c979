"""Projections and jobs run while this daemon leads, and only then."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import cast

import pytest

from jetway.core import commands as c
from jetway.core.errors import UnavailableError
from jetway.core.heartbeat import EMPTY
from jetway.core.ids import ServiceType
from jetway.entry import workers as module
from jetway.entry.workers import Workers
from jetway.services.caller import SYSTEM
from jetway.services.house import House as Services
from jetway.services.index import follow_ledger
from jetway.services.jobs import JobBook, JobReport, JobSpec
from jetway.tasks import EternalTasks
from support.builders import LINEAGES, POLLER, spec
from support.house import House

P1 = LINEAGES[ServiceType.POLLER]


class HandLease:
    """Implements `ports.Lease`: held when the test says so."""

    def __init__(self) -> None:
        self.held = False
        self._changed = asyncio.Condition()

    async def hold(self, held: bool) -> None:
        async with self._changed:
            self.held = held
            self._changed.notify_all()

    @property
    def leader(self) -> str | None:
        return None if self.held else "another"

    async def run(self) -> None:
        await asyncio.Event().wait()

    async def wait(self, held: bool) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: self.held is held)

    async def release(self) -> None:
        await self.hold(False)


@dataclass
class Daemon:
    """What there is of one here."""

    house: House = field(default_factory=House)
    lease: HandLease = field(default_factory=HandLease)
    runs: int = 0

    def __post_init__(self) -> None:
        self.tasks = EternalTasks(pytest.fail)
        services = cast(Services, self.house)
        spec = JobSpec(name="count", description="", every=timedelta(hours=1), run=self._count, at_once=True)
        self.house.jobs = JobBook([spec], self.house.job_store, self.house.clock, self.house.metrics)
        self.workers = Workers(services, self.tasks)
        self.house.row_writer._fence.leads = lambda: self.lease.held

    async def _count(self, _dry_run: bool) -> JobReport:
        self.runs += 1
        return JobReport()

    async def register(self) -> None:
        await self.house.recorder.apply(POLLER, c.Register(spec=spec(ServiceType.POLLER)), SYSTEM)

    async def until(self, check: Callable[[], object]) -> None:
        async with asyncio.timeout(30):
            while not check():  # noqa: ASYNC110 - it has no event to wait for
                await asyncio.sleep(0)

    def projected(self) -> bool:
        return self.house.document(P1) is not None and self.house.row(POLLER) is not None


@pytest.fixture
async def daemon() -> AsyncIterator[Daemon]:
    daemon = Daemon()
    daemon.tasks.start("index", follow_ledger(daemon.house.index, daemon.house.ledger))
    daemon.tasks.start("leading", daemon.workers.follow(daemon.lease))
    await daemon.house.index.ready.wait()
    yield daemon
    await daemon.tasks.stop("leading")
    await daemon.workers.stop()
    await daemon.tasks.stop()


async def _a_while() -> None:
    for _ in range(200):
        await asyncio.sleep(0)


async def test_nothing_runs_before_the_lease_is_held_and_nothing_after(daemon: Daemon) -> None:
    await daemon.register()
    await _a_while()
    assert not daemon.projected()
    assert daemon.runs == 0

    await daemon.lease.hold(True)
    await daemon.until(daemon.projected)
    await daemon.until(lambda: daemon.runs == 1)

    await daemon.lease.hold(False)
    await daemon.until(lambda: not daemon.workers.running)
    await daemon.house.recorder.apply(POLLER, c.Revoke(), SYSTEM)
    await _a_while()
    assert daemon.house.document(P1)["status"] == "pending"  # type: ignore[index]

    await daemon.lease.hold(True)
    await daemon.until(lambda: daemon.house.document(P1)["status"] == "revoked")  # type: ignore[index]
    await daemon.until(lambda: daemon.runs == 2)


async def test_a_new_leader_first_learns_what_the_last_one_knew(daemon: Daemon) -> None:
    """Its predecessor wrote and acknowledged it, so it is delivered to nobody again."""
    await daemon.tasks.stop("index")
    await daemon.register()
    await daemon.lease.hold(True)
    await _a_while()
    assert not daemon.workers.running
    daemon.tasks.start("index", follow_ledger(daemon.house.index, daemon.house.ledger))
    await daemon.until(lambda: daemon.workers.running)
    await daemon.until(daemon.projected)


async def test_a_lease_that_is_lost_while_the_index_catches_up_starts_nothing(daemon: Daemon) -> None:
    await daemon.tasks.stop("index")
    await daemon.register()
    await daemon.lease.hold(True)
    await _a_while()
    await daemon.lease.hold(False)
    daemon.tasks.start("index", follow_ledger(daemon.house.index, daemon.house.ledger))
    await _a_while()
    assert not daemon.workers.running


async def test_an_index_that_never_catches_up_does_not_keep_everybody_from_leading(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_CATCH_UP_SECONDS", 0.01)
    await daemon.tasks.stop("index")
    await daemon.register()
    await daemon.lease.hold(True)
    await daemon.until(lambda: daemon.workers.running)


async def test_a_stop_that_was_cut_short_can_be_finished(daemon: Daemon) -> None:
    await daemon.register()
    await daemon.lease.hold(True)
    await daemon.until(daemon.projected)
    daemon.house.presence.note(POLLER, EMPTY, daemon.house.clock.now())
    cut = asyncio.create_task(daemon.workers.stop())
    await asyncio.sleep(0)
    cut.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await cut
    assert daemon.workers.running
    await daemon.workers.stop()
    assert not daemon.workers.running
    row = daemon.house.row(POLLER)
    assert row is not None
    assert row.last_seen == daemon.house.clock.now()


async def test_whoever_lost_the_lease_with_a_write_in_hand_does_not_write_it(daemon: Daemon) -> None:
    house = daemon.house
    await daemon.register()
    with pytest.raises(UnavailableError, match="another daemon leads"):
        await house.document_writer.bring_up_to_date(POLLER)
    house.presence.note(POLLER, EMPTY, house.clock.now())
    with pytest.raises(UnavailableError):
        await house.row_writer.flush_presence()
    assert house.presence.unwritten == 1, "it is kept for when this daemon leads again"
    assert house.document(P1) is None
    assert house.row(POLLER) is None


async def test_a_leader_that_led_before_takes_no_document_for_known(daemon: Daemon) -> None:
    """Another one wrote the parent's document meanwhile, and its children came and went."""
    house = daemon.house
    await daemon.register()
    await daemon.lease.hold(True)
    await daemon.until(daemon.projected)
    await daemon.lease.hold(False)
    await daemon.until(lambda: not daemon.workers.running)
    path = "config/pollers/p1.json"
    stored = await house.documents.read(path)
    assert stored.data is not None
    other = stored.data.replace(b'"children": []', b'"children": [{"type": "agent", "id": "gone"}]')
    assert other != stored.data
    await house.documents.write(path, other, stored.sequence)
    await daemon.lease.hold(True)
    await daemon.until(lambda: daemon.workers.running)
    assert await house.document_writer.bring_up_to_date(POLLER, look=False)
    assert house.document(P1)["children"] == []  # type: ignore[index]


async def test_a_task_whose_cancellation_got_lost_is_asked_again() -> None:
    """Python 3.11's wait_for takes one for its own end where what it waits for is done in the same moment."""
    swallowed = 0

    async def deaf_once() -> None:
        nonlocal swallowed
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                if swallowed:
                    raise
                swallowed += 1

    tasks = EternalTasks(lambda name: pytest.fail(f"{name} is no incident"))
    tasks.start("deaf", deaf_once())
    await asyncio.sleep(0)
    await tasks.stop()
    assert swallowed == 1
