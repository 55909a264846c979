"""The SQL for Proton. Names come from `tables`, values are always bound, and the driver escapes them.

Streams are read as `table(stream)` without exception: `FROM stream` is a query for the future that never ends.
Functions have Proton's names, which are in snake_case.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from jetway.adapters.database.proton_streams import VERSION, Stream
from jetway.adapters.database.rows import PURGED
from jetway.core.times import to_milliseconds
from jetway.ports import EventQuery

ANSWER = "SELECT 1"
CHECK_SCHEMA = "SELECT count() FROM table(schema_migrations)"
_NEWEST_FIRST = "ORDER BY moment DESC, event_id DESC"


INSERT_SAMPLE = "INSERT INTO service_count_samples (sampled_at, service_type, status, service_count) VALUES"
_SAMPLES = "SELECT sampled_at, service_type, status, max(service_count) FROM table(service_count_samples)"


def select_samples(*, hourly: bool) -> str:
    """Samples from %(since)s to %(until)s, in order; one that arrived twice once."""
    first_minute = " AND to_minute(sampled_at) = 0" if hourly else ""
    return (
        f"{_SAMPLES} WHERE sampled_at >= {_time('since')} AND sampled_at < {_time('until')}{first_minute}"
        " GROUP BY sampled_at, service_type, status ORDER BY sampled_at, service_type, status"
    )


def describe(name: str) -> str:
    """A stream's columns: name, type, and more."""
    return f"DESCRIBE {name}"


def require_keyed(name: str) -> str:
    """Refused for an append stream."""
    return f"SELECT 1 FROM table({name}) FINAL LIMIT 1"  # noqa: S608


def select_all(stream: Stream, names: Sequence[str]) -> str:
    """These columns of every row."""
    return _of_newest(stream, stream.columns(names), names)


def select_keys(stream: Stream) -> str:
    """Primary keys after %(after)s."""
    key = stream.table.key
    return f"{_of_newest(stream, key, (key,), f'{key} > %(after)s')} ORDER BY {key} LIMIT %(limit)s"


def select_rows(stream: Stream) -> str:
    """The rows of the primary keys %(keys)s."""
    names = stream.table.names
    return _of_newest(stream, stream.columns(names), names, f"{stream.table.key} IN %(keys)s")


def _of_newest(stream: Stream, chosen: str, names: Sequence[str], condition: str = "") -> str:
    """`chosen`, made of these columns, of the newest row of each key, where that does not say `purged`.

    Proton deletes nothing: the row of a service that was purged stays, and says so.
    """
    there = f"{stream.expression('status')} != '{PURGED}'"
    return f"SELECT {chosen} FROM ({_newest(stream, (*names, 'status'), condition)}) WHERE {there}"  # noqa: S608


def _newest(stream: Stream, names: Sequence[str], condition: str) -> str:
    """Columns as they are in the stream, of the newest row of each key.

    Proton shows one row a key and partition, and an adopted stream has a partition a day.
    """
    needed = (stream.table.key, *names, *(("metadata",) if stream.is_adopted else ()))
    columns = ", ".join(name for name in dict.fromkeys(needed) if name in stream.types)
    where = f" WHERE {condition}" if condition else ""
    return (
        f"SELECT {columns} FROM table({stream.table.name}){where}"  # noqa: S608
        f" ORDER BY {VERSION} DESC LIMIT 1 BY {stream.table.key}"
    )


def select_versions(stream: Stream) -> str:
    """Key, epoch, revision and version column of the newest rows of the primary keys %(keys)s."""
    key = stream.table.key
    columns = ", ".join((key, stream.expression("epoch"), stream.expression("revision"), VERSION))
    return (
        f"SELECT {columns} FROM table({stream.table.name}) WHERE {key} IN %(keys)s"  # noqa: S608
        f" ORDER BY {VERSION} DESC LIMIT 1 BY {key}"
    )


def select_event_spans(events: Stream) -> str:
    """How many revisions have events, the first and the last, by service and epoch."""
    return (
        f"SELECT service_id, epoch, count(), min(revision), max(revision) FROM ({_revisions(events)})"  # noqa: S608
        " GROUP BY service_id, epoch ORDER BY service_id, epoch"
    )


def select_event_revisions(events: Stream) -> str:
    """Which revisions have events, and when they happened, by service."""
    return _revisions(events)


def _revisions(events: Stream) -> str:
    """One row a revision, of the services %(ids)s of the type %(kind)s."""
    epoch, revision = events.expression("epoch"), events.expression("revision")
    return (
        f"SELECT service_id, {epoch} AS epoch, {revision} AS revision,"  # noqa: S608
        f" min({events.expression('timestamp')}) AS moment FROM table({events.table.name})"
        f" WHERE service_type = %(kind)s AND service_id IN %(ids)s AND {revision} > 0"
        " GROUP BY service_id, epoch, revision"
    )


@dataclass(frozen=True, slots=True)
class Statement:
    """SQL and the values bound to it."""

    sql: str
    values: Mapping[str, Any]


def count_events(events: Stream, query: EventQuery) -> Statement:
    """How many events match, `before` and `limit` left aside; one that arrived twice counts once."""
    conditions = list(_conditions(events, query))
    found = f"SELECT event_id FROM table({events.table.name}){_where(conditions)} GROUP BY event_id"  # noqa: S608
    return Statement(f"SELECT count() FROM ({found})", _values(conditions))  # noqa: S608


def select_event_ids(events: Stream, query: EventQuery) -> Statement:
    """Ids of the events of a page, and of one more, which tells whether there are more."""
    conditions = list(_conditions(events, query))
    values = _values(conditions) | {"limit": query.limit + 1}
    having = ""
    if query.before is not None:
        moment, event_id = query.before
        values |= {"before": literal(moment), "before_id": event_id}
        before = _time("before")
        having = f" HAVING moment < {before} OR (moment = {before} AND event_id < %(before_id)s)"
    return Statement(
        f"SELECT event_id, min({events.expression('timestamp')}) AS moment"  # noqa: S608
        f" FROM table({events.table.name}){_where(conditions)}"
        f" GROUP BY event_id{having} {_NEWEST_FIRST} LIMIT %(limit)s",
        values,
    )


def select_events(events: Stream) -> str:
    """The events %(keys)s, the first arrival of each first."""
    return (
        f"SELECT {events.columns(events.table.names)} FROM table({events.table.name})"  # noqa: S608
        f" WHERE {events.table.key} IN %(keys)s ORDER BY {VERSION}"
    )


def _where(conditions: Sequence[tuple[str, str, Any]]) -> str:
    return " WHERE " + " AND ".join(sql for sql, _, _ in conditions) if conditions else ""


def _values(conditions: Sequence[tuple[str, str, Any]]) -> dict[str, Any]:
    return {name: value for _, name, value in conditions}


def _conditions(events: Stream, query: EventQuery) -> Iterator[tuple[str, str, Any]]:
    """SQL, and the name and value that are bound in it."""
    if query.types:
        yield "event_type IN %(types)s", "types", tuple(query.types)
    for name in ("service_type", "service_id", "package_id", "actor"):
        if value := getattr(query, name):
            yield f"{events.expression(name)} = %({name})s", name, value
    timestamp = events.expression("timestamp")
    if query.since is not None:
        yield f"{timestamp} >= {_time('since')}", "since", literal(query.since)
    if query.until is not None:
        yield f"{timestamp} < {_time('until')}", "until", literal(query.until)


def _time(name: str) -> str:
    return f"cast(%({name})s AS datetime64(3, 'UTC'))"


def literal(moment: datetime) -> str:
    """As text, because the driver cuts the milliseconds off a datetime."""
    utc = to_milliseconds(moment).astimezone(UTC)
    return utc.replace(tzinfo=None).isoformat(sep=" ", timespec="milliseconds")
