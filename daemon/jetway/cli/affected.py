"""Changes that reach further than one service: shown first, asked about, then done."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import typer

from jetway.cli.output import Column, confirm, print_json, print_list

_COLUMNS = (
    Column("TYPE", lambda item: item["service_type"], whole=True),
    Column("ID", lambda item: item["service_id"]),
    Column("FROM", lambda item: item["status_before"], whole=True),
    Column("TO", lambda item: item["status_after"], whole=True),
)


def preview_and_do(
    act: Callable[[bool], dict[str, Any] | None],
    question: str,
    *,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """`act(True)` tells what would happen, `act(False)` does it."""
    if dry_run:
        preview = act(True) or {}
        show(preview, as_json=as_json)
        return
    if not yes and not as_json:
        preview = act(True) or {}
        typer.echo("this would change:")
        show(preview, as_json=False)
        confirm(question, yes=False)
    done = act(False)
    if as_json:
        print_json(done)
    elif done is None:
        typer.echo("done")
    else:
        count = len(done["services"])
        typer.echo(f"done: {count} service{'' if count == 1 else 's'} changed")
        if not done.get("complete", True):
            typer.echo("what lives beneath is being taken out in the background")


def show(answer: dict[str, Any], *, as_json: bool) -> None:
    """The services that a change touches."""
    if as_json:
        print_json(answer)
        return
    print_list(
        {"items": answer.get("services", [])}, _COLUMNS, as_json=False, nothing="nothing: it is so already"
    )
