"""`jetway audit`: whether somebody changed the audit trail."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from jetway.cli import local
from jetway.cli.client import connect
from jetway.cli.errors import CommandError
from jetway.cli.options import ConfigOption, JsonOption, StateDirOption
from jetway.cli.output import print_json
from jetway.cli.progress import counting

app = typer.Typer(no_args_is_help=True, help="The audit trail.")
_EXPORT = "/api/admin/events/export"


@app.callback()
def _group() -> None:
    """The audit trail."""


@app.command()
def export(
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="A new file, mode 0600.", show_default="standard output"),
    ] = None,
    since: Annotated[str, typer.Option(help="RFC 3339: 2026-11-01T00:00:00Z.", show_default=False)] = "",
    until: Annotated[str, typer.Option(help="RFC 3339; not included.", show_default=False)] = "",
    event_type: Annotated[
        list[str] | None, typer.Option("--type", help="Only these event types.", show_default=False)
    ] = None,
) -> None:
    """Write the audit trail as JSON lines, newest first. That it was exported is in the trail itself."""
    query = {"since": since or None, "until": until or None, "type": event_type or None}
    client = connect()
    if output is None:
        client.stream(_EXPORT, query, sys.stdout.buffer.write)
        sys.stdout.buffer.flush()
        return
    try:
        descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise CommandError(f"{output} cannot be written: {error.strerror}") from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            client.stream(_EXPORT, query, file.write)
    except BaseException as error:
        output.unlink()  # half an export would pass for a whole one
        if isinstance(error, OSError):
            raise CommandError(f"{output} cannot be written: {error.strerror}") from error
        raise


@app.command()
def verify(
    public_key: Annotated[
        Path | None,
        typer.Option(help="The checkpoints' public key, kept elsewhere.", show_default=False),
    ] = None,
    checkpoints: Annotated[
        Path | None,
        typer.Option(help="A directory of checkpoints, kept elsewhere.", show_default=False),
    ] = None,
    config: ConfigOption = None,
    state_dir: StateDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Follow every record's chain, check the checkpoints, and name what does not fit; then exit with 1.

    Runs on the daemon's own host. The daemon may go on meanwhile.
    """
    settings = local.load_standing(config, state_dir)
    with local.startup_errors():
        from jetway import audits

        with counting(hidden=as_json) as told:
            done = audits.verify(
                settings,
                public_key=public_key,
                checkpoints=checkpoints,
                told=lambda entries: told("trail", entries),
            )
    if as_json:
        print_json(asdict(done))
    else:
        for note in done.notes:
            typer.echo(f"note: {note}")
        for finding in done.findings:
            typer.echo(finding, err=True)
        if done.breaks > len(done.findings):
            typer.echo(f"and {done.breaks - len(done.findings)} more", err=True)
        verdict = f"{done.breaks} breaks" if done.breaks else "whole"
        typer.echo(
            f"{verdict}: {done.entries:,} entries, {done.revisions:,} revisions of {done.records:,} records,"
            f" {done.checkpoints} checkpoints"
        )
    if done.breaks:
        raise typer.Exit(1)
