"""So much for each of many in a second: who asks for more is known at the cost of a look-up."""

from __future__ import annotations

from jetway.ports import Clock

_WINDOW_SECONDS = 1.0


class Allowance:
    """What each name may use up in a second. Nobody's use is at the cost of another's.

    It remembers whoever asked within the second, and nobody longer.
    """

    def __init__(self, clock: Clock, per_second: int) -> None:
        self._clock = clock
        self._per_second = per_second
        self._since = clock.monotonic()
        self._used: dict[str, int] = {}

    def take(self, name: str, amount: int) -> bool:
        """Whether `name` has something left; `amount` is used up then, even where that is more than was left."""
        now = self._clock.monotonic()
        if now - self._since >= _WINDOW_SECONDS:
            self._used.clear()
            self._since = now
        if self._used.get(name, 0) >= self._per_second:
            return False
        self.charge(name, amount)
        return True

    def charge(self, name: str, amount: int) -> None:
        """What it took turned out to be more."""
        self._used[name] = self._used.get(name, 0) + amount
