"""The registry database in Timeplus Proton: a few exclusively held clients on threads, the event loop never waits.

Proton has no transactions: a batch is one INSERT a stream, and one that failed half-way is an
OutcomeUnknownError, after which writing all of it again is right. It has no unique keys either: the newest row of
a key is the one with the highest `_tp_time`, which `proton_versions` gives; an event that arrived twice is told by
its id when it is read.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from jetway.adapters.database import proton_audit as audit
from jetway.adapters.database import proton_statements as sql
from jetway.adapters.database.migrations import MigrationStatus
from jetway.adapters.database.proton_client import ProtonClient, Row, Target
from jetway.adapters.database.proton_migrations import ProtonMigrations, find_streams
from jetway.adapters.database.proton_rows import (
    EncodedRow,
    encode,
    find_versions,
    insert_all,
    name_of_key,
    name_of_row,
    newest,
    place,
)
from jetway.adapters.database.proton_streams import DECODERS, Stream, milliseconds
from jetway.adapters.database.proton_versions import Name, Placed, RowVersions
from jetway.adapters.database.rows import purged_row
from jetway.adapters.database.tables import ALL_TABLES, EVENTS, PACKAGES, SERVICE_TABLES, Kind, Table
from jetway.adapters.database.threads import ConnectionThreads
from jetway.core.errors import (
    ExhaustedError,
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
_SOON = 1.0
"""Seconds after which somebody who waits for a page has the database asked whether it answers at all."""
_ANSWERS_WITHIN = 1.5
_SILENCE_HOLDS = 5.0
"""Seconds that it is taken to be silent still; the daemon asks it more often."""
_FINISHES_WITHIN = 2.0
_WAKES_WITHIN = 1.5


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
        self._preparing: asyncio.Task[Mapping[str, Stream]] | None = None
        self._silent_until = 0.0
        self._streams: Mapping[str, Stream] | None = None
        self._versions = RowVersions(clock)
        self._last_event_time = 0
        self._clients = ConnectionThreads(
            "registry-proton", self._connect, _is_spoilt, count=_CLIENTS, limit=_WAITING_CALLS
        )
        # Behind what the others are busy with, a server that answers would seem to be silent.
        self._asker = ConnectionThreads("registry-proton-ask", self._connect, _is_spoilt, count=1, limit=16)
        self._asking: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Begin to take calls. Connects to nothing: Proton may be away, and come back later.

        Raises StartupError for a password that cannot be read.
        """
        try:
            await asyncio.to_thread(self._target.password)
        except PortError as error:
            raise StartupError(str(error)) from error
        self._clients.start()
        self._asker.start()

    async def migrate(self, *, answers_within: float | None = None) -> Sequence[str]:
        """Bring the streams up to date, however long it takes; the names of the migrations applied.

        Raises StartupError, naming the file, for migrations that do not fit. Where Proton is away, or says nothing
        within so many seconds (UnavailableError), whatever is called later migrates first.
        """
        self._migrate_first = True
        if answers_within is not None:
            await self._require_answer(answers_within)
        names = await self._migrating(self._migrations.apply)
        self._migrate_first = False
        self._streams = None
        return names

    async def migration_status(self) -> MigrationStatus:
        """Which migrations are applied and which are pending. Raises StartupError where they do not fit."""
        try:
            return await self._soon(lambda: self._call(self._migrations.status))
        except StartupError as error:
            raise StartupError(f"{self.label}: {error}") from error

    async def find_adopted(self) -> Mapping[str, Sequence[str]]:
        """Streams that another product made, and the columns of ours that they lack."""
        streams = await self._prepared()
        return {name: stream.missing for name, stream in streams.items() if stream.is_adopted}

    async def check(self) -> None:
        """Raise UnavailableError when Proton cannot answer now, or has not been migrated."""
        await self._require_answer(_ANSWERS_WITHIN)
        await self._prepared()
        await self._call(lambda client: client.select(sql.CHECK_SCHEMA))

    async def close(self) -> None:
        """Take no more calls, finish those that wait, let go of the connections. Safe to call again.

        What is not finished within seconds is cut off. Raises UnavailableError when that does not help.
        """
        for task in (self._preparing, self._asking):
            if task is not None:
                task.cancel()
        for threads in (self._asker, self._clients):
            threads.stop()
        for threads, seconds in ((self._clients, min(_FINISHES_WITHIN, self._deadline)), (self._asker, 0.0)):
            if await asyncio.to_thread(threads.join, seconds):
                continue
            if not await asyncio.to_thread(threads.cut_off, _WAKES_WITHIN):
                raise UnavailableError(f"the database {self.label} is still busy")

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
            {name_of_row(table, row) for table, row in rows},
            lambda: [encode(streams[table.name], row) for table, row in rows],
        )
        batches, placed = place(self._versions, newest(encoded, overwrite), overwrite)
        await self._insert(batches, placed)

    async def remove_rows(self, keys: Sequence[ServiceKey]) -> None:
        """Leave a row that says `purged` and is older than any other, for whoever has the id next.

        Not only where the table shows a row: what was written from here a moment ago may not show yet.
        """
        if not keys:
            return
        streams = await self._prepared()
        await self._learn(streams, {name_of_key(key) for key in keys}, list)
        known = [key for key in dict.fromkeys(keys) if self._versions.knows(name_of_key(key))]
        await self.write_rows([purged_row(key, self._clock.now()) for key in known], [], overwrite=True)

    async def _learn(
        self, streams: Mapping[str, Stream], names: Iterable[Name], make: Callable[[], list[EncodedRow]]
    ) -> list[EncodedRow]:
        """Learn which versions the table holds; what `make` makes, in the same turn of a thread."""
        unknown = self._versions.find_unknown(names)

        def work(client: ProtonClient) -> tuple[list[EncodedRow], list[tuple[Name, Version, int]]]:
            return make(), find_versions(client, streams, unknown)

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
        values = {"since": sql.literal(since), "until": sql.literal(until)}
        statement = sql.select_samples(hourly=hourly)
        rows = await self._show(lambda client, _: client.select(statement, values))
        return [CountSample(DECODERS[Kind.TIME](at), kind, status, count) for at, kind, status, count in rows]

    async def trim_counts(self, before: datetime, *, dry_run: bool = False) -> int:
        """Nothing: the stream drops samples after 90 days by itself."""
        return 0

    async def _insert(self, batches: Mapping[str, list[Row]], placed: Sequence[Placed]) -> None:
        try:
            await self._call(lambda client: insert_all(client, batches), writes=True)
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
            insert_all(client, {stream.insert: list(rows.values())})

        await self._call(work, writes=True)

    # --- reading -----------------------------------------------------------------------------------------

    async def find_events(self, query: EventQuery) -> EventPage:
        """The events that match, newest first: `since` included, `until` not."""
        return await self._show(lambda client, streams: audit.find_events(client, streams, query))

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
        return await self._show(lambda client, streams: audit.load_packages(client, streams, package_ids))

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
        """The streams as they are, after a migration that had to wait for Proton.

        All who ask meanwhile wait for one attempt, each no longer than a call may take, and share its failure.
        """
        if self._streams is not None:
            return self._streams
        attempt = self._preparing
        if attempt is None or attempt.done():
            attempt = self._preparing = asyncio.create_task(self._prepare(), name="proton-prepare")
            attempt.add_done_callback(_look_at)
        try:
            async with asyncio.timeout(self._deadline):
                await asyncio.wait({attempt})
        except TimeoutError as error:
            raise self._silence(self._deadline) from error
        if attempt.cancelled():
            raise UnavailableError("the database is not open")
        return attempt.result()

    async def _prepare(self) -> Mapping[str, Stream]:
        await self._migrate_at_last()
        streams = await self._call(find_streams)
        for table in ALL_TABLES:
            if table.name not in streams:
                raise UnavailableError(
                    f"the database {self.label} has not been migrated: run jetway migrate"
                    f" (there is no stream {table.name})"
                )
        self._streams = streams
        return streams

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

    async def _show(self, work: Callable[[ProtonClient, Mapping[str, Stream]], T]) -> T:
        """A read that a person waits for."""
        return await self._soon(lambda: self._read(work))

    async def _soon(self, read: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """What a person waits for: where Proton does not answer at all, it is refused within seconds."""
        if asyncio.get_running_loop().time() < self._silent_until:
            raise self._silence(_ANSWERS_WITHIN)
        reading = asyncio.create_task(read(), name="proton-read")
        reading.add_done_callback(_look_at)
        try:
            done, _ = await asyncio.wait({reading}, timeout=_SOON)
            if not done:
                with contextlib.suppress(ExhaustedError):  # which is an answer
                    await self._require_answer(_ANSWERS_WITHIN)
            return await reading
        finally:
            reading.cancel()

    async def _require_answer(self, seconds: float) -> None:
        """Raise UnavailableError where Proton does not answer the shortest question in time.

        All who want to know meanwhile wait for one answer.
        """
        asking = self._asking
        if asking is None or asking.done():
            asking = self._asking = asyncio.create_task(self._ask(seconds), name="proton-ask")
            asking.add_done_callback(_look_at)
        done, _ = await asyncio.wait({asking}, timeout=seconds)
        if asking.cancelled():
            raise UnavailableError("the database is not open")
        failure = asking.exception() if done else self._silence(seconds)
        if not done or isinstance(failure and failure.__cause__, TimeoutError):
            self._silent_until = asyncio.get_running_loop().time() + _SILENCE_HOLDS
        if failure:
            raise failure
        self._silent_until = 0.0

    async def _ask(self, seconds: float) -> None:
        await self._call(lambda client: client.select(sql.ANSWER), within=seconds, threads=self._asker)

    async def _call(
        self,
        work: Callable[[ProtonClient], T],
        *,
        writes: bool = False,
        within: float | None = None,
        threads: ConnectionThreads[ProtonClient] | None = None,
    ) -> T:
        """`writes`: work that is finished without its caller, once it has begun."""
        deadline = self._deadline if within is None else min(within, self._deadline)
        threads = threads or self._clients
        job = threads.submit(work)
        try:
            async with asyncio.timeout(deadline):
                return await asyncio.wrap_future(job.future)
        except TimeoutError as error:
            # A write that never began was withdrawn; one that did may be stored.
            withdrawn = job.future.cancel()
            job.interrupt()
            failure = OutcomeUnknownError if writes and not withdrawn else UnavailableError
            raise self._silence(deadline, failure) from error
        except asyncio.CancelledError:
            if not threads.is_open and not _is_cancelled():
                raise UnavailableError("the database is not open") from None
            if not writes:
                job.interrupt()
            raise

    def _silence(self, seconds: float, kind: type[UnavailableError] = UnavailableError) -> UnavailableError:
        return kind(f"the database {self.label} did not answer within {seconds:g} s")

    async def _migrating(self, work: Callable[[ProtonClient], T]) -> T:
        try:
            # No deadline: half a migration is no better than a long one.
            return await asyncio.wrap_future(self._clients.submit(work).future)
        except StartupError as error:
            raise StartupError(f"{self.label}: {error}") from error


def _look_at(task: asyncio.Task[Any]) -> None:
    """So that a failure for which nobody waits any more is no complaint in the log."""
    if not task.cancelled():
        task.exception()


def _is_cancelled() -> bool:
    """Whether it is the caller that is to end, and not what it waited for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _is_spoilt(client: ProtonClient, failure: Exception | None) -> bool:
    return failure is not None or client.is_given_up
