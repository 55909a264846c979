"""`jetway keys`: the keys that encrypt secrets in the ledger."""

from __future__ import annotations

from dataclasses import asdict

import typer

from jetway.cli import local
from jetway.cli.options import ConfigOption, JsonOption, StateDirOption
from jetway.cli.output import print_json

app = typer.Typer(no_args_is_help=True, help="The keys that encrypt secrets in the ledger.")


@app.command()
def rotate(
    config: ConfigOption = None, state_dir: StateDirOption = None, as_json: JsonOption = False
) -> None:
    """Encrypt with a new key, and retire the old one. Stop the daemon first, all of them where there are several.

    Whatever interrupts it: run it again. Backups of before need the old key, so keep it with them.
    """
    settings = local.load_standing(config, state_dir)
    with local.startup_errors():
        from jetway import rotation

        done = asdict(rotation.rotate(settings))
    if as_json:
        print_json(done)
        return
    typer.echo(f"the key {done['key_id']} writes now; secrets encrypted anew: {done['resealed']}")
    retired = ", ".join(done["retired"])
    if not retired:
        return
    if done["by_hand"]:
        typer.echo(f"take the old key out of {done['file']}, wherever it stands: {retired}")
    else:
        typer.echo(f"taken out of {done['file']}: {retired}")


@app.command()
def generate() -> None:
    """Print a new key, for a file or a credential that you keep: `jetway keys generate >> vault.keys`."""
    import base64
    import secrets

    typer.echo(base64.b64encode(secrets.token_bytes(32)).decode())
