"""`jetway import`: services that report elsewhere so far, from a file or another product's Proton."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jetway.cli.client import Client, connect
from jetway.cli.errors import CommandError
from jetway.cli.import_rows import Problem, SourceRow, read_rows
from jetway.cli.options import TYPES, DryRunOption
from jetway.cli.output import Column, print_json, print_list
from jetway.cli.progress import counting

if TYPE_CHECKING:
    from jetway.entry.http.imports import ImportRow

_PATH = "/api/admin/services/import"
_ROWS = 200
_BYTES = 256 * 1024
"""Of one call: well below what a daemon takes, so that a call is soon answered."""
_AT_ONCE = 4
_ALWAYS = ("created", "unchanged", "kept", "refused")

_COLUMNS = (
    Column("ROW", lambda item: item["place"], whole=True),
    Column("RESULT", lambda item: item["outcome"], whole=True),
    Column("TYPE", lambda item: item["service_type"], whole=True),
    Column("ID", lambda item: item["service_id"]),
    Column("WHY", lambda item: ": ".join(filter(None, (item["field"], item["why"])))),
)

Told = Callable[[str, int], None]


def import_services(
    file: Annotated[
        Path | None,
        typer.Argument(metavar="[FILE]", help="CSV, a list in JSON, or JSON Lines.", show_default=False),
    ] = None,
    form: Annotated[
        str, typer.Option("--format", help="csv or json.", show_default="by the file's name")
    ] = "",
    proton: Annotated[
        Path | None,
        typer.Option(
            "--proton-url-file",
            metavar="PATH",
            help="Read another product's Proton; PATH holds its URL, which may hold a password.",
            show_default=False,
        ),
    ] = None,
    proton_ca: Annotated[
        Path | None,
        typer.Option("--proton-ca", help="Who signs that Proton's certificate.", show_default=False),
    ] = None,
    dry_run: DryRunOption = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print every row's result as JSON.")] = False,
) -> None:
    """Bring in pollers, agents and checkers that report elsewhere so far and are unknown here.

    They come in with the source `config`, and are active at their first heartbeat. What is known here stays as it
    is; what was revoked, rejected or deleted here is not brought back. Exits 1 when a row was refused.
    """
    if (file is None) == (proton is None):
        raise typer.BadParameter("give a FILE or --proton-url-file, one of them")
    rows = read_rows(file, form) if file is not None else _read_proton(proton, proton_ca)
    client = connect()
    with counting(hidden=as_json, total=len(rows)) as told:
        results = run(client, rows, dry_run=dry_run, told=told)
    _tell(results, dry_run=dry_run, as_json=as_json)
    if any(result.outcome == "refused" for result in results):
        raise typer.Exit(1)


@dataclass(slots=True)
class Result:
    """What became of a row."""

    place: str
    service_type: str
    service_id: str
    outcome: str = ""
    field: str = ""
    why: str = ""
    row: ImportRow | None = None

    def shown(self) -> dict[str, str]:
        """As it is printed."""
        names = ("place", "service_type", "service_id", "outcome", "field", "why")
        return {name: getattr(self, name) for name in names}


def run(client: Client, rows: Sequence[SourceRow], *, dry_run: bool, told: Told) -> list[Result]:
    """Import the rows, parents first; their results, in the order of the rows. Raises CommandError."""
    results = list(_judged(rows))
    told("checked", sum(result.outcome == "refused" for result in results))
    planned: set[str] = set()
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="import") as pool:
        for kind in TYPES:
            these = [each for each in results if each.service_type == kind and not each.outcome]
            calls = [(part, sorted(_parents(part) & planned)) for part in _parts(these)]
            for part in pool.map(lambda call: _send(client, *call, dry_run=dry_run), calls):
                told(f"{kind}s", len(part))
            if dry_run:
                planned |= {f"{kind}.{each.service_id}" for each in these if each.outcome == "created"}
    return results


def _judged(rows: Iterable[SourceRow]) -> Iterator[Result]:
    """What can be said of the rows here: that they are well formed, and that no two have the same id."""
    from pydantic import ValidationError

    from jetway.entry.http.imports import ImportRow
    from jetway.entry.http.problems import field_errors

    places: dict[tuple[str, str], str] = {}
    for row in rows:
        result = Result(
            row.place, str(row.fields.get("service_type", "")), str(row.fields.get("service_id", ""))
        )
        problem = row.problem
        if problem is None:
            try:
                result.row = ImportRow.model_validate(dict(row.fields))
            except ValidationError as error:
                first = field_errors(error)[0]
                problem = Problem(first.field, first.message)
        key = (result.service_type, result.service_id)
        if problem is None and places.setdefault(key, row.place) != row.place:
            problem = Problem("service_id", f"{places[key]} has this id already")
        if problem is not None:
            result.outcome, result.field, result.why = "refused", problem.field, problem.why
        yield result


def _parts(results: Sequence[Result]) -> Iterator[list[Result]]:
    """As many as go into one call."""
    part: list[Result] = []
    size = 0
    for result in results:
        length = len(json.dumps(_body(result)))
        if part and (len(part) == _ROWS or size + length > _BYTES):
            yield part
            part, size = [], 0
        part.append(result)
        size += length
    if part:
        yield part


def _body(result: Result) -> dict[str, Any]:
    return result.row.model_dump(mode="json", exclude_unset=True) if result.row else {}


def _parents(part: Sequence[Result]) -> set[str]:
    kinds = {"agent": "poller", "checker": "agent"}
    return {
        f"{kinds[each.service_type]}.{each.row.parent_id}" for each in part if each.row and each.row.parent_id
    }


def _send(client: Client, part: list[Result], planned: list[str], *, dry_run: bool) -> list[Result]:
    body = {"rows": list(map(_body, part)), "dry_run": dry_run, "planned": planned}
    # What was done already is unchanged the second time: a call whose answer was lost is simply repeated.
    answer = client.repeat(_PATH, body)
    for result, told in zip(part, answer["results"], strict=True):
        result.outcome, result.field, result.why = told["outcome"], told["field"], told["why"]
    return part


def _tell(results: Sequence[Result], *, dry_run: bool, as_json: bool) -> None:
    counts = {**dict.fromkeys(_ALWAYS, 0), **Counter(result.outcome for result in results)}
    if as_json:
        print_json({"dry_run": dry_run, "counts": counts, "rows": [result.shown() for result in results]})
        return
    # Without a dry run the rows that did what they should are only counted.
    shown = [each.shown() for each in results if dry_run or each.outcome in ("kept", "refused")]
    if shown:
        print_list({"items": shown}, _COLUMNS, as_json=False, nothing="")
    said = ", ".join(f"{count} {outcome}" for outcome, count in counts.items())
    typer.echo(f"{'would be' if dry_run else 'done'}: {said}")


def _read_proton(file: Path | None, authority: Path | None) -> list[SourceRow]:
    from jetway.cli.import_proton import read_streams

    if file is None:
        raise CommandError("no --proton-url-file is given")
    return read_streams(file, authority)
