"""The timing wheel: what is due comes out in its turn, once, and nothing is lost."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from jetway.services.wheel import TURNS_PER_SECOND, Wheel

TURN = 1 / TURNS_PER_SECOND


def test_nothing_comes_out_before_its_time_and_everything_within_a_turn_of_it() -> None:
    wheel: Wheel[str] = Wheel()
    wheel.put("a", 10.01)
    assert list(wheel.due(10.0)) == []
    assert [thing for _, thing in wheel.due(10.01 + TURN)] == ["a"]
    assert list(wheel.due(99.0)) == []


def test_what_is_put_in_for_the_past_comes_in_the_next_turn() -> None:
    wheel: Wheel[str] = Wheel()
    assert list(wheel.due(50.0)) == []
    turn = wheel.put("late", 3.0)
    assert list(wheel.due(50.0)) == []
    assert list(wheel.due(50.0 + TURN)) == [(turn, "late")]


def test_what_is_put_in_while_it_turns_waits_for_the_next_turn() -> None:
    wheel: Wheel[str] = Wheel()
    wheel.put("a", 1.0)
    seen = []
    for _, thing in wheel.due(2.0):
        seen.append(thing)
        wheel.put("again", 1.5)
    assert seen == ["a"]
    assert [thing for _, thing in wheel.due(2.2)] == ["again"]


def test_a_leap_over_days_is_no_search_through_them() -> None:
    wheel: Wheel[int] = Wheel()
    for number in range(100):
        wheel.put(number, number * 86_400.0)
    assert [thing for _, thing in wheel.due(1e9)] == list(range(100))
    assert len(wheel) == 0


@given(
    st.lists(st.tuples(st.floats(0, 1000), st.floats(0, 1000)), max_size=50),
    st.lists(st.floats(0, 1100), max_size=20),
)
def test_everything_comes_out_exactly_once(puts: list[tuple[float, float]], looks: list[float]) -> None:
    """Puts and looks in the order of time; each thing at its moment or, where that is past, soon after."""
    wheel: Wheel[int] = Wheel()
    out: dict[int, float] = {}
    steps = [(when, 0, number) for number, (when, _) in enumerate(puts)]
    for when, kind, number in sorted(steps + [(when, 1, 0) for when in looks] + [(2000.0, 1, 0)]):
        if kind == 0:
            wheel.put(number, puts[number][1])
            continue
        for _, thing in wheel.due(when):
            assert thing not in out
            out[thing] = when
    assert sorted(out) == list(range(len(puts)))
    assert all(out[number] >= at for number, (_, at) in enumerate(puts))
