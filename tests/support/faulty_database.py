"""A registry database that can be away, slow or deaf, over one that works; and a record of what it was given."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime

from jetway.core.errors import UnavailableError
from jetway.core.gaps import EventSpan, Version
from jetway.core.ids import ServiceKey, ServiceType
from jetway.core.rows import Event, PackageRow, Presence, ServiceRow
from jetway.ports import EventPage, EventQuery, RegistryDatabase


class FaultyDatabase:
    """Implements `ports.RegistryDatabase`. The faults hold until they are taken back."""

    def __init__(self, database: RegistryDatabase) -> None:
        self._database = database
        self.away = False
        """Every call is refused at once, as by a port that nobody listens on."""
        self.delay = 0.0
        """Seconds that every call takes longer."""
        self.deaf = asyncio.Event()
        """Cleared: every call waits for ever, as on a link that swallows everything."""
        self.deaf.set()
        self.refused = 0
        self.written: list[tuple[ServiceKey, Version]] = []
        """The service rows that were taken, in order."""

    async def migrate(self) -> Sequence[str]:
        await self._suffer()
        return await self._database.migrate()

    async def check(self) -> None:
        await self._suffer()
        await self._database.check()

    async def write_rows(
        self, services: Sequence[ServiceRow], packages: Sequence[PackageRow], *, overwrite: bool = False
    ) -> None:
        await self._suffer()
        await self._database.write_rows(services, packages, overwrite=overwrite)
        for row in services:
            self.written.append((ServiceKey(row.service_type, row.service_id), (row.epoch, row.revision)))

    async def append_events(self, events: Sequence[Event]) -> None:
        await self._suffer()
        await self._database.append_events(events)

    async def find_events(self, query: EventQuery) -> EventPage:
        await self._suffer()
        return await self._database.find_events(query)

    async def find_row_versions(self) -> Mapping[ServiceKey, tuple[int, int]]:
        await self._suffer()
        return await self._database.find_row_versions()

    async def find_row_keys(
        self, service_type: ServiceType, *, after: str = "", limit: int = 500
    ) -> Sequence[ServiceKey]:
        await self._suffer()
        return await self._database.find_row_keys(service_type, after=after, limit=limit)

    async def load_rows(self, keys: Sequence[ServiceKey]) -> Mapping[ServiceKey, ServiceRow]:
        await self._suffer()
        return await self._database.load_rows(keys)

    async def load_packages(self, package_ids: Sequence[str]) -> Mapping[str, PackageRow]:
        await self._suffer()
        return await self._database.load_packages(package_ids)

    async def find_event_spans(self, keys: Sequence[ServiceKey]) -> Mapping[ServiceKey, Sequence[EventSpan]]:
        await self._suffer()
        return await self._database.find_event_spans(keys)

    async def find_event_revisions(
        self, keys: Sequence[ServiceKey]
    ) -> Mapping[ServiceKey, Mapping[Version, datetime]]:
        await self._suffer()
        return await self._database.find_event_revisions(keys)

    async def load_presence(self) -> Mapping[ServiceKey, Presence]:
        await self._suffer()
        return await self._database.load_presence()

    async def close(self) -> None:
        await self._database.close()

    async def _suffer(self) -> None:
        await self.deaf.wait()
        await asyncio.sleep(self.delay)
        if self.away:
            self.refused += 1
            raise UnavailableError("the database refuses connections")
