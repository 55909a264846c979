"""Charts: how many services there were over time, as an image of its own and as a table for the overview."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from aiohttp import web

from jetway.core.counted import STATUSES, Point
from jetway.core.errors import PortError
from jetway.entry.http.doors import Doors
from jetway.entry.http.problems import FieldError, invalid_fields
from jetway.entry.web.drawing import draw
from jetway.entry.web.pages import page
from jetway.entry.web.visit import THEMES, Visit, theme_of
from jetway.services.count_history import CountHistory, CountSeries, CountWindow

CHART = "/ui/charts/services.svg"
POLICY = "default-src 'none'; style-src 'unsafe-inline'; sandbox"
"""Of the image alone: its style is inside of it. Nothing is run and nothing is fetched."""
AWAY = "The database is away, so the past cannot be read. It comes back by itself."
_NAMES = {"24h": "24 hours", "7d": "7 days", "30d": "30 days", "90d": "90 days"}
_DRAWN = 24
"""Images kept: every window in every theme, wide and narrow."""
_ROWS = 24
_KEPT_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Charted:
    """The chart as the overview shows it."""

    window: str
    title: str
    windows: list[tuple[str, str]]
    away: bool
    image: str
    """Its address; empty while there is no point to draw."""
    statuses: list[str]
    rows: list[Point]
    """The newest first."""


class ChartPages:
    """The image, and what the overview says beside it."""

    def __init__(self, doors: Doors) -> None:
        self._history: CountHistory = doors.counts
        self._drawn: OrderedDict[tuple[str, str, bool], tuple[CountSeries | None, bytes]] = OrderedDict()

    @page("GET", CHART)
    async def image(self, visit: Visit) -> web.StreamResponse:
        """Services over time by status. `window`; `theme` where the reader chose one; `size=narrow` for phones."""
        window = self._window(visit)
        theme = visit.request.query.get("theme", "")
        series = await self._series(window)
        narrow = visit.request.query.get("size") == "narrow"
        body = await self._draw(window, series, theme if theme in THEMES else "", narrow=narrow)
        age = _KEPT_SECONDS if series else 0
        headers = {"Content-Security-Policy": POLICY, "Cache-Control": f"private, max-age={age}"}
        return web.Response(body=body, content_type="image/svg+xml", headers=headers)

    async def charted(self, visit: Visit) -> Charted:
        """What the overview shows: the image's address changes with what it holds."""
        window = self._window(visit)
        series = await self._series(window)
        newest = series.newest if series else None
        asked = {"window": window.name}
        if theme := theme_of(visit.request):
            asked["theme"] = theme
        if newest:
            asked["newest"] = str(int(newest.at.timestamp()))
        return Charted(
            window=window.name,
            title=_title(window),
            windows=[(each.name, _NAMES[each.name]) for each in self._history.windows],
            away=series is None,
            image=f"{CHART}?{urlencode(asked)}" if newest else "",
            statuses=[status.value for status in STATUSES],
            rows=_rows(series.points) if series else [],
        )

    def _window(self, visit: Visit) -> CountWindow:
        windows = {window.name: window for window in self._history.windows}
        asked = visit.request.query.get("window") or "24h"
        if asked not in windows:
            detail = f"window is one of {', '.join(windows)}"
            raise invalid_fields(422, detail, [FieldError(field="window", message=detail)])
        return windows[asked]

    async def _series(self, window: CountWindow) -> CountSeries | None:
        """None while the database is away."""
        try:
            return await self._history.read(window)
        except PortError:
            return None

    async def _draw(
        self, window: CountWindow, series: CountSeries | None, theme: str, *, narrow: bool
    ) -> bytes:
        key = (window.name, theme, narrow)
        drawn = self._drawn.get(key)
        if drawn is None or drawn[0] is not series:
            nothing = "There is no point yet." if series else AWAY
            body = await asyncio.to_thread(draw, series, theme, _title(window), nothing, narrow=narrow)
            drawn = self._drawn[key] = (series, body)
            if len(self._drawn) > _DRAWN:
                self._drawn.popitem(last=False)
        return drawn[1]


def _title(window: CountWindow) -> str:
    return f"Services by status over the last {_NAMES[window.name]}"


def _rows(points: Sequence[Point | None]) -> list[Point]:
    """Some of them, evenly, and the newest in any case."""
    known = [point for point in points if point]
    every = -(-len(known) // _ROWS) or 1
    return known[::-1][::every]
