"""Presence: the time of receipt counts, and nothing that a sender says moves it back."""

from __future__ import annotations

from datetime import timedelta

import pytest

from jetway.core.heartbeat import EMPTY, Payload
from jetway.core.liveness import Hearing, Liveness, Thresholds
from jetway.core.record import ServiceStatus
from jetway.core.rows import Presence
from jetway.services.presence import PresenceTable
from support.builders import AGENT, CHECKER, NOW, POLLER, FakeClock, record


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def table(clock: FakeClock) -> PresenceTable:
    made = PresenceTable(clock, default_interval=30, thresholds=Thresholds())
    made.listening()
    return made


def test_who_was_not_heard_has_no_presence(table: PresenceTable) -> None:
    assert table.presence(AGENT) == Presence()
    assert table.liveness(record()) is Liveness.NEVER


def test_a_heartbeat_out_of_order_does_not_move_last_seen_back(table: PresenceTable) -> None:
    """Out-of-order timestamps do not move last_seen back, and the sender's clock is not asked at all."""
    table.note(AGENT, EMPTY, NOW)
    table.note(AGENT, Payload(timestamp=NOW - timedelta(days=9)), NOW - timedelta(minutes=1))
    assert table.presence(AGENT).last_seen == NOW
    table.note(AGENT, Payload(timestamp=NOW + timedelta(days=9)), NOW + timedelta(seconds=1))
    assert table.presence(AGENT).last_seen == NOW + timedelta(seconds=1)


def test_what_a_heartbeat_leaves_out_stays_as_it_was(table: PresenceTable) -> None:
    table.note(AGENT, Payload(healthy=False, version="1.2", interval_seconds=300), NOW)
    table.note(AGENT, EMPTY, NOW)
    assert table.presence(AGENT) == Presence(NOW, False, "1.2")
    assert table.interval_seconds(record()) == 300
    table.note(AGENT, Payload(healthy=True), NOW)
    assert table.presence(AGENT).healthy is True


def test_the_interval_is_the_records_then_the_services_own_then_the_default(table: PresenceTable) -> None:
    assert table.interval_seconds(record()) == 30
    table.note(AGENT, Payload(interval_seconds=300), NOW)
    assert table.interval_seconds(record()) == 300
    assert table.interval_seconds(record(heartbeat_interval_seconds=5)) == 5


def test_silence_is_judged_by_the_interval(table: PresenceTable, clock: FakeClock) -> None:
    active = record(status=ServiceStatus.ACTIVE)
    table.note(AGENT, EMPTY, NOW)
    verdicts = []
    for _ in range(4):
        verdicts.append(table.liveness(active).value)
        clock.advance(30)
    assert verdicts == ["online", "online", "late", "offline"]


def test_a_service_that_says_it_stops_is_offline_until_it_is_heard_again(table: PresenceTable) -> None:
    table.note(AGENT, Payload(stopping=True), NOW)
    assert table.liveness(record()) is Liveness.OFFLINE
    table.note(AGENT, EMPTY, NOW)
    assert table.liveness(record()) is Liveness.ONLINE


def test_nobody_is_judged_for_time_in_which_the_daemon_was_deaf(
    table: PresenceTable, clock: FakeClock
) -> None:
    """The server's own outage is not read as the services' death, and brings no herd of them afterwards."""
    table.note(AGENT, EMPTY, NOW)
    table.deaf()
    assert table.hearing is None
    clock.advance(timedelta(hours=5))
    assert table.liveness(record()) is Liveness.ONLINE
    table.listening()
    assert table.liveness(record()) is Liveness.ONLINE
    clock.advance(60)
    assert table.liveness(record()) is Liveness.LATE


def test_listening_on_is_no_new_beginning(table: PresenceTable, clock: FakeClock) -> None:
    began = clock.monotonic()
    clock.advance(60)
    table.listening()
    assert table.hearing == Hearing(began, began + 60)


def test_once_proofs_come_silence_counts_only_as_far_as_they_reach(
    table: PresenceTable, clock: FakeClock
) -> None:
    table.note(AGENT, EMPTY, NOW)
    assert table.proven(clock.monotonic())
    clock.advance(3600)  # the daemon stands still: nobody asks in between
    assert table.liveness(record()) is Liveness.ONLINE
    assert not table.proven(clock.monotonic())
    assert table.liveness(record()) is Liveness.ONLINE
    for _ in range(46):
        clock.advance(2)
        assert table.proven(clock.monotonic())
    assert table.liveness(record()) is Liveness.OFFLINE


@pytest.mark.parametrize(
    "jump", [timedelta(hours=1), timedelta(days=400), -timedelta(hours=1), -timedelta(days=400)]
)
def test_a_wall_clock_that_is_set_makes_nobody_late_and_hides_nobody(
    table: PresenceTable, clock: FakeClock, jump: timedelta
) -> None:
    table.note(AGENT, EMPTY, clock.now())
    clock.set_wall(NOW + jump)
    verdicts = []
    for _ in range(4):
        verdicts.append(table.liveness(record()).value)
        clock.advance(30)
    assert verdicts == ["online", "online", "late", "offline"]
    table.note(AGENT, EMPTY, clock.now())
    assert table.liveness(record()) is Liveness.ONLINE


def test_what_the_database_remembers_is_older_than_what_was_heard(table: PresenceTable) -> None:
    table.note(AGENT, EMPTY, NOW)
    old = Presence(NOW - timedelta(days=1), True, "0.9")
    table.remember({AGENT: old, POLLER: old, CHECKER: Presence(None, True, "x")})
    assert table.presence(AGENT) == Presence(NOW, True, "0.9"), "what a heartbeat leaves out stays as it was"
    assert table.presence(POLLER) == old
    assert table.presence(CHECKER) == Presence()


def test_a_database_that_answers_late_does_not_let_last_seen_go_back(table: PresenceTable) -> None:
    """The wall clock was set back over the restart, and the database was away when it was asked first."""
    table.note(AGENT, Payload(healthy=False, version="1.0"), NOW - timedelta(days=2))
    table.remember({AGENT: Presence(NOW, True, "0.9")})
    assert table.presence(AGENT) == Presence(NOW, False, "1.0")


def test_what_is_remembered_is_not_written_back(table: PresenceTable) -> None:
    table.remember({POLLER: Presence(NOW, True, "1")})
    assert table.unwritten == 0


def test_unwritten_services_are_taken_once_and_can_be_put_back(table: PresenceTable) -> None:
    for key in (POLLER, AGENT, CHECKER):
        table.note(key, EMPTY, NOW)
        table.note(key, EMPTY, NOW)
    taken = table.take_unwritten(2)
    assert (len(taken), table.unwritten) == (2, 1)
    table.put_back(taken)
    assert sorted(table.take_unwritten(99)) == sorted([POLLER, AGENT, CHECKER])
    assert table.take_unwritten(99) == []


def test_a_forgotten_service_is_not_put_back(table: PresenceTable) -> None:
    table.note(AGENT, EMPTY, NOW)
    taken = table.take_unwritten(9)
    table.forget(AGENT)
    table.put_back(taken)
    assert table.unwritten == 0
    assert table.presence(AGENT) == Presence()


def test_of_a_link_that_flaps_for_weeks_only_what_matters_is_remembered(
    table: PresenceTable, clock: FakeClock
) -> None:
    """A week is shown, and a day's listening is judged by."""
    heard_last = clock.now()
    for _ in range(30 * 24):
        clock.advance(timedelta(minutes=40))
        table.deaf()
        clock.advance(timedelta(minutes=20))
        table.listening()
    assert len(table.heard) <= 7 * 24 + 1
    assert timedelta(seconds=table.silence_seconds(heard_last)) > timedelta(days=1)


def test_who_hears_seldom_remembers_for_longer(table: PresenceTable, clock: FakeClock) -> None:
    """Else nobody would ever have been silent for a day."""
    heard_last = clock.now()
    for _ in range(30):
        clock.advance(timedelta(hours=1))
        table.deaf()
        clock.advance(timedelta(hours=23))
        table.listening()
    assert timedelta(seconds=table.silence_seconds(heard_last)) > timedelta(days=1)
    assert len(table.heard) <= 26
