"""Whether this daemon may write what is derived: where several run, one leads and writes it.

Two that write at a time, for a moment, harm little: documents are compared and swapped, rows and events ordered by
(epoch, revision). But counts and lists of children have no revision of their own. A daemon that was stopped with a
write in hand and goes on after another one took over must not write them as they were then.
"""

from __future__ import annotations

from collections.abc import Callable

from jetway.core.errors import UnavailableError

TAKEOVER_SECONDS = 20.0
"""For so long whoever stands by keeps what the leading one should tell: it may have died before it did, and until
its lease runs out it seems to lead."""


class Fence:
    """Open until `leads` says no."""

    def __init__(self) -> None:
        self.leads: Callable[[], bool] = lambda: True
        self.another_leads: Callable[[], bool] = lambda: not self.leads()
        """Whether another daemon does, as far as is known: at times none does."""

    def require(self) -> None:
        """Raise UnavailableError where another daemon leads."""
        if not self.leads():
            raise UnavailableError("another daemon leads, or none: what is derived is not written here")
