"""`jetway maintenance`: when silence is expected, over the HTTP API."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

from jetway.cli.client import connect, segment
from jetway.cli.options import JsonOption, ReasonOption, given, seconds
from jetway.cli.output import Column, ago, print_json, print_list
from jetway.core.times import rfc3339

app = typer.Typer(no_args_is_help=True, help="Maintenance windows: no alerts while silence is expected.")

PATH = "/api/admin/maintenance"


def _whom(item: dict[str, Any]) -> str:
    if item["service"]:
        return str(item["service"])
    return f"site {item['site']}" if item["site"] else f"label {item['label']}"


_COLUMNS = (
    Column("WINDOW", lambda item: item["window_id"], whole=True),
    Column("OF", _whom, whole=True),
    Column("BEGINS", lambda item: ago(item["since"]), whole=True),
    Column("ENDS", lambda item: ago(item["until"]), whole=True),
    Column("REASON", lambda item: item["reason"]),
)


@app.command("list")
def list_windows(as_json: JsonOption = False) -> None:
    """List the windows that are open or to come."""
    print_list(connect().get(PATH), _COLUMNS, as_json=as_json, nothing="no maintenance windows")


@app.command()
def add(
    service: Annotated[
        str, typer.Option("--service", metavar="TYPE.ID", help="A service and all beneath it.")
    ] = "",
    site: Annotated[str, typer.Option("--site", help="All services of a site.")] = "",
    label: Annotated[str, typer.Option("--label", metavar="KEY=VALUE", help="Whoever carries it.")] = "",
    lasting: Annotated[int, typer.Option("--for", parser=seconds, metavar="TIME", help="How long.")] = 3600,
    begins_in: Annotated[
        int, typer.Option("--in", parser=seconds, metavar="TIME", help="How long from now it begins.")
    ] = 0,
    reason: ReasonOption = "",
    as_json: JsonOption = False,
) -> None:
    """Silence alerts for a while: of one service, a site, or whoever carries a label."""
    if sum(map(bool, (service, site, label))) != 1:
        raise typer.BadParameter("give one of --service, --site and --label")
    since = datetime.now(UTC) + timedelta(seconds=begins_in)
    until = since + timedelta(seconds=lasting)
    times = {"since": rfc3339(since) if begins_in else None, "until": rfc3339(until)}
    window = connect().post(PATH, given(service=service, site=site, label=label, reason=reason, **times))
    if as_json:
        print_json(window)
    else:
        typer.echo(f"{window['window_id']}: no alerts of {_whom(window)} until {window['until']}")


@app.command()
def end(window: Annotated[str, typer.Argument(metavar="WINDOW", help="Its id.", show_default=False)]) -> None:
    """End a window now, or call it off."""
    connect().delete(f"{PATH}/{segment(window)}")
    typer.echo(f"{window} is over")
