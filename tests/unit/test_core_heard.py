"""Heard time: what was listened to is counted once, whatever the order in which it was told."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from jetway.core.heard import MAX_INTERVALS, Heard, Interval

START = datetime(2026, 1, 1, tzinfo=UTC)
seconds = st.integers(0, 60)


def at(second: int) -> datetime:
    return START + timedelta(seconds=second)


def test_silence_counts_only_while_somebody_listened() -> None:
    heard = Heard([Interval(at(0), at(10)), Interval(at(100), at(110))])
    assert heard.between(at(5), at(105)) == timedelta(seconds=10)
    assert heard.between(at(20), at(90)) == timedelta()


def test_intervals_that_touch_become_one() -> None:
    heard = Heard()
    for since in range(0, 100, 10):
        heard.add(at(since), at(since + 10))
    assert heard.intervals == (Interval(at(0), at(100)),)


def test_a_clock_that_was_set_back_adds_nothing() -> None:
    heard = Heard([Interval(at(0), at(10))])
    heard.add(at(50), at(40))
    assert heard.intervals == (Interval(at(0), at(10)),)


def test_what_is_too_old_is_forgotten_and_the_number_is_bounded() -> None:
    heard = Heard([Interval(at(0), at(10)), Interval(at(20), at(30))])
    heard.forget_before(at(15))
    assert heard.intervals == (Interval(at(20), at(30)),)
    for number in range(MAX_INTERVALS + 5):
        heard.add(at(100 + 2 * number), at(101 + 2 * number))
    assert len(heard) == MAX_INTERVALS
    assert heard.intervals[-1].until == at(101 + 2 * (MAX_INTERVALS + 4))


@given(st.lists(st.tuples(seconds, seconds)), seconds, seconds)
def test_every_second_counts_once(told: list[tuple[int, int]], since: int, until: int) -> None:
    heard = Heard()
    listened: set[int] = set()
    for begin, end in told:
        heard.add(at(begin), at(end))
        listened |= set(range(begin, end))
    assert heard.between(at(since), at(until)) == timedelta(seconds=len(listened & set(range(since, until))))
    for one, following in zip(heard.intervals, heard.intervals[1:], strict=False):
        assert one.since < one.until < following.since
