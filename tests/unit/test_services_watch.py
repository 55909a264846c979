"""Who goes on from a position is told of all since: what is in a record, and what is in none."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import timedelta

import pytest

from jetway.core.ids import ServiceKey, ServiceType
from jetway.core.liveness import Liveness
from jetway.services import watch as module
from jetway.services.changes import ChangeBook
from jetway.services.liveness import LivenessChange
from jetway.services.watch import Batch
from support.builders import AGENT, CHECKER, LINEAGES, NOW, POLLER, record
from support.house import House, running_house

POLLER_LINEAGE = LINEAGES[ServiceType.POLLER]


@pytest.fixture
async def house() -> AsyncIterator[House]:
    async with running_house() as house:
        await house.activate_tree()
        await house.settle()
        yield house


def since(house: House, after: int) -> Batch:
    with house.watch.watching(after) as watcher:
        return watcher.take()


def here(house: House) -> int:
    return house.index.progress.position


async def go_silent(house: House) -> None:
    """All three are late, then offline; nothing is written of it."""
    writes = house.ledger.writes
    for _ in range(5):
        house.clock.advance(30)
        house.presence.listening()
        await house.liveness.sweep()
    assert house.ledger.writes == writes


async def test_who_was_away_is_told_of_a_service_that_is_not_heard_any_more(house: House) -> None:
    position = here(house)
    assert set(since(house, position).keys) == set(), "nothing turned"
    await go_silent(house)
    batch = since(house, position)
    assert (set(batch.keys), batch.reset) == ({POLLER, AGENT, CHECKER}, False)


async def test_turns_stand_in_order_with_changes_of_records(house: House) -> None:
    before = here(house)
    house.watch.tell(AGENT)
    await house.create(service_id="p2")
    await house.settle()
    between = here(house)
    house.watch.tell(CHECKER)
    p2 = ServiceKey(ServiceType.POLLER, "p2")
    assert set(since(house, before).keys) == {AGENT, p2, CHECKER}
    assert set(since(house, between).keys) == {CHECKER}
    await house.revoke(p2)
    await house.settle()
    assert set(since(house, here(house)).keys) == set()


async def test_more_turns_than_are_remembered_ask_for_a_reading_of_all(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RECENT_CHANGES", 2)
    position = here(house)
    for key in (POLLER, AGENT, AGENT):
        house.watch.tell(key)
    assert not since(house, position).reset, "one entry a service"
    house.watch.tell(CHECKER)
    assert since(house, position).reset


async def test_in_one_run_a_turn_is_told_once(house: House) -> None:
    position = here(house)
    house.watch.tell(AGENT)
    with house.watch.watching(position) as watcher:
        batch = watcher.take()
    house.watch.tell(CHECKER)
    with house.watch.watching(batch.position, batch.turn) as watcher:
        assert watcher.take().keys == (CHECKER,)


async def test_what_turned_before_a_restart_is_told_after_it(house: House) -> None:
    position = here(house)
    book = house.changes
    await house.crash()
    await house.start()
    house.watch.recall([CHECKER])
    assert since(house, position).keys == (CHECKER,)
    assert book is not house.changes


def turned(book: ChangeBook, service_type: ServiceType, minutes: int) -> ServiceKey:
    changed = record(service_type)
    at = NOW + timedelta(minutes=minutes)
    book.take(LivenessChange(changed, Liveness.ONLINE, Liveness.LATE, at))
    return changed.key


def test_the_last_who_turned_can_be_asked_for() -> None:
    book = ChangeBook()
    keys = [turned(book, kind, number) for number, kind in enumerate(ServiceType)]

    def asked(minutes: int, limit: int = 10) -> Sequence[ServiceKey]:
        return book.turned_since(NOW + timedelta(minutes=minutes), limit)

    assert asked(0) == keys
    assert asked(1) == keys[1:]
    assert asked(0, limit=1) == keys[2:]
    assert asked(3) == []
