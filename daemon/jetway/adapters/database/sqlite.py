"""The registry database in one SQLite file: one writer thread, two readers, the event loop never waits.

The file is in WAL mode, so readers and people's own queries do not hold up the writer. `synchronous` is FULL:
a consumer acknowledges its deliveries once `write_rows` returns, so what a power cut took back would never be
delivered again. One fsync a batch buys that; NORMAL would need all rows compared after every start.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from jetway.adapters.database import audit
from jetway.adapters.database import statements as sql
from jetway.adapters.database.errors import translate
from jetway.adapters.database.file import DatabaseFile, Work, snapshot, transaction, try_to_write
from jetway.adapters.database.heard import readable_presence
from jetway.adapters.database.migrations import Migrations, MigrationStatus
from jetway.adapters.database.tables import EVENTS, PACKAGES, SERVICE_TABLES, decode_event, encode_row
from jetway.adapters.database.threads import ConnectionThreads, Job
from jetway.core.errors import OutcomeUnknownError, PortError, StartupError, UnavailableError
from jetway.core.gaps import EventSpan, Version
from jetway.core.ids import ServiceKey, ServiceType
from jetway.core.rows import CountSample, Event, PackageRow, Presence, ServiceRow
from jetway.core.times import parse_rfc3339, rfc3339
from jetway.ports import EventPage, EventQuery

T = TypeVar("T")

_TRIMMED_AT_ONCE = 5000

_READERS = 2
_WAITING_CALLS = 256
_ASKS_AGAIN = 0.1
_OLDEST_SQLITE = (3, 24, 0)
"""The first with ON CONFLICT DO UPDATE."""


class SqliteDatabase:
    """Implements `ports.RegistryDatabase`. `open()` first; `close()` last, also after a failed `open()`."""

    def __init__(
        self, path: Path, migrations_dir: Path, *, deadline: float = 15.0, busy_timeout: float = 5.0
    ) -> None:
        """`deadline`: seconds that a call may take; `busy_timeout`: that another process may hold it up."""
        self._file = DatabaseFile(path, busy_timeout)
        self.path = self._file.path
        self._migrations_dir = migrations_dir
        self._deadline = deadline
        self._writer = ConnectionThreads(
            "registry-writer", self._file.connect_writer, _is_spoilt, count=1, limit=_WAITING_CALLS
        )
        self._readers = ConnectionThreads(
            "registry-reader", self._file.connect_reader, _is_spoilt, count=_READERS, limit=_WAITING_CALLS
        )

    async def open(self) -> None:
        """Create the file (mode 0600) if need be and try it. Raises StartupError if it cannot be written."""
        if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
            oldest = ".".join(map(str, _OLDEST_SQLITE))
            raise StartupError(f"SQLite {sqlite3.sqlite_version} is too old, {oldest} is needed")
        await asyncio.to_thread(self._file.create)
        self._writer.start()
        self._readers.start()
        try:
            await self._write(try_to_write)
        except PortError as error:
            await self.close()
            raise StartupError(f"database.url: {error}") from error

    async def migrate(self) -> Sequence[str]:
        """Bring the schema up to date, however long it takes; the names of the migrations applied.

        Raises StartupError, naming the file, for migrations that do not fit the database.
        """
        return await self._migrating(lambda connection: Migrations(self._migrations_dir).apply(connection))

    async def migration_status(self) -> MigrationStatus:
        """Which migrations are applied and which are pending. Raises StartupError where they do not fit."""
        try:
            return await self._read(lambda connection: Migrations(self._migrations_dir).status(connection))
        except StartupError as error:
            raise StartupError(f"{self.path}: {error}") from error

    async def check(self) -> None:
        """Raise UnavailableError when the database cannot answer now, or its file is not in its place."""
        await self._read(lambda connection: connection.execute(sql.CHECK_SCHEMA).fetchone())

    async def write_rows(
        self, services: Sequence[ServiceRow], packages: Sequence[PackageRow], *, overwrite: bool = False
    ) -> None:
        """Upsert all of them or none, older ones only with `overwrite`; durable when this returns.

        Raises RejectedError for a row that can never be stored.
        """

        def work(connection: sqlite3.Connection) -> None:
            batches = [
                (
                    sql.upsert(table, overwrite=overwrite),
                    [encode_row(table, row) for row in services if row.service_type is kind],
                )
                for kind, table in SERVICE_TABLES.items()
            ]
            encoded = [encode_row(PACKAGES, row) for row in packages]
            batches.append((sql.upsert(PACKAGES, overwrite=overwrite), encoded))
            with transaction(connection):
                for statement, rows in batches:
                    connection.executemany(statement, rows)

        if services or packages:
            await self._write(work)

    async def remove_rows(self, keys: Sequence[ServiceKey]) -> None:
        """Delete the rows of these services; durable when this returns."""

        def work(connection: sqlite3.Connection) -> None:
            with transaction(connection):
                for key in keys:
                    connection.execute(sql.DELETE_ROW[key.service_type], (key.service_id,))

        if keys:
            await self._write(work)

    async def trim_events(self, before: datetime, *, dry_run: bool = False) -> int:
        """Delete events from before then, some thousand at a time, or only count them; how many."""
        if dry_run:
            return await self._count(sql.COUNT_OLD_EVENTS, before)

        def work(connection: sqlite3.Connection) -> int:
            with transaction(connection):
                return connection.execute(sql.TRIM_EVENTS, (rfc3339(before), _TRIMMED_AT_ONCE)).rowcount

        trimmed = 0
        while deleted := await self._write(work):
            trimmed += deleted
        return trimmed

    async def append_counts(self, samples: Sequence[CountSample]) -> None:
        """Keep samples; the same one again changes nothing."""
        rows = [(rfc3339(s.sampled_at), s.service_type, s.status, s.service_count) for s in samples]

        def work(connection: sqlite3.Connection) -> None:
            with transaction(connection):
                connection.executemany(sql.INSERT_SAMPLE, rows)

        if rows:
            await self._write(work)

    async def load_counts(
        self, since: datetime, until: datetime, *, hourly: bool = False
    ) -> Sequence[CountSample]:
        """Samples in order, `since` included, `until` not; with `hourly` only those of an hour's first minute."""
        values = (rfc3339(since), rfc3339(until), hourly)
        found = await self._read(lambda connection: connection.execute(sql.SELECT_SAMPLES, values).fetchall())
        return [CountSample(parse_rfc3339(at), kind, status, count) for at, kind, status, count in found]

    async def _count(self, statement: str, before: datetime) -> int:
        values = (rfc3339(before),)
        ((number,),) = await self._read(lambda connection: connection.execute(statement, values).fetchall())
        return int(number)

    async def trim_counts(self, before: datetime, *, dry_run: bool = False) -> int:
        """Forget samples from before then, or only count them; how many."""
        if dry_run:
            return await self._count(sql.COUNT_OLD_SAMPLES, before)

        def work(connection: sqlite3.Connection) -> int:
            with transaction(connection):
                return connection.execute(sql.TRIM_SAMPLES, (rfc3339(before),)).rowcount

        return await self._write(work)

    async def append_events(self, events: Sequence[Event]) -> None:
        """Append those whose event_id is not there yet, all or none; durable when this returns."""

        def work(connection: sqlite3.Connection) -> None:
            rows = [encode_row(EVENTS, event) for event in events]
            with transaction(connection):
                connection.executemany(sql.INSERT_EVENT, rows)

        if events:
            await self._write(work)

    async def find_events(self, query: EventQuery) -> EventPage:
        """The events that match, newest first: `since` included, `until` not."""
        count, page = sql.count_events(query), sql.select_events(query)

        def work(connection: sqlite3.Connection) -> EventPage:
            # One snapshot for both, so that the total fits the page.
            with snapshot(connection):
                (total,) = connection.execute(count.sql, count.values).fetchone()
                found = connection.execute(page.sql, page.values).fetchall()
            events = tuple(decode_event(values) for values in found[: query.limit])
            return EventPage(events, total, more=len(found) > query.limit)

        return await self._read(work)

    async def find_row_versions(self) -> Mapping[ServiceKey, tuple[int, int]]:
        """(epoch, revision) of every service row."""

        def work(connection: sqlite3.Connection) -> Mapping[ServiceKey, tuple[int, int]]:
            return {
                ServiceKey(ServiceType(kind), service_id): (epoch, revision)
                for kind, service_id, epoch, revision in connection.execute(sql.SELECT_VERSIONS)
            }

        return await self._read(work)

    async def find_row_keys(
        self, service_type: ServiceType, *, after: str = "", limit: int = 500
    ) -> Sequence[ServiceKey]:
        """The services that have a row, by id, beginning after the id `after`."""
        found = await self._read(
            lambda connection: connection.execute(sql.SELECT_KEYS[service_type], (after, limit)).fetchall()
        )
        return [ServiceKey(service_type, service_id) for (service_id,) in found]

    async def load_rows(self, keys: Sequence[ServiceKey]) -> Mapping[ServiceKey, ServiceRow]:
        """Whole rows. A row that cannot be read is left out."""
        return await self._read(lambda connection: audit.load_rows(connection, keys))

    async def load_packages(self, package_ids: Sequence[str]) -> Mapping[str, PackageRow]:
        """Whole rows, likewise."""
        return await self._read(lambda connection: audit.load_packages(connection, package_ids))

    async def find_event_spans(self, keys: Sequence[ServiceKey]) -> Mapping[ServiceKey, Sequence[EventSpan]]:
        """Which revisions have events, summed up by epoch, epochs in order."""
        return await self._read(lambda connection: audit.find_event_spans(connection, keys))

    async def find_event_revisions(
        self, keys: Sequence[ServiceKey]
    ) -> Mapping[ServiceKey, Mapping[Version, datetime]]:
        """Exactly which revisions have events, and when they happened."""
        return await self._read(lambda connection: audit.find_event_revisions(connection, keys))

    async def load_presence(self) -> Mapping[ServiceKey, Presence]:
        """What the rows remember of heartbeats; services that were never heard are left out.

        A row that cannot be read is left out as well, and told: one bad value must not keep all rows from being
        written.
        """

        def work(connection: sqlite3.Connection) -> Mapping[ServiceKey, Presence]:
            return readable_presence(connection.execute(sql.SELECT_PRESENCE))

        return await self._read(work)

    async def close(self) -> None:
        """Take no more calls, finish those that wait, let go of the file. Safe to call again.

        Raises UnavailableError when they are not done within the deadline.
        """
        for threads in (self._readers, self._writer):
            threads.stop()
            if not await asyncio.to_thread(threads.join, self._deadline):
                raise UnavailableError(f"the database {self.path} was still busy after {self._deadline:g} s")

    # --- handing over to the threads ---------------------------------------------------------------------

    async def _read(self, work: Work[T]) -> T:
        job = self._readers.submit(self._file.in_place(work))
        try:
            async with asyncio.timeout(self._deadline):
                return await asyncio.wrap_future(job.future)
        except TimeoutError as error:
            message = f"the database {self.path} did not answer within {self._deadline:g} s"
            raise UnavailableError(message) from error
        except (sqlite3.Error, ValueError, TypeError) as error:
            raise self._translate(error) from error
        finally:
            # After a deadline or a cancellation nobody waits for the answer any more.
            self._end(job)

    def _end(self, job: Job[sqlite3.Connection, T]) -> None:
        """End a call that nobody waits for, asking until it has: SQLite forgets what comes before a statement."""
        if not job.future.done():
            job.interrupt()
            asyncio.get_running_loop().call_later(_ASKS_AGAIN, self._end, job)

    async def _write(self, work: Work[T]) -> T:
        job = self._writer.submit(self._file.in_place(work))
        try:
            async with asyncio.timeout(self._deadline):
                return await asyncio.wrap_future(job.future)
        except TimeoutError as error:
            message = f"the database {self.path} did not finish a write within {self._deadline:g} s"
            # A write that never began was withdrawn; one that did goes on and may yet be stored.
            withdrawn = job.future.cancel()
            raise (UnavailableError if withdrawn else OutcomeUnknownError)(message) from error
        except sqlite3.Error as error:
            raise self._translate(error) from error

    async def _migrating(self, work: Work[T]) -> T:
        try:
            # No deadline: half a migration is no better than a long one.
            return await asyncio.wrap_future(self._writer.submit(work).future)
        except StartupError as error:
            raise StartupError(f"{self.path}: {error}") from error
        except sqlite3.Error as error:
            raise self._translate(error) from error

    def _translate(self, error: Exception) -> PortError:
        if isinstance(error, sqlite3.Error):
            return translate(self.path, error)
        return PortError(f"the database {self.path} holds a value that the daemon never wrote: {error}")


def _is_spoilt(connection: sqlite3.Connection, failure: Exception | None) -> bool:
    return failure is not None and (isinstance(failure, sqlite3.Error) or connection.in_transaction)
