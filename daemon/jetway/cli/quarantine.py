"""`jetway service quarantine`: services that registered themselves and wait."""

from __future__ import annotations

from typing import Annotated

import typer

from jetway.cli.client import connect, segment
from jetway.cli.options import IdArgument, JsonOption, LimitOption, TypeArgument
from jetway.cli.output import Column, ago, print_json, print_list

app = typer.Typer(no_args_is_help=True, help="Services that registered themselves and wait for your word.")

_PATH = "/api/admin/quarantine"
_COLUMNS = (
    Column("TYPE", lambda item: item["service_type"], whole=True),
    Column("ID", lambda item: item["service_id"]),
    Column("PARENT", lambda item: item["parent_id"] or "-"),
    Column("FROM", lambda item: item["source_ip"] or "-"),
    Column("VERSION", lambda item: item["version"] or "-"),
    Column("SINCE", lambda item: ago(item["registered_at"]), whole=True),
    Column("SEEN", lambda item: ago(item["last_heartbeat"]), whole=True),
)


@app.command("list")
def list_quarantine(
    rejected: Annotated[bool, typer.Option("--rejected", help="Those that were rejected.")] = False,
    limit: LimitOption = None,
    as_json: JsonOption = False,
) -> None:
    """List who waits, the oldest first; `service approve` and `service reject` decide."""
    answer = connect().all(_PATH, {"approval": "rejected" if rejected else "required"}, limit)
    print_list(answer, _COLUMNS, as_json=as_json, nothing="nobody waits")


@app.command()
def adopt(
    kind: TypeArgument,
    service_id: IdArgument,
    package: Annotated[
        str, typer.Argument(metavar="PACKAGE", help="The id of the package meant for it.", show_default=False)
    ],
    as_json: JsonOption = False,
) -> None:
    """Take the service for the one that a package was made for; the package is revoked."""
    answer = connect().repeat(f"{_PATH}/{kind}s/{segment(service_id)}/adopt", {"package_id": package})
    if as_json:
        print_json(answer)
    else:
        typer.echo(f"adopted: {answer['service_type']} {answer['service_id']} is {answer['label']}")
