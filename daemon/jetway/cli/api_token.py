"""`jetway api-token`: tokens for the HTTP API."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any

import typer

from jetway.cli import local
from jetway.cli.client import connect, segment
from jetway.cli.options import ConfigOption, JsonOption, StateDirOption, YesOption, seconds
from jetway.cli.output import Column, ago, confirm, print_json, print_list

app = typer.Typer(no_args_is_help=True, help="Tokens for the HTTP API.")

PATH = "/api/admin/api-tokens"
ROLES = ("viewer", "operator", "admin")
_COLUMNS = (
    Column("NAME", lambda item: item["name"]),
    Column("ROLE", lambda item: item["role"], whole=True),
    Column("CREATED", lambda item: ago(item["created_at"]), whole=True),
    Column("BY", lambda item: item["created_by"]),
    Column("EXPIRES", lambda item: ago(item["expires_at"]) if item["expires_at"] else "never", whole=True),
    Column(
        "LAST USED",
        lambda item: ago(item["last_used_at"]) if item.get("last_used_at") else "never",
        whole=True,
    ),
)


def _role(text: str) -> str:
    if text not in ROLES:
        raise typer.BadParameter(f"must be one of {', '.join(ROLES)}")
    return text


@app.command()
def create(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Who uses it: it stands in the history.", show_default=False)
    ],
    role: Annotated[
        str, typer.Option("--role", parser=_role, metavar="ROLE", help="viewer, operator or admin.")
    ] = "viewer",
    expires: Annotated[
        int | None,
        typer.Option("--expires", parser=seconds, metavar="TIME", help="12h, 90d.", show_default="never"),
    ] = None,
    on_this_host: Annotated[
        bool, typer.Option("--local", help="On the daemon's host, without the HTTP API or a running daemon.")
    ] = False,
    config: ConfigOption = None,
    state_dir: StateDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Create a token. It is shown once."""
    if on_this_host:
        answer = _create_locally(name, role, expires, config, state_dir)
    else:
        answer = connect().post(PATH, {"name": name, "role": role, "expires_in_seconds": expires})
    if as_json:
        print_json(answer)
        return
    # The token alone on standard output: it can be put straight into a file or a variable.
    typer.echo(f"token {name!r} with role {role}, shown now and never again:", err=True)
    typer.echo(answer["token"])


@app.command("list")
def list_tokens(as_json: JsonOption = False) -> None:
    """List the tokens, without their secrets."""
    print_list(connect().get(PATH), _COLUMNS, as_json=as_json, nothing="no tokens")


@app.command()
def revoke(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its name.", show_default=False)],
    yes: YesOption = False,
) -> None:
    """End a token at once."""
    client = connect()
    confirm(f"Revoke the API token {name!r}?", yes=yes)
    client.delete(f"{PATH}/{segment(name)}")
    typer.echo("revoked")


def _create_locally(name: str, role: str, expires: int | None, config: Any, state_dir: Any) -> dict[str, Any]:
    settings = local.load_standing(config, state_dir)
    with local.startup_errors():
        from jetway import upkeep

        expires_in = None if expires is None else timedelta(seconds=expires)
        text = upkeep.create_token_locally(settings, name, role, expires_in)
    return {"token": text, "name": name, "role": role}
