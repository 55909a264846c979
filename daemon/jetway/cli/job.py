"""`jetway job`: background jobs, over the HTTP API."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from jetway.cli.client import connect, segment
from jetway.cli.options import JsonOption
from jetway.cli.output import Column, ago, print_fields, print_json, print_list

app = typer.Typer(no_args_is_help=True, help="Background jobs: what they did, and running one by hand.")

PATH = "/api/admin/jobs"
_UNITS = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="As `jetway job list` shows it.")]


def _every(item: dict[str, Any]) -> str:
    seconds = item["every_seconds"]
    size, unit = next((size, unit) for size, unit in _UNITS if seconds % size == 0)
    return f"{seconds // size} {unit}"


def _last(item: dict[str, Any]) -> str:
    if item["running"]:
        return "running"
    return ago(item["runs"][0]["started_at"]) if item["runs"] else "not yet"


def _result(item: dict[str, Any]) -> str:
    return _summary(item["runs"][0]) if item["runs"] else ""


def _summary(run: dict[str, Any]) -> str:
    counts = ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in run["counts"].items())
    rehearsal = " (rehearsal)" if run["dry_run"] else ""
    return f"{run['error'] or counts or run['outcome']}{rehearsal}"


_COLUMNS = (
    Column("NAME", lambda item: item["name"], whole=True),
    Column("EVERY", _every, whole=True),
    Column("LAST RUN", _last, whole=True),
    Column("RESULT", _result),
)
_RUN_COLUMNS = (
    Column("STARTED", lambda run: ago(run["started_at"]), whole=True),
    Column("BY", lambda run: run["actor"]),
    Column("TOOK", lambda run: f"{run['seconds']:.1f} s", whole=True),
    Column("OUTCOME", lambda run: run["outcome"], whole=True),
    Column("RESULT", _summary),
)


@app.command("list")
def list_jobs(as_json: JsonOption = False) -> None:
    """List the jobs with their last runs."""
    print_list(connect().get(PATH), _COLUMNS, as_json=as_json, nothing="no jobs")


@app.command()
def show(name: NameArgument, as_json: JsonOption = False) -> None:
    """Show a job and its last runs."""
    item = connect().get(f"{PATH}/{segment(name)}")
    if as_json:
        print_json(item)
        return
    runs = item.pop("runs")
    print_fields(item, as_json=False)
    print_list({"items": runs}, _RUN_COLUMNS, as_json=False, nothing="it has not run yet")


@app.command()
def run(
    name: NameArgument,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what it would do.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Run a job now and wait for it. Exits 1 when it failed."""
    result = connect().post(f"{PATH}/{segment(name)}/runs", {"dry_run": dry_run}, long=True)
    if as_json:
        print_json(result)
    else:
        typer.echo(f"{result['outcome']} in {result['seconds']:.1f} s: {_summary(result)}")
        for service in result["names"]:
            typer.echo(f"  {service}")
    if result["outcome"] != "done":
        raise typer.Exit(1)
