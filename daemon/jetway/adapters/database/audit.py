"""Reads for comparing the tables with the ledger: whole rows, and which revisions have events.

Called in the threads that may block. People edit tables by hand: a row that cannot be read as what it should be
is left out, so that it is written anew.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from jetway.adapters.database import statements as sql
from jetway.adapters.database.rows import by_type, chunks, service_row
from jetway.adapters.database.tables import PACKAGES, SERVICE_TABLES, Table, decode_values
from jetway.core.gaps import EventSpan, Version
from jetway.core.ids import ServiceKey
from jetway.core.rows import PackageRow, ServiceRow
from jetway.core.times import parse_rfc3339


def load_rows(connection: sqlite3.Connection, keys: Sequence[ServiceKey]) -> Mapping[ServiceKey, ServiceRow]:
    """Rows of `pollers`, `agents` and `checkers`."""
    found = {}
    for kind, ids in by_type(keys):
        for values in _readable(connection, SERVICE_TABLES[kind], ids):
            row = service_row(kind, values)
            found[ServiceKey(kind, row.service_id)] = row
    return found


def load_packages(connection: sqlite3.Connection, ids: Sequence[str]) -> Mapping[str, PackageRow]:
    """Rows of `edge_packages`."""
    rows: list[PackageRow] = []
    for chunk in chunks(ids):
        rows += [PackageRow(**values) for values in _readable(connection, PACKAGES, chunk)]
    return {row.package_id: row for row in rows}


def find_event_spans(
    connection: sqlite3.Connection, keys: Sequence[ServiceKey]
) -> Mapping[ServiceKey, Sequence[EventSpan]]:
    """Revisions with events, summed up by epoch."""
    found: dict[ServiceKey, list[EventSpan]] = defaultdict(list)
    for kind, ids in by_type(keys):
        rows = connection.execute(sql.select_event_spans(len(ids)), (kind.value, *ids))
        for service_id, epoch, count, first, last in rows:
            found[ServiceKey(kind, service_id)].append(EventSpan(epoch, count, first, last))
    return found


def find_event_revisions(
    connection: sqlite3.Connection, keys: Sequence[ServiceKey]
) -> Mapping[ServiceKey, Mapping[Version, datetime]]:
    """Revisions with events, and when they happened."""
    found: dict[ServiceKey, dict[Version, datetime]] = defaultdict(dict)
    for kind, ids in by_type(keys):
        rows = connection.execute(sql.select_event_revisions(len(ids)), (kind.value, *ids))
        for service_id, epoch, revision, moment in rows:
            with contextlib.suppress(TypeError, ValueError):
                found[ServiceKey(kind, service_id)][(epoch, revision)] = parse_rfc3339(moment)
    return found


def _readable(connection: sqlite3.Connection, table: Table, ids: list[str]) -> Iterator[dict[str, Any]]:
    for values in connection.execute(sql.select_rows(table, len(ids)), ids):
        try:
            yield decode_values(table, values)
        except (TypeError, ValueError):
            continue
