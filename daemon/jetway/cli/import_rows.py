"""The rows of an import: read from CSV or JSON, each with its place, and what is wrong with it.

A file that cannot be understood as a whole is refused as a whole. What is wrong with one row is that row's result.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jetway.cli.errors import CommandError

COLUMNS = (
    "service_type",
    "service_id",
    "parent_id",
    "label",
    "site",
    "labels",
    "metadata",
    "checker_kind",
    "checker_config",
    "spiffe_id",
    "heartbeat_interval_seconds",
)
_REQUIRED = COLUMNS[:2]
_OBJECTS = frozenset({"labels", "metadata", "checker_config"})
_SPACE = " \t\r\n"


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with one field of a row."""

    field: str
    why: str


@dataclass(frozen=True, slots=True)
class SourceRow:
    """A row as somebody else has it."""

    place: str
    """Where it stands: `line 3`."""
    fields: Mapping[str, Any] = field(default_factory=dict)
    problem: Problem | None = None


def read_rows(file: Path, form: str = "") -> list[SourceRow]:
    """The rows of a file. `form`: csv or json; empty: by the file's name. Raises CommandError."""
    form = form or {".csv": "csv", ".json": "json", ".jsonl": "json"}.get(file.suffix.lower(), "")
    if form not in ("csv", "json"):
        raise CommandError(f"{file}: is it CSV or JSON? Say --format csv or --format json")
    try:
        # Bytes that are no UTF-8 are told by their row and field, not by their offset.
        text = file.read_bytes().removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
    except OSError as error:
        raise CommandError(f"{file} cannot be read: {error.strerror}") from None
    try:
        return list(map(_checked, _csv(text) if form == "csv" else _json(text)))
    except _FileError as error:
        raise CommandError(f"{file}, {error}") from None


class _FileError(Exception):
    """The file cannot be understood from here on."""


# --- CSV


def _csv(text: str) -> Iterator[SourceRow]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    lines = _lines(reader)
    _, header = next(lines, (1, []))
    header = [name.strip() for name in header]
    _check_header(header)
    for line, cells in lines:
        if any(cell.strip() for cell in cells):
            yield _csv_row(f"line {line}", header, cells)


def _lines(reader: Any) -> Iterator[tuple[int, list[str]]]:
    while True:
        first = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise _FileError(f"line {first}: {error}") from None
        yield first, cells


def _check_header(header: Sequence[str]) -> None:
    for name in header:
        if name not in COLUMNS:
            raise _FileError(f"line 1: there is no column {name!r}; the columns are {', '.join(COLUMNS)}")
        if header.count(name) > 1:
            raise _FileError(f"line 1: the column {name} is there twice")
    for name in _REQUIRED:
        if name not in header:
            raise _FileError(f"line 1: the column {name} is missing")


def _csv_row(place: str, header: Sequence[str], cells: Sequence[str]) -> SourceRow:
    if len(cells) != len(header):
        why = f"the row has {len(cells)} cells, the header {len(header)}"
        return SourceRow(place, dict(zip(header, cells, strict=False)), Problem("", why))
    fields: dict[str, Any] = {}
    for name, cell in zip(header, cells, strict=True):
        text = cell.strip()
        if not text:
            continue
        try:
            fields[name] = _cell(name, text)
        except ValueError as error:
            return SourceRow(place, {**fields, name: text}, Problem(name, str(error)))
    return SourceRow(place, fields)


def _cell(name: str, text: str) -> Any:
    if name == "heartbeat_interval_seconds":
        if not text.isascii() or not text.isdecimal():
            raise ValueError("must be a whole number of seconds")
        return int(text) if len(text) < 10 else 10**9
    if name not in _OBJECTS:
        return text
    if name == "labels" and not text.startswith("{"):
        return _pairs(text)
    try:
        return json.loads(text, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"must be a JSON object: {_brief(error)}") from None


def _pairs(text: str) -> dict[str, str]:
    """`rack=12;room=b` as a dictionary."""
    found: dict[str, str] = {}
    for item in filter(None, map(str.strip, text.split(";"))):
        key, equals, value = item.partition("=")
        if not equals or key in found:
            raise ValueError("must be key=value;key=value, each key once, or a JSON object")
        found[key.strip()] = value.strip()
    return found


# --- JSON


def _json(text: str) -> Iterator[SourceRow]:
    """Objects in a list, or one after the other (JSON Lines)."""
    decoder = json.JSONDecoder(object_pairs_hook=_once)
    at = _skip(text, 0, _SPACE)
    listed = text[at : at + 1] == "["
    at += listed
    between = _SPACE + "," if listed else _SPACE
    line, counted = 1, 0
    while True:
        at = _skip(text, at, between)
        line, counted = line + text.count("\n", counted, at), at
        if at == len(text) and not listed:
            return
        if listed and text[at : at + 1] == "]":
            if text[at + 1 :].strip():
                raise _FileError(f"line {line}: something follows the end of the list")
            return
        try:
            value, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            where = getattr(error, "lineno", line)
            raise _FileError(f"line {where}: it is not JSON: {_brief(error)}") from None
        yield _json_row(f"line {line}", value)


def _skip(text: str, at: int, characters: str) -> int:
    while at < len(text) and text[at] in characters:
        at += 1
    return at


def _json_row(place: str, value: Any) -> SourceRow:
    if not isinstance(value, dict):
        return SourceRow(place, {}, Problem("", "must be an object with the fields of a service"))
    for name in value:
        if name not in COLUMNS:
            why = f"there is no such field; the fields are {', '.join(COLUMNS)}"
            return SourceRow(place, value, Problem(name, why))
    return SourceRow(place, value)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key!r} is there twice")
        found[key] = value
    return found


def _brief(error: Exception) -> str:
    return error.msg if isinstance(error, json.JSONDecodeError) else str(error) or "nested too deep"


# --- either


def _checked(row: SourceRow) -> SourceRow:
    """With the field named that holds bytes that are no UTF-8."""
    for name, value in row.fields.items():
        if not _is_text(name) or not _is_text(value):
            shown = {key: each for key, each in row.fields.items() if _is_text(key) and _is_text(each)}
            return SourceRow(row.place, shown, Problem(name if _is_text(name) else "", "is not UTF-8"))
    return row


def _is_text(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except (UnicodeEncodeError, RecursionError):
        return False
    return True
