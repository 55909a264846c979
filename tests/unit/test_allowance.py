"""What each may use up in a second."""

from __future__ import annotations

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


def test_nobody_is_remembered_longer() -> None:
    clock = FakeClock()
    allowance = Allowance(clock, 100, excess=400)
    for number in range(1000):
        allowance.take(f"n{number}", 1)
    clock.advance(5)
    allowance.take("a", 1)
    assert allowance._asked == {"a": 1}


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
