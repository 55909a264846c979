"""`jetway serve`."""

from __future__ import annotations

import typer

from jetway.cli import local
from jetway.cli.options import ConfigOption, StateDirOption


def serve(config: ConfigOption = None, state_dir: StateDirOption = None) -> None:
    """Run the daemon in the foreground; SIGTERM stops it cleanly."""
    settings = local.load(config, state_dir)
    with local.startup_errors():
        from jetway import serving

        raise typer.Exit(serving.run(settings))
