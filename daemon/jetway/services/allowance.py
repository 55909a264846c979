"""So much for each of many in a while: who asks for more is known at the cost of a look-up."""

from __future__ import annotations

from collections.abc import Callable

from jetway.ports import Clock

WINDOW_SECONDS = 5.0


def _nothing(_name: str) -> None: ...


class Allowance:
    """What each name may use up in five seconds. Nobody's use is at the cost of another's.

    It remembers whoever asked within them, and nobody longer.
    """

    def __init__(
        self, clock: Clock, most: int, *, excess: int, on_excess: Callable[[str], None] = _nothing
    ) -> None:
        """`on_excess(name)` is called once for five seconds in which a name asks for `excess`, served or not."""
        self._clock = clock
        self._most = most
        self._excess = excess
        self._on_excess = on_excess
        self._since = clock.monotonic()
        self._asked: dict[str, int] = {}

    def take(self, name: str, amount: int) -> bool:
        """Whether `name` had something left, which is used up then even where `amount` is more than that."""
        now = self._clock.monotonic()
        if now - self._since >= WINDOW_SECONDS:
            self._asked.clear()
            self._since = now
        before = self._asked.get(name, 0)
        self._asked[name] = after = before + amount
        if before < self._excess <= after:
            self._on_excess(name)
        return before < self._most

    def charge(self, name: str, amount: int) -> None:
        """What was taken turned out to be more."""
        self._asked[name] = self._asked.get(name, 0) + amount
