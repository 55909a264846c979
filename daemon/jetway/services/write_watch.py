"""Whether the ledger takes writes: a server without room answers questions, and each look at it says it is well.

What is refused for want of room is told at once. A write that gets no answer may be one that a lost link took
along; those that go unanswered over some seconds, with none between that is answered, are the server's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from jetway.core.errors import ExhaustedError, OutcomeUnknownError, UnavailableError
from jetway.ports import Clock

HOLDS_SECONDS = 60.0
"""After which a failure is old news: nobody has tried since."""
UNANSWERED_SECONDS = 4.0
"""Less than two writes take, one after the other, that are each waited for."""


class WriteWatch:
    """Remembers the failures since the last write that was taken."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._first: float | None = None
        self._last: float | None = None
        self._has_no_room = False

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Around a write."""
        try:
            yield
        except (ExhaustedError, OutcomeUnknownError) as error:
            self._failed(error)
            raise
        else:
            self._first = self._last = None
            self._has_no_room = False

    def _failed(self, error: UnavailableError) -> None:
        now = self._clock.monotonic()
        if self._last is None or now - self._last > HOLDS_SECONDS:
            self._first = now
            self._has_no_room = False
        self._last = now
        self._has_no_room = self._has_no_room or isinstance(error, ExhaustedError)

    def trouble(self) -> str:
        """Why writes fail; empty where none did lately."""
        if self._first is None or self._last is None:
            return ""
        ago = self._clock.monotonic() - self._last
        if ago > HOLDS_SECONDS:
            return ""
        if self._has_no_room:
            return f"NATS has no room: a write was refused {ago:.0f} s ago, and none was taken since"
        if self._last - self._first > UNANSWERED_SECONDS:
            return (
                f"NATS does not answer writes: the last was tried {ago:.0f} s ago, and none was taken since"
            )
        return ""
