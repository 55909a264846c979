"""Keeps Python's garbage collector from stalling the event loop.

Nearly all objects of the daemon are records, which live long and hold no cycles, yet a full collection looks at
each of them: at 100,000 services that takes a fifth of a second and more. So what has come to stay is set aside
from time to time (`gc.freeze`), and a full collection looks at what came since.
"""

from __future__ import annotations

import gc

_YOUNG, _MIDDLE, _OLD = 5_000, 10, 100
"""Python's 700, 10, 10 makes a full collection of every tenth thousand objects that stay."""
_CHANGES = 5_000
"""So many records, all new, are looked at in about ten milliseconds."""


class Collector:
    """Says when to collect."""

    def __init__(self) -> None:
        self._changes = 0

    def begin(self) -> None:
        """Collect less often from now on."""
        gc.set_threshold(_YOUNG, _MIDDLE, _OLD)

    def count(self, *_changed: object) -> None:
        """A record changed: what it was is gone, what it is stays."""
        self._changes += 1

    def settle_if_due(self) -> bool:
        """Set aside what has come to stay, once there is enough of it; whether there was."""
        if self._changes < _CHANGES:
            return False
        self.settle()
        return True

    def settle(self) -> None:
        """Set aside what has come to stay."""
        self._changes = 0
        gc.collect()
        gc.freeze()
