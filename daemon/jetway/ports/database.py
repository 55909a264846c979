"""The registry database, and the way of entries into the audit trail."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from jetway.core.gaps import EventSpan, Version
from jetway.core.ids import ServiceKey, ServiceType
from jetway.core.rows import CountSample, Event, PackageRow, Presence, ServiceRow


@dataclass(frozen=True, slots=True, kw_only=True)
class EventQuery:
    """Which events are asked for. Empty fields do not filter; `types` is any of."""

    types: Sequence[str] = ()
    service_type: str = ""
    service_id: str = ""
    package_id: str = ""
    actor: str = ""
    since: datetime | None = None
    until: datetime | None = None
    limit: int = 50
    before: tuple[datetime, str] | None = None
    """Continue after this (timestamp, event_id): newest first."""


@dataclass(frozen=True, slots=True)
class EventPage:
    """Events, newest first, and how many match in all."""

    events: Sequence[Event]
    total: int
    more: bool


class RegistryDatabase(Protocol):
    """The tables that people query. Rows never go back: an older (epoch, revision) changes nothing."""

    async def migrate(self) -> Sequence[str]:
        """Bring the schema up to date; the names of the migrations applied."""
        ...

    async def check(self) -> None:
        """Raise UnavailableError when the database cannot answer now."""
        ...

    async def write_rows(
        self, services: Sequence[ServiceRow], packages: Sequence[PackageRow], *, overwrite: bool = False
    ) -> None:
        """Upsert all of them or none. A row older than the stored one is passed over, an equal one rewritten.

        `overwrite`: whatever is stored. For rows that say they are newer than the ledger, which cannot be.
        """
        ...

    async def remove_rows(self, keys: Sequence[ServiceKey]) -> None:
        """Forget the rows of services that were purged, so that the next row of such an id is a first one.

        Rows of their packages stay. A database that cannot delete keeps them under the status `purged`.
        """
        ...

    async def append_events(self, events: Sequence[Event]) -> None:
        """Append those whose event_id is not there yet: all or none."""
        ...

    async def trim_events(self, before: datetime, *, dry_run: bool = False) -> int:
        """Forget events that happened before then, or only count them; 0 where the database does so by itself."""
        ...

    async def append_counts(self, samples: Sequence[CountSample]) -> None:
        """Keep samples; the same one again changes nothing."""
        ...

    async def load_counts(
        self, since: datetime, until: datetime, *, hourly: bool = False
    ) -> Sequence[CountSample]:
        """Samples in order, `since` included, `until` not; with `hourly` only those of an hour's first minute."""
        ...

    async def trim_counts(self, before: datetime, *, dry_run: bool = False) -> int:
        """Forget samples from before then, or only count them; 0 where the database does so by itself."""
        ...

    async def find_events(self, query: EventQuery) -> EventPage:
        """The events that match, newest first."""
        ...

    async def find_row_versions(self) -> Mapping[ServiceKey, tuple[int, int]]:
        """(epoch, revision) of every service row."""
        ...

    async def find_row_keys(
        self, service_type: ServiceType, *, after: str = "", limit: int = 500
    ) -> Sequence[ServiceKey]:
        """The services that have a row, by id, beginning after the id `after`."""
        ...

    async def load_rows(self, keys: Sequence[ServiceKey]) -> Mapping[ServiceKey, ServiceRow]:
        """Whole rows, of as many services as one wants in memory. A row that cannot be read is left out."""
        ...

    async def load_packages(self, package_ids: Sequence[str]) -> Mapping[str, PackageRow]:
        """Whole rows, likewise."""
        ...

    async def find_event_spans(self, keys: Sequence[ServiceKey]) -> Mapping[ServiceKey, Sequence[EventSpan]]:
        """Which revisions have events, summed up by epoch, epochs in order."""
        ...

    async def find_event_revisions(
        self, keys: Sequence[ServiceKey]
    ) -> Mapping[ServiceKey, Mapping[Version, datetime]]:
        """Exactly which revisions have events, and when they happened."""
        ...

    async def load_presence(self) -> Mapping[ServiceKey, Presence]:
        """What the rows remember of heartbeats, to begin with after a start."""
        ...

    async def close(self) -> None:
        """Finish what is being written and let go."""
        ...


class AuditLog(Protocol):
    """Where what happens outside a record enters the same audit trail."""

    async def append(self, event: Event) -> None:
        """Durable when this returns."""
        ...
