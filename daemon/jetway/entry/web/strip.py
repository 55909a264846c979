"""The strip: a service's last day, a column for every three minutes, with the same in words beside it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby

from jetway.core.spans import Span, SpanState
from jetway.services.past import LivenessPast

HOURS = 24
_COLUMNS = 480
_HEIGHT = 40
_TICKS = 4
_ROWS = 100
"""Of the table; with more only the newest are in it."""

# What shows where several states fall into one column: the gravest, so that no short outage is overlooked.
_GRAVITY = (
    SpanState.ONLINE,
    SpanState.NEVER,
    SpanState.UNKNOWN,
    SpanState.NOT_HEARD,
    SpanState.LATE,
    SpanState.OFFLINE,
)
_TITLES = {
    SpanState.ONLINE: "online",
    SpanState.LATE: "late",
    SpanState.OFFLINE: "offline",
    SpanState.NOT_HEARD: "the gateway did not hear",
    SpanState.UNKNOWN: "not known",
    SpanState.NEVER: "never heard",
}
# By height and pattern alone they can be told from one another, too.
_HEIGHTS = {
    SpanState.ONLINE: 40,
    SpanState.LATE: 28,
    SpanState.OFFLINE: 16,
    SpanState.NOT_HEARD: 40,
    SpanState.UNKNOWN: 40,
    SpanState.NEVER: 4,
}


@dataclass(frozen=True, slots=True)
class Bar:
    """Some columns of one state, in units of the drawing."""

    state: str
    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Row:
    """A span in words."""

    state: str
    title: str
    since: datetime
    until: datetime
    lasted: str


@dataclass(frozen=True, slots=True)
class Strip:
    """All that the template draws."""

    sentence: str
    bars: list[Bar]
    ticks: list[tuple[int, str]]
    """Where, and how long ago that was."""
    legend: list[tuple[str, str]]
    """The states that occur, with what they are called."""
    rows: list[Row]
    """The newest first."""
    left_out: int
    width: int = _COLUMNS
    height: int = _HEIGHT


def strip_of(past: LivenessPast) -> Strip:
    """A past of any length as a strip."""
    rows = [_row(span) for span in reversed(past.spans[-_ROWS:])]
    occurring = {span.state for span in past.spans}
    hours = round((past.until - past.since) / timedelta(hours=1))
    return Strip(
        sentence=_sentence(past, hours),
        bars=_bars(past),
        ticks=[_tick(number, hours) for number in range(_TICKS + 1)],
        legend=[(state.value, title) for state, title in _TITLES.items() if state in occurring],
        rows=rows,
        left_out=len(past.spans) - len(rows),
    )


def _bars(past: LivenessPast) -> list[Bar]:
    columns = [-1] * _COLUMNS
    for span in past.spans:
        first = math.floor(_column(past, span.since))
        last = min(_COLUMNS, max(first + 1, math.ceil(_column(past, span.until))))
        gravity = _GRAVITY.index(span.state)
        for number in range(first, last):
            columns[number] = max(columns[number], gravity)
    bars, x = [], 0
    for gravity, same in groupby(columns):
        width = len(list(same))
        if gravity >= 0:
            state = _GRAVITY[gravity]
            height = _HEIGHTS[state]
            bars.append(Bar(state.value, x, _HEIGHT - height, width, height))
        x += width
    return bars


def _column(past: LivenessPast, moment: datetime) -> float:
    return (moment - past.since) / (past.until - past.since) * _COLUMNS


def _tick(number: int, hours: int) -> tuple[int, str]:
    ago = hours * (_TICKS - number) // _TICKS
    return number * _COLUMNS // _TICKS, f"{ago} h ago" if ago else "now"


def _row(span: Span) -> Row:
    return Row(
        span.state.value, _TITLES[span.state], span.since, span.until, in_words(span.until - span.since)
    )


def _sentence(past: LivenessPast, hours: int) -> str:
    lasted = {SpanState(state): long for state, long in past.lasted().items()}
    judged = sum((lasted.get(state, timedelta()) for state in _JUDGED), timedelta())
    said = []
    if judged:
        share = _share(lasted.get(SpanState.ONLINE, timedelta()), judged)
        said.append(f"Online for {share} of the time in which it could be heard")
    else:
        said.append("It was not heard")
    outages = sum(1 for span in past.spans if span.state is SpanState.OFFLINE)
    if outages:
        times = "once" if outages == 1 else f"{outages} times"
        said.append(f"offline {times}, for {in_words(lasted[SpanState.OFFLINE])} in all")
    for state, words in _SILENT.items():
        if state in lasted:
            said.append(f"{words} {in_words(lasted[state])}")
    return f"The last {hours} hours: {'; '.join([said[0][:1].lower() + said[0][1:], *said[1:]])}."


_JUDGED = (SpanState.ONLINE, SpanState.LATE, SpanState.OFFLINE)
_SILENT = {
    SpanState.NOT_HEARD: "the gateway could not hear for",
    SpanState.UNKNOWN: "nothing is known of",
}


def _share(part: timedelta, whole: timedelta) -> str:
    """In percent; never 100 where something is missing."""
    tenths = math.floor(part / whole * 1000)
    return f"{tenths // 10} %" if tenths % 10 == 0 else f"{tenths / 10} %"


def in_words(long: timedelta) -> str:
    """`23 h 10 min`: in the two largest units that it has."""
    seconds = round(long.total_seconds())
    parts = []
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        number, seconds = divmod(seconds, size)
        if number:
            parts.append(f"{number} {unit}")
        elif parts:
            break
    return " ".join(parts[:2]) or "under 1 s"
