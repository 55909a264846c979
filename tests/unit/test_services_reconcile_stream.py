"""What the stream of events passed over is told, and its events are in the trail again."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from jetway.core.errors import UnavailableError
from jetway.core.rows import events_of
from jetway.services import compare_stream
from support.builders import AGENT
from support.drift import assert_whole, drifts, reconcile
from support.house import House, running_house


@pytest.fixture
async def house() -> AsyncIterator[House]:
    """p1, a1, c1, all active; everything that is derived stands."""
    async with running_house() as house:
        house.settling.patience = 1.0
        await house.activate_tree()
        await house.settle()
        yield house


def lose(house: House, revision: int) -> int:
    """The view passed over that revision of the agent; the ledger's sequence of it."""
    sequence = next(
        number
        for number, change in enumerate(house.ledger.changes.values, 1)
        if change.key == AGENT and change.record and change.record.revision == revision
    )
    house.views.lost.append((sequence, sequence))
    house.ledger.events.values[sequence - 1] = ()
    return sequence


def ids_in_stream(house: House) -> set[str]:
    return {event.event_id for events in house.ledger.events.values for event in events}


async def test_what_was_passed_over_is_told_and_made_again_once(house: House) -> None:
    sequence = lose(house, 2)
    change = house.ledger.changes.values[sequence - 1]
    assert change.record is not None
    lost = {event.event_id for event in events_of(change.record)}
    assert lost
    assert not lost & ids_in_stream(house)
    report = await reconcile(house)
    assert (report.gaps_found, report.gaps_mended, report.gaps_open) == (1, 1, 0)
    assert report.findings == (f"audit stream gap: write {sequence} of the ledger, agent.a1 revision 2",)
    assert lost <= ids_in_stream(house)
    (told,) = house.events("audit_gap")
    assert (told.service_id, told.metadata) == ("a1", {"ledger_sequence": sequence, "revisions": [2]})
    await assert_whole(house)
    await house.crash()
    await house.start()
    await assert_whole(house)
    assert len(house.events("audit_gap")) == 1
    assert drifts(house) == {}, "counted by the daemon before"


async def test_what_the_ledger_keeps_no_longer_stays_open_and_is_told_once(house: House) -> None:
    sequence = lose(house, 2)
    house.views.overwritten.add(sequence)
    for _ in range(2):
        report = await reconcile(house)
        assert (report.gaps_found, report.gaps_mended, report.gaps_open) == (1, 0, 1)
    assert house.metrics.audit_gaps._value.get() == 1
    assert drifts(house) == {"audit_stream_gap": 1}
    (told,) = house.events("audit_gap")
    assert told.reason == (
        f"the stream of events passed over write {sequence} of the ledger; the ledger keeps it no longer"
    )
    house.views.lost.clear()  # it is older than the stream is kept
    await assert_whole(house)


async def test_those_that_stay_open_keep_no_other_from_being_made_again(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compare_stream, "_A_RUN", 1)
    house.views.overwritten.add(lose(house, 1))
    later = lose(house, 2)
    await reconcile(house)
    report = await reconcile(house)
    assert (report.gaps_found, report.gaps_mended) == (2, 1)
    assert [event.metadata["ledger_sequence"] for event in house.events("audit_gap")][-1] == later


@pytest.mark.parametrize("after_effect", [False, True])
async def test_what_was_cut_off_is_done_again_and_counted_once(house: House, after_effect: bool) -> None:
    lose(house, 2)
    house.audit.fail_next("append", UnavailableError("away"), after_effect)
    assert (await reconcile(house)).errors == ("away",)
    await reconcile(house)
    await assert_whole(house)
    assert len(house.events("audit_gap")) == 1


async def test_an_outage_hides_nothing_else(house: House) -> None:
    house.views.fail_next("passed_over", UnavailableError("no answer"))
    report = await reconcile(house)
    assert (report.errors, report.gaps_open) == (("no answer",), 0)
