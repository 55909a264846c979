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
    heard.forget_before(at(15), timedelta(seconds=10))
    assert len(heard) == 2, "no more than that was heard since"
    heard.forget_before(at(15), timedelta(seconds=9))
    assert heard.intervals == (Interval(at(20), at(30)),)
    heard.forget_before(at(50), timedelta())
    assert heard.intervals == (Interval(at(20), at(30)),), "the last one stays"
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


@given(st.lists(st.tuples(seconds, seconds), min_size=1), seconds, seconds, st.integers(0, 30))
def test_what_is_forgotten_makes_nobodys_silence_shorter_than_it_has_to_be(
    told: list[tuple[int, int]], moment: int, since: int, enough: int
) -> None:
    whole, trimmed = Heard(), Heard()
    for begin, end in told:
        whole.add(at(begin), at(end))
        trimmed.add(at(begin), at(end))
    trimmed.forget_before(at(moment), timedelta(seconds=enough))
    limit = timedelta(seconds=enough)
    assert (trimmed.between(at(since), at(60)) > limit) == (whole.between(at(since), at(60)) > limit)
    shown = [one for one in whole.intervals if one.until >= at(moment)]
    assert list(trimmed.intervals[len(trimmed) - len(shown) :]) == shown
    trimmed.add(at(70), at(80))
    assert trimmed.between(at(65), at(75)) == timedelta(seconds=5)
