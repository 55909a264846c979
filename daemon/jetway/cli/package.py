"""`jetway package`: onboarding packages, over the HTTP API."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from jetway.cli.affected import preview_and_do
from jetway.cli.bulk import bulk
from jetway.cli.client import Client, connect, segment
from jetway.cli.errors import CommandError
from jetway.cli.events import print_events
from jetway.cli.options import (
    TYPES,
    CascadeOption,
    DryRunOption,
    JsonOption,
    LimitOption,
    ReasonOption,
    TypeArgument,
    YesOption,
    given,
    pairs,
    seconds,
    service_type,
)
from jetway.cli.output import Column, ago, confirm, print_fields, print_json, print_list

app = typer.Typer(no_args_is_help=True, help="Onboarding packages: one-time tokens and their history.")

PATH = "/api/admin/edge-packages"
PackageArgument = Annotated[
    str,
    typer.Argument(
        metavar="PACKAGE",
        help="The package's id, or TYPE/ID for a service's current one.",
        show_default=False,
    ),
]
TtlOption = Annotated[
    int | None,
    typer.Option("--token-ttl", parser=seconds, metavar="TIME", help="How long the token is good: 1h, 7d."),
]
TokenOnlyOption = Annotated[bool, typer.Option("--token-only", help="Print the token and nothing else.")]
NotesOption = Annotated[str, typer.Option("--notes", help="A note for yourselves.", show_default=False)]

_COLUMNS = (
    Column("PACKAGE", lambda item: item["package_id"], whole=True),
    Column("TYPE", lambda item: item["component_type"], whole=True),
    Column("SERVICE", lambda item: item["component_id"]),
    Column("STATUS", lambda item: item["status"], whole=True),
    Column("CREATED", lambda item: ago(item["created_at"]), whole=True),
)


app.command("bulk")(bulk)


@app.command()
def create(
    component_type: TypeArgument,
    label: Annotated[str, typer.Argument(metavar="LABEL", help="What people call it.", show_default=False)],
    component_id: Annotated[str, typer.Option("--id", help="Its id.", show_default="made of LABEL")] = "",
    parent: Annotated[
        str,
        typer.Option("--parent", help="The poller of an agent, the agent of a checker.", show_default=False),
    ] = "",
    site: Annotated[str, typer.Option("--site", help="Where it is.", show_default="its parent's")] = "",
    labels: Annotated[
        list[str] | None, typer.Option("--label", metavar="KEY=VALUE", help="A label; may repeat.")
    ] = None,
    metadata: Annotated[
        list[str] | None, typer.Option("--metadata", metavar="KEY=VALUE", help="Metadata; may repeat.")
    ] = None,
    checker_kind: Annotated[
        str, typer.Option("--checker-kind", help="What a checker checks with.", show_default=False)
    ] = "",
    checker_config: Annotated[
        Path | None,
        typer.Option(
            "--checker-config", help="A JSON file; `-`: standard input.", show_default="the kind's template"
        ),
    ] = None,
    spiffe_id: Annotated[str, typer.Option("--spiffe-id", help="Its SPIFFE id.", show_default=False)] = "",
    interval: Annotated[
        int | None,
        typer.Option("--heartbeat-interval", parser=seconds, metavar="TIME", help="30s, 5m."),
    ] = None,
    token_ttl: TtlOption = None,
    notes: NotesOption = "",
    token_only: TokenOnlyOption = False,
    as_json: JsonOption = False,
) -> None:
    """Create a package for a new service. Its token is shown once."""
    body = given(
        component_type=component_type,
        label=label,
        component_id=component_id,
        parent_id=parent,
        site=site,
        labels=pairs(labels, "--label"),
        metadata=pairs(metadata, "--metadata"),
        checker_kind=checker_kind,
        checker_config=read_json(checker_config),
        spiffe_id=spiffe_id,
        heartbeat_interval_seconds=interval,
        token_ttl_seconds=token_ttl,
        notes=notes,
    )
    _show_issued(connect().create(PATH, body), token_only=token_only, as_json=as_json)


@app.command("list")
def list_packages(
    status: Annotated[
        list[str] | None, typer.Option("--status", help="issued, activated, …; may repeat.")
    ] = None,
    component_type: Annotated[
        str | None,
        typer.Option("--type", parser=service_type, metavar="TYPE", help="poller, agent or checker."),
    ] = None,
    parent: Annotated[str, typer.Option("--parent", help="Beneath this parent.", show_default=False)] = "",
    site: Annotated[str, typer.Option("--site", help="At this site.", show_default=False)] = "",
    search: Annotated[
        str, typer.Option("--search", "-q", help="Part of id, label or site.", show_default=False)
    ] = "",
    limit: LimitOption = None,
    as_json: JsonOption = False,
) -> None:
    """List packages, newest first."""
    query = {
        "status": status,
        "component_type": component_type,
        "parent_id": parent,
        "site": site,
        "q": search,
    }
    print_list(connect().all(PATH, query, limit), _COLUMNS, as_json=as_json, nothing="no packages")


@app.command()
def show(package: PackageArgument, as_json: JsonOption = False) -> None:
    """Show one package, never with a secret."""
    client = connect()
    print_fields(client.get(_path(client, package)), as_json=as_json)


@app.command()
def events(package: PackageArgument, limit: LimitOption = None, as_json: JsonOption = False) -> None:
    """Show a package's history, newest first."""
    client = connect()
    print_events(client.all(f"{_path(client, package)}/events", {}, limit), as_json=as_json)


@app.command()
def revoke(
    package: PackageArgument,
    reason: ReasonOption = "",
    cascade: CascadeOption = True,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Revoke a package's service, and what lives beneath it."""
    client = connect()
    path = f"{_path(client, package)}/revoke"

    def act(dry: bool) -> dict[str, Any]:
        answer: dict[str, Any] = client.post(path, {"reason": reason, "cascade": cascade, "dry_run": dry})
        return answer

    preview_and_do(act, "Revoke?", dry_run=dry_run, yes=yes, as_json=as_json)


@app.command()
def reissue(
    package: PackageArgument,
    reason: ReasonOption = "",
    token_ttl: TtlOption = None,
    notes: NotesOption = "",
    revoke_now: Annotated[
        bool,
        typer.Option("--revoke-now", help="End the old identity now, not when the new token is redeemed."),
    ] = False,
    token_only: TokenOnlyOption = False,
    as_json: JsonOption = False,
) -> None:
    """Issue a new package for the same service, or the first for one without. The old token is dead at once."""
    client = connect()
    body = given(reason=reason, token_ttl_seconds=token_ttl, notes=notes) | {"revoke_now": revoke_now}
    issued = client.post(f"{_path(client, package, of_service=True)}/reissue", body)
    _show_issued(issued, token_only=token_only, as_json=as_json)


@app.command()
def delete(package: PackageArgument, yes: YesOption = False) -> None:
    """Delete a revoked or expired package."""
    client = connect()
    path = _path(client, package)
    confirm(f"Delete package {package}?", yes=yes)
    client.delete(path)
    typer.echo("deleted")


def read_json(file: Path | None) -> dict[str, Any] | None:
    """A JSON object from a file or standard input. Raises CommandError."""
    if file is None:
        return None
    try:
        text = typer.get_text_stream("stdin").read() if str(file) == "-" else file.read_text()
        value = json.loads(text)
    except OSError as error:
        raise CommandError(f"cannot read {file}: {error.strerror}") from error
    except ValueError as error:
        raise CommandError(f"{file} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise CommandError(f"{file} is not a JSON object")
    return value


def _path(client: Client, package: str, *, of_service: bool = False) -> str:
    """The package's address; with `of_service` that of TYPE/ID itself, which may have no package."""
    kind, slash, service_id = package.partition("/")
    if not slash:
        return f"{PATH}/{segment(package)}"
    if kind.removesuffix("s") not in TYPES:
        raise typer.BadParameter("must be a package's id, or TYPE/ID of a service", param_hint="PACKAGE")
    path = f"/api/admin/services/{kind.removesuffix('s')}s/{segment(service_id)}"
    if of_service:
        return path
    service = client.get(path)
    if not service["package_id"]:
        raise CommandError(f"{package} has no package: it came in by {service['registration_source']}")
    return f"{PATH}/{service['package_id']}"


def _show_issued(issued: dict[str, Any], *, token_only: bool, as_json: bool) -> None:
    if token_only:
        typer.echo(issued["token"])
        return
    if as_json:
        print_json(issued)
        return
    package = issued["package"]
    typer.echo(f"package  {package['package_id']}")
    typer.echo(f"service  {package['component_type']} {package['component_id']}")
    typer.echo(f"expires  {package['token_expires_at']} ({ago(package['token_expires_at'])})")
    typer.echo(f"\nThe token, shown now and never again:\n\n{issued['token']}\n")
    typer.echo("On the edge host, either of these asks for it:\n")
    for command in issued["install"].values():
        typer.echo(f"  {command}")
    queued = [part for part, state in issued["projection"].items() if state == "queued"]
    for part in queued:
        typer.echo(f"note: the {part} is queued; it is written when what is away comes back", err=True)
    for warning in issued.get("warnings", []):
        typer.echo(f"warning: {warning}", err=True)
