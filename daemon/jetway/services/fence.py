"""Whether this daemon may write what is derived: where several run, one leads and writes it.

Two that write at a time, for a moment, harm little: documents are compared and swapped, rows and events ordered by
(epoch, revision). But counts and lists of children have no revision of their own. A daemon that was stopped with a
write in hand and goes on after another one took over must not write them as they were then.
"""

from __future__ import annotations

from collections.abc import Callable

from jetway.core.errors import UnavailableError


class Fence:
    """Open until `leads` says no."""

    def __init__(self) -> None:
        self.leads: Callable[[], bool] = lambda: True

    def require(self) -> None:
        """Raise UnavailableError where another daemon leads."""
        if not self.leads():
            raise UnavailableError("another daemon leads, or none: what is derived is not written here")
