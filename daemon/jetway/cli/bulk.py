"""`jetway package bulk`: many packages from a file, their tokens into another."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from jetway.cli.client import connect
from jetway.cli.errors import CommandError
from jetway.cli.options import DryRunOption
from jetway.edge.files import write_file

_PATH = "/api/admin/edge-packages/bulk"
_SHOWN = 20


def bulk(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="CSV, or JSON with a list of bodies as in a single creation.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Where results and tokens go, for you alone: .csv, else JSON.",
            show_default=False,
        ),
    ],
    dry_run: DryRunOption = False,
) -> None:
    """Create up to 10,000 packages. The same file again gets the same packages and tokens, for 24 h."""
    data, media_type = _read(file)
    _check_output(file, output)
    key = f"file-{hashlib.sha256(data).hexdigest()}"
    report = connect().send_rows(_PATH, data, media_type, key, {"dry_run": dry_run})
    try:
        write_file(output, _rendered(report, output))
    except OSError as error:
        raise CommandError(
            f"cannot write {output}: {error.strerror}; run it again within 24 h to get the tokens"
        ) from error
    _summarize(report, output)
    if report["refused"] or report["failed"]:
        raise typer.Exit(1)


def _read(file: Path) -> tuple[bytes, str]:
    """What is sent, and as what. Raises CommandError."""
    try:
        data = file.read_bytes()
    except OSError as error:
        raise CommandError(f"cannot read {file}: {error.strerror}") from error
    if file.suffix.lower() == ".csv":
        return data, "text/csv"
    try:
        rows = json.loads(data)
    except ValueError as error:
        raise CommandError(f"{file} is not JSON: {error}; a CSV file is named .csv") from None
    if isinstance(rows, list):
        rows = {"rows": rows}
    return json.dumps(rows, sort_keys=True).encode(), "application/json"


def _check_output(file: Path, output: Path) -> None:
    """Before anything is created: tokens that cannot be written are lost."""
    folder = output.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise CommandError(f"cannot write into {folder}")
    if output.is_dir() or (output.exists() and output.samefile(file)):
        raise CommandError(f"--output {output} must be a file of its own")


def _rendered(report: dict[str, Any], output: Path) -> bytes:
    if output.suffix.lower() != ".csv":
        return json.dumps(report, indent=2, ensure_ascii=False).encode() + b"\n"
    text = io.StringIO()
    rows = report["rows"]
    writer = csv.DictWriter(text, fieldnames=list(rows[0]) if rows else ["row"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def _summarize(report: dict[str, Any], output: Path) -> None:
    counts = ("created", "planned", "refused", "failed")
    said = ", ".join(f"{report[name]} {name}" for name in counts if report[name]) or "nothing to do"
    typer.echo(f"{said}; results in {output}")
    wrong = [row for row in report["rows"] if row["outcome"] in ("refused", "failed")]
    for row in wrong[:_SHOWN]:
        typer.echo(f"row {row['row']}: {row['detail']}", err=True)
    if len(wrong) > _SHOWN:
        typer.echo(f"and {len(wrong) - _SHOWN} more", err=True)
