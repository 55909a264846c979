"""So much for each of many in a while: who asks for more is known at the cost of a look-up."""

from __future__ import annotations

from collections.abc import Callable

from jetway.ports import Clock

WINDOW_SECONDS = 5.0
MOST_NAMES = 500_000
"""As many are remembered; with more all begin anew."""


def _nothing(_name: str) -> None: ...


class Allowance:
    """What each name may use up in five seconds. Nobody's use is at the cost of another's.

    Time is looked at only when somebody has used up a share, for this is asked of every heartbeat. So what is
    counted may be of longer than five seconds; it is counted anew before anybody is refused for it.
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
        before = self._asked.get(name, 0)
        if before >= self._most or (not before and len(self._asked) >= MOST_NAMES):
            before = 0 if self._begins_anew() else before
        self._asked[name] = after = before + amount
        if before < self._excess <= after:
            self._on_excess(name)
        return before < self._most

    def _begins_anew(self) -> bool:
        now = self._clock.monotonic()
        if now - self._since < WINDOW_SECONDS and len(self._asked) < MOST_NAMES:
            return False
        self._asked.clear()
        self._since = now
        return True

    def charge(self, name: str, amount: int) -> None:
        """What was taken turned out to be more."""
        self._asked[name] = self._asked.get(name, 0) + amount
