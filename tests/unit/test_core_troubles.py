"""Flapping and clones, as pure rules."""

from __future__ import annotations

import itertools
from datetime import timedelta

import pytest

from jetway.core.clones import MOST_REMEMBERED, Instances, Sighting, follow, is_over
from jetway.core.flapping import FlapRule, is_flapping, was_flapping

RULE = FlapRule(changes=6, window=timedelta(minutes=10))
ALIVE = 90.0


@pytest.mark.parametrize(("count", "flaps"), [(0, False), (6, False), (7, True), (40, True)])
def test_more_changes_than_allowed_within_the_window_are_flapping(count: int, flaps: bool) -> None:
    moments = [1000.0 + number for number in range(count)]
    assert is_flapping(moments, 1100.0, RULE, was_flapping=False) is flaps


def test_changes_count_for_the_window_alone_and_never_ahead_of_time() -> None:
    moments = [1000.0 + number for number in range(7)]
    assert is_flapping(moments, 1006.0, RULE, was_flapping=False)
    assert not is_flapping(moments, 1600.0, RULE, was_flapping=False), "the first is ten minutes old"
    assert not is_flapping(moments, 900.0, RULE, was_flapping=False), "the clock was set back"


def test_flapping_ends_well_below_where_it_begins() -> None:
    moments = [1000.0 + number for number in range(7)]
    assert is_flapping(moments, 1602.5, RULE, was_flapping=True), "four are left"
    assert not is_flapping(moments, 1603.5, RULE, was_flapping=True), "three are left"


def beats(*heard: tuple[str, float]) -> Instances:
    """What is known after these heartbeats, each of another one than the last."""
    known = Instances()
    for (before, then), (who, now) in itertools.pairwise(heard):
        known = follow(known, Sighting(before, then), who, now, alive_seconds=ALIVE)
    return known


def test_two_that_speak_in_turns_are_suspected_when_the_first_speaks_again() -> None:
    assert beats(("a", 0), ("b", 15)).suspects is None, "this may be a restart"
    assert beats(("a", 0), ("b", 15), ("a", 30)).suspects == ("a", "b")
    assert beats(("b", 0), ("a", 15), ("b", 30)).suspects == ("a", "b"), "the same, in the same order"


def test_restarts_one_after_another_are_no_clones() -> None:
    assert beats(*((f"run-{number}", number * 5.0) for number in range(50))).suspects is None


def test_one_that_comes_back_after_it_was_gone_has_moved() -> None:
    assert beats(("north", 0), ("south", 15), ("north", 15 + ALIVE + 1)).suspects is None


def test_a_third_does_not_hide_the_first_two() -> None:
    assert beats(("a", 0), ("b", 10), ("c", 20), ("a", 30)).suspects == ("a", "c")


def test_only_so_many_are_remembered() -> None:
    assert len(beats(*((str(number), number) for number in range(50))).sightings) == MOST_REMEMBERED


def test_it_is_over_when_nobody_took_turns_for_as_long_as_a_host_may_be_silent() -> None:
    known = beats(("a", 0), ("b", 15), ("a", 30))
    assert not is_over(known, 0.0, 30 + ALIVE, alive_seconds=ALIVE)
    assert is_over(known, 0.0, 31 + ALIVE, alive_seconds=ALIVE)
    assert not is_over(known, 100.0, 31 + ALIVE, alive_seconds=ALIVE), "most of that was not listened to"


def test_who_was_flapping_is_told_from_the_changes_alone() -> None:
    quick = [1000.0 + 10 * number for number in range(7)]
    assert was_flapping(quick, RULE)
    assert not was_flapping(quick[:6], RULE)
    assert not was_flapping([], RULE)
    assert was_flapping([*quick, 1600.0], RULE), "more than three are left"
    assert not was_flapping([*quick, 1700.0], RULE), "it had ended before"
    assert not was_flapping([*quick, *(2000.0 + 10 * number for number in range(4))], RULE)
    assert was_flapping([*quick, *(2000.0 + 10 * number for number in range(7))], RULE)
