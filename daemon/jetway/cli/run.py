"""`jetway run`."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from jetway.cli.errors import CommandError
from jetway.cli.options import DirOption


def run(
    folder: DirOption,
    once: Annotated[
        bool, typer.Option("--once", help="Send one heartbeat, read the config, and end.")
    ] = False,
    beats: Annotated[
        int | None, typer.Option("--beats", min=1, help="End after so many heartbeats.", show_default="never")
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", help="Say more.")] = False,
) -> None:
    """Send heartbeats for the joined service and keep copies of its config in DIR/config.

    Reconnects for ever; SIGTERM ends it with a goodbye and exit status 0. A service that the gateway revoked
    or deleted stops its heartbeats, says so, and goes on by itself after a reissue; with --once or --beats it
    exits 1.
    """
    from jetway.edge.errors import EdgeError
    from jetway.edge.run import RunOptions, run_until_signal
    from jetway.logs import set_up_logs

    level: Literal["debug", "info"] = "debug" if verbose else "info"
    set_up_logs(level, "auto")
    try:
        code = run_until_signal(RunOptions(folder=folder.absolute(), beats=1 if once else beats))
    except EdgeError as error:
        raise CommandError(str(error)) from error
    except OSError as error:
        raise CommandError(f"cannot work in {folder}: {error.strerror or error}") from error
    raise typer.Exit(code)
