"""Rows of `ports.RegistryDatabase` on their way into Proton: named, encoded, and put into one INSERT a stream."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from jetway.adapters.database import proton_statements as sql
from jetway.adapters.database.proton_client import ProtonClient, Row
from jetway.adapters.database.proton_streams import DECODERS, Stream, milliseconds
from jetway.adapters.database.proton_versions import Name, Placed, RowVersions
from jetway.adapters.database.rows import chunks
from jetway.adapters.database.tables import PACKAGES, SERVICE_TABLES, Kind, Table
from jetway.core.errors import OutcomeUnknownError, UnavailableError
from jetway.core.gaps import Version
from jetway.core.ids import ServiceKey
from jetway.core.rows import PackageRow, ServiceRow

_ROWS_AT_ONCE = 10_000


@dataclass(frozen=True, slots=True)
class EncodedRow:
    """A row that only lacks its time."""

    stream: Stream
    name: Name
    version: Version
    made_at: datetime | None
    values: Row


def name_of_row(table: Table, row: ServiceRow | PackageRow) -> Name:
    """Its table and primary key."""
    return table.name, row.service_id if isinstance(row, ServiceRow) else row.package_id


def name_of_key(key: ServiceKey) -> Name:
    """Table and primary key of a service's row."""
    return SERVICE_TABLES[key.service_type].name, key.service_id


def encode(stream: Stream, row: ServiceRow | PackageRow) -> EncodedRow:
    """All of it but its time. Raises RejectedError."""
    # An adopted stream is cut into days by _tp_time, and one write may touch a hundred of them at most.
    made_at = None if stream.is_adopted else row.updated_at
    name = name_of_row(stream.table, row)
    return EncodedRow(stream, name, (row.epoch, row.revision), made_at, stream.encode(row))


def newest(rows: Sequence[EncodedRow], overwrite: bool) -> Iterable[EncodedRow]:
    """One row a key: of two equal ones the later; with `overwrite` the last."""
    found: dict[Name, EncodedRow] = {}
    for row in rows:
        stored = found.get(row.name)
        if stored is None or overwrite or row.version >= stored.version:
            found[row.name] = row
    return found.values()


def place(
    versions: RowVersions, rows: Iterable[EncodedRow], overwrite: bool
) -> tuple[Mapping[str, list[Row]], Sequence[Placed]]:
    """Rows by INSERT statement, each with its time; those that are older than what is stored left out."""
    batches: dict[str, list[Row]] = {}
    places: list[Placed] = []
    for row in rows:
        found = versions.place(row.name, row.version, row.made_at, overwrite=overwrite)
        if found is not None:
            moment, placed = found
            batches.setdefault(row.stream.insert, []).append((*row.values, moment))
            places.append(placed)
    return batches, places


def find_versions(
    client: ProtonClient, streams: Mapping[str, Stream], names: Sequence[Name]
) -> list[tuple[Name, Version, int]]:
    """What the streams hold of these rows."""
    found = []
    for table in (*SERVICE_TABLES.values(), PACKAGES):
        statement = sql.select_versions(streams[table.name])
        for keys in chunks([key for name, key in names if name == table.name]):
            for key, epoch, revision, moment in client.select(statement, {"keys": tuple(keys)}):
                time = milliseconds(DECODERS[Kind.TIME](moment))
                found.append(((table.name, key), (epoch, revision), time))
    return found


def insert_all(client: ProtonClient, batches: Mapping[str, Sequence[Any]]) -> None:
    """One INSERT a stream. Raises OutcomeUnknownError where some rows are stored and others are not."""
    stored = False
    for statement, rows in batches.items():
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            try:
                client.insert(statement, rows[start : start + _ROWS_AT_ONCE])
            except UnavailableError as error:
                if stored and not isinstance(error, OutcomeUnknownError):
                    raise OutcomeUnknownError(f"{error}; some rows were stored before") from error
                raise
            stored = True
