"""What /readyz says of the views and of the last comparison with the ledger."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest

from jetway.core.errors import UnavailableError
from jetway.core.ids import ServiceKey
from jetway.ports import ViewState
from jetway.services.health import Component, Health
from jetway.services.health_parts import INDEX_SECONDS, ViewWatch
from support.builders import AGENT, FakeClock
from support.drift import lose_events, reconcile
from support.house import House, running_house
from support.memory import MemoryLedger, MemoryViews

WELL = ViewState(behind=0, ahead=0, taken=10, last=12)


@pytest.fixture
def views() -> MemoryViews:
    return MemoryViews(MemoryLedger())


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def watch(views: MemoryViews, clock: FakeClock) -> ViewWatch:
    return ViewWatch(views, clock)


async def events_view(watch: ViewWatch) -> Component:
    return (await watch.look("ok"))["view_events"]


async def test_views_that_follow_are_well(watch: ViewWatch) -> None:
    assert await watch.look("ok") == {"view_events": Component("ok"), "view_config_watch": Component("ok")}


async def test_a_little_behind_is_no_news_and_far_behind_is(watch: ViewWatch, views: MemoryViews) -> None:
    views.told["events"] = replace(WELL, behind=7)
    assert (await events_view(watch)).state == "ok"
    views.told["events"] = replace(WELL, behind=1001)
    assert await events_view(watch) == Component("degraded", "1001 behind")


async def test_standing_still_is_told_after_a_while(
    watch: ViewWatch, views: MemoryViews, clock: FakeClock
) -> None:
    views.told["events"] = replace(WELL, behind=1)
    await events_view(watch)
    clock.advance(29)
    assert (await events_view(watch)).state == "ok"
    clock.advance(2)
    assert await events_view(watch) == Component("degraded", "1 behind, and stands still since 31 s")
    views.told["events"] = replace(WELL, behind=1, taken=11)
    assert (await events_view(watch)).state == "ok", "it moves again"
    clock.advance(60)
    views.told["events"] = WELL
    assert (await events_view(watch)).state == "ok"
    views.told["events"] = replace(WELL, behind=1)
    assert (await events_view(watch)).state == "ok", "it begins to wait only now"


async def test_being_ahead_is_a_fault(watch: ViewWatch, views: MemoryViews) -> None:
    views.told["config_watch"] = replace(WELL, ahead=3)
    component = (await watch.look("ok"))["view_config_watch"]
    assert component.state == "down"
    assert component.detail.startswith("3 ahead: its source lost writes")


async def test_views_that_cannot_be_asked_are_told(watch: ViewWatch, views: MemoryViews) -> None:
    assert (await watch.look("down"))["views"].state == "degraded"
    views.fail_next("state", UnavailableError("no answer"))
    assert await watch.look("ok") == {"views": Component("degraded", "their state cannot be told: no answer")}


# --- the comparison with the ledger


@pytest.fixture
async def house() -> AsyncIterator[House]:
    async with running_house() as house:
        house.settling.patience = 10.0
        await house.activate_tree()
        await house.settle()
        yield house


async def component(house: House) -> Component:
    health = Health(
        house.index,
        house.projections,
        house.database,
        lambda: Component("ok"),
        house.clock,
        house.reconciler,
        house.views,
    )
    report = await health.report()
    assert {"view_events", "view_config_watch"} <= set(report.components)
    assert report.status == ("ok" if report.components["reconcile"].state == "ok" else "degraded")
    return report.components["reconcile"]


async def test_before_the_first_run_nothing_is_wrong(house: House) -> None:
    assert await component(house) == Component("ok", "has not run yet")


async def test_what_was_mended_is_told_and_well(house: House) -> None:
    house.database.services.pop(AGENT)
    await reconcile(house)
    assert await component(house) == Component(
        "ok", "compared 3 services at 2026-03-04T05:06:07.890Z, mended 1"
    )


async def test_unknown_rows_are_told(house: House) -> None:
    row = house.database.services[AGENT]
    key = ServiceKey(AGENT.service_type, "stranger")
    house.database.services[key] = replace(row, service_id="stranger")
    await reconcile(house)
    found = await component(house)
    assert (found.state, found.detail.partition("; ")[2]) == (
        "ok",
        "rows of services that the ledger does not know: 1",
    )


async def test_an_open_gap_stays_shown(house: House) -> None:
    house.ledger.forgotten.add((AGENT, 2))
    lose_events(house, AGENT, 2)
    await reconcile(house)
    assert await component(house) == Component(
        "degraded", "audit gaps that stay open: 1 (audit gap: agent.a1 revision 2)"
    )
    house.clock.advance(timedelta(days=91))
    await reconcile(house)
    assert (await component(house)).state == "ok", "it is older than the trail by now"


async def test_a_run_that_failed_stays_shown(house: House) -> None:
    house.database.fail_next("load_rows", UnavailableError("the database is away"))
    await reconcile(house)
    assert await component(house) == Component(
        "degraded", "the last run could not compare or mend everything: the database is away"
    )
    house.database.fail_next("load_rows", RuntimeError("a mistake"))
    with pytest.raises(RuntimeError):
        await house.reconciler.run()
    assert (await component(house)).detail.startswith("the last run did not end: a mistake of the daemon")
    await reconcile(house)
    assert (await component(house)).state == "ok"


# --- the index


async def index_of(house: House, age: float) -> Component:
    health = Health(
        house.index,
        house.projections,
        house.database,
        lambda: Component("ok"),
        house.clock,
        ledger=house.ledger,
        index_age=lambda: age,
    )
    report = await health.report()
    assert report.ready
    assert report.status == report.components["index"].state
    return report.components["index"]


async def test_an_index_that_does_not_follow_any_more_is_told_after_a_while(house: House) -> None:
    await house.stall("index")
    assert await index_of(house, 3600) == Component("ok"), "nothing was written since"
    before = house.ledger.writes
    await house.ledger.write(replace(house.record(AGENT), revision=99), house.ledger.entries[AGENT].sequence)
    assert await index_of(house, INDEX_SECONDS) == Component("ok")
    found = await index_of(house, INDEX_SECONDS + 1)
    assert found.state == "degraded"
    assert found.detail.startswith(f"knows the ledger up to {before} of {before + 1}, ")
    house.resume_index()
    await house.settle()
    assert await index_of(house, 3600) == Component("ok")
