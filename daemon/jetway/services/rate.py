"""A rate that is not exceeded, whoever asks."""

from __future__ import annotations

from jetway.ports import Clock


class Rate:
    """At most `per_minute` at once, and as many in every minute after."""

    def __init__(self, clock: Clock, per_minute: int) -> None:
        self._clock = clock
        self._most = float(per_minute)
        self._left = self._most
        self._at = clock.monotonic()

    def take(self) -> bool:
        """Whether one more may be; it counts then."""
        now = self._clock.monotonic()
        self._left = min(self._most, self._left + (now - self._at) * self._most / 60.0)
        self._at = now
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True
