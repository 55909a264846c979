"""How a table lies in Proton: in a stream of ours, or in one that another product made and that was adopted.

An adopted stream lacks columns of ours, and ADD COLUMN on a keyed stream loses rows that are written later. So
what it has no column for stands in its column `metadata`, in the JSON object under the key `_jetway`; nothing
else of it changes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from jetway.adapters.database.tables import (
    TEXT_DECODERS,
    TEXT_ENCODERS,
    Column,
    Decoders,
    Encoders,
    Kind,
    Table,
    encode_row,
)
from jetway.core.errors import StartupError
from jetway.core.times import to_milliseconds

PACK = "_jetway"
"""The key in `metadata` under which an adopted stream holds what it has no column for."""
VERSION = "_tp_time"
_METADATA = "metadata"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST, _LAST = datetime(1900, 1, 1, tzinfo=UTC), datetime(2299, 1, 1, tzinfo=UTC)
"""What a datetime64(3) shows rightly."""
_HALF = timedelta(microseconds=500)
_TYPES: Mapping[Kind, str] = {
    Kind.TEXT: r"string",
    Kind.JSON: r"string",
    Kind.INTEGER: r"u?int(8|16|32|64)",
    Kind.BOOLEAN: r"bool",
    Kind.TIME: r"datetime64\(3(, ?'[^']+')?\)",
}


def milliseconds(moment: datetime) -> int:
    """Since 1970: what the driver sends for a datetime64(3). Raises ValueError for what none can hold."""
    if not _FIRST <= moment < _LAST:
        raise ValueError("must be a time from 1900 to 2298")
    return (to_milliseconds(moment) - _EPOCH) // timedelta(milliseconds=1)


def _encode_time(value: Any) -> int:
    TEXT_ENCODERS[Kind.TIME](value)
    return milliseconds(value)


def _encode_boolean(value: Any) -> bool:
    return bool(TEXT_ENCODERS[Kind.BOOLEAN](value))


def _decode_time(value: Any) -> datetime:
    """The driver divides by a thousand in floating point, so the last millisecond is rounded, not cut."""
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise TypeError("must be a time with an offset")
    return to_milliseconds(value + _HALF)


def read_object(text: str | None) -> dict[str, Any]:
    """A JSON object in a column of text. Any other JSON counts as an empty one: other products write `null` there.

    Raises ValueError for what is no JSON.
    """
    found = json.loads(text) if text and text.strip() else None
    return found if isinstance(found, dict) else {}


ENCODERS: Encoders = {**TEXT_ENCODERS, Kind.TIME: _encode_time, Kind.BOOLEAN: _encode_boolean}
DECODERS: Decoders = {**TEXT_DECODERS, Kind.TIME: _decode_time, Kind.JSON: read_object}
_NOTHING: Mapping[Kind, Any] = {Kind.TEXT: "", Kind.INTEGER: 0, Kind.BOOLEAN: False, Kind.TIME: 0}
"""What stands in a column of an adopted stream that cannot be null."""


@dataclass(frozen=True, slots=True)
class Stream:
    """A table and the columns that its stream really has: names and types in lower case."""

    table: Table
    types: Mapping[str, str]

    @property
    def is_adopted(self) -> bool:
        """Whether another product made it."""
        return any(name not in self.types for name in self.table.names)

    @property
    def missing(self) -> Sequence[str]:
        """Columns of ours that it lacks."""
        return [name for name in self.table.names if name not in self.types]

    @property
    def insert(self) -> str:
        """The statement for rows of `encode`, each followed by its version."""
        names = [name for name in self.table.names if name in self.types]
        return f"INSERT INTO {self.table.name} ({', '.join((*names, VERSION))}) VALUES"

    def encode(self, row: object) -> tuple[Any, ...]:
        """The row for `insert`. Raises RejectedError, naming row and column, for what cannot be stored."""
        values = encode_row(self.table, row, ENCODERS)
        return self._packed(row, values) if self.is_adopted else values

    def _packed(self, row: object, values: tuple[Any, ...]) -> tuple[Any, ...]:
        fitting: list[Any] = []
        pack: dict[str, Any] = {}
        texts = encode_row(self.table, row)
        for column, value, text in zip(self.table.columns, values, texts, strict=True):
            kind = self.types.get(column.name)
            if kind is None:
                pack[column.name] = json.loads(text) if column.kind is Kind.JSON else text
            elif value is None and not kind.startswith("nullable("):
                pack[column.name] = None
                fitting.append(_NOTHING[column.kind])
            else:
                fitting.append(value)
        names = [name for name in self.table.names if name in self.types]
        metadata = json.loads(values[self.table.names.index(_METADATA)])
        if PACK in metadata:
            pack[_METADATA] = metadata[PACK]
        fitting[names.index(_METADATA)] = json.dumps(metadata | {PACK: pack}, ensure_ascii=False)
        return tuple(fitting)

    # --- reading

    def expression(self, name: str) -> str:
        """The column in a statement."""
        kind = self.types.get(name)
        if kind is None:
            integer = self._column(name).kind is Kind.INTEGER
            return f"json_extract_{'int' if integer else 'string'}({_METADATA}, '{PACK}', '{name}')"
        if "datetime64" in kind and "'utc'" not in kind:
            # Without a zone in its type the server's own is meant, which the driver would have to guess.
            utc = "datetime64(3, 'UTC')"
            return f"cast({name} AS {f'nullable({utc})' if kind.startswith('nullable(') else utc})"
        return name

    def columns(self, names: Sequence[str]) -> str:
        """What to select so that `decode` has these columns."""
        chosen = [self.expression(name) for name in names if name in self.types]
        return ", ".join((*chosen, _METADATA) if self.is_adopted else chosen)

    def decode(self, names: Sequence[str], values: Sequence[Any]) -> dict[str, Any]:
        """The values of `columns` by name. Raises ValueError, TypeError or AttributeError for others."""
        if not self.is_adopted:
            return {name: self._decode(name, value) for name, value in zip(names, values, strict=True)}
        *fitting, text = values
        found = dict(zip([name for name in names if name in self.types], fitting, strict=True))
        metadata = read_object(text)
        # What is no object under that name is not ours.
        pack = metadata.pop(PACK) if isinstance(metadata.get(PACK), dict) else {}
        decoded = {name: self._unpacked(name, found, pack) for name in names}
        if _METADATA in names:
            decoded[_METADATA] = metadata | ({PACK: pack[_METADATA]} if _METADATA in pack else {})
        return decoded

    def _unpacked(self, name: str, found: Mapping[str, Any], pack: Mapping[str, Any]) -> Any:
        column = self._column(name)
        if name in pack and pack[name] is None and column.nullable:
            return None
        if name in found:
            return self._decode(name, found[name])
        if pack.get(name) is None:
            return _of_another(column)
        if column.kind is Kind.JSON:
            return pack[name] if isinstance(pack[name], dict) else {}
        return TEXT_DECODERS[column.kind](pack[name])

    def _decode(self, name: str, value: Any) -> Any:
        column = self._column(name)
        return None if value is None and column.nullable else DECODERS[column.kind](value)

    def _column(self, name: str) -> Column:
        return next(column for column in self.table.columns if column.name == name)


def _of_another(column: Column) -> Any:
    """What a row of the other product says of a column that only we have."""
    if column.nullable:
        return None
    if column.kind is Kind.TIME:
        return _EPOCH
    return {} if column.kind is Kind.JSON else _NOTHING[column.kind]


def require_fitting(stream: Stream) -> None:
    """Raise StartupError, naming stream and column, where an existing stream cannot be adopted."""
    name = stream.table.name
    required = {stream.table.key, *((_METADATA,) if stream.missing else ())}
    for column in sorted(required - set(stream.types)):
        raise StartupError(f"the stream {name} exists without the column {column}, so it cannot be adopted")
    for column in stream.table.columns:
        kind = stream.types.get(column.name)
        if kind is not None and not re.fullmatch(rf"(nullable\()?{_TYPES[column.kind]}\)?", kind):
            raise StartupError(
                f"the stream {name} exists with the column {column.name} as {kind}, so it cannot be adopted"
            )
