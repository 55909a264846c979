"""Liveness: exact thresholds, and no verdict over time in which the daemon was deaf."""

from __future__ import annotations

import itertools

import pytest

from jetway.core.errors import Code, Refused
from jetway.core.ids import ServiceKey, ServiceType
from jetway.core.liveness import (
    BEFORE,
    GAP_SECONDS,
    PAUSE_SECONDS,
    Hearing,
    Liveness,
    Thresholds,
    judged_again_at,
    liveness,
)
from jetway.core.policy import judge_parent, parent_key, parent_went_away
from jetway.core.record import ServiceStatus
from jetway.core.times import parse_rfc3339, rfc3339, to_milliseconds
from support.builders import record

MS = 0.001
LONG_AGO = Hearing(-1e6, 0.0)


def judge(
    silence: float,
    *,
    interval: int = 30,
    hearing: Hearing | None = LONG_AGO,
    **more: object,
) -> Liveness:
    """The verdict at the time 0."""
    return liveness(-silence, interval_seconds=interval, hearing=hearing, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("silence", "verdict"),
    [
        (0, "online"),
        (60 - MS, "online"),
        (60, "late"),
        (90 - MS, "late"),
        (90, "offline"),
        (8 * 86400, "offline"),
        (-3600, "online"),
    ],
)
def test_two_intervals_are_late_and_three_are_offline(silence: float, verdict: str) -> None:
    assert judge(silence) == verdict


def test_each_service_is_judged_by_its_own_interval() -> None:
    assert [judge(100, interval=seconds) for seconds in (30, 40, 300)] == ["offline", "late", "online"]


def test_the_thresholds_can_be_set() -> None:
    thresholds = Thresholds(late_after=1.5, offline_after=10)
    assert judge(45, thresholds=thresholds) is Liveness.LATE
    assert judge(299, thresholds=thresholds) is Liveness.LATE


def test_who_was_never_heard_is_never_whatever_the_daemon_heard() -> None:
    for hearing in (None, LONG_AGO):
        assert liveness(None, interval_seconds=30, hearing=hearing) is Liveness.NEVER


def test_a_deaf_daemon_judges_nobody() -> None:
    """The server's own lag is not read as the agents' death."""
    assert judge(8 * 86400, hearing=None) is Liveness.ONLINE


@pytest.mark.parametrize(
    ("listening_for", "verdict"), [(0, "online"), (59, "online"), (60, "late"), (90, "offline")]
)
def test_after_a_gap_silence_counts_from_when_the_daemon_listens_again(
    listening_for: float, verdict: str
) -> None:
    assert judge(8 * 86400, hearing=Hearing(-listening_for, 0.0)) == verdict
    assert judge(-BEFORE, hearing=Hearing(-listening_for, 0.0)) == verdict


def test_silence_counts_as_far_as_hearing_is_proven() -> None:
    """Last heard a minute and a half ago, but for the last minute nobody knows whether anything was said."""
    assert judge(90, hearing=Hearing(-1e6, -60.0)) is Liveness.ONLINE
    assert judge(125, hearing=Hearing(-1e6, -60.0)) is Liveness.LATE


def test_a_gap_in_the_proofs_begins_anew() -> None:
    hearing = Hearing(0.0, 10.0).proven(10.5)
    assert hearing == Hearing(0.0, 10.5, 10.5)
    assert hearing.proven(5.0) == hearing
    assert hearing.proven(11.0 + GAP_SECONDS) == Hearing(11.0 + GAP_SECONDS, *[11.0 + GAP_SECONDS] * 2)


def test_after_a_gap_hearing_begins_when_the_proof_came_not_when_it_was_sent() -> None:
    assert Hearing(0.0, 10.0).proven(15.0, 16.5) == Hearing(16.5, 16.5, 16.5)
    assert Hearing(0.0, 10.0).proven(10.5, 12.0).until == 10.5


def test_after_a_pause_the_second_proof_counts_and_pauses_without_end_hide_nobody() -> None:
    """What the NATS server took in during a pause may come from another connection after our own message."""
    hearing = Hearing(0.0, 10.0).proven(10.0 + PAUSE_SECONDS + 1)
    assert (hearing.since, hearing.until) == (0.0, 10.0)
    assert hearing.proven(12.25).until == 12.25
    for number in range(1, 10):
        hearing = hearing.proven(12.0 + 2 * number)
        assert hearing.until == 10.0 + 2 * number, "one proof behind"


@pytest.mark.parametrize(("verdict", "at"), [("never", 60), ("online", 60), ("late", 90)])
def test_a_silent_service_is_judged_again_when_its_next_verdict_is_due(verdict: Liveness, at: float) -> None:
    asked = {"interval_seconds": 30, "hearing": Hearing(-1e6, 0.0)}
    assert judged_again_at(0.0, Liveness(verdict), **asked) == at  # type: ignore[arg-type]
    later = {"interval_seconds": 30, "hearing": Hearing(1000.0, 1000.0)}
    assert judged_again_at(0.0, Liveness(verdict), **later) == 1000 + at  # type: ignore[arg-type]


def test_verdicts_get_worse_in_one_order() -> None:
    order = [Liveness.NEVER, Liveness.ONLINE, Liveness.LATE, Liveness.OFFLINE]
    for one, other in itertools.product(range(4), repeat=2):
        assert order[one].is_worse_than(order[other]) is (one > other)


def test_a_service_that_said_it_stops_is_offline_at_once() -> None:
    assert judge(0, stopping=True) is Liveness.OFFLINE


# --- rules that look at more than one record


@pytest.mark.parametrize(
    ("kind", "parent_id", "key"),
    [
        (ServiceType.POLLER, "", None),
        (ServiceType.AGENT, "p1", ServiceKey(ServiceType.POLLER, "p1")),
        (ServiceType.CHECKER, "a1", ServiceKey(ServiceType.AGENT, "a1")),
    ],
)
def test_the_parents_type_follows_from_the_childs(
    kind: ServiceType, parent_id: str, key: ServiceKey | None
) -> None:
    assert parent_key(kind, parent_id) == key


@pytest.mark.parametrize(
    ("kind", "parent_id"), [(ServiceType.POLLER, "p1"), (ServiceType.AGENT, ""), (ServiceType.CHECKER, "")]
)
def test_a_parent_too_many_or_too_few_is_refused_by_its_field(kind: ServiceType, parent_id: str) -> None:
    refused = parent_key(kind, parent_id)
    assert isinstance(refused, Refused)
    assert (refused.code, refused.field) == (Code.INVALID, "parent_id")


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (None, "parent_missing"),
        ("pending", None),
        ("active", None),
        ("inactive", "parent_not_live"),
        ("revoked", "parent_not_live"),
        ("deleted", "parent_not_live"),
    ],
)
def test_a_child_needs_a_parent_that_is_pending_or_active(status: str | None, code: str | None) -> None:
    """Parents are checked for existence."""
    parent = record(ServiceType.POLLER, ServiceStatus(status)) if status else None
    refused = judge_parent(ServiceKey(ServiceType.POLLER, "p1"), parent)
    assert (refused.code.value if refused else None) == code
    if refused:
        assert refused.field == "parent_id"
        assert "'p1'" in refused.why


@pytest.mark.parametrize("status", list(ServiceStatus))
def test_a_child_is_taken_back_when_its_parent_is_out(status: ServiceStatus) -> None:
    gone = status in (ServiceStatus.REVOKED, ServiceStatus.DELETED)
    assert parent_went_away(record(ServiceType.POLLER, status)) is gone
    assert parent_went_away(None)


# --- time


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("2026-11-23T09:10:11.123Z", "2026-11-23T09:10:11.123Z"),
        ("2026-11-23T09:10:11Z", "2026-11-23T09:10:11.000Z"),
        ("2026-11-23T09:10:11.123999+00:00", "2026-11-23T09:10:11.123Z"),
        ("2026-11-23T09:10:11.5+05:30", "2026-11-23T03:40:11.500Z"),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00.000Z"),
    ],
)
def test_times_are_rfc_3339_in_utc_with_milliseconds(text: str, shown: str) -> None:
    moment = parse_rfc3339(text)
    assert rfc3339(moment) == shown
    assert to_milliseconds(moment) == moment


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "2026-11-23T09:10:11",
        "2026-13-01T00:00:00Z",
        "0001-01-01T00:00:00+23:59",
        "9999-12-31T23:59:59-23:59",
        "2026-11-23T09:10:11+99:00",
    ],
)
def test_what_is_no_time_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):
        parse_rfc3339(text)
