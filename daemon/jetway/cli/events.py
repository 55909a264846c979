"""Histories: how events look in every command that lists them."""

from __future__ import annotations

from typing import Any

from jetway.cli.output import Column, ago, print_list


def _change(item: dict[str, Any]) -> str:
    before, after = item.get("from_status"), item.get("to_status")
    return f"{before or 'none'} > {after}" if after and before != after else ""


_COLUMNS = (
    Column("WHEN", lambda item: ago(item["timestamp"]), whole=True),
    Column("EVENT", lambda item: item["event_type"], whole=True),
    Column("BY", lambda item: item["actor"]),
    Column("STATUS", _change),
    Column("REASON", lambda item: item["reason"]),
)


def print_events(answer: dict[str, Any], *, as_json: bool) -> None:
    """A history, newest first."""
    print_list(answer, _COLUMNS, as_json=as_json, nothing="no events")
