"""The published verdicts: exact, found without a search, never by time that was not heard."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jetway.core.heartbeat import EMPTY, Payload
from jetway.core.ids import ServiceKey, ServiceType
from jetway.core.liveness import Liveness, Thresholds
from jetway.core.record import ServiceRecord, ServiceStatus
from jetway.core.rows import Presence
from jetway.services import changes
from jetway.services.changes import MOST_CHANGES
from jetway.services.index import Index
from jetway.services.presence import NOWHERE, PresenceTable
from jetway.services.wheel import TURNS_PER_SECOND
from support.builders import AGENT, NOW, FakeClock, record
from support.liveness import Watched
from support.memory_database import MemoryDatabase

ONE_TURN = 1 / TURNS_PER_SECOND


class World:
    def __init__(self) -> None:
        self.index = Index()
        self.clock = FakeClock()
        self.presence = PresenceTable(self.clock, default_interval=30, thresholds=Thresholds())
        self.watched = Watched(self.index, self.presence, self.clock)
        self.verdicts = self.watched.verdicts
        self.told: list[tuple[str, str]] = []
        self.verdicts.on_change(lambda change: self.told.append((change.before.value, change.after.value)))
        self.presence.listening()

    def put(self, service_id: str = "a1", **changes: object) -> ServiceRecord:
        made = replace(record(status=ServiceStatus.ACTIVE), service_id=service_id, **changes)  # type: ignore[arg-type]
        self.index.apply(made)
        return made

    def beat(self, key: ServiceKey = AGENT, payload: Payload = EMPTY) -> None:
        self.presence.note(key, payload, self.clock.now())

    async def after(self, seconds: float) -> Liveness:
        self.clock.advance(seconds)
        await self.verdicts.sweep()
        return self.verdicts.of(AGENT)

    def counts(self) -> dict[str, int]:
        counted = self.verdicts.counts
        return {v.value: sum(counted[k, v] for k in ServiceType) for v in Liveness}


def newer(before: ServiceRecord, **changes: object) -> ServiceRecord:
    return replace(before, revision=before.revision + 1, **changes)  # type: ignore[arg-type]


@pytest.fixture
def world() -> World:
    made = World()
    made.put()
    return made


async def test_silence_is_found_within_a_turn_and_a_heartbeat_shows_at_once(world: World) -> None:
    assert world.verdicts.of(AGENT) is Liveness.NEVER
    world.beat()
    assert world.verdicts.of(AGENT) is Liveness.ONLINE
    assert await world.after(59.9) is Liveness.ONLINE
    assert await world.after(0.1 + ONE_TURN) is Liveness.LATE
    assert await world.after(29.8) is Liveness.LATE
    assert await world.after(0.1 + ONE_TURN) is Liveness.OFFLINE
    world.beat()
    assert world.verdicts.of(AGENT) is Liveness.ONLINE
    assert world.told == [
        ("never", "online"),
        ("online", "late"),
        ("late", "offline"),
        ("offline", "online"),
    ]


async def test_a_steady_service_is_looked_at_once_in_a_while_and_its_heartbeats_move_nothing(
    world: World,
) -> None:
    world.beat()
    looks = 0
    for _ in range(120):
        turn = world.verdicts.next_look(AGENT)
        world.clock.advance(30)
        world.beat()
        assert world.verdicts.next_look(AGENT) == turn
        looks += await world.verdicts.sweep()
    assert looks <= 120, "an hour of heartbeats"
    assert world.told == [("never", "online")]


async def test_who_says_that_it_stops_is_offline_at_once_and_costs_nothing_more(world: World) -> None:
    world.beat()
    world.beat(payload=Payload(stopping=True))
    assert world.verdicts.of(AGENT) is Liveness.OFFLINE
    await world.after(61)
    assert world.verdicts.next_look(AGENT) == NOWHERE
    world.beat()
    assert world.verdicts.of(AGENT) is Liveness.ONLINE


async def test_the_farewell_of_one_in_whose_place_another_has_begun_stops_nobody(world: World) -> None:
    world.beat(payload=Payload(instance_id="old"))
    world.beat(payload=Payload(instance_id="new"))
    world.beat(payload=Payload(instance_id="old", stopping=True))
    assert world.verdicts.of(AGENT) is Liveness.ONLINE
    world.beat(payload=Payload(instance_id="new", stopping=True))
    assert world.verdicts.of(AGENT) is Liveness.OFFLINE


async def test_a_gap_in_the_hearing_finds_nobody_and_brings_nobody_back(world: World) -> None:
    other = world.put("a2").key
    world.beat(other)
    await world.after(91)
    world.beat()
    assert world.verdicts.of(other) is Liveness.OFFLINE
    world.presence.deaf()
    assert await world.after(7200) is Liveness.ONLINE
    world.presence.listening()
    assert await world.after(59) is Liveness.ONLINE
    assert await world.after(1 + ONE_TURN) is Liveness.LATE
    assert world.verdicts.of(other) is Liveness.OFFLINE, "nothing was heard of it"
    assert ("offline", "online") not in world.told


async def test_late_before_a_gap_is_offline_only_a_whole_window_after_it(world: World) -> None:
    world.beat()
    assert await world.after(70) is Liveness.LATE
    world.presence.deaf()
    await world.after(600)
    world.presence.listening()
    assert await world.after(89) is Liveness.LATE
    assert await world.after(1 + ONE_TURN) is Liveness.OFFLINE


async def test_a_daemon_that_was_stopped_or_suspended_judges_nobody_for_it(world: World) -> None:
    world.presence.proven(world.clock.monotonic())
    world.beat()
    assert await world.after(3600) is Liveness.ONLINE, "nothing has proven that anything was heard"
    assert not world.presence.proven(world.clock.monotonic())
    assert await world.after(0) is Liveness.ONLINE


async def test_a_shorter_interval_counts_at_once_and_a_longer_one_as_well(world: World) -> None:
    world.beat()
    world.beat(payload=Payload(interval_seconds=1))
    assert await world.after(3 + ONE_TURN) is Liveness.OFFLINE
    slower = newer(world.index.records[AGENT], heartbeat_interval_seconds=10)
    world.index.apply(slower)
    assert world.verdicts.of(AGENT) is Liveness.ONLINE
    assert await world.after(27) is Liveness.OFFLINE
    world.beat()
    world.index.apply(newer(slower, heartbeat_interval_seconds=2))
    assert await world.after(6 + ONE_TURN) is Liveness.OFFLINE


async def test_a_changed_interval_brings_nobody_back_after_a_gap(world: World) -> None:
    world.beat()
    assert await world.after(91) is Liveness.OFFLINE
    world.presence.deaf()
    world.presence.listening()
    slower = newer(world.index.records[AGENT], heartbeat_interval_seconds=40)
    world.index.apply(slower)
    assert world.verdicts.of(AGENT) is Liveness.OFFLINE, "nothing was heard of it"
    await world.after(200)
    world.index.apply(newer(slower, heartbeat_interval_seconds=300))
    assert world.verdicts.of(AGENT) is Liveness.OFFLINE
    world.beat()
    assert world.verdicts.of(AGENT) is Liveness.ONLINE
    world.presence.deaf()
    world.presence.listening()
    world.index.apply(newer(newer(slower), heartbeat_interval_seconds=1))
    assert await world.after(3 + ONE_TURN) is Liveness.OFFLINE, "worse by silence, as ever"


async def test_counts_follow_every_change(world: World) -> None:
    first, second = world.put("a2"), world.put("a3")
    assert world.counts() == {"never": 3, "online": 0, "late": 0, "offline": 0}
    world.beat()
    world.beat(first.key)
    await world.after(60 + ONE_TURN)
    world.beat()
    assert world.counts() == {"never": 1, "online": 1, "late": 1, "offline": 0}
    world.index.apply(newer(first, status=ServiceStatus.DELETED))
    world.index.forget(second.key)
    assert world.counts() == {"never": 0, "online": 1, "late": 0, "offline": 0}
    stats = await world.watched.catalogue(MemoryDatabase()).stats()
    assert stats.by_liveness == world.counts()


async def test_who_is_missed_is_counted_among_those_that_should_be_heard(world: World) -> None:
    first, second = world.put(), world.put("a2", revision=1)
    for key in (first.key, second.key):
        world.beat(key)
    assert world.verdicts.missed[ServiceType.AGENT] == 0
    await world.after(90 + ONE_TURN)
    assert world.verdicts.missed[ServiceType.AGENT] == 2
    second = newer(second, status=ServiceStatus.INACTIVE)
    world.index.apply(second)
    assert world.verdicts.missed[ServiceType.AGENT] == 2
    second = newer(second, status=ServiceStatus.REVOKED)
    world.index.apply(second)
    assert world.verdicts.missed[ServiceType.AGENT] == 1, "nobody waits for it any more"
    stats = await world.watched.catalogue(MemoryDatabase()).stats()
    assert stats.missed_by_type == {"poller": 0, "agent": 1, "checker": 0}
    world.index.apply(newer(second, status=ServiceStatus.ACTIVE))
    world.beat(first.key)
    assert world.verdicts.missed[ServiceType.AGENT] == 1
    world.index.forget(second.key)
    assert world.verdicts.missed[ServiceType.AGENT] == 0


async def test_a_new_incarnation_was_never_heard(world: World) -> None:
    world.beat()
    await world.after(91)
    world.presence.forget(AGENT)
    assert world.counts() == {"never": 1, "online": 0, "late": 0, "offline": 0}
    assert world.watched.changes.of(AGENT) == []
    world.beat()
    assert await world.after(60 + ONE_TURN) is Liveness.LATE


async def test_whom_only_the_database_knows_has_a_whole_window(world: World) -> None:
    world.presence.remember({AGENT: Presence(NOW - timedelta(days=3), True, "1")})
    assert world.counts()["online"] == 1
    assert await world.after(59) is Liveness.ONLINE
    assert await world.after(1 + ONE_TURN) is Liveness.LATE
    assert world.told == [("online", "late")]


async def test_who_was_heard_before_its_record_was_read_is_judged_all_the_same(world: World) -> None:
    early = ServiceKey(ServiceType.AGENT, "early")
    world.presence.note(early, EMPTY, NOW)
    assert world.verdicts.of(early) is Liveness.NEVER
    world.put("early")
    await world.after(ONE_TURN)
    assert world.verdicts.of(early) is Liveness.ONLINE
    await world.after(90 + ONE_TURN)
    assert world.verdicts.of(early) is Liveness.OFFLINE


async def test_the_last_changes_are_remembered_for_a_strip(world: World) -> None:
    world.beat()
    assert world.watched.changes.of(AGENT) == [], "a first heartbeat is no change"
    await world.after(60 + ONE_TURN)
    world.beat()
    told = [(change.before.value, change.after.value) for change in world.watched.changes.of(AGENT)]
    assert told == [("online", "late"), ("late", "online")]
    assert world.watched.changes.of(AGENT)[-1].at == world.clock.now()
    for _ in range(MOST_CHANGES):
        await world.after(60 + ONE_TURN)
        world.beat()
    assert len(world.watched.changes.of(AGENT)) == MOST_CHANGES


async def test_what_the_book_of_changes_forgot_is_not_taken_for_a_quiet_time(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "MOST_SERVICES", 1)
    other = world.put("a2").key
    for key in (AGENT, other):
        world.beat(key)
    await world.after(60 + ONE_TURN)
    book, turned = world.watched.changes, world.clock.now()
    assert (len(book), len(book.of(AGENT)) + len(book.of(other))) == (1, 1)
    assert book.known_since(AGENT) == book.known_since(other) == turned, "before that it may have turned"
    for _ in range(MOST_CHANGES):
        world.beat()
        await world.after(60 + ONE_TURN)
    assert book.known_since(AGENT) == book.of(AGENT)[0].at > turned
    assert book.known_since(other) > turned, "its only change went"


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["beat", "pass", "stop", "gap"]), st.integers(1, 70)), max_size=25))
def test_any_history_of_one_service_is_judged_as_by_asking_every_second(steps: list[tuple[str, int]]) -> None:
    """Against the plain rule: silence heard since the last heartbeat or gap; worse by silence, better by beats."""
    asyncio.run(_against_the_rule(steps))


async def _against_the_rule(steps: list[tuple[str, int]]) -> None:
    world = World()
    world.put()
    world.beat()
    silent, expected = 0, Liveness.ONLINE
    for step, number in steps:
        if step in ("beat", "stop"):
            world.beat(payload=Payload(stopping=step == "stop"))
            silent, expected = 0, Liveness.OFFLINE if step == "stop" else Liveness.ONLINE
        elif step == "gap":
            world.presence.deaf()
            world.clock.advance(number)
            world.presence.listening()
            silent = 0
        for _ in range(number if step == "pass" else 0):
            silent += 1
            by_silence = (
                Liveness.OFFLINE if silent >= 90 else Liveness.LATE if silent >= 60 else Liveness.ONLINE
            )
            expected = by_silence if by_silence.is_worse_than(expected) else expected
            assert await world.after(1) is expected
        assert world.verdicts.of(AGENT) is expected
