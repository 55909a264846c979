"""The registry database in Timeplus Proton: a few exclusively held clients on threads, the event loop never waits.

Proton has no transactions: a batch is one INSERT a stream, and one that failed half-way is an
OutcomeUnknownError, after which writing all of it again is right. It has no unique keys either: the newest row of
a key is the one with the highest `_tp_time`, which `proton_versions` gives; an event that arrived twice is told by
its id when it is read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from jetway.adapters.database import proton_audit as audit
from jetway.adapters.database import proton_statements as sql
from jetway.adapters.database.migrations import MigrationStatus
from jetway.adapters.database.proton_client import ProtonClient, Row, Target
from jetway.adapters.database.proton_migrations import ProtonMigrations, find_streams
from jetway.adapters.database.proton_streams import DECODERS, Stream, milliseconds
from jetway.adapters.database.proton_versions import Name, Placed, RowVersions
from jetway.adapters.database.rows import chunks, purged_row
from jetway.adapters.database.tables import ALL_TABLES, EVENTS, PACKAGES, SERVICE_TABLES, Kind, Table
from jetway.adapters.database.threads import ConnectionThreads
from jetway.core.errors import (
    OutcomeUnknownError,
    PortError,
    StartupError,
    UnavailableError,
)
from jetway.core.gaps import EventSpan, Version
from jetway.core.ids import ServiceKey, ServiceType
from jetway.core.rows import CountSample, Event, PackageRow, Presence, ServiceRow
from jetway.ports import Clock, EventPage, EventQuery

T = TypeVar("T")

_CLIENTS = 4
_WAITING_CALLS = 256
_ROWS_AT_ONCE = 10_000


@dataclass(frozen=True, slots=True)
class _Encoded:
    """A row that only lacks its time."""

    stream: Stream
    name: Name
    version: Version
    made_at: datetime | None
    values: Row


class ProtonDatabase:
    """Implements `ports.RegistryDatabase`. `open()` first; `close()` last, also after a failed `open()`."""

    def __init__(self, target: Target, migrations_dir: Path, clock: Clock, *, deadline: float = 15.0) -> None:
        """`deadline`: seconds that a call may take."""
        self.label = target.label
        self._target = target
        self._clock = clock
        self._deadline = deadline
        self._migrations = ProtonMigrations(migrations_dir)
        self._migrate_first = False
        self._preparing = asyncio.Lock()
        self._streams: Mapping[str, Stream] | None = None
        self._versions = RowVersions(clock)
        self._last_event_time = 0
        self._clients = ConnectionThreads(
            "registry-proton", self._connect, _is_spoilt, count=_CLIENTS, limit=_WAITING_CALLS
        )

    async def open(self) -> None:
        """Begin to take calls. Connects to nothing: Proton may be away, and come back later.

        Raises StartupError for a password that cannot be read.
        """
        try:
            await asyncio.to_thread(self._target.password)
        except PortError as error:
            raise StartupError(str(error)) from error
        self._clients.start()

    async def migrate(self) -> Sequence[str]:
        """Bring the streams up to date, however long it takes; the names of the migrations applied.

        Raises StartupError, naming the file, for migrations that do not fit. Where Proton is away
        (UnavailableError), whatever is called later migrates first.
        """
        self._migrate_first = True
        names = await self._migrating(self._migrations.apply)
        self._migrate_first = False
        self._streams = None
        return names

    async def migration_status(self) -> MigrationStatus:
        """Which migrations are applied and which are pending. Raises like `migrate`."""
        return await self._migrating(self._migrations.status)

    async def find_adopted(self) -> Mapping[str, Sequence[str]]:
        """Streams that another product made, and the columns of ours that they lack."""
        streams = await self._prepared()
        return {name: stream.missing for name, stream in streams.items() if stream.is_adopted}

    async def check(self) -> None:
        """Raise UnavailableError when Proton cannot answer now, or has not been migrated."""
        await self._prepared()
        await self._call(lambda client: client.select(sql.CHECK_SCHEMA))

    async def close(self) -> None:
        """Take no more calls, finish those that wait, let go of the connections. Safe to call again.

        Raises UnavailableError when they are not done within the deadline.
        """
        self._clients.stop()
        if not await asyncio.to_thread(self._clients.join, self._deadline):
            raise UnavailableError(f"the database {self.label} was still busy after {self._deadline:g} s")

    # --- writing -----------------------------------------------------------------------------------------

    async def write_rows(
        self, services: Sequence[ServiceRow], packages: Sequence[PackageRow], *, overwrite: bool = False
    ) -> None:
        """Write all of them, older ones only with `overwrite`; in Proton's log when this returns.

        Raises UnavailableError when none is stored, OutcomeUnknownError when some may be, and RejectedError for
        a row that never can be.
        """
        if not (services or packages):
            return
        streams = await self._prepared()
        rows: list[tuple[Table, ServiceRow | PackageRow]] = [
            *((SERVICE_TABLES[row.service_type], row) for row in services),
            *((PACKAGES, row) for row in packages),
        ]
        encoded = await self._learn(
            streams,
            {_name(table, row) for table, row in rows},
            lambda: [_encode(streams[table.name], row) for table, row in rows],
        )
        batches, placed = self._place(_newest(encoded, overwrite), overwrite)
        await self._insert(batches, placed)

    async def remove_rows(self, keys: Sequence[ServiceKey]) -> None:
        """Leave a row that says `purged` and is older than any other, for whoever has the id next.

        Not only where the table shows a row: what was written from here a moment ago may not show yet.
        """
        if not keys:
            return
        streams = await self._prepared()
        await self._learn(streams, {_name_of(key) for key in keys}, list)
        known = [key for key in dict.fromkeys(keys) if self._versions.knows(_name_of(key))]
        await self.write_rows([purged_row(key, self._clock.now()) for key in known], [], overwrite=True)

    async def _learn(
        self, streams: Mapping[str, Stream], names: Iterable[Name], encode: Callable[[], list[_Encoded]]
    ) -> list[_Encoded]:
        """Learn which versions the table holds; what `encode` makes, in the same turn of a thread."""
        unknown = self._versions.find_unknown(names)

        def work(client: ProtonClient) -> tuple[list[_Encoded], list[tuple[Name, Version, int]]]:
            return encode(), _find_versions(client, streams, unknown)

        encoded, found = await self._call(work)
        for name, version, moment in found:
            self._versions.learn(name, version, moment)
        return encoded

    async def trim_events(self, before: datetime, *, dry_run: bool = False) -> int:
        """Nothing: the stream drops events 90 days after their time by itself."""
        return 0

    async def append_counts(self, samples: Sequence[CountSample]) -> None:
        """Keep samples; one that is there already is not seen when samples are read."""
        rows = [(milliseconds(s.sampled_at), s.service_type, s.status, s.service_count) for s in samples]
        if rows:
            await self._prepared()
            await self._call(lambda client: client.insert(sql.INSERT_SAMPLE, rows), writes=True)

    async def load_counts(
        self, since: datetime, until: datetime, *, hourly: bool = False
    ) -> Sequence[CountSample]:
        """Samples in order, `since` included, `until` not; with `hourly` only those of an hour's first minute."""
        await self._prepared()
        values = {"since": sql.literal(since), "until": sql.literal(until)}
        statement = sql.select_samples(hourly=hourly)
        rows = await self._call(lambda client: client.select(statement, values))
        return [CountSample(DECODERS[Kind.TIME](at), kind, status, count) for at, kind, status, count in rows]

    async def trim_counts(self, before: datetime, *, dry_run: bool = False) -> int:
        """Nothing: the stream drops samples after 90 days by itself."""
        return 0

    def _place(
        self, rows: Iterable[_Encoded], overwrite: bool
    ) -> tuple[Mapping[str, list[Row]], Sequence[Placed]]:
        """Rows by INSERT statement, each with its time; those that are older than what is stored left out."""
        batches: dict[str, list[Row]] = {}
        places: list[Placed] = []
        for row in rows:
            found = self._versions.place(row.name, row.version, row.made_at, overwrite=overwrite)
            if found is not None:
                moment, placed = found
                batches.setdefault(row.stream.insert, []).append((*row.values, moment))
                places.append(placed)
        return batches, places

    async def _insert(self, batches: Mapping[str, list[Row]], placed: Sequence[Placed]) -> None:
        try:
            await self._call(lambda client: _insert_all(client, batches), writes=True)
        except OutcomeUnknownError:
            raise
        except PortError:
            self._versions.take_back(placed)
            raise

    async def append_events(self, events: Sequence[Event]) -> None:
        """Append them; one whose event_id is there already is not seen when events are read."""
        if not events:
            return
        stream = (await self._prepared())[EVENTS.name]
        # The first arrival of an event is the one that is read.
        now = milliseconds(self._clock.now())
        self._last_event_time = moment = max(now, self._last_event_time + 1)

        def work(client: ProtonClient) -> None:
            rows = {event.event_id: (*stream.encode(event), moment) for event in reversed(events)}
            _insert_all(client, {stream.insert: list(rows.values())})

        await self._call(work, writes=True)

    # --- reading -----------------------------------------------------------------------------------------

    async def find_events(self, query: EventQuery) -> EventPage:
        """The events that match, newest first: `since` included, `until` not."""
        return await self._read(lambda client, streams: audit.find_events(client, streams, query))

    async def find_row_versions(self) -> Mapping[ServiceKey, tuple[int, int]]:
        """(epoch, revision) of every service row."""
        return await self._read(audit.find_versions)

    async def find_row_keys(
        self, service_type: ServiceType, *, after: str = "", limit: int = 500
    ) -> Sequence[ServiceKey]:
        """The services that have a row, by id, beginning after the id `after`."""
        name = SERVICE_TABLES[service_type].name
        ids = await self._read(lambda client, streams: audit.find_keys(client, streams[name], after, limit))
        return [ServiceKey(service_type, service_id) for service_id in ids]

    async def load_rows(self, keys: Sequence[ServiceKey]) -> Mapping[ServiceKey, ServiceRow]:
        """Whole rows. A row that cannot be read is left out."""
        return await self._read(lambda client, streams: audit.load_rows(client, streams, keys))

    async def load_packages(self, package_ids: Sequence[str]) -> Mapping[str, PackageRow]:
        """Whole rows, likewise."""
        return await self._read(lambda client, streams: audit.load_packages(client, streams, package_ids))

    async def find_event_spans(self, keys: Sequence[ServiceKey]) -> Mapping[ServiceKey, Sequence[EventSpan]]:
        """Which revisions have events, summed up by epoch, epochs in order."""
        return await self._read(lambda client, streams: audit.find_event_spans(client, streams, keys))

    async def find_event_revisions(
        self, keys: Sequence[ServiceKey]
    ) -> Mapping[ServiceKey, Mapping[Version, datetime]]:
        """Exactly which revisions have events, and when they happened."""
        return await self._read(lambda client, streams: audit.find_event_revisions(client, streams, keys))

    async def load_presence(self) -> Mapping[ServiceKey, Presence]:
        """What the rows remember of heartbeats; services that were never heard are left out."""
        return await self._read(audit.load_presence)

    # --- handing over to the threads ---------------------------------------------------------------------

    def _connect(self) -> ProtonClient:
        return ProtonClient(self._target)

    async def _prepared(self) -> Mapping[str, Stream]:
        """The streams as they are, after a migration that had to wait for Proton."""
        if self._streams is not None:
            return self._streams
        async with self._preparing:
            if self._streams is None:
                await self._migrate_at_last()
                streams = await self._call(find_streams)
                for table in ALL_TABLES:
                    if table.name not in streams:
                        raise UnavailableError(
                            f"the database {self.label} has not been migrated: run jetway migrate"
                            f" (there is no stream {table.name})"
                        )
                self._streams = streams
            return self._streams

    async def _migrate_at_last(self) -> None:
        if self._migrate_first:
            try:
                await self.migrate()
            except StartupError as error:
                raise UnavailableError(f"the database cannot be migrated: {error}") from error

    async def _read(self, work: Callable[[ProtonClient, Mapping[str, Stream]], T]) -> T:
        streams = await self._prepared()
        try:
            return await self._call(lambda client: work(client, streams))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise PortError(f"the database {self.label} holds a value that nobody wrote: {error}") from error

    async def _call(self, work: Callable[[ProtonClient], T], *, writes: bool = False) -> T:
        """`writes`: work that is finished without its caller, once it has begun."""
        job = self._clients.submit(work)
        try:
            async with asyncio.timeout(self._deadline):
                return await asyncio.wrap_future(job.future)
        except TimeoutError as error:
            message = f"the database {self.label} did not answer within {self._deadline:g} s"
            # A write that never began was withdrawn; one that did may be stored.
            withdrawn = job.future.cancel()
            job.interrupt()
            raise (OutcomeUnknownError if writes and not withdrawn else UnavailableError)(message) from error
        except asyncio.CancelledError:
            if not writes:
                job.interrupt()
            raise

    async def _migrating(self, work: Callable[[ProtonClient], T]) -> T:
        try:
            # No deadline: half a migration is no better than a long one.
            return await asyncio.wrap_future(self._clients.submit(work).future)
        except StartupError as error:
            raise StartupError(f"{self.label}: {error}") from error


def _is_spoilt(client: ProtonClient, failure: Exception | None) -> bool:
    return failure is not None or client.is_given_up


def _name(table: Table, row: ServiceRow | PackageRow) -> Name:
    return table.name, row.service_id if isinstance(row, ServiceRow) else row.package_id


def _name_of(key: ServiceKey) -> Name:
    return SERVICE_TABLES[key.service_type].name, key.service_id


def _encode(stream: Stream, row: ServiceRow | PackageRow) -> _Encoded:
    # An adopted stream is cut into days by _tp_time, and one write may touch a hundred of them at most.
    made_at = None if stream.is_adopted else row.updated_at
    return _Encoded(stream, _name(stream.table, row), (row.epoch, row.revision), made_at, stream.encode(row))


def _newest(rows: Sequence[_Encoded], overwrite: bool) -> Iterable[_Encoded]:
    """One row a key: of two equal ones the later; with `overwrite` the last."""
    found: dict[Name, _Encoded] = {}
    for row in rows:
        stored = found.get(row.name)
        if stored is None or overwrite or row.version >= stored.version:
            found[row.name] = row
    return found.values()


def _find_versions(
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


def _insert_all(client: ProtonClient, batches: Mapping[str, Sequence[Any]]) -> None:
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
