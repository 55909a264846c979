"""What a service's liveness was when: whatever happened, nothing unknown is shown as online."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jetway.core.heard import Heard, Interval
from jetway.core.liveness import Liveness
from jetway.core.spans import Past, spans_of
from jetway.core.turns import Turn, pack, seconds, unpack
from support.builders import NOW

ALL = (Interval(NOW - timedelta(days=9), NOW),)
ON, LATE, OFF, NEVER = Liveness.ONLINE, Liveness.LATE, Liveness.OFFLINE, Liveness.NEVER


def ago(hours: float) -> datetime:
    return NOW - timedelta(hours=hours)


def past(**changes: Any) -> Past:
    terms: dict[str, Any] = {
        "registered": ago(200),
        "first_seen": ago(199),
        "known_since": ago(500),
        "turns": (),
        "verdict": ON,
        "heard": ALL,
    }
    return Past(**(terms | changes))


def told(what: Past, hours: float = 24) -> list[tuple[str, float, float]]:
    """Each span with how many hours ago it began and ended."""
    return [
        (
            span.state.value,
            round((NOW - span.since) / timedelta(hours=1), 3),
            (NOW - span.until) / timedelta(hours=1),
        )
        for span in spans_of(what, ago(hours), NOW)
    ]


def test_a_verdict_stands_until_it_turns() -> None:
    assert told(past()) == [("online", 24, 0)]
    turns = [Turn(ago(30), OFF, ON), Turn(ago(5), ON, LATE), Turn(ago(4), LATE, OFF), Turn(ago(1), OFF, ON)]
    spans = [("online", 24, 5), ("late", 5, 4), ("offline", 4, 1), ("online", 1, 0)]
    assert told(past(turns=turns)) == spans
    assert told(past(turns=turns), hours=31)[0] == ("offline", 31, 30)


def test_it_begins_with_the_service_and_its_first_heartbeat() -> None:
    assert told(past(registered=ago(6), first_seen=None, verdict=NEVER)) == [("never", 6, 0)]
    young = past(registered=ago(6), first_seen=ago(2), turns=[Turn(ago(1), ON, OFF)], verdict=OFF)
    assert told(young) == [("never", 6, 2), ("online", 2, 1), ("offline", 1, 0)]


def test_what_could_not_be_heard_is_nobodys_life_and_nobodys_silence() -> None:
    heard = [Interval(ago(20), ago(10)), Interval(ago(9), ago(3)), Interval(ago(2), NOW)]
    turns = [Turn(ago(9.5), ON, OFF), Turn(ago(5), OFF, ON)]
    assert told(past(heard=heard, turns=turns)) == [
        ("not_heard", 24, 20),
        ("online", 20, 10),
        ("not_heard", 10, 9),
        ("offline", 9, 5),
        ("online", 5, 3),
        ("not_heard", 3, 2),
        ("online", 2, 0),
    ]
    assert told(past(heard=())) == [("not_heard", 24, 0)]


@pytest.mark.parametrize(
    ("changes", "spans"),
    [
        ({"known_since": ago(3)}, [("unknown", 24, 3), ("online", 3, 0)]),
        (
            {"turns": [Turn(ago(9), ON, OFF), Turn(ago(2), LATE, ON)]},
            [("online", 24, 9), ("unknown", 9, 2), ("online", 2, 0)],
        ),
        ({"turns": [Turn(ago(9), OFF, ON)], "verdict": OFF}, [("offline", 24, 9), ("unknown", 9, 0)]),
        ({"verdict": NEVER}, [("unknown", 24, 0)]),
        (
            {"turns": [Turn(ago(9), ON, OFF)], "known_since": ago(3), "verdict": OFF},
            [("unknown", 24, 3), ("offline", 3, 0)],
        ),
    ],
    ids=["not kept", "a turn is missing", "the last is missing", "no verdict", "older than what is kept"],
)
def test_what_is_not_known_is_never_online(
    changes: dict[str, Any], spans: list[tuple[str, float, float]]
) -> None:
    assert told(past(**changes)) == spans


def test_a_clock_that_was_set_back_turns_no_span_round() -> None:
    turns = [Turn(ago(5), ON, OFF), Turn(ago(7), OFF, ON), Turn(ago(-3), ON, OFF)]
    assert told(past(turns=turns, verdict=OFF)) == [("online", 24, 0)]


moments = st.integers(0, 60).map(lambda number: ago(number / 2))
verdicts = st.sampled_from((ON, LATE, OFF))


@given(
    st.lists(st.builds(Turn, moments, verdicts, verdicts), max_size=6),
    st.lists(st.tuples(moments, moments).map(lambda pair: Interval(min(pair), max(pair))), max_size=4),
    moments,
    st.none() | moments,
    moments,
    st.sampled_from(tuple(Liveness)),
)
def test_spans_cover_the_time_without_a_hole_and_online_is_heard(
    turns: list[Turn],
    intervals: list[Interval],
    registered: datetime,
    first: datetime | None,
    known: datetime,
    now: Liveness,
) -> None:
    heard = Heard(intervals)
    what = Past(
        registered=registered,
        first_seen=first and max(first, registered),
        known_since=known,
        turns=turns,
        verdict=now,
        heard=heard.intervals,
    )
    spans = spans_of(what, ago(24), NOW)
    begin = max(registered, ago(24))
    assert sum((span.until - span.since for span in spans), timedelta()) == NOW - begin
    assert not spans or (spans[0].since, spans[-1].until) == (begin, NOW)
    for span, following in pairwise(spans):
        assert span.until == following.since
        assert span.state is not following.state
    for span in spans:
        assert span.since < span.until
        whole = heard.between(span.since, span.until)
        assert whole == (timedelta() if span.state.value == "not_heard" else span.until - span.since)


whole = st.integers(0, 4_000_000_000_000).map(
    lambda number: datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=number)
)


@given(st.lists(st.builds(Turn, whole, st.sampled_from(tuple(Liveness)), verdicts)))
def test_turns_are_packed_and_unpacked(turns: list[Turn]) -> None:
    packed = b"".join(map(pack, turns))
    assert unpack(packed) == turns
    assert seconds(packed) == pytest.approx([turn.at.timestamp() for turn in turns])


def test_what_was_never_packed_is_refused() -> None:
    for wrong in (b"1234567", b"\xff" * 8):
        with pytest.raises(ValueError, match=r"turns|year|time"):
            unpack(wrong)
