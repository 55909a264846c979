"""Reconcile over ports in memory: gaps in the audit trail, what is on its way, faults, and one run at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from jetway.core.errors import Code, RefusedError, UnavailableError
from jetway.core.ids import ServiceKey, ServiceType
from jetway.ports import ViewState
from support.builders import AGENT, CHECKER
from support.drift import PATHS, assert_whole, drifts, lose_events, put, reconcile
from support.house import House, running_house


@pytest.fixture
async def house() -> AsyncIterator[House]:
    """p1, a1, c1, all active; everything that is derived stands."""
    async with running_house() as house:
        house.settling.patience = 10.0
        await house.activate_tree()
        await house.settle()
        yield house


# --- the audit trail


async def test_a_lost_entry_is_told_and_made_again(house: House) -> None:
    before = {event.event_id for event in house.database.events.values()}
    lose_events(house, AGENT, 2)
    report = await reconcile(house)
    assert (report.gaps_found, report.gaps_mended, report.gaps_open) == (1, 1, 0)
    assert report.findings == ("audit gap: agent.a1 revision 2",)
    after = {event.event_id for event in house.database.events.values() if event.event_type != "audit_gap"}
    assert after == before, "with the ids that they had"
    (told,) = house.events("audit_gap")
    assert (told.service_id, told.actor, told.metadata) == ("a1", "system", {"revisions": [2]})
    await assert_whole(house)
    assert len(house.events("audit_gap")) == 1


@pytest.mark.parametrize("revisions", [(1,), (3,), (1, 2, 3)], ids=str)
async def test_any_revision_can_be_the_lost_one(house: House, revisions: tuple[int, ...]) -> None:
    lose_events(house, CHECKER, *revisions)
    report = await reconcile(house)
    assert (report.gaps_found, report.gaps_open) == (len(revisions), 0)
    await assert_whole(house)


async def test_a_gap_that_cannot_be_mended_stays_shown_and_is_told_once(house: House) -> None:
    house.ledger.forgotten.add((AGENT, 2))
    lose_events(house, AGENT, 2)
    for _ in range(2):
        report = await reconcile(house)
        assert (report.gaps_found, report.gaps_mended, report.gaps_open) == (1, 0, 1)
    await house.crash()
    await house.start()
    report = await reconcile(house)
    assert report.gaps_open == 1
    assert len(house.events("audit_gap")) == 1, "a restart does not tell it again"
    assert house.metrics.audit_gaps._value.get() == 1


async def test_a_gap_that_grows_is_told_for_what_is_new(house: House) -> None:
    house.ledger.forgotten |= {(AGENT, 1), (AGENT, 2)}
    lose_events(house, AGENT, 2)
    await reconcile(house)
    lose_events(house, AGENT, 1)
    assert (await reconcile(house)).gaps_open == 2
    assert [event.metadata["revisions"] for event in house.events("audit_gap")] == [[2], [1]]
    assert drifts(house) == {"audit_gap": 2}


async def test_what_is_older_than_the_trail_is_kept_is_no_gap(house: House) -> None:
    lose_events(house, AGENT, 1, 2, 3)
    house.clock.advance(house.settings.lifecycle.audit_kept + timedelta(days=1))
    await assert_whole(house)


async def test_a_lost_table_is_not_told_service_by_service(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jetway.services.compare_trail._TOLD_ONE_BY_ONE", 1)
    house.database.events.clear()
    report = await reconcile(house)
    assert (report.gaps_found, report.gaps_open) == (9, 0)
    told = house.events("audit_gap")
    assert [event.service_id for event in told] == ["p1", ""]
    assert told[1].reason == "further 2 services have gaps as well"
    await assert_whole(house)


# --- what is on its way


async def test_what_is_still_in_flight_is_no_drift(house: House) -> None:
    for name in ("documents", "rows", "events"):
        await house.stall(name)
    await house.revoke(AGENT)
    running = asyncio.create_task(house.reconciler.run())
    for _ in range(50):
        await asyncio.sleep(0)
    assert not running.done(), "it waits for the projections"
    for name in ("documents", "rows", "events"):
        house.resume(name)
    report = await running
    assert (report.findings, report.errors) == ((), ())
    assert drifts(house) == {}


async def test_projections_that_do_not_come_are_an_error_and_nothing_is_touched(house: House) -> None:
    house.settling.patience = 0.02
    for name in ("documents", "rows", "events"):
        await house.stall(name)
    await house.revoke(CHECKER)
    before = dict(house.documents.documents), dict(house.database.services), dict(house.database.events)
    report = await house.reconciler.run()
    assert [error.rpartition(" ")[2] for error in report.errors] == ["documents", "rows", "events"]
    assert (house.documents.documents, house.database.services, house.database.events) == before
    for name in ("documents", "rows", "events"):
        house.resume(name)


async def test_an_index_that_is_behind_is_an_error(house: House) -> None:
    house.settling.patience = 0.02
    await house.stall("index")
    await house.revoke(CHECKER)
    report = await house.reconciler.run()
    assert report.checked == 0
    assert "index" in report.errors[0]


async def test_a_trail_that_the_server_has_not_brought_yet_is_no_gap(house: House) -> None:
    house.settling.patience = 0.02
    lose_events(house, AGENT, 2)
    house.views.told["events"] = ViewState(behind=3, ahead=0, taken=house.ledger.writes - 3, last=1)
    report = await house.reconciler.run()
    assert report.gaps_found == 0
    assert "audit trail" in report.errors[0]


async def test_a_service_that_changes_meanwhile_is_looked_at_again(house: House) -> None:
    """The document is stale by one change at the first look and by another at the second."""
    await house.stall("documents")
    looks = 0
    settle = house.settling.documents

    async def change_and_settle() -> None:
        nonlocal looks
        looks += 1
        if looks == 1:
            await house.revoke(CHECKER)
        house.resume("documents") if looks == 1 else None
        await house.settle()
        await settle()

    house.settling.documents = change_and_settle  # type: ignore[method-assign]
    await house.create(ServiceKey(ServiceType.CHECKER, "c2"))
    report = await house.reconciler.run()
    assert (report.documents_mended, drifts(house)) == (0, {})


# --- faults


async def test_an_outage_of_the_database_hides_no_documents_fault(house: House) -> None:
    put(house, PATHS[AGENT], None)
    house.database.fail_next("load_rows", UnavailableError("the database is away"))
    house.database.fail_next("find_event_spans", UnavailableError("the database is away"))
    report = await reconcile(house)
    assert (report.documents_mended, report.errors) == (1, ("the database is away",) * 2)
    await assert_whole(house)


@pytest.mark.parametrize("after_effect", [False, True])
async def test_rows_that_could_not_be_written_are_written_all_the_next_time(
    house: House, after_effect: bool
) -> None:
    before = dict(house.database.services)
    house.database.services.clear()
    house.database.fail_next("write_rows", UnavailableError("away"), after_effect)
    report = await reconcile(house)
    assert (report.rows_mended, report.errors) == (0, ("away",))
    assert len(house.database.services) in (0, 3)
    await reconcile(house)
    assert house.database.services == before


@pytest.mark.parametrize("after_effect", [False, True])
@pytest.mark.parametrize("method", ["append_events", "find_events"])
async def test_a_gap_whose_mending_failed_is_mended_the_next_time_and_told_once(
    house: House, method: str, after_effect: bool
) -> None:
    lose_events(house, AGENT, 2)
    await house.stall("events")
    house.database.fail_next(method, UnavailableError("away"), after_effect)
    assert (await house.reconciler.run()).errors == ("away",)
    house.resume("events")
    await reconcile(house)
    await assert_whole(house)
    assert len(house.events("audit_gap")) == 1


async def test_a_trail_that_cannot_be_told_is_not_mended_in_silence(house: House) -> None:
    lose_events(house, AGENT, 2)
    house.audit.fail_next("append", UnavailableError("away"))
    report = await reconcile(house)
    assert (report.gaps_mended, report.errors) == (0, ("away",))
    assert (await reconcile(house)).gaps_mended == 1
    assert len(house.events("audit_gap")) == 1


async def test_a_document_that_could_not_be_written_does_not_stop_the_rows(house: House) -> None:
    put(house, PATHS[AGENT], None)
    house.database.services.pop(AGENT)
    house.documents.fail_next("write", UnavailableError("NATS is away"))
    report = await reconcile(house)
    assert (report.documents_mended, report.rows_mended, report.errors) == (0, 1, ("NATS is away",))
    assert (await reconcile(house)).documents_mended == 1


# --- one at a time


async def test_a_second_run_beside_the_first_is_refused(house: House) -> None:
    first = asyncio.create_task(house.reconciler.run())
    await asyncio.sleep(0)
    with pytest.raises(RefusedError) as refused:
        await house.reconciler.run()
    assert refused.value.refused.code is Code.ALREADY_RUNNING
    await house.reconciler.run_by_itself()
    assert (await first).checked == 3
    await house.reconciler.run()


async def test_a_daemon_that_does_not_lead_leaves_it_to_the_one_that_does(house: House) -> None:
    house.turn.leads = lambda: False
    with pytest.raises(RefusedError) as refused:
        await house.reconciler.run()
    assert refused.value.refused.code is Code.NOT_LEADING
    await house.reconciler.run_by_itself()
    assert house.reconciler.last is None


async def test_a_run_that_was_broken_off_leaves_the_turn_to_others(house: House) -> None:
    running = asyncio.create_task(house.reconciler.run())
    await asyncio.sleep(0)
    running.cancel()
    await asyncio.wait([running])
    assert house.reconciler.failure
    await assert_whole(house)
    assert not house.reconciler.failure
