"""What each may use up in a second."""

from __future__ import annotations

import pytest

from jetway.services import allowance as module
from jetway.services.allowance import Allowance
from support.builders import FakeClock


def test_each_has_its_own_share() -> None:
    allowance = Allowance(FakeClock(), 100, excess=400)
    assert allowance.take("a", 60)
    assert allowance.take("a", 60)  # what is left is enough to be let in
    assert not allowance.take("a", 1)
    assert allowance.take("b", 60)


def test_it_is_whole_again_after_a_while() -> None:
    clock = FakeClock()
    allowance = Allowance(clock, 100, excess=400)
    assert allowance.take("a", 100)
    clock.advance(4.9)
    assert not allowance.take("a", 1)
    clock.advance(0.1)
    assert allowance.take("a", 1)


def test_what_was_used_long_ago_is_held_against_nobody() -> None:
    clock = FakeClock()
    allowance = Allowance(clock, 100, excess=400)
    for _ in range(50):
        assert allowance.take("a", 30)
        clock.advance(2)


def test_no_more_than_so_many_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_NAMES", 10)
    allowance = Allowance(FakeClock(), 100, excess=400)
    for number in range(1000):
        allowance.take(f"n{number}", 1)
        assert len(allowance._asked) <= 10


def test_whoever_goes_on_asking_is_told_of_once_in_a_while() -> None:
    told: list[str] = []
    clock = FakeClock()
    allowance = Allowance(clock, 100, excess=400, on_excess=told.append)
    for _ in range(20):
        allowance.take("a", 50)
        allowance.take("b", 10)
    assert told == ["a"]
    clock.advance(5)
    assert allowance.take("a", 399)
    assert told == ["a"]
    assert not allowance.take("a", 1)
    assert told == ["a", "a"]
