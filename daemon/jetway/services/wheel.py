"""A timing wheel: what is due when, in turns of a tenth of a second. Putting in and taking out cost the same
however much is in it, and nothing is ever searched for.

It is lazy: what is put in stays until its turn, also where it has long been put off or is of no use any more.
Whoever takes it out says what is to happen then.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")

TURNS_PER_SECOND = 10


class Wheel(Generic[T]):
    """Things by their turn. Moments are in seconds of any one clock."""

    def __init__(self) -> None:
        self._turns: dict[int, list[T]] = {}
        self._next = 0

    def __len__(self) -> int:
        """How much is in it, what is of no use any more included."""
        return sum(map(len, self._turns.values()))

    def put(self, thing: T, at: float = 0.0) -> int:
        """Put it in for the first turn not before `at`; that turn."""
        turn = max(math.ceil(at * TURNS_PER_SECOND), self._next)
        self._turns.setdefault(turn, []).append(thing)
        return turn

    def is_earlier(self, at: float, turn: int) -> bool:
        """Whether `at` comes in an earlier turn than `turn`."""
        return math.ceil(at * TURNS_PER_SECOND) < turn

    def due(self, until: float) -> Iterator[tuple[int, T]]:
        """Take out everything whose turn has come by `until`, with its turn. What is put in meanwhile waits."""
        last = math.floor(until * TURNS_PER_SECOND)
        for turn in self._up_to(last):
            for thing in self._turns.pop(turn, ()):
                yield turn, thing

    def _up_to(self, last: int) -> Iterator[int]:
        first, self._next = self._next, max(self._next, last + 1)
        if last - first > len(self._turns):
            return iter(sorted(turn for turn in self._turns if turn <= last))
        return iter(range(first, last + 1))
