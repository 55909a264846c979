"""Drawing: series of counts as one SVG. Blocks for some ten milliseconds, so it is done on a thread.

Lines differ by their dashes, not by their colours alone. The image brings its colours for light and dark itself,
no script, and nothing that would be fetched from elsewhere.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pygal
from pygal.style import Style

from jetway.core.counted import STATUSES
from jetway.services.count_history import CountSeries

_WIDTH, _HEIGHT = 900, 300
_NARROW = 400
"""Wide: for phones, on which the other's words would be too small to read."""
_MIDNIGHT = datetime(2001, 1, 1, tzinfo=UTC)
_EVERY = {
    "24h": timedelta(hours=4),
    "7d": timedelta(days=1),
    "30d": timedelta(days=5),
    "90d": timedelta(days=15),
}
"""Between two labels of the time."""
_DOTS = 24
"""With so few points or less each is shown: one alone has no line."""
_LIGHT = "--paper:#fff;--ink:#1b2026;--soft:#58626d;--line:#dde1e6;"
_LIGHT_LINES = "--a:#8a5a00;--b:#1d7243;--c:#58626d;--d:#b3261e"
_DARK = "--paper:#1b2126;--ink:#e6eaee;--soft:#9ba7b3;--line:#303840;"
_DARK_LINES = "--a:#e6b450;--b:#6fcf97;--c:#9ba7b3;--d:#ff8a80"
_DASHES = ("6,4", "", "2,4", "10,3,2,3")
_RULES = (
    "svg{background:var(--paper)}"
    ".axis .guide.line,.axis .major.guide.line{stroke:var(--line);stroke-dasharray:none}"
    ".legend rect{fill:none;stroke-width:2}"
)
_STYLE = Style(
    background="var(--paper)",
    plot_background="var(--paper)",
    foreground="var(--soft)",
    foreground_strong="var(--ink)",
    foreground_subtle="var(--line)",
    guide_stroke_color="var(--line)",
    major_guide_stroke_color="var(--line)",
    colors=("var(--a)", "var(--b)", "var(--c)", "var(--d)"),
    font_family="system-ui, sans-serif",
    label_font_size=13,
    major_label_font_size=13,
    legend_font_size=14,
    no_data_font_size=16,
    title_font_size=13,
    opacity="1",
    stroke_opacity="1",
    stroke_width="2",
    transition="none",
)


def draw(series: CountSeries | None, theme: str, title: str, nothing: str, *, narrow: bool = False) -> bytes:
    """The chart as an SVG document. `nothing` is what stands there instead of lines while there is no point."""
    chart = pygal.Line(
        js=[],
        css=["file://style.css", "file://graph.css", f"inline:{_colours(theme)}{_RULES}{_dashed_legend()}"],
        style=_STYLE,
        width=_NARROW if narrow else _WIDTH,
        height=_HEIGHT,
        title=None,
        x_title="UTC",
        no_prefix=True,
        no_data_text=nothing,
        allow_interruptions=True,
        include_x_axis=True,
        order_min=0,
        show_minor_x_labels=False,
        truncate_label=-1,
        truncate_legend=-1,
        value_formatter=_whole,
        legend_at_bottom=narrow,
        legend_at_bottom_columns=4,
    )
    chart.add_xml_filter(lambda root: _bare(root, title))
    if series is not None and series.newest is not None:
        _fill(chart, series)
    return bytes(chart.render())


def _fill(chart: Any, series: CountSeries) -> None:
    points = series.points
    chart.show_dots = sum(1 for point in points if point) <= _DOTS
    moments = [series.since + number * series.window.step for number in range(len(points))]
    chart.x_labels = moments
    chart.x_labels_major = [
        moment for moment in moments if not (moment - _MIDNIGHT) % _EVERY[series.window.name]
    ]
    fine = not series.window.hourly
    chart.x_value_formatter = lambda moment: _moment(moment, fine=fine)
    for place, status in enumerate(STATUSES):
        values = [point.counts[place] if point else None for point in points]
        chart.add(status.value.capitalize(), values, stroke_style={"width": 2, "dasharray": _DASHES[place]})


def _colours(theme: str) -> str:
    light, dark = f"svg{{{_LIGHT}{_LIGHT_LINES}}}", f"svg{{{_DARK}{_DARK_LINES}}}"
    if theme == "dark":
        return dark
    return light if theme == "light" else f"{light}@media (prefers-color-scheme: dark){{{dark}}}"


def _dashed_legend() -> str:
    return "".join(
        f"#activate-serie-{number} rect{{stroke-dasharray:{dashes or 'none'}}}"
        for number, dashes in enumerate(_DASHES)
    )


def _bare(root: Any, title: str) -> Any:
    """Without what is for scripts: they, tooltips and comments."""
    for parent in list(root.iter()):
        for child in list(parent):
            if not isinstance(child.tag, str) or _is_for_scripts(child):
                parent.remove(child)
    for child in root:
        if child.tag.endswith("title"):
            child.text = title
    return root


def _is_for_scripts(node: Any) -> bool:
    name = node.tag.rpartition("}")[2]
    return name in ("script", "desc") or "tooltip-overlay" in node.get("class", "")


def _moment(moment: datetime, *, fine: bool) -> str:
    return moment.strftime("%H:%M" if fine else "%d %b")


def _whole(number: float) -> str:
    return f"{number:,.0f}".replace(",", "\N{NARROW NO-BREAK SPACE}")
