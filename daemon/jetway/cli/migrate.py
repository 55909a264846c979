"""`jetway migrate`."""

from __future__ import annotations

from typing import Annotated

import typer

from jetway.cli import local
from jetway.cli.options import ConfigOption, JsonOption, StateDirOption
from jetway.cli.output import print_json


def migrate(
    status: Annotated[bool, typer.Option("--status", help="Only show what is pending.")] = False,
    config: ConfigOption = None,
    state_dir: StateDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Bring the registry database to the current schema."""
    settings = local.load_standing(config, state_dir)
    with local.startup_errors():
        from jetway import upkeep

        names = upkeep.migrate(settings, status=status)
    if as_json:
        print_json({"items": list(names), "next_cursor": None, "total": len(names)})
        return
    for name in names:
        typer.echo(f"{'pending' if status else 'applied'}  {name}")
    if not names:
        typer.echo("the schema is current")
