"""What commands print: tables for people at 80 columns, the API's JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text
    from rich.tree import Tree

_STYLES = {
    "active": "green",
    "activated": "green",
    "online": "green",
    "granted": "green",
    "pending": "yellow",
    "issued": "yellow",
    "delivered": "yellow",
    "late": "yellow",
    "required": "yellow",
    "inactive": "red",
    "offline": "red",
    "revoked": "red",
    "rejected": "red",
    "expired": "red",
    "deleted": "bright_black",
    "superseded": "bright_black",
    "never": "bright_black",
}
_UNITS = (("d", 86_400), ("h", 3600), ("m", 60), ("s", 1))


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table: its heading, and how an item becomes a cell."""

    heading: str
    cell: Callable[[dict[str, Any]], object]
    whole: bool = False
    """Never broken over lines."""


def print_json(value: Any) -> None:
    """The API's answer."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_list(answer: dict[str, Any], columns: Sequence[Column], *, as_json: bool, nothing: str) -> None:
    """A list as a table, or as JSON."""
    if as_json:
        print_json(answer)
        return
    items = answer["items"]
    if not items:
        typer.echo(nothing)
        return
    _console().print(_table(items, columns))
    if answer.get("total", 0) > len(items):
        typer.echo(f"{len(items)} of {answer['total']}", err=True)


def print_fields(item: dict[str, Any], *, as_json: bool) -> None:
    """One object, a field a line; empty fields are left out."""
    if as_json:
        print_json(item)
        return
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in item.items():
        if value not in (None, "", {}, []):
            table.add_row(styled(name.replace("_", " "), "bold"), styled(_field(name, value)))
    _console().print(table)


def print_tree(answer: dict[str, Any]) -> None:
    """The hierarchy of services."""
    console = _console()
    for tree in service_trees(answer):
        console.print(tree)
    if not answer["items"]:
        typer.echo("no services yet")


def service_trees(answer: dict[str, Any]) -> list[Tree]:
    """A tree for each root of the hierarchy."""
    from rich.tree import Tree

    trees = []
    for root in answer["items"]:
        tree = Tree(_node(root))
        _grow(tree, root["children"])
        trees.append(tree)
    return trees


def styled(text: object, style: str | None = None) -> Text:
    """Text as it is: no markup, no control characters from elsewhere, a colour where the word has one."""
    from rich.text import Text

    from jetway.edge.exchange import plain

    shown = plain(str(text))
    return Text(shown, style=style or _STYLES.get(shown, ""))


def ago(moment: str | None, now: datetime | None = None) -> str:
    """`3m ago`, `in 23h`, or `-`."""
    if not moment:
        return "-"
    try:
        seconds = ((now or datetime.now(UTC)) - datetime.fromisoformat(moment)).total_seconds()
    except (ValueError, TypeError):
        return moment
    for unit, length in _UNITS:
        if abs(seconds) >= length:
            count = int(abs(seconds) // length)
            return f"{count}{unit} ago" if seconds > 0 else f"in {count}{unit}"
    return "now"


def confirm(question: str, *, yes: bool) -> None:
    """Ask on a terminal; a script has already decided. Ends the command with 1 where the answer is no."""
    if yes or not _on_a_terminal():
        return
    if not typer.confirm(question):
        typer.echo("nothing was changed")
        raise typer.Exit(1)


def _on_a_terminal() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty()


def _console() -> Console:
    from rich.console import Console

    return Console(highlight=False, markup=False, emoji=False)


def _table(items: list[dict[str, Any]], columns: Sequence[Column]) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(column.heading, no_wrap=column.whole, overflow="fold")
    for item in items:
        table.add_row(*(styled(column.cell(item)) for column in columns))
    return table


def _field(name: str, value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}={_field('', item)}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(_field("", item) for item in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str) and name.endswith(("_at", "_seen", "_registered")):
        return f"{value} ({ago(value)})"
    return str(value)


def _grow(tree: Any, children: list[dict[str, Any]]) -> None:
    for child in children:
        _grow(tree.add(_node(child)), child["children"])


def _node(node: dict[str, Any]) -> Text:
    from rich.text import Text

    parts = [styled(node["service_type"], "bright_black"), styled(node["service_id"], "bold")]
    parts.append(styled(node["status"]))
    if node["status"] in ("active", "inactive"):
        parts.append(styled(node["liveness"]))
    if node.get("approval") == "required":
        parts.append(styled("approval required", "yellow"))
    if node.get("healthy") is False:
        parts.append(styled("unhealthy", "red"))
    return Text(" ").join(parts)
