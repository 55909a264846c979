"""Time and randomness."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol


class Clock(Protocol):
    """Time. `now` is aware and in UTC; `monotonic` is in seconds and never jumps."""

    def now(self) -> datetime:
        """The wall clock."""
        ...

    def monotonic(self) -> float:
        """Seconds since some moment; counts on while the wall clock is set."""
        ...


class Identifiers(Protocol):
    """Randomness, as ids."""

    def new_id(self) -> str:
        """A random UUID in canonical text form."""
        ...
