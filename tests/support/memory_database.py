"""A registry database in memory: the real rules, and errors on demand."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from typing import Any, TypeVar

from jetway.adapters.database.tables import EVENTS, PACKAGES, SERVICE_TABLES, encode_row
from jetway.core.errors import PortError, UnavailableError
from jetway.core.gaps import EventSpan, Version
from jetway.core.ids import ServiceKey, ServiceType
from jetway.core.rows import CountSample, Event, PackageRow, Presence, ServiceRow
from jetway.core.times import to_milliseconds
from jetway.ports import EventPage, EventQuery

Row = TypeVar("Row", ServiceRow, PackageRow, Event)


@dataclass(frozen=True)
class _Failure:
    error: Exception
    after_effect: bool


class MemoryDatabase:
    """Implements `ports.RegistryDatabase`. Tests may look into `services`, `packages`, `events`, `calls`."""

    def __init__(self) -> None:
        self.services: dict[ServiceKey, ServiceRow] = {}
        self.packages: dict[str, PackageRow] = {}
        self.events: dict[str, Event] = {}
        self.counts: dict[tuple[datetime, str, str], CountSample] = {}
        self.calls: list[str] = []
        self.closed = False
        self.away = False
        """Whether every call fails as if nothing were there."""
        self.refuses: Callable[[ServiceRow | PackageRow | Event], PortError | None] = lambda row: None
        """Why a row is not taken, and with it its whole batch; None where it is."""
        self._failures: dict[str, deque[_Failure]] = defaultdict(deque)

    def fail_next(self, method: str, error: Exception, after_effect: bool = False) -> None:
        """Let the next call of `method` raise `error`, with `after_effect` after it has done its work.

        Several calls of this queue up several failures.
        """
        if not callable(getattr(type(self), method, None)):
            raise AttributeError(f"there is no method {method}")
        self._failures[method].append(_Failure(error, after_effect))

    async def migrate(self) -> Sequence[str]:
        """Nothing to do."""
        await self._begin("migrate")
        self._end("migrate")
        return []

    async def check(self) -> None:
        """Can always answer."""
        await self._begin("check")
        self._end("check")

    async def write_rows(
        self, services: Sequence[ServiceRow], packages: Sequence[PackageRow], *, overwrite: bool = False
    ) -> None:
        """Upsert by (epoch, revision), or whatever is there."""
        await self._begin("write_rows")
        self._refuse(*services, *packages)
        # All are judged before the first is kept: all or none.
        new_services = [_stored(row, encode_row(SERVICE_TABLES[row.service_type], row)) for row in services]
        new_packages = [_stored(row, encode_row(PACKAGES, row)) for row in packages]
        for service in new_services:
            _upsert(self.services, ServiceKey(service.service_type, service.service_id), service, overwrite)
        for package in new_packages:
            _upsert(self.packages, package.package_id, package, overwrite)
        self._end("write_rows")

    async def remove_rows(self, keys: Sequence[ServiceKey]) -> None:
        """Delete."""
        await self._begin("remove_rows")
        for key in keys:
            self.services.pop(key, None)
        self._end("remove_rows")

    async def trim_events(self, before: datetime, *, dry_run: bool = False) -> int:
        """Delete, or only count."""
        await self._begin("trim_events")
        old = [event.event_id for event in self.events.values() if event.timestamp < before]
        for event_id in () if dry_run else old:
            del self.events[event_id]
        self._end("trim_events")
        return len(old)

    async def append_counts(self, samples: Sequence[CountSample]) -> None:
        """Keep."""
        await self._begin("append_counts")
        for sample in samples:
            self.counts.setdefault((sample.sampled_at, sample.service_type, sample.status), sample)
        self._end("append_counts")

    async def load_counts(
        self, since: datetime, until: datetime, *, hourly: bool = False
    ) -> Sequence[CountSample]:
        """In order."""
        await self._begin("load_counts")
        self._end("load_counts")
        wanted = [key for key in sorted(self.counts) if since <= key[0] < until]
        return [self.counts[key] for key in wanted if not hourly or key[0].minute == 0]

    async def trim_counts(self, before: datetime, *, dry_run: bool = False) -> int:
        """Delete, or only count."""
        await self._begin("trim_counts")
        old = [key for key in self.counts if key[0] < before]
        for key in () if dry_run else old:
            del self.counts[key]
        self._end("trim_counts")
        return len(old)

    async def append_events(self, events: Sequence[Event]) -> None:
        """Append by event_id."""
        await self._begin("append_events")
        self._refuse(*events)
        for event in [_stored(event, encode_row(EVENTS, event)) for event in events]:
            self.events.setdefault(event.event_id, event)
        self._end("append_events")

    async def find_events(self, query: EventQuery) -> EventPage:
        """Filter, sort, cut."""
        await self._begin("find_events")
        matching = [event for event in self.events.values() if _matches(event, query)]
        matching.sort(key=_position, reverse=True)
        before = query.before and (to_milliseconds(query.before[0]), query.before[1])
        rest = [event for event in matching if before is None or _position(event) < before]
        self._end("find_events")
        return EventPage(tuple(rest[: query.limit]), len(matching), more=len(rest) > query.limit)

    async def find_row_versions(self) -> Mapping[ServiceKey, tuple[int, int]]:
        """(epoch, revision) by service."""
        await self._begin("find_row_versions")
        self._end("find_row_versions")
        return {key: (row.epoch, row.revision) for key, row in self.services.items()}

    async def find_row_keys(
        self, service_type: ServiceType, *, after: str = "", limit: int = 500
    ) -> Sequence[ServiceKey]:
        """By id."""
        await self._begin("find_row_keys")
        found = sorted(k for k in self.services if k.service_type is service_type and k.service_id > after)
        self._end("find_row_keys")
        return found[:limit]

    async def load_rows(self, keys: Sequence[ServiceKey]) -> Mapping[ServiceKey, ServiceRow]:
        """Those that are there."""
        await self._begin("load_rows")
        self._end("load_rows")
        return {key: self.services[key] for key in keys if key in self.services}

    async def load_packages(self, package_ids: Sequence[str]) -> Mapping[str, PackageRow]:
        """Those that are there."""
        await self._begin("load_packages")
        self._end("load_packages")
        return {name: self.packages[name] for name in package_ids if name in self.packages}

    async def find_event_spans(self, keys: Sequence[ServiceKey]) -> Mapping[ServiceKey, Sequence[EventSpan]]:
        """By epoch."""
        await self._begin("find_event_spans")
        self._end("find_event_spans")
        return {key: _spans(versions) for key, versions in self._versions(keys).items()}

    async def find_event_revisions(
        self, keys: Sequence[ServiceKey]
    ) -> Mapping[ServiceKey, Mapping[Version, datetime]]:
        """One by one."""
        await self._begin("find_event_revisions")
        self._end("find_event_revisions")
        return self._versions(keys)

    def _versions(self, keys: Sequence[ServiceKey]) -> dict[ServiceKey, dict[Version, datetime]]:
        found: dict[ServiceKey, dict[Version, datetime]] = {}
        wanted = {(key.service_type.value, key.service_id): key for key in keys}
        for event in self.events.values():
            key = wanted.get((event.service_type, event.service_id))
            if key is not None and event.revision:
                versions = found.setdefault(key, {})
                version = (event.epoch, event.revision)
                versions[version] = min(versions.get(version, event.timestamp), event.timestamp)
        return found

    async def load_presence(self) -> Mapping[ServiceKey, Presence]:
        """Presence of those that were heard."""
        await self._begin("load_presence")
        self._end("load_presence")
        found = {k: Presence(r.last_seen, r.is_healthy, r.version) for k, r in self.services.items()}
        return {key: presence for key, presence in found.items() if presence != Presence()}

    async def close(self) -> None:
        """Refuse all further calls."""
        self.closed = True

    async def _begin(self, method: str) -> None:
        await asyncio.sleep(0)  # a real one gives the loop to others here
        self.calls.append(method)
        if self.closed:
            raise UnavailableError("the database is not open")
        if self.away:
            raise UnavailableError("the database is away")
        self._raise(method, after_effect=False)

    def _refuse(self, *rows: ServiceRow | PackageRow | Event) -> None:
        for row in rows:
            error = self.refuses(row)
            if error is not None:
                raise error

    def _end(self, method: str) -> None:
        self._raise(method, after_effect=True)

    def _raise(self, method: str, *, after_effect: bool) -> None:
        failures = self._failures[method]
        if failures and failures[0].after_effect is after_effect:
            raise failures.popleft().error


def _upsert(rows: dict[Any, Any], key: object, row: ServiceRow | PackageRow, overwrite: bool) -> None:
    stored = rows.get(key)
    if overwrite or stored is None or (row.epoch, row.revision) >= (stored.epoch, stored.revision):
        rows[key] = row


def _spans(versions: Mapping[Version, datetime]) -> list[EventSpan]:
    by_epoch: dict[int, list[int]] = defaultdict(list)
    for epoch, revision in sorted(versions):
        by_epoch[epoch].append(revision)
    return [EventSpan(epoch, len(found), found[0], found[-1]) for epoch, found in by_epoch.items()]


def _stored(row: Row, encoded: object) -> Row:
    """The row as it would come back: times in milliseconds. `encoded` is proof that it can be stored."""
    assert encoded
    values = {field.name: getattr(row, field.name) for field in fields(row)}
    times: dict[str, Any] = {
        name: to_milliseconds(value) for name, value in values.items() if isinstance(value, datetime)
    }
    return replace(row, **times)


def _position(event: Event) -> tuple[datetime, str]:
    return (event.timestamp, event.event_id)


def _matches(event: Event, query: EventQuery) -> bool:
    return (
        (not query.types or event.event_type in query.types)
        and query.service_type in ("", event.service_type)
        and query.service_id in ("", event.service_id)
        and query.package_id in ("", event.package_id)
        and query.actor in ("", event.actor)
        and (query.since is None or event.timestamp >= to_milliseconds(query.since))
        and (query.until is None or event.timestamp < to_milliseconds(query.until))
    )
