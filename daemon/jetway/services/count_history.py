"""How many services there were over time, from the samples that the job `sample-counts` keeps in the database."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from jetway.core.counted import Point, Sampler
from jetway.core.errors import PortError, UnavailableError
from jetway.ports import Clock, RegistryDatabase

_KEPT_SECONDS = 60.0
_FAILURE_KEPT_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class CountWindow:
    """How far back one looks, and how finely."""

    name: str
    length: timedelta
    step: timedelta
    part: timedelta
    """What is asked of the database at once: some thousand rows, which are decoded on the event loop."""
    hourly: bool = True


WINDOWS = (
    CountWindow("24h", timedelta(days=1), timedelta(minutes=5), timedelta(hours=8), hourly=False),
    CountWindow("7d", timedelta(days=7), timedelta(hours=1), timedelta(days=4)),
    CountWindow("30d", timedelta(days=30), timedelta(hours=4), timedelta(days=4)),
    CountWindow("90d", timedelta(days=90), timedelta(hours=12), timedelta(days=4)),
)


@dataclass(frozen=True, slots=True)
class CountSeries:
    """The counts of one window: a point for every step, None where nothing was sampled."""

    window: CountWindow
    since: datetime
    until: datetime
    points: Sequence[Point | None]

    @property
    def newest(self) -> Point | None:
        """The last point that there is."""
        return next((point for point in reversed(self.points) if point), None)


@dataclass(slots=True)
class _Read:
    """What came of a reading, for everybody who asks within some seconds."""

    at: float
    found: CountSeries | PortError

    def is_fresh(self, now: float) -> bool:
        kept = _KEPT_SECONDS if isinstance(self.found, CountSeries) else _FAILURE_KEPT_SECONDS
        return now - self.at < kept


class CountHistory:
    """Reads series, one at a time, and keeps each for a minute."""

    def __init__(self, database: RegistryDatabase, clock: Clock, kept: timedelta) -> None:
        self._database = database
        self._clock = clock
        self._reads: dict[str, _Read] = {}
        self._reading = asyncio.Lock()
        self.windows = [window for window in WINDOWS if window.length <= kept] or list(WINDOWS[:1])
        """What may be asked for: no longer than samples are kept."""

    async def read(self, window: CountWindow) -> CountSeries:
        """The counts of a window until now. Raises UnavailableError while the database is away."""
        async with self._reading:
            read = self._reads.get(window.name)
            if read is None or not read.is_fresh(self._clock.monotonic()):
                found = await self._try(window)
                read = self._reads[window.name] = _Read(self._clock.monotonic(), found)
        if isinstance(read.found, PortError):
            raise UnavailableError(str(read.found)) from read.found
        return read.found

    async def _try(self, window: CountWindow) -> CountSeries | PortError:
        try:
            return await self._load(window)
        except PortError as error:
            return error

    async def _load(self, window: CountWindow) -> CountSeries:
        until = self._clock.now()
        since = _on_the_grid(until - window.length, window.step)
        sampler, begin = Sampler(since, until, window.step), since
        while begin < until:
            end = min(begin + window.part, until)
            sampler.take(await self._database.load_counts(begin, end, hourly=window.hourly))
            begin = end
        return CountSeries(window, since, until, sampler.points())


def _on_the_grid(moment: datetime, step: timedelta) -> datetime:
    """The end of the step that `moment` is in, so that steps are the same whenever one looks."""
    day = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    return day - (day - moment) // step * step
