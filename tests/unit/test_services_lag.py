"""What waits for a database that is away: known at once, told in records and seconds, waited for by nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest

from jetway.core.errors import RejectedError, UnavailableError
from jetway.core.rows import ServiceRow
from jetway.services import health_parts as parts
from jetway.services import issue
from jetway.services.health import Component, Health
from jetway.services.health_parts import ANSWER_SECONDS, LAG_SECONDS, DatabaseWatch, projected
from jetway.services.issue import PROJECTION_SECONDS
from support.builders import AGENT, FakeClock
from support.faulty_database import FaultyDatabase
from support.house import House, running_house
from support.memory_database import MemoryDatabase
from support.virtual_time import VirtualClock, run_virtually

WRITTEN = {"document": "written", "row": "written"}
QUEUED = {"document": "written", "row": "queued"}


async def took(action: Callable[[], Awaitable[object]]) -> float:
    began = asyncio.get_running_loop().time()
    await action()
    return asyncio.get_running_loop().time() - began


def virtually(play: Callable[[House], Awaitable[None]]) -> None:
    """In a house whose waiting takes no time, with a clock that goes with it."""

    async def run() -> None:
        house = House()
        house.clock = VirtualClock()  # type: ignore[assignment]
        await house.start()
        try:
            await play(house)
        finally:
            await house.crash()

    run_virtually(run())


async def projection_of(house: House, name: str) -> dict[str, str]:
    return dict((await house.create(service_id=name)).projection)


# --- creations


def test_only_the_first_creations_wait_for_a_database_that_is_away() -> None:
    async def play(house: House) -> None:
        house.database.away = True
        first = await took(lambda: house.create(service_id="p0"))
        assert first <= PROJECTION_SECONDS + 0.1
        for number in range(1, 20):
            assert await took(lambda n=number: house.create(service_id=f"p{n}")) < 0.1  # type: ignore[misc]
            assert await projection_of(house, f"q{number}") == QUEUED

    virtually(play)


def test_creations_at_one_time_wait_together() -> None:
    async def play(house: House) -> None:
        house.database.away = True
        all_at_once = [house.create(service_id=f"p{n}") for n in range(50)]
        assert await took(lambda: asyncio.gather(*all_at_once)) <= PROJECTION_SECONDS + 0.1

    virtually(play)


def test_a_database_known_to_be_away_for_long_is_not_waited_for_even_once() -> None:
    async def play(house: House) -> None:
        house.database.away = True
        waiting = asyncio.create_task(house.create(service_id="p0"))
        await asyncio.sleep(60)
        assert (await waiting).projection == QUEUED
        house.projections.rows._in_vain_at = -1
        assert await took(lambda: house.create(service_id="p1")) < 0.1

    virtually(play)


def test_a_database_that_is_back_is_waited_for_again() -> None:
    async def play(house: House) -> None:
        house.database.away = True
        assert await projection_of(house, "p0") == QUEUED
        house.database.away = False
        await asyncio.sleep(6)
        assert await projection_of(house, "p1") == WRITTEN
        assert len(house.database.services) == 2

    virtually(play)


def test_a_daemon_that_does_not_lead_learns_it_from_one_that_waited() -> None:
    """Its own projections do not run: it hears from the leader how far those are."""

    async def play(house: House) -> None:
        await house.stall("rows")
        assert await took(lambda: house.create(service_id="p0")) >= PROJECTION_SECONDS
        assert await took(lambda: house.create(service_id="p1")) < 0.1
        house.projections.heard("rows", house.ledger.writes)
        waiting = asyncio.create_task(projection_of(house, "p2"))
        await asyncio.sleep(0.5)
        house.projections.heard("rows", house.ledger.writes)
        assert await waiting == WRITTEN

    virtually(play)


# --- what /readyz says


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Creations do not wait for rows that a test holds back."""
    monkeypatch.setattr(issue, "PROJECTION_SECONDS", 0.01)


@pytest.mark.usefixtures("impatient")
async def test_the_age_of_what_waits_is_that_of_the_oldest() -> None:
    async with running_house() as house:
        await house.stall("rows")
        await house.create()
        house.clock.advance(100)
        await house.create(AGENT)
        await house.settle()
        house.clock.advance(20)
        backlog = await house.projections.rows.backlog()
        assert (backlog.records, backlog.seconds) == (2, 120.0)
        said = await projected(house.projections.rows, house.clock)
        assert said == Component("degraded", "2 changes wait, the oldest for 120 s")
        assert await projected(house.projections.documents, house.clock) == Component("ok")
        assert (await house.projections.documents.backlog()).seconds == 0.0
        house.resume("rows")
        await house.settle()
        assert await projected(house.projections.rows, house.clock) == Component("ok")


@pytest.mark.usefixtures("impatient")
async def test_a_moment_is_no_lag_worth_mentioning() -> None:
    async with running_house() as house:
        await house.stall("rows")
        await house.create()
        house.clock.advance(LAG_SECONDS)
        assert (await projected(house.projections.rows, house.clock)).state == "ok"
        house.clock.advance(1)
        assert (await projected(house.projections.rows, house.clock)).state == "degraded"


@pytest.mark.usefixtures("impatient")
async def test_a_clock_set_back_makes_nothing_younger_than_now() -> None:
    async with running_house() as house:
        await house.stall("rows")
        await house.create()
        house.clock.set_wall(house.clock.now() - timedelta(hours=1))
        assert (await house.projections.rows.backlog()).seconds == 0.0


async def test_rows_that_are_set_aside_are_named() -> None:
    async with running_house() as house:
        house.database.refuses = lambda row: (
            RejectedError("the database refused it: too odd") if isinstance(row, ServiceRow) else None
        )
        for number in range(4):
            await house.create(service_id=f"p{number}")
        await house.settle()
        health = Health(
            house.index,
            house.projections,
            house.database,
            lambda: Component("ok"),
            house.clock,
            set_aside=house.set_aside,
        )
        report = await health.report()
        assert (report.ready, report.status) == (True, "degraded")
        detail = report.components["rows_set_aside"].detail
        assert detail.startswith(
            "4 rows are set aside: poller.p0 revision 1: the database refused it: too odd;"
        )
        assert detail.endswith("; ...")
        assert "poller.p3" not in detail


async def test_who_leads_is_told() -> None:
    async with running_house() as house:
        health = Health(
            house.index,
            house.projections,
            house.database,
            lambda: Component("ok"),
            house.clock,
            leader=lambda: Component("ok", "this daemon leads"),
        )
        assert (await health.report()).components["leader"] == Component("ok", "this daemon leads")


# --- asking the database


def test_a_database_that_answers_too_slowly_holds_nobody_up_who_asks() -> None:
    async def play() -> None:
        database = FaultyDatabase(MemoryDatabase())
        watch = DatabaseWatch(database, VirtualClock())
        running = asyncio.create_task(watch.run())
        await asyncio.sleep(1.5)
        assert await watch.look() == Component("ok")
        database.deaf.clear()
        await asyncio.sleep(4)
        for _ in range(100):
            assert await took(watch.look) == 0.0
            assert await watch.look() == Component("degraded", "does not answer within 2 s")
            await asyncio.sleep(0.37)
        database.deaf.set()
        await asyncio.sleep(4)
        assert await watch.look() == Component("ok")
        running.cancel()

    run_virtually(play())


def test_without_a_watch_that_runs_it_is_asked_for_a_bounded_time() -> None:
    async def play() -> None:
        database = FaultyDatabase(MemoryDatabase())
        database.deaf.clear()
        watch = DatabaseWatch(database, VirtualClock())
        assert await took(watch.look) == pytest.approx(ANSWER_SECONDS)
        assert (await watch.look()).state == "degraded"

    run_virtually(play())


async def test_what_the_database_says_is_passed_on(clock: FakeClock) -> None:
    database = MemoryDatabase()
    database.fail_next("check", UnavailableError("the database is locked"))
    watch = DatabaseWatch(database, clock)
    assert await watch.look() == Component("degraded", "the database is locked")
    assert await watch.look() == Component("ok")


def test_an_answer_holds_longer_than_any_takes() -> None:
    assert parts._ANSWER_HOLDS_SECONDS > parts._ASK_SECONDS + ANSWER_SECONDS
