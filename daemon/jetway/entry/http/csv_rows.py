"""CSV → the JSON body of a bulk creation. The first line names the columns, which are the fields of a package.

`labels` is `key=value` joined by `;`, `metadata` and `checker_config` are JSON, an empty cell is an absent field.
"""

from __future__ import annotations

import csv
import io
import json
from typing import Any

from jetway.entry.http.problems import FieldError, ProblemError, invalid_fields
from jetway.entry.http.requests import CreatePackage

COLUMNS = tuple(CreatePackage.model_fields)
_JSON = frozenset({"metadata", "checker_config"})
_WHOLE = frozenset({"heartbeat_interval_seconds", "token_ttl_seconds"})
_TRUTH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def rows_of_csv(data: bytes) -> bytes:
    """The rows as the JSON body. What a cell says is judged with its row; ProblemError where there are no rows."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ProblemError(400, "malformed_csv", f"the CSV is not UTF-8: byte {error.start + 1}") from None
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = next(reader, None) or []
        _check_header(header)
        rows = [_row(header, cells, reader.line_num) for cells in reader if cells]
    except csv.Error as error:
        raise ProblemError(400, "malformed_csv", f"line {reader.line_num} is not CSV: {error}") from None
    return json.dumps({"rows": rows}).encode()


def _check_header(header: list[str]) -> None:
    errors = [
        FieldError(
            field=name[:200] or f"column {number}", message=f"there is no such column: {', '.join(COLUMNS)}"
        )
        for number, name in enumerate(header, 1)
        if name not in COLUMNS
    ]
    errors += [
        FieldError(field=name, message="stands there twice") for name in set(header) if header.count(name) > 1
    ]
    errors += [
        FieldError(field=name, message="this column is required")
        for name in ("component_type", "label")
        if name not in header
    ]
    if errors:
        raise invalid_fields(
            422, f"wrong columns: {'; '.join(f'{e.field}: {e.message}' for e in errors[:5])}", errors
        )


def _row(header: list[str], cells: list[str], line: int) -> dict[str, Any]:
    if len(cells) != len(header):
        raise ProblemError(
            400, "malformed_csv", f"line {line} has {len(cells)} cells, the first line has {len(header)}"
        )
    return {name: _value(name, cell) for name, cell in zip(header, cells, strict=True) if cell != ""}


def _value(name: str, cell: str) -> Any:
    """The field's value; what is none stays text, and the row's check then says so."""
    if name == "labels":
        pairs = (pair.partition("=") for pair in cell.split(";") if pair)
        return {key.strip(): value.strip() for key, _, value in pairs}
    if name in _WHOLE:
        return int(cell) if cell.isascii() and cell.isdigit() and len(cell) < 19 else cell
    if name == "watch":
        return _TRUTH.get(cell.lower(), cell)
    if name in _JSON:
        try:
            return json.loads(cell)
        except (ValueError, RecursionError):
            return cell
    return cell
