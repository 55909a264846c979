"""The audit trail against the ledger: a revision without its events is a gap, told once, closed if it can be."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from datetime import timedelta

from jetway.core.drift import Drift
from jetway.core.gaps import Gap, Version, find_gaps, may_have_gaps
from jetway.core.ids import ServiceKey
from jetway.core.record import EventType, ServiceRecord
from jetway.core.rows import events_of
from jetway.ports import Clock, EventQuery, Ledger, RegistryDatabase
from jetway.services.caller import SYSTEM
from jetway.services.findings import Findings, batches, for_each, paced
from jetway.services.index import Index
from jetway.services.row_writer import EventWriter
from jetway.services.settling import Settling, confirm
from jetway.services.trail import Trail

_NAMESPACE = uuid.UUID("f0a3b9d4-52d1-5c0e-9c55-6a3f0d7be1c2")
_CLOSER = 50
"""Services that are looked at closely at a time: each may have many revisions."""
_TOLD_ONE_BY_ONE = 200
"""After so many services in one run the table was lost, not a row of it: the rest is told in one entry."""

Seen = tuple[Version, tuple[Gap, ...]]
"""The record's version and what is missing: another version means that the service changed meanwhile."""


class TrailComparison:
    """Looks at sums first, at revisions only where the sums do not add up."""

    def __init__(
        self,
        database: RegistryDatabase,
        ledger: Ledger,
        index: Index,
        trail: Trail,
        clock: Clock,
        settling: Settling,
        audit_kept: timedelta,
        writer: EventWriter,
    ) -> None:
        self._database = database
        self._ledger = ledger
        self._index = index
        self._trail = trail
        self._clock = clock
        self._settling = settling
        self._kept = audit_kept
        self._writer = writer
        self._told: dict[ServiceKey, set[int]] = {}
        self._untold = 0

    async def run(self, findings: Findings) -> None:
        """Compare, tell and mend. Raises PortError; what was mended stays mended."""
        if not findings.mends:
            for keys in batches(list(self._index.records)):
                await self._compare(keys, self._told, findings)
            return
        await self._writer.retry()
        told_before = self._told
        self._told, self._untold = {}, 0
        try:
            for keys in batches(list(self._index.records)):
                await self._compare(keys, told_before, findings)
            if self._untold:
                reason = f"further {self._untold} services have gaps as well"
                await self._trail.note(EventType.AUDIT_GAP, SYSTEM, reason=reason)
        except BaseException:
            self._told = told_before | self._told
            raise

    async def _compare(
        self, keys: Sequence[ServiceKey], told: dict[ServiceKey, set[int]], findings: Findings
    ) -> None:
        for some in batches(await self._suspects(keys), _CLOSER):
            confirmed = await confirm(await self._look(some), self._settling.events, self._look)
            for key, (_, gaps) in confirmed.items():
                await self._tell(key, gaps, told.get(key, set()), findings)
            if findings.mends:
                missing = [gap for _, gaps in confirmed.values() for gap in gaps]
                await self._mend(missing, findings)

    async def _suspects(self, keys: Sequence[ServiceKey]) -> list[ServiceKey]:
        since = self._clock.now() - self._kept
        spans = await self._database.find_event_spans(keys)
        records = [record async for key in paced(keys) if (record := self._index.get(key))]
        return [r.key async for r in paced(records) if may_have_gaps(r, spans.get(r.key, ()), since)]

    async def _look(self, keys: Sequence[ServiceKey]) -> dict[ServiceKey, Seen]:
        since = self._clock.now() - self._kept
        present = await self._database.find_event_revisions(keys)
        records = [record for key in keys if (record := self._index.get(key))]
        histories = await for_each([record.key for record in records], self._ledger.history)
        seen = {}
        for record, history in zip(records, histories, strict=True):
            gaps = find_gaps(record, present.get(record.key, {}), history, since)
            if gaps:
                seen[record.key] = (record.version, tuple(gaps))
        return seen

    # --- telling and mending

    async def _tell(self, key: ServiceKey, gaps: Sequence[Gap], told: set[int], findings: Findings) -> None:
        """Count, and put into the trail what no run has put there before: before mending hides it."""
        missing = [gap.revision for gap in gaps]
        if not told.issuperset(missing):
            told = told | await self._told_before(key)
        new = [revision for revision in missing if revision not in told]
        for revision in missing:
            findings.note(Drift.AUDIT_GAP, f"{key} revision {revision}", known=revision in told)
        findings.gaps_found += len(missing)
        if not findings.mends:
            return
        record = self._index.get(key)
        if new and record:
            await self._tell_new(record, new)
        self._told[key] = told | set(new)

    async def _tell_new(self, record: ServiceRecord, revisions: Sequence[int]) -> None:
        if len(self._told) >= _TOLD_ONE_BY_ONE:
            self._untold += 1
            return
        words = ", ".join(map(str, revisions[:10])) + (", ..." if len(revisions) > 10 else "")
        name = f"{record.key}/{record.incarnation}/{','.join(map(str, revisions))}"
        await self._trail.note(
            EventType.AUDIT_GAP,
            SYSTEM,
            reason=f"the trail lacks what made revision {words}",
            record=record,
            metadata={"revisions": list(revisions)},
            event_id=str(uuid.uuid5(_NAMESPACE, name)),
        )

    async def _told_before(self, key: ServiceKey) -> set[int]:
        query = EventQuery(
            types=(EventType.AUDIT_GAP.value,),
            service_type=key.service_type.value,
            service_id=key.service_id,
            limit=_CLOSER,
        )
        events = (await self._database.find_events(query)).events
        return {number for event in events for number in _numbers(event.metadata.get("revisions"))}

    async def _mend(self, gaps: Sequence[Gap], findings: Findings) -> None:
        """Append again what the ledger still has, under the ids that the events had."""
        sources = [events_of(gap.source) for gap in gaps if gap.source is not None]
        refused = await self._writer.append([event for events in sources for event in events])
        findings.gaps_mended += sum(refused.isdisjoint(e.event_id for e in events) for events in sources)


def _numbers(value: object) -> Iterable[int]:
    return [number for number in value if isinstance(number, int)] if isinstance(value, list) else ()
