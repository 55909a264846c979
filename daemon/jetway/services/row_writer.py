"""Registry rows and audit entries: complete rows, rendered from the newest record, by the only writer there is.

A row that the database refuses for what it contains is set aside; the others of its batch are written.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from functools import partial

from jetway.core.ids import ServiceKey
from jetway.core.rows import Event, PackageRow, Presence, ServiceRow, package_rows
from jetway.ports import Change, FeedItem, RegistryDatabase
from jetway.services.document_writer import touched_by
from jetway.services.fence import Fence
from jetway.services.findings import batches
from jetway.services.index import Index
from jetway.services.presence import PresenceTable
from jetway.services.rendering import Rendering
from jetway.services.set_aside import SetAside
from jetway.services.sieve import Sieve

_FLUSHED_AT_ONCE = 500
"""Rendered in one turn of the loop: some 5 ms."""


class RowWriter:
    """Writes service and package rows, and flushes last_seen: the only writer of rows there is."""

    def __init__(
        self,
        database: RegistryDatabase,
        rendering: Rendering,
        presence: PresenceTable,
        fence: Fence,
        set_aside: SetAside,
    ) -> None:
        self._database = database
        self._set_aside = set_aside
        self._sieve: Sieve[ServiceRow | PackageRow] = Sieve(
            set_aside, database.check, renew=self._renew, others=self._others
        )
        self._fence = fence
        self._rendering = rendering
        self._presence = presence
        self._remembered = False
        self._lock = asyncio.Lock()

    async def write(self, items: Sequence[FeedItem[Change]]) -> None:
        """Write the rows that a batch of changes touches. Raises PortError; then it must come again."""
        index = self._rendering.index
        touched: dict[ServiceKey, bool] = {}
        for item in items:
            for key in (*touched_by(index, item.value), *_grandparents(index, item.value)):
                touched[key] = touched.get(key, False) or key == item.value.key
        purged = [item.value.key for item in items if item.value.record is None]
        async with self._lock:
            await self._remember()
            # Whoever has such an id now begins at its first revision: the row of the one before it must be gone.
            await self._remove(purged)
            rows = self._render(touched)
            await self._write(rows)

    async def _remove(self, keys: Sequence[ServiceKey]) -> None:
        if keys:
            self._fence.require()
            await self._database.remove_rows(keys)
            for key in keys:
                # Its revisions say nothing of those of whoever has the id next.
                self._set_aside.forget(str(key), "purged")

    async def rewrite(self, keys: Iterable[ServiceKey]) -> frozenset[ServiceKey]:
        """Write the rows of these services and of their packages over whatever is there.

        The services of which the database refused a row.
        """
        keys = list(keys)
        async with self._lock:
            await self._remember()
            rows = self._render(dict.fromkeys(keys, True))
            await self._write(rows, overwrite=True, again=True)
        return self.refused.intersection(keys)

    async def retry(self) -> None:
        """Try again what is set aside. What is no row of the registry any more is forgotten."""
        before = self._set_aside.rows()
        for keys in batches(list(dict.fromkeys(refusal.owner for refusal in before if refusal.owner))):
            await self.rewrite(keys)
        for refusal in self._set_aside.rows():
            # The very same refusal still: it was not among the rows that were rendered now.
            if any(refusal is each for each in before):
                self._set_aside.forget(refusal.name, "no row of the registry any more")

    @property
    def refused(self) -> frozenset[ServiceKey]:
        """The services of which a row is set aside."""
        return frozenset(refusal.owner for refusal in self._set_aside.rows() if refusal.owner)

    @property
    def behind(self) -> int:
        """How many rows have an older last_seen than is known."""
        return self._presence.unwritten

    async def flush_presence(self, limit: int | None = None) -> int:
        """Write the rows whose last_seen is behind now, at most `limit`; how many.

        Raises PortError, then nothing is lost: at most one entry per service waits, whatever the database does.
        """
        await self.remember()
        behind = self._presence.unwritten if limit is None else min(limit, self._presence.unwritten)
        written = 0
        # In parts, so that a change does not wait until all are written.
        while written < behind and (count := await self._flush(min(behind - written, _FLUSHED_AT_ONCE))):
            written += count
        return written

    async def _flush(self, limit: int) -> int:
        async with self._lock:
            keys = self._presence.take_unwritten(limit)
            if not keys:
                return 0
            try:
                rows = self._render(dict.fromkeys(keys, False))
                await self._write(rows)
            except BaseException:
                self._presence.put_back(keys)
                raise
            return len(keys)

    async def _write(
        self, rows: Sequence[ServiceRow | PackageRow], *, overwrite: bool = False, again: bool = False
    ) -> None:
        await self._sieve.write(rows, partial(self._write_all, overwrite=overwrite), again=again)

    async def _write_all(self, rows: Sequence[ServiceRow | PackageRow], *, overwrite: bool) -> None:
        """All or none."""
        self._fence.require()
        services = [row for row in rows if isinstance(row, ServiceRow)]
        packages = [row for row in rows if isinstance(row, PackageRow)]
        await self._database.write_rows(services, packages, overwrite=overwrite)
        # Where another one took over meanwhile, these rows are not acknowledged: it renders them once more.
        self._fence.require()

    async def _remember(self) -> None:
        """Rows are whole, so the first one waits until it is known what the database remembers of heartbeats."""
        if not self._remembered:
            self._presence.remember(await self._load_presence())
            self._remembered = True

    async def _load_presence(self) -> Mapping[ServiceKey, Presence]:
        """Without what was heard of services that are gone, whose ids others have now."""
        stored = dict(await self._database.load_presence())
        records = self._rendering.index.records
        anew = {key: records[key].incarnation for key in stored if key in records}
        for keys in batches([key for key, incarnation in anew.items() if incarnation > 1]):
            for key, row in (await self._database.load_rows(keys)).items():
                if row.incarnation < anew[key]:
                    del stored[key]
        return stored

    async def remember(self) -> None:
        """Load what the database knows of heartbeats. Raises PortError while it is away."""
        async with self._lock:
            await self._remember()

    def _render(self, touched: dict[ServiceKey, bool]) -> list[ServiceRow | PackageRow]:
        """Rows of the touched services; packages only of those that changed themselves."""
        services: list[ServiceRow | PackageRow] = []
        packages: list[ServiceRow | PackageRow] = []
        for key, changed in touched.items():
            row = self._rendering.row(key)
            if row is None:
                continue
            services.append(row)
            if changed:
                packages += package_rows(self._rendering.index.records[key])
        return services + packages

    def _renew(self, row: ServiceRow | PackageRow) -> ServiceRow | None:
        """The row as it is now, if there is one: written once more it changes nothing."""
        if isinstance(row, PackageRow):
            return None
        return self._rendering.row(ServiceKey(row.service_type, row.service_id))

    def _others(self) -> Iterable[ServiceRow]:
        return (row for key in list(self._rendering.index.records) if (row := self._rendering.row(key)))


def _grandparents(index: Index, change: Change) -> Iterable[ServiceKey]:
    """A checker's poller counts it as well."""
    record = change.record
    parent = index.get(record.parent) if record and record.parent else None
    if parent is not None and parent.parent is not None:
        yield parent.parent


class EventWriter:
    """Appends audit entries to the events table."""

    def __init__(self, database: RegistryDatabase, set_aside: SetAside) -> None:
        self._database = database
        self._set_aside = set_aside
        self._sieve: Sieve[Event] = Sieve(set_aside, database.check)

    async def write(self, items: Sequence[FeedItem[Sequence[Event]]]) -> None:
        """Append the entries of a batch. Raises PortError; then it must come again."""
        events = [event for item in items for event in item.value]
        await self._sieve.write(events, self._database.append_events)

    async def append(self, events: Sequence[Event]) -> frozenset[str]:
        """Append these, also where they were set aside before; the ids of those that were refused."""
        await self._sieve.write(events, self._database.append_events, again=True)
        refused = {event.event_id for event in self._set_aside.events()}
        return frozenset(event.event_id for event in events if event.event_id in refused)

    async def retry(self) -> None:
        """Try again what is set aside."""
        await self.append(self._set_aside.events())
