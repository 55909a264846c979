"""`jetway backup` and `jetway restore`: on the daemon's own host, into one file and back."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from jetway.cli import local
from jetway.cli.options import ConfigOption, StateDirOption
from jetway.cli.output import print_json
from jetway.cli.progress import counting

FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="The backup.", show_default=False)]
_VAULT_KEYS = "keys/vault.keys"
_JsonOption = Annotated[bool, typer.Option("--json", help="Print the report as JSON.")]


def backup(
    file: FileArgument,
    replace: Annotated[bool, typer.Option("--replace", help="Write over FILE if it exists.")] = False,
    config: ConfigOption = None,
    state_dir: StateDirOption = None,
    as_json: _JsonOption = False,
) -> None:
    """Write ledger, config documents, audit trail, API tokens and keys into FILE, which holds secrets.

    The daemon may go on meanwhile.
    """
    settings = local.load_standing(config, state_dir)
    with local.startup_errors():
        from jetway import backups

        report = asdict(backups.backup(settings, file, replace=replace))
    if as_json:
        print_json(report)
        return
    _tell(f"backed up the ledger {report['ledger_id']}", report)
    typer.echo(f"{report['file']}: {report['bytes']:,} bytes, read back and found whole; it holds secrets")
    if _VAULT_KEYS not in report["files"]:
        typer.echo(
            "the keys that seal stored secrets are not in it, as they are not in the state directory: back up"
            " vault.key_file, or systemd's credential, as well",
            err=True,
        )
    if report["trail_lacks"]:
        typer.echo(
            f"the audit trail is {report['trail_lacks']} changes behind: these are not in it", err=True
        )


def restore(
    file: FileArgument,
    discard: Annotated[
        str,
        typer.Option(
            "--in-place-of",
            metavar="LEDGER",
            help="The id of the ledger that stands there and is to be set aside.",
            show_default=False,
        ),
    ] = "",
    config: ConfigOption = None,
    state_dir: StateDirOption = None,
    as_json: _JsonOption = False,
) -> None:
    """Restore FILE into an empty state directory, with no daemon running, and check what was restored.

    The ledger goes on in a new epoch; documents and rows follow it when the daemon starts.
    """
    settings = local.load_standing(config, state_dir)
    with local.startup_errors():
        from jetway import backups

        with counting(hidden=as_json) as told:
            report = asdict(backups.restore(settings, file, discard=discard, told=told))
    if as_json:
        print_json(report)
        return
    _tell(f"restored the ledger {report['ledger_id']} of {report['backup_created_at']}", report)
    typer.echo(f"it is in {report['state_dir']}")
    typer.echo(f"counts and hashes agree; its epoch is {report['epoch']} now")
    if report["set_aside"]:
        typer.echo(f"what stood there before is in {report['set_aside']}")
    typer.echo("start the daemon: it writes documents and rows anew")


def _tell(first: str, report: dict[str, Any]) -> None:
    typer.echo(first)
    for section, count in report["keys"].items():
        typer.echo(f"  {section:<12} {count:>9,}")
    typer.echo(f"  {'files':<12} {len(report['files']):>9,}")
