"""Which columns each table has, in order, and how a row becomes a tuple of them and comes back.

The lists here are the only ones: every INSERT and SELECT is made of them, and a test compares them with what
the migrations create and with the dataclasses of `core.rows`. Nothing here depends on one database.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from pydantic_core import to_json

from jetway.core.errors import RejectedError
from jetway.core.ids import ServiceType
from jetway.core.rows import Event
from jetway.core.times import parse_rfc3339, rfc3339

StoredValue = str | int | None
"""What SQLite keeps: times and JSON as text, booleans as 0 and 1."""


class Kind(StrEnum):
    """What a column holds."""

    TEXT = "text"
    INTEGER = "integer"
    BOOLEAN = "boolean"
    TIME = "time"
    JSON = "json"


@dataclass(frozen=True, slots=True)
class Column:
    """A column, and the attribute of the row that it takes its value from."""

    name: str
    kind: Kind = Kind.TEXT
    nullable: bool = False
    attribute: str = ""
    """Empty: the same as `name`."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table, its primary key and its columns in the order of a tuple."""

    name: str
    key: str
    columns: tuple[Column, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The columns' names."""
        return tuple(column.name for column in self.columns)


def _time(name: str, nullable: bool = False) -> Column:
    return Column(name, Kind.TIME, nullable)


def _integer(name: str) -> Column:
    return Column(name, Kind.INTEGER)


_BEFORE_COUNTS = (
    Column("registration_source"),
    Column("status"),
    Column("status_reason"),
    Column("approval"),
    Column("spiffe_identity"),
    _integer("heartbeat_interval_seconds"),
    _time("first_registered"),
    _time("first_seen", nullable=True),
    _time("last_seen", nullable=True),
    Column("is_healthy", Kind.BOOLEAN, nullable=True),
    Column("version"),
)
_AFTER_COUNTS = (
    Column("package_id"),
    Column("created_by"),
    _time("updated_at"),
    _integer("incarnation"),
    _integer("epoch"),
    _integer("revision"),
)


def _service_table(
    service_type: ServiceType,
    parents: Sequence[str] = (),
    own: Sequence[str] = (),
    counts: Sequence[str] = (),
) -> Table:
    key = f"{service_type.value}_id"
    columns = (
        Column(key, attribute="service_id"),
        *(Column(name) for name in (*parents, "component_id", "label", "site")),
        Column("labels", Kind.JSON),
        Column("metadata", Kind.JSON),
        *(Column(name) for name in own),
        *_BEFORE_COUNTS,
        *(_integer(name) for name in counts),
        *_AFTER_COUNTS,
    )
    return Table(service_type.plural, key, columns)


SERVICE_TABLES: Mapping[ServiceType, Table] = {
    ServiceType.POLLER: _service_table(ServiceType.POLLER, counts=("agent_count", "checker_count")),
    ServiceType.AGENT: _service_table(ServiceType.AGENT, parents=("poller_id",), counts=("checker_count",)),
    ServiceType.CHECKER: _service_table(
        ServiceType.CHECKER, parents=("agent_id", "poller_id"), own=("checker_kind",)
    ),
}

PACKAGES = Table(
    "edge_packages",
    "package_id",
    (
        *(Column(name) for name in ("package_id", "component_type", "component_id", "label")),
        *(Column(name) for name in ("parent_type", "parent_id", "poller_id", "site", "status")),
        _integer("generation"),
        Column("checker_kind"),
        Column("metadata", Kind.JSON),
        Column("created_by"),
        _time("created_at"),
        _time("token_expires_at"),
        _time("delivered_at", nullable=True),
        Column("delivered_to", nullable=True),
        _time("activated_at", nullable=True),
        Column("activated_from", nullable=True),
        _time("revoked_at", nullable=True),
        _time("deleted_at", nullable=True),
        Column("notes"),
        _time("updated_at"),
        _integer("epoch"),
        _integer("revision"),
    ),
)

EVENTS = Table(
    "service_registration_events",
    "event_id",
    (
        *(Column(name) for name in ("event_id", "event_type", "service_type", "service_id", "parent_id")),
        *(Column(name) for name in ("package_id", "registration_source", "actor")),
        _time("timestamp"),
        *(Column(name) for name in ("source_ip", "reason", "request_id", "from_status", "to_status")),
        _integer("epoch"),
        _integer("revision"),
        Column("metadata", Kind.JSON),
    ),
)

ALL_TABLES = (*SERVICE_TABLES.values(), PACKAGES, EVENTS)


def _encode_text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("must be text")
    value.encode()  # a lone surrogate has no UTF-8 form
    return value


def _encode_integer(value: Any) -> int:
    if type(value) is not int or not -(2**63) <= value < 2**63:
        raise TypeError("must be a whole number of 64 bits")
    return value


def _encode_boolean(value: Any) -> int:
    if not isinstance(value, bool):
        raise TypeError("must be true or false")
    return int(value)


def _encode_time(value: Any) -> str:
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise TypeError("must be a time with an offset")
    return rfc3339(value)


def _encode_json(value: Any) -> str:
    if not isinstance(value, dict):
        raise TypeError("must be a JSON object")
    # Not escaped to ASCII: people search this text. NaN has no JSON form; the ledger keeps null for it, too.
    return to_json(value, inf_nan_mode="null").decode()


Encoders = Mapping[Kind, Callable[[Any], Any]]
Decoders = Mapping[Kind, Callable[[Any], Any]]

TEXT_ENCODERS: Encoders = {
    Kind.TEXT: _encode_text,
    Kind.INTEGER: _encode_integer,
    Kind.BOOLEAN: _encode_boolean,
    Kind.TIME: _encode_time,
    Kind.JSON: _encode_json,
}
TEXT_DECODERS: Decoders = {
    Kind.TEXT: str,
    Kind.INTEGER: int,
    Kind.BOOLEAN: bool,
    Kind.TIME: parse_rfc3339,
    Kind.JSON: json.loads,
}


def encode_row(table: Table, row: object, encoders: Encoders = TEXT_ENCODERS) -> tuple[Any, ...]:
    """The row as a tuple in the order of the table's columns.

    Raises RejectedError, naming row and column, for a value that no database could store: such a row stays
    unstorable however often it is tried.
    """
    return tuple(_encode(table, column, row, encoders) for column in table.columns)


def _encode(table: Table, column: Column, row: object, encoders: Encoders) -> Any:
    value = getattr(row, column.attribute or column.name)
    if value is None and column.nullable:
        return None
    try:
        return encoders[column.kind](value)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        key = next(getattr(row, c.attribute or c.name) for c in table.columns if c.name == table.key)
        raise RejectedError(
            f"{table.name}: the row {key!r} cannot be stored: {column.name}: {error}"
        ) from error


def decode_values(table: Table, values: Sequence[Any], decoders: Decoders = TEXT_DECODERS) -> dict[str, Any]:
    """The inverse of `encode_row`, by column name. Raises ValueError, TypeError for what it never wrote."""
    return {
        column.name: None if value is None and column.nullable else decoders[column.kind](value)
        for column, value in zip(table.columns, values, strict=True)
    }


def decode_event(values: Sequence[Any]) -> Event:
    """An event of a row of `service_registration_events`."""
    return Event(**decode_values(EVENTS, values))
