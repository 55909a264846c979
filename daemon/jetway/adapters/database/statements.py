"""The SQL that runs while the daemon serves. Names come from `tables`, values are always bound."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from jetway.adapters.database.tables import EVENTS, SERVICE_TABLES, StoredValue, Table
from jetway.core.ids import ServiceType
from jetway.core.times import rfc3339
from jetway.ports import EventQuery

BEGIN_WRITE = "BEGIN IMMEDIATE"
"""Takes the write lock at once, so that a busy database refuses before anything is done."""
BEGIN_READ = "BEGIN"
COMMIT = "COMMIT"
ROLLBACK = "ROLLBACK"
CHECK_SCHEMA = "SELECT max(version) FROM schema_migrations"


def _insert(table: Table, conflict: str) -> str:
    names = ", ".join(table.names)
    marks = ", ".join("?" * len(table.columns))
    return f"INSERT INTO {table.name} ({names}) VALUES ({marks}) ON CONFLICT ({table.key}) DO {conflict}"  # noqa: S608


def upsert(table: Table, *, overwrite: bool = False) -> str:
    """Replaces the whole row unless the stored one is newer; with `overwrite` that one too."""
    changes = ", ".join(f"{name} = excluded.{name}" for name in table.names if name != table.key)
    newer = f" WHERE (excluded.epoch, excluded.revision) >= ({table.name}.epoch, {table.name}.revision)"
    return _insert(table, f"UPDATE SET {changes}{'' if overwrite else newer}")


INSERT_EVENT = _insert(EVENTS, "NOTHING")
DELETE_ROW: Mapping[ServiceType, str] = {
    kind: f"DELETE FROM {table.name} WHERE {table.key} = ?"  # noqa: S608
    for kind, table in SERVICE_TABLES.items()
}
TRIM_EVENTS = (
    f"DELETE FROM {EVENTS.name} WHERE event_id IN"  # noqa: S608
    f" (SELECT event_id FROM {EVENTS.name} WHERE timestamp < ? LIMIT ?)"
)
"""So many at a time: a long transaction would keep everything else waiting."""


COUNT_OLD_EVENTS = f"SELECT count(*) FROM {EVENTS.name} WHERE timestamp < ?"  # noqa: S608

INSERT_SAMPLE = (
    "INSERT INTO service_count_samples (sampled_at, service_type, status, service_count) VALUES (?, ?, ?, ?)"
    " ON CONFLICT DO NOTHING"
)
SELECT_SAMPLES = (
    "SELECT sampled_at, service_type, status, service_count FROM service_count_samples"
    " WHERE sampled_at >= ? AND sampled_at < ? AND (NOT ? OR substr(sampled_at, 15, 2) = '00')"
    " ORDER BY sampled_at, service_type, status"
)
TRIM_SAMPLES = "DELETE FROM service_count_samples WHERE sampled_at < ?"
COUNT_OLD_SAMPLES = "SELECT count(*) FROM service_count_samples WHERE sampled_at < ?"


def _of_all_services(columns: str, condition: str = "") -> str:
    return " UNION ALL ".join(
        f"SELECT '{kind.value}', {table.key}, {columns} FROM {table.name}{condition}"  # noqa: S608
        for kind, table in SERVICE_TABLES.items()
    )


SELECT_VERSIONS = _of_all_services("epoch, revision")
SELECT_PRESENCE = _of_all_services(
    "last_seen, is_healthy, version",
    " WHERE last_seen IS NOT NULL OR is_healthy IS NOT NULL OR version <> ''",
)

SELECT_KEYS: Mapping[ServiceType, str] = {
    kind: f"SELECT {table.key} FROM {table.name} WHERE {table.key} > ? ORDER BY {table.key} LIMIT ?"  # noqa: S608
    for kind, table in SERVICE_TABLES.items()
}
_OF_A_REVISION = "service_type = ? AND service_id IN ({marks}) AND revision > 0"


def select_rows(table: Table, count: int) -> str:
    """The rows of `count` primary keys."""
    return f"SELECT {', '.join(table.names)} FROM {table.name} WHERE {table.key} IN ({_marks(count)})"  # noqa: S608


def select_event_spans(count: int) -> str:
    """How many revisions have events, the first and the last, by service and epoch."""
    return (
        f"SELECT service_id, epoch, count(DISTINCT revision), min(revision), max(revision) FROM {EVENTS.name}"  # noqa: S608
        f" WHERE {_OF_A_REVISION.format(marks=_marks(count))}"
        " GROUP BY service_id, epoch ORDER BY service_id, epoch"
    )


def select_event_revisions(count: int) -> str:
    """Which revisions have events, and when they happened, by service."""
    return (
        f"SELECT service_id, epoch, revision, min(timestamp) FROM {EVENTS.name}"  # noqa: S608
        f" WHERE {_OF_A_REVISION.format(marks=_marks(count))} GROUP BY service_id, epoch, revision"
    )


def _marks(count: int) -> str:
    return ", ".join("?" * count)


_SELECT_EVENTS = f"SELECT {', '.join(EVENTS.names)} FROM {EVENTS.name}"  # noqa: S608
_COUNT_EVENTS = f"SELECT count(*) FROM {EVENTS.name}"  # noqa: S608
_BEFORE = "(timestamp, event_id) < (?, ?)"
_NEWEST_FIRST = " ORDER BY timestamp DESC, event_id DESC LIMIT ?"


@dataclass(frozen=True, slots=True)
class Statement:
    """SQL and the values bound to its marks."""

    sql: str
    values: tuple[StoredValue, ...]


def count_events(query: EventQuery) -> Statement:
    """How many events match, `before` and `limit` left aside."""
    conditions, values = _filters(query)
    return Statement(_COUNT_EVENTS + _where(conditions), tuple(values))


def select_events(query: EventQuery) -> Statement:
    """One event more than asked for, which tells whether there are more."""
    conditions, values = _filters(query)
    if query.before is not None:
        moment, event_id = query.before
        conditions.append(_BEFORE)
        values += [rfc3339(moment), event_id]
    return Statement(_SELECT_EVENTS + _where(conditions) + _NEWEST_FIRST, (*values, query.limit + 1))


def _where(conditions: Sequence[str]) -> str:
    return " WHERE " + " AND ".join(conditions) if conditions else ""


def _filters(query: EventQuery) -> tuple[list[str], list[StoredValue]]:
    pairs = list(_conditions(query))
    return [condition for condition, _ in pairs], [value for _, values in pairs for value in values]


def _conditions(query: EventQuery) -> Iterator[tuple[str, Sequence[StoredValue]]]:
    if query.types:
        marks = ", ".join("?" * len(query.types))
        yield f"event_type IN ({marks})", tuple(query.types)
    if query.service_type:
        yield "service_type = ?", (query.service_type,)
    if query.service_id:
        yield "service_id = ?", (query.service_id,)
    if query.package_id:
        yield "package_id = ?", (query.package_id,)
    if query.actor:
        yield "actor = ?", (query.actor,)
    if query.since is not None:
        yield "timestamp >= ?", (rfc3339(query.since),)
    if query.until is not None:
        yield "timestamp < ?", (rfc3339(query.until),)
