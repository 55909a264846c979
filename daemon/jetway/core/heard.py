"""When heartbeats could be heard: intervals of the wall clock. Silence counts only inside of them.

While the daemon was down, cut off from NATS or suspended nothing could be heard, so that time proves nothing about
anybody. Intervals are kept over restarts, and only as many as matter.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

MAX_INTERVALS = 2000
"""Interruptions remembered. With more the oldest interval goes: what is not known to be heard was not."""
SEAM = timedelta(seconds=1)
"""A shorter hole comes from the wall clock, which is set by small steps all the time."""


@dataclass(frozen=True, slots=True)
class Interval:
    """From `since` to `until` everything that was sent was heard."""

    since: datetime
    until: datetime


class Heard:
    """Intervals in order, none touching another."""

    def __init__(self, intervals: Iterable[Interval] = ()) -> None:
        self._since: list[datetime] = []
        self._until: list[datetime] = []
        self._sums: list[timedelta] = []
        """How much was heard before each, from any beginning: only differences are of use."""
        for interval in sorted(intervals, key=lambda interval: interval.since):
            self.add(interval.since, interval.until)

    def __len__(self) -> int:
        return len(self._since)

    @property
    def intervals(self) -> tuple[Interval, ...]:
        """All of them, the oldest first."""
        return tuple(map(Interval, self._since, self._until))

    def add(self, since: datetime, until: datetime) -> None:
        """From `since` to `until` all was heard; whatever that touches becomes one with it.

        The wall clock may have been set back: an interval that ends before it began says nothing.
        """
        if until <= since:
            return
        first = bisect_left(self._until, since)
        last = bisect_right(self._since, until)
        if first < last:
            since, until = min(since, self._since[first]), max(until, self._until[last - 1])
        self._since[first:last] = [since]
        self._until[first:last] = [until]
        self._sum_from(first)
        if len(self._since) > MAX_INTERVALS:
            self._forget(1)

    def _sum_from(self, number: int) -> None:
        """Nothing but the last changes as a rule, so that this is little."""
        del self._sums[number:]
        for at in range(number, len(self._since)):
            before = self._sums[at - 1] + self._until[at - 1] - self._since[at - 1] if at else timedelta()
            self._sums.append(before)

    def _forget(self, count: int) -> None:
        del self._since[:count], self._until[:count], self._sums[:count]

    def go_on(self, since: datetime, until: datetime) -> None:
        """The same as `add`, for what follows without a gap upon what was added last.

        A clock that was set ahead leaves a hole all the same: the time that it left out was not listened to.
        """
        if self._until and timedelta() < since - self._until[-1] <= SEAM:
            since = self._until[-1]
        self.add(since, until)

    def forget_before(self, moment: datetime, enough: timedelta) -> None:
        """What ended before `moment` is shown to nobody; it goes where more than `enough` was heard since.

        Who was last heard before all that is left has been silent for longer than `enough` all the same.
        """
        last = bisect_left(self._until, moment)
        if not last:
            return
        end = self._heard_until(self._until[-1])
        spared = bisect_left(self._sums, end - enough) - 1
        self._forget(max(0, min(last, spared)))

    def between(self, since: datetime, until: datetime) -> timedelta:
        """How much of the time from `since` to `until` was listened to."""
        if until <= since:
            return timedelta()
        return self._heard_until(until) - self._heard_until(since)

    def _heard_until(self, moment: datetime) -> timedelta:
        number = bisect_right(self._since, moment) - 1
        if number < 0:
            return self._sums[0] if self._sums else timedelta()
        return self._sums[number] + min(self._until[number], moment) - self._since[number]
