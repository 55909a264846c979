"""The system's clock and randomness."""

from __future__ import annotations

import time
import uuid
from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _boot_time() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


# Python's own monotonic clock stands still on Linux while the machine is suspended; elsewhere it goes on.
_seconds = _boot_time if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic


class SystemClock:
    """Implements `ports.Clock`."""

    def __init__(self) -> None:
        self._told = (-1, _EPOCH)

    def now(self) -> datetime:
        """The wall clock in UTC, cut to milliseconds: what is decided on equals what will be stored."""
        milliseconds = time.time_ns() // 1_000_000
        # Dozens of heartbeats come within one; to make the time of each was a tenth of what they cost.
        told = self._told
        if told[0] != milliseconds:
            self._told = told = (milliseconds, _EPOCH + timedelta(milliseconds=milliseconds))
        return told[1]

    def monotonic(self) -> float:
        """Seconds since some moment. They go on while the machine is suspended, so that this shows as a gap."""
        return _seconds()


class RandomIdentifiers:
    """Implements `ports.Identifiers`."""

    def new_id(self) -> str:
        """A random UUID (version 4) in canonical text form."""
        return str(uuid.uuid4())
