"""Counted: samples of how many services there were, as series with one point for each step of time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from jetway.core.record import ServiceStatus
from jetway.core.rows import CountSample

STATUSES = (ServiceStatus.PENDING, ServiceStatus.ACTIVE, ServiceStatus.INACTIVE, ServiceStatus.REVOKED)
"""What there is a series of: deleted services are no services any more."""


@dataclass(frozen=True, slots=True)
class Point:
    """How many services of all types there were at `at`, by status in the order of STATUSES."""

    at: datetime
    counts: tuple[int, ...]


class Sampler:
    """Takes samples in, a part at a time, and keeps the last ones of every step, so that memory is bounded."""

    def __init__(self, since: datetime, until: datetime, step: timedelta) -> None:
        self._since = since
        self._step = step
        self._points: list[Point | None] = [None] * max(0, -((since - until) // step))

    def take(self, samples: Iterable[CountSample]) -> None:
        """Samples in order. All of one moment must come in one part."""
        at: datetime | None = None
        counts: dict[str, int] = {}
        for sample in samples:
            if sample.sampled_at != at:
                self._put(at, counts)
                at, counts = sample.sampled_at, {}
            counts[sample.status] = counts.get(sample.status, 0) + sample.service_count
        self._put(at, counts)

    def points(self) -> list[Point | None]:
        """One for each step, None where nothing was sampled."""
        return list(self._points)

    def _put(self, at: datetime | None, counts: dict[str, int]) -> None:
        if at is None:
            return
        place = (at - self._since) // self._step
        if 0 <= place < len(self._points):
            self._points[place] = Point(at, tuple(counts.get(status.value, 0) for status in STATUSES))
