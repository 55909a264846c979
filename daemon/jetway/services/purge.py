"""Purge: forget services that were taken out long ago, once they are in the archive.

A revoked service is deleted first, so that its document goes the way of all documents. A record is archived before
it is purged, and a purge is in the audit trail before it is done: cut off anywhere, it is done again, and at the
worst a record is archived twice. What could still do harm is kept: a service with live children, one whose
revoked credentials have not expired by themselves, because its record keeps them revoked, and a poller that
the settings name as known, because its record is what keeps it out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from jetway.core import commands as c
from jetway.core.errors import ConflictError, Refused
from jetway.core.identity import must_be_kept
from jetway.core.ids import ServiceKey, ServiceType, document_key
from jetway.core.record import Cascade, EventType, ServiceRecord, ServiceStatus
from jetway.ports import Documents, PurgeArchive
from jetway.services.caller import SYSTEM, Caller
from jetway.services.cascade import Cascades
from jetway.services.pace import Pace, in_order
from jetway.services.project import Projections
from jetway.services.recorder import Recorder
from jetway.services.sweep import NAMES_SHOWN, Swept
from jetway.services.trail import Trail

log = structlog.get_logger()

_AT_ONCE = 200
"""Records in one file of the archive."""
_PROJECTION_SECONDS = 10.0
_CATCH_UP_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Kept:
    """How long services are kept that were taken out."""

    revoked: timedelta
    deleted: timedelta


class Purger:
    """Forgets services."""

    def __init__(
        self,
        recorder: Recorder,
        cascades: Cascades,
        projections: Projections,
        documents: Documents,
        archive: PurgeArchive,
        trail: Trail,
        kept: Kept,
        known_pollers: Iterable[str] = (),
    ) -> None:
        self._recorder = recorder
        self._cascades = cascades
        self._projections = projections
        self._documents = documents
        self._archive = archive
        self._trail = trail
        self._kept = kept
        self._known = frozenset(ServiceKey(ServiceType.POLLER, poller_id) for poller_id in known_pollers)

    async def run(
        self, *, older_than: timedelta | None = None, dry_run: bool = False, caller: Caller = SYSTEM
    ) -> Swept:
        """Purge what was taken out longer ago than it is kept, or than `older_than`.

        Raises PortError while the ledger, the trail or the archive is away; what was purged stays purged.
        """
        kept = self._kept if older_than is None else Kept(older_than, older_than)
        found = await self._due(kept)
        purged = 0
        for kind in () if dry_run else reversed(ServiceType):
            level = [key for key in found if key.service_type is kind]
            for start in range(0, len(level), _AT_ONCE):
                purged += await self._purge(level[start : start + _AT_ONCE], kept, caller)
        if purged:
            log.info("services purged", action="services_purged", count=purged)
        return Swept(len(found), purged, tuple(map(str, found[:NAMES_SHOWN])))

    async def _due(self, kept: Kept) -> Sequence[ServiceKey]:
        now = self._recorder.clock.now()
        found, pace = [], Pace()
        for record in list(self._recorder.index.records.values()):
            if self._is_due(record, kept, now):
                found.append(record.key)
            await pace.breathe()
        return await in_order(found)

    def _is_due(self, record: ServiceRecord, kept: Kept, now: datetime) -> bool:
        limits = {ServiceStatus.DELETED: kept.deleted, ServiceStatus.REVOKED: kept.revoked}
        limit = limits.get(record.status)
        return (
            limit is not None
            and record.key not in self._known
            and record.updated_at <= now - limit
            and record.cascade is Cascade.NONE
            and not must_be_kept(record, now)
            and not any(child.live for child in self._recorder.index.children(record.key))
        )

    async def _purge(self, keys: Sequence[ServiceKey], kept: Kept, caller: Caller) -> int:
        now = self._recorder.clock.now()
        ready = []
        for key in keys:
            # Looked at again: a child may have come, or a reissue.
            record = await self._recorder.read(key)
            if record is None or any(self._recorder.index.children(key)):
                continue  # a child that is kept for now keeps its parent
            if self._is_due(record, kept, now):
                gone = await self._deleted(record)
                if gone is not None:
                    ready.append(gone)
        if not ready:
            return 0
        place = await self._archive.store(_file_name(ready, now), [record for record, _ in ready])
        purged = [await self._forget(record, sequence, place, caller) for record, sequence in ready]
        # The children are gone from the index before their parents are looked at.
        await self._recorder.catch_up(_CATCH_UP_SECONDS)
        return sum(purged)

    async def _deleted(self, record: ServiceRecord) -> tuple[ServiceRecord, int] | None:
        """The record as it is when deleted, its document gone; None where that is not so yet."""
        key, entry = record.key, self._recorder.index.entry
        if record.status is ServiceStatus.DELETED:
            return record, entry(key).sequence
        outcome = await self._recorder.attempt(key, c.Delete(reason="purged", cascade=False), SYSTEM)
        if isinstance(outcome, Refused):
            return None
        if outcome.after.cascade is Cascade.RUNNING:
            # Else it would be finished by somebody between archive and purge, and the purge find another version.
            await self._cascades.finish(key, outcome.sequence, SYSTEM)
        gone, sequence = await self._recorder.read(key), entry(key).sequence
        if gone is None or gone.status is not ServiceStatus.DELETED or gone.cascade is not Cascade.NONE:
            return None  # somebody made it anew in this very moment
        settled = await self._projections.settled(sequence, _PROJECTION_SECONDS, [key])
        return (gone, sequence) if settled["document"] == "written" else None

    async def _forget(self, record: ServiceRecord, sequence: int, place: str, caller: Caller) -> bool:
        version = f"{record.epoch}-{record.revision}"
        await self._trail.note(
            EventType.PURGED,
            caller,
            record=record,
            metadata={
                "archive": place,
                "status": record.status.value,
                "record_sha256": self._recorder.index.entry(record.key).digest.hex(),
            },
            event_id=f"purged-{record.key}-{version}",
        )
        # What a checker was told may hold secrets: with the service its earlier documents go as well.
        await self._documents.forget_earlier(document_key(record.lineage))
        try:
            await self._recorder.ledger.purge(record.key, sequence)
        except ConflictError:
            return False  # somebody made it anew in this very moment
        return True


def _file_name(ready: Sequence[tuple[ServiceRecord, int]], now: datetime) -> str:
    """Unique: a record of one version is purged once, and again only where that was cut off."""
    first = ready[0][0]
    return f"purged-{now:%Y%m%dT%H%M%SZ}-{first.key}-{first.epoch}-{first.revision}"
