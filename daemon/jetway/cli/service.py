"""`jetway service`: the registry, over the HTTP API."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from jetway.cli.affected import preview_and_do
from jetway.cli.client import connect, segment
from jetway.cli.events import print_events
from jetway.cli.options import (
    TYPES,
    CascadeOption,
    DryRunOption,
    IdArgument,
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
from jetway.cli.output import Column, ago, confirm, print_fields, print_json, print_list, print_tree
from jetway.cli.package import read_json
from jetway.cli.quarantine import app as quarantine_app
from jetway.cli.service_watch import watch

app = typer.Typer(no_args_is_help=True, help="The registry of pollers, agents and checkers.")
app.add_typer(quarantine_app, name="quarantine")
app.command("watch")(watch)

_COLUMNS = (
    Column("TYPE", lambda item: item["service_type"], whole=True),
    Column("ID", lambda item: item["service_id"]),
    Column("PARENT", lambda item: item["parent_id"] or "-"),
    Column("STATUS", lambda item: _status(item)),
    Column("LIVENESS", lambda item: item["liveness"], whole=True),
    Column("SEEN", lambda item: ago(item["last_seen"]), whole=True),
)


@app.command("list")
def list_services(
    kind: Annotated[
        str | None,
        typer.Argument(
            parser=service_type, metavar="TYPE", help="poller, agent or checker.", show_default="all"
        ),
    ] = None,
    status: Annotated[
        list[str] | None, typer.Option("--status", help="active, revoked, …; may repeat.")
    ] = None,
    source: Annotated[list[str] | None, typer.Option("--source", help="How it came in; may repeat.")] = None,
    liveness: Annotated[
        list[str] | None, typer.Option("--liveness", help="online, late, …; may repeat.")
    ] = None,
    site: Annotated[str, typer.Option("--site", help="At this site.", show_default=False)] = "",
    label: Annotated[
        list[str] | None,
        typer.Option("--label", metavar="SELECTOR", help="key=value, key, key!=value, !key; may repeat."),
    ] = None,
    parent: Annotated[str, typer.Option("--parent", help="Beneath this parent.", show_default=False)] = "",
    search: Annotated[
        str, typer.Option("--search", "-q", help="Part of id, label or site.", show_default=False)
    ] = "",
    sort: Annotated[
        str,
        typer.Option(
            "--sort", help="A field such as last_seen; -last_seen turns it round.", show_default="id"
        ),
    ] = "",
    with_deleted: Annotated[bool, typer.Option("--with-deleted", help="Deleted ones as well.")] = False,
    limit: LimitOption = None,
    as_json: JsonOption = False,
) -> None:
    """List services of one type, or of all."""
    client = connect()
    query = {
        "status": status,
        "source": source,
        "liveness": liveness,
        "site": site,
        "label": label,
        "parent_id": parent,
        "q": search,
        "sort": sort,
        "with_deleted": with_deleted or None,
    }
    if kind is not None:
        answer = client.all(_path(kind), query, limit)
    else:
        answer = {"items": [], "next_cursor": None, "total": 0}
        for each in TYPES:
            left = None if limit is None else max(1, limit - len(answer["items"]))
            part = client.all(_path(each), query, left)
            answer["items"] += part["items"]
            answer["total"] += part["total"]
        answer["items"] = answer["items"][:limit]
    print_list(answer, _COLUMNS, as_json=as_json, nothing="no services")


@app.command()
def tree(
    root: Annotated[
        str, typer.Option("--root", metavar="TYPE.ID", help="What stands beneath it.", show_default="all")
    ] = "",
    depth: Annotated[int, typer.Option("--depth", min=1, max=3, help="How many levels.")] = 3,
    as_json: JsonOption = False,
) -> None:
    """Show the hierarchy: pollers with their agents with their checkers."""
    query = {"root": root, "depth": depth if depth != 3 else None}
    answer = connect().get("/api/admin/services/tree", query)
    if as_json:
        print_json(answer)
    else:
        print_tree(answer)


@app.command()
def show(kind: TypeArgument, service_id: IdArgument, as_json: JsonOption = False) -> None:
    """Show one service."""
    print_fields(connect().get(_path(kind, service_id)), as_json=as_json)


@app.command()
def events(
    kind: TypeArgument, service_id: IdArgument, limit: LimitOption = None, as_json: JsonOption = False
) -> None:
    """Show a service's history, newest first."""
    print_events(connect().all(f"{_path(kind, service_id)}/events", {}, limit), as_json=as_json)


@app.command("set-status")
def set_status(
    kind: TypeArgument,
    service_id: IdArgument,
    status: Annotated[
        str, typer.Argument(metavar="STATUS", help="active, inactive, revoked.", show_default=False)
    ],
    reason: ReasonOption = "",
    cascade: CascadeOption = True,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Set a status by hand."""
    client = connect()
    path = f"{_path(kind, service_id)}/status"

    def act(dry: bool) -> dict[str, Any]:
        body = {"status": status, "reason": reason, "cascade": cascade, "dry_run": dry}
        answer: dict[str, Any] = client.post(path, body)
        return answer

    # Only a revocation reaches further than the service itself.
    asks = status == "revoked" and not yes
    preview_and_do(
        act, f"Set {kind} {service_id} to {status}?", dry_run=dry_run, yes=not asks, as_json=as_json
    )


@app.command()
def delete(
    kind: TypeArgument,
    service_id: IdArgument,
    reason: ReasonOption = "",
    cascade: CascadeOption = True,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Delete a revoked or inactive service; what lives beneath it is revoked."""
    client = connect()

    def act(dry: bool) -> dict[str, Any] | None:
        query = {"reason": reason, "cascade": cascade, "dry_run": dry}
        answer: dict[str, Any] | None = client.delete(_path(kind, service_id), query)
        return answer

    preview_and_do(act, f"Delete {kind} {service_id}?", dry_run=dry_run, yes=yes, as_json=as_json)


@app.command()
def purge(
    days: Annotated[
        int | None,
        typer.Option("--days", help="Taken out longer ago than that.", min=0, show_default="as configured"),
    ] = None,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Archive and forget services that were deleted or revoked long ago."""
    client = connect()

    def ask(dry: bool) -> dict[str, Any]:
        answer: dict[str, Any] = client.post(
            "/api/admin/services/purge", {"retention_days": days, "dry_run": dry}, long=True
        )
        return answer

    answer = ask(True)
    if not dry_run and answer["due"]:
        confirm(f"Purge {answer['due']} services for good?", yes=yes)
        answer = ask(False)
    if as_json:
        print_json(answer)
        return
    typer.echo(f"{answer['due']} due, {answer['purged']} purged")
    for name in answer["services"]:
        typer.echo(f"  {name}")


@app.command()
def register(
    kind: TypeArgument,
    service_id: IdArgument,
    label: Annotated[str, typer.Option("--name", help="What people call it.", show_default="the id")] = "",
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
        typer.Option("--checker-config", help="A JSON file; `-`: standard input.", show_default=False),
    ] = None,
    spiffe_id: Annotated[str, typer.Option("--spiffe-id", help="Its SPIFFE id.", show_default=False)] = "",
    interval: Annotated[
        int | None, typer.Option("--heartbeat-interval", parser=seconds, metavar="TIME", help="30s, 5m.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Register a service without a package: it is active at its first heartbeat."""
    body = given(
        service_id=service_id,
        label=label,
        parent_id=parent,
        site=site,
        labels=pairs(labels, "--label"),
        metadata=pairs(metadata, "--metadata"),
        checker_kind=checker_kind,
        checker_config=read_json(checker_config),
        spiffe_id=spiffe_id,
        heartbeat_interval_seconds=interval,
    )
    _say(connect().post(_path(kind), body), "registered", as_json=as_json)


@app.command()
def approve(
    kind: TypeArgument, service_id: IdArgument, reason: ReasonOption = "", as_json: JsonOption = False
) -> None:
    """Let a service in that registered itself."""
    answer = connect().post(f"{_path(kind, service_id)}/approve", {"reason": reason})
    _say(answer, "approved", as_json=as_json)


@app.command()
def reject(
    kind: TypeArgument, service_id: IdArgument, reason: ReasonOption = "", as_json: JsonOption = False
) -> None:
    """Keep a service out that registered itself."""
    answer = connect().post(f"{_path(kind, service_id)}/reject", {"reason": reason})
    _say(answer, "rejected", as_json=as_json)


def _path(kind: str, service_id: str = "") -> str:
    path = f"/api/admin/services/{kind}s"
    return f"{path}/{segment(service_id)}" if service_id else path


def _status(item: dict[str, Any]) -> str:
    return f"{item['status']}, approval required" if item["approval"] == "required" else str(item["status"])


def _say(service: dict[str, Any], what: str, *, as_json: bool) -> None:
    if as_json:
        print_json(service)
    else:
        typer.echo(f"{what}: {service['service_type']} {service['service_id']} is {service['status']}")
