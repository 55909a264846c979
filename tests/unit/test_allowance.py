"""What each may use up in a second."""

from __future__ import annotations

from jetway.services.allowance import Allowance
from support.builders import FakeClock


def test_each_has_its_own_share() -> None:
    allowance = Allowance(FakeClock(), 100)
    assert allowance.take("a", 60)
    assert allowance.take("a", 60)  # what is left is enough to be let in
    assert not allowance.take("a", 1)
    assert allowance.take("b", 60)


def test_it_is_whole_again_after_a_second() -> None:
    clock = FakeClock()
    allowance = Allowance(clock, 100)
    assert allowance.take("a", 100)
    clock.advance(0.9)
    assert not allowance.take("a", 1)
    clock.advance(0.1)
    assert allowance.take("a", 1)


def test_nobody_is_remembered_longer_than_a_second() -> None:
    clock = FakeClock()
    allowance = Allowance(clock, 100)
    for number in range(1000):
        allowance.take(f"n{number}", 1)
    clock.advance(1)
    allowance.take("a", 1)
    assert allowance._used == {"a": 1}
