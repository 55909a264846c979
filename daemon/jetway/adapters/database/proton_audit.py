"""Reads from Proton for comparing its rows with the ledger, and for the audit trail.

Called in the threads that may block. A row that cannot be read as what it should be is left out, so that it is
written anew.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from jetway.adapters.database import proton_statements as sql
from jetway.adapters.database.proton_client import ProtonClient
from jetway.adapters.database.proton_streams import DECODERS, Stream
from jetway.adapters.database.rows import by_type, chunks, service_row
from jetway.adapters.database.tables import EVENTS, PACKAGES, SERVICE_TABLES, Kind
from jetway.core.gaps import EventSpan, Version
from jetway.core.ids import ServiceKey, ServiceType
from jetway.core.rows import Event, PackageRow, Presence, ServiceRow
from jetway.ports import EventPage, EventQuery

Streams = Mapping[str, Stream]
_UNREADABLE = (TypeError, ValueError, KeyError, AttributeError)
"""What decoding raises for a value that none of us wrote."""


def find_versions(client: ProtonClient, streams: Streams) -> Mapping[ServiceKey, Version]:
    """(epoch, revision) of every service row."""
    found = {}
    for key, values in _services(client, streams, ("epoch", "revision")):
        found[key] = (values["epoch"], values["revision"])
    return found


def load_presence(client: ProtonClient, streams: Streams) -> Mapping[ServiceKey, Presence]:
    """What the rows remember of heartbeats; services that were never heard are left out."""
    found = {}
    for key, values in _services(client, streams, ("last_seen", "is_healthy", "version")):
        presence = Presence(values["last_seen"], values["is_healthy"], values["version"])
        if presence != Presence():
            found[key] = presence
    return found


def find_keys(client: ProtonClient, stream: Stream, after: str, limit: int) -> Sequence[str]:
    """Primary keys in order."""
    return [row[0] for row in client.select(sql.select_keys(stream), {"after": after, "limit": limit})]


def load_rows(
    client: ProtonClient, streams: Streams, keys: Sequence[ServiceKey]
) -> Mapping[ServiceKey, ServiceRow]:
    """Rows of `pollers`, `agents` and `checkers`."""
    found = {}
    for kind, ids in by_type(keys):
        for values in _readable(client, streams[SERVICE_TABLES[kind].name], ids):
            row = service_row(kind, values)
            found[ServiceKey(kind, row.service_id)] = row
    return found


def load_packages(client: ProtonClient, streams: Streams, ids: Sequence[str]) -> Mapping[str, PackageRow]:
    """Rows of `edge_packages`."""
    stream = streams[PACKAGES.name]
    rows = [PackageRow(**values) for chunk in chunks(ids) for values in _readable(client, stream, chunk)]
    return {row.package_id: row for row in rows}


def find_events(client: ProtonClient, streams: Streams, query: EventQuery) -> EventPage:
    """The events that match, newest first. One that arrived twice is one."""
    events = streams[EVENTS.name]
    count, page = sql.count_events(events, query), sql.select_event_ids(events, query)
    (total,) = client.select(count.sql, count.values)[0]
    ids = [row[0] for row in client.select(page.sql, page.values)]
    found = _events(client, events, ids[: query.limit])
    return EventPage(tuple(found[each] for each in ids if each in found), total, more=len(ids) > query.limit)


def _events(client: ProtonClient, stream: Stream, ids: Sequence[str]) -> Mapping[str, Event]:
    found: dict[str, Event] = {}
    for chunk in chunks(ids):
        for values in client.select(sql.select_events(stream), {"keys": tuple(chunk)}):
            with contextlib.suppress(*_UNREADABLE):
                event = Event(**stream.decode(EVENTS.names, values))
                found.setdefault(event.event_id, event)
    return found


def find_event_spans(
    client: ProtonClient, streams: Streams, keys: Sequence[ServiceKey]
) -> Mapping[ServiceKey, Sequence[EventSpan]]:
    """Revisions with events, summed up by epoch."""
    found: dict[ServiceKey, list[EventSpan]] = defaultdict(list)
    statement = sql.select_event_spans(streams[EVENTS.name])
    for kind, ids in by_type(keys):
        for service_id, epoch, count, first, last in client.select(statement, _of(kind, ids)):
            found[ServiceKey(kind, service_id)].append(EventSpan(epoch, count, first, last))
    return found


def find_event_revisions(
    client: ProtonClient, streams: Streams, keys: Sequence[ServiceKey]
) -> Mapping[ServiceKey, Mapping[Version, datetime]]:
    """Revisions with events, and when they happened."""
    found: dict[ServiceKey, dict[Version, datetime]] = defaultdict(dict)
    statement = sql.select_event_revisions(streams[EVENTS.name])
    for kind, ids in by_type(keys):
        for service_id, epoch, revision, moment in client.select(statement, _of(kind, ids)):
            found[ServiceKey(kind, service_id)][(epoch, revision)] = DECODERS[Kind.TIME](moment)
    return found


def _of(kind: ServiceType, ids: Sequence[str]) -> Mapping[str, Any]:
    return {"kind": kind.value, "ids": tuple(ids)}


def _services(
    client: ProtonClient, streams: Streams, names: Sequence[str]
) -> Iterator[tuple[ServiceKey, dict[str, Any]]]:
    """These columns of all services."""
    for kind, table in SERVICE_TABLES.items():
        stream, wanted = streams[table.name], (table.key, *names)
        for row in client.select(sql.select_all(stream, wanted)):
            with contextlib.suppress(*_UNREADABLE):
                values = stream.decode(wanted, row)
                yield ServiceKey(kind, values[table.key]), values


def _readable(client: ProtonClient, stream: Stream, ids: Sequence[str]) -> Iterator[dict[str, Any]]:
    for row in client.select(sql.select_rows(stream), {"keys": tuple(ids)}):
        with contextlib.suppress(*_UNREADABLE):
            yield stream.decode(stream.table.names, row)
