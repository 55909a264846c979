"""What the demo shows: on a terminal a live tree with the newest events, elsewhere plain lines."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from jetway.cli.output import ago, service_trees, styled

_STEPS_SHOWN = 12


class View:
    """The screen. `say` adds a step; `show` replaces the tree and the events beneath it."""

    def __init__(self, *, live: bool) -> None:
        self._console = Console(highlight=False, markup=False, emoji=False)
        self._live: Live | None = None
        self._wants_live = live and sys.stdout.isatty()
        self._steps: deque[str] = deque(maxlen=_STEPS_SHOWN)
        self._tree: dict[str, Any] = {"items": []}
        self._events: list[dict[str, Any]] = []

    @contextmanager
    def shown(self) -> Iterator[View]:
        """Show it while the block runs."""
        if not self._wants_live:
            yield self
            self._print_tree()
            return
        with Live(self._render(), console=self._console, refresh_per_second=4) as self._live:
            yield self

    def say(self, step: str) -> None:
        """Something happened."""
        self._steps.append(step)
        if self._live:
            self._live.update(self._render())
        else:
            # Not wrapped: an address or a path is there to be copied.
            self._console.print(styled(step), soft_wrap=True)

    def show(self, tree: dict[str, Any], events: dict[str, Any] | None = None) -> None:
        """What the API answers now."""
        self._tree = tree
        self._events = events["items"] if events else self._events
        if self._live:
            self._live.update(self._render())

    def _print_tree(self) -> None:
        for tree in service_trees(self._tree):
            self._console.print(tree)

    def _render(self) -> RenderableType:
        parts: list[RenderableType] = [Text(f"• {step}") for step in self._steps]
        parts += [Padding(tree, (1, 0, 0, 0)) for tree in service_trees(self._tree)]
        if self._events:
            parts.append(Padding(self._event_table(), (1, 0, 0, 0)))
        return Group(*parts)

    def _event_table(self) -> Table:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        for heading in ("when", "event", "service", "by"):
            table.add_column(heading, no_wrap=True)
        for event in self._events:
            service = " ".join(filter(None, (event["service_type"], event["service_id"])))
            cells = (ago(event["timestamp"]), event["event_type"], service, event["actor"])
            table.add_row(*(styled(cell) for cell in cells))
        return table
