"""The index: newest versions only, children where they are, and waiting for a position."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from jetway.core.ids import ServiceKey, ServiceType
from jetway.core.record import PackageStatus, ServiceRecord, ServiceStatus
from jetway.core.rows import Counts
from jetway.ports import Change, ChangeBatch
from jetway.services.index import Index, SequenceWaiters, follow_ledger
from support.builders import AGENT, CHECKER, EPOCH, PACKAGE_ID, POLLER, moved_to, package, record, uid
from support.memory import MemoryLedger

P2 = ServiceKey(ServiceType.POLLER, "p2")


@pytest.fixture
def index() -> Index:
    filled = Index()
    for kind in ServiceType:
        filled.apply(record(kind))
    return filled


def later(made: ServiceRecord, **changes: object) -> ServiceRecord:
    return replace(made, revision=made.revision + 1, **changes)  # type: ignore[arg-type]


def test_what_arrives_late_or_twice_changes_nothing(index: Index) -> None:
    newest = later(record(), label="new")
    assert index.apply(newest)
    for stale in (newest, record(), replace(newest, epoch=EPOCH - 1, revision=99)):
        assert not index.apply(stale)
    assert index.get(AGENT) is newest


def test_a_new_epoch_wins_over_a_higher_revision(index: Index) -> None:
    restored = replace(record(), epoch=EPOCH + 1, revision=1)
    assert index.apply(restored)
    assert index.get(AGENT) is restored


def test_listeners_hear_of_newer_versions_only(index: Index) -> None:
    heard: list[tuple[ServiceRecord | None, ServiceRecord]] = []
    index.on_change(lambda before, after: heard.append((before, after)))
    newest = later(record())
    index.apply(newest)
    index.apply(newest)
    assert heard == [(record(), newest)]


def test_children_are_counted_down_to_the_checkers(index: Index) -> None:
    assert index.counts(POLLER) == Counts(agents=1, checkers=1)
    assert index.counts(AGENT) == Counts(checkers=1)
    assert index.counts(CHECKER) == Counts()
    assert index.counts(P2) == Counts()
    assert index.child_keys(POLLER) == [AGENT]


def test_a_deleted_child_is_no_child_and_stays_known(index: Index) -> None:
    index.apply(later(record(ServiceType.CHECKER), status=ServiceStatus.DELETED))
    assert list(index.children(AGENT)) == []
    assert index.get(CHECKER) is not None


def test_revoked_children_count_until_they_are_deleted(index: Index) -> None:
    index.apply(later(record(ServiceType.CHECKER), status=ServiceStatus.REVOKED))
    assert index.counts(AGENT) == Counts(checkers=1)


def test_a_service_made_anew_beneath_another_parent_leaves_the_old_one(index: Index) -> None:
    """Even where the deletion in between was not seen: a cascade beneath the old parent must not reach it."""
    index.apply(later(moved_to(record(), "p2"), incarnation=2))
    assert index.child_keys(POLLER) == []
    assert index.child_keys(P2) == [AGENT]


def test_a_child_is_known_before_its_parent() -> None:
    index = Index()
    index.apply(record(ServiceType.CHECKER))
    assert index.child_keys(AGENT) == [CHECKER]


def test_earlier_packages_lead_to_their_service(index: Index) -> None:
    earlier = package(PackageStatus.SUPERSEDED)
    made = later(record(), package=package(package_id=uid(2)), earlier_packages=(earlier,))
    index.apply(made)
    assert index.by_package(PACKAGE_ID) is made
    assert index.by_package(uid(2)) is made
    assert index.by_package(uid(3)) is None


def test_a_purged_record_leaves_nothing_behind(index: Index) -> None:
    index.apply(later(record(ServiceType.CHECKER), package=package()))
    index.take(Change(CHECKER, None, 9))
    index.take(Change(CHECKER, None, 10))
    assert (index.get(CHECKER), index.by_package(PACKAGE_ID), index.child_keys(AGENT)) == (None, None, [])


async def test_a_position_that_was_reached_does_not_wait() -> None:
    waiters = SequenceWaiters()
    waiters.advance(5)
    waiters.advance(3)
    assert waiters.position == 5
    assert await waiters.reached(5, 0)


async def test_each_waits_for_its_own_position() -> None:
    waiters = SequenceWaiters()
    tasks = {n: asyncio.ensure_future(waiters.reached(n, 60)) for n in (3, 1, 2)}
    await asyncio.sleep(0)
    waiters.advance(2)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert [tasks[n].done() for n in (1, 2, 3)] == [True, True, False]
    waiters.advance(3)
    assert await tasks[3]


async def test_waiting_ends_with_its_time_and_is_forgotten() -> None:
    waiters = SequenceWaiters()
    assert not await waiters.reached(1, 0)
    waiters.advance(1)
    assert await waiters.reached(1, 0)


async def test_a_waiter_that_went_away_harms_nobody() -> None:
    waiters = SequenceWaiters()
    gone = asyncio.ensure_future(waiters.reached(1, 60))
    stays = asyncio.ensure_future(waiters.reached(1, 60))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.sleep(0)
    waiters.advance(1)
    assert await stays


async def test_what_is_no_change_is_read_past_all_the_same() -> None:
    """Else whoever waits for the end of the ledger would wait for ever behind a value that is not a record."""

    class Garbage(MemoryLedger):
        async def follow(self, after: int = 0) -> AsyncIterator[ChangeBatch]:
            yield ChangeBatch((), caught_up=True, position=7)
            await asyncio.Event().wait()

    index = Index()
    following = asyncio.create_task(follow_ledger(index, Garbage()))
    assert await index.progress.reached(7, 5)
    assert index.ready.is_set()
    following.cancel()
    await asyncio.wait([following])


def test_records_are_counted_by_kind_with_every_change(index: Index) -> None:
    def counted() -> dict[tuple[str, str], int]:
        return {(kind.value, status.value): n for (kind, status, _, _), n in index.tally.items()}

    assert counted() == {(kind.value, "pending"): 1 for kind in ServiceType}
    index.apply(replace(index.records[AGENT], status=ServiceStatus.ACTIVE, revision=4))
    assert counted() == {("poller", "pending"): 1, ("agent", "active"): 1, ("checker", "pending"): 1}
    index.forget(AGENT)
    assert counted() == {("poller", "pending"): 1, ("checker", "pending"): 1}


def test_who_asked_hears_of_a_purge_once(index: Index) -> None:
    gone: list[ServiceRecord] = []
    index.on_forget(gone.append)
    was = index.records[AGENT]
    index.forget(AGENT)
    index.forget(AGENT)
    assert gone == [was]
