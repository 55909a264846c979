"""`jetway reconcile` and `jetway reproject`: what is derived from the ledger, over the HTTP API."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

from jetway.cli.client import connect
from jetway.cli.errors import CommandError
from jetway.cli.options import JsonOption
from jetway.cli.output import print_fields, print_json

if TYPE_CHECKING:
    from rich.progress import Progress

_POLL_SECONDS = 0.25
_REPROJECT = "/api/admin/reproject"


def reconcile(as_json: JsonOption = False) -> None:
    """Compare documents, rows and the audit trail with the ledger, and mend what differs.

    Exits 1 when something could not be compared or mended, or a gap in the audit trail stays open.
    """
    report = connect().post("/api/admin/reconcile", long=True)
    if as_json:
        print_json(report)
    else:
        lists = {name: report.pop(name) for name in ("findings", "errors")}
        print_fields(report, as_json=False)
        for line in (*lists["findings"], *(f"error: {error}" for error in lists["errors"])):
            typer.echo(line)
        report |= lists
    if report["errors"] or report["gaps_open"]:
        raise typer.Exit(1)


def reproject(as_json: JsonOption = False) -> None:
    """Write all documents and rows anew from the ledger, and wait until that is done.

    A checker's configuration that a person changed is kept.
    """
    client = connect()
    state = client.post(_REPROJECT)
    with _bar(hidden=as_json) as bar:
        task = bar.add_task("services", total=None) if bar else None
        while state["state"] == "running":
            time.sleep(_POLL_SECONDS)
            state = client.get(_REPROJECT)
            if bar and task is not None:
                bar.update(task, completed=state["done"], total=state["total"])
    _tell(state, as_json=as_json)


def _tell(state: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(state)
    if state["state"] == "done":
        if not as_json:
            typer.echo(f"rewrote {state['done']} services: {state['written']} rows and documents written")
        return
    reason = state["error"] or "the daemon was restarted meanwhile"
    raise CommandError(f"stopped after {state['done']} of {state['total']} services: {reason}")


@contextmanager
def _bar(*, hidden: bool) -> Iterator[Progress | None]:
    """A progress bar on a terminal, nothing elsewhere."""
    if hidden or not sys.stdout.isatty():
        yield None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as bar:
        yield bar
