"""A log that a flood of equal lines cannot fill."""

from __future__ import annotations

import structlog

from jetway.ports import Clock

log = structlog.get_logger()

_SECONDS = 10.0


class QuietLog:
    """Writes a line of an action at most every ten seconds, with the number of those left out."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last: dict[str, float] = {}
        self._left_out: dict[str, int] = {}

    def warning(self, event: str, *, action: str, **fields: object) -> None:
        """Log it, unless the same action was logged just now."""
        now = self._clock.monotonic()
        last = self._last.get(action)
        if last is not None and now - last < _SECONDS:
            self._left_out[action] = self._left_out.get(action, 0) + 1
            return
        self._last[action] = now
        log.warning(event, action=action, left_out=self._left_out.pop(action, 0), **fields)
