"""The stream of events against the ledger: what the server's view passed over is told, and made again if it can.

The server alone writes the view, so what it passed over never gets its place in it. Its events are appended beside
it, as what happens outside the records is, under the ids that they had: the trail has them, at a later place. That
it was done stands in the trail as well, so it is done once.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from itertools import islice

from jetway.core.drift import Drift
from jetway.core.record import EventType
from jetway.core.rows import events_of
from jetway.ports import AuditLog, Change, Ledger, PassedOver, Views
from jetway.services.caller import SYSTEM
from jetway.services.findings import Findings, paced
from jetway.services.trail import Trail

_NAMESPACE = uuid.UUID("9c1f7f0e-8f3b-5a5e-9d0a-6f0f2f6f1d44")
_A_RUN = 1000
"""Writes that are looked at in one run; there are more only where a server was in great trouble."""
_KNOWN = 50_000
"""Writes that one run goes through, most of which earlier ones have told of."""


class StreamComparison:
    """Asks the views what they passed over."""

    def __init__(self, views: Views, ledger: Ledger, audit: AuditLog, trail: Trail) -> None:
        self._views = views
        self._ledger = ledger
        self._audit = audit
        self._trail = trail

    async def run(self, findings: Findings) -> None:
        """Tell, and make again. Raises PortError; what was made again stays so."""
        passed = await self._views.passed_over()
        left = _A_RUN
        async for sequence in paced(islice(_all(passed), _KNOWN)):
            if self._id(sequence, "again") in passed.told:
                continue
            if self._id(sequence, "lost") in passed.told:
                findings.note(Drift.AUDIT_STREAM_GAP, _named(sequence, None), known=True)
                findings.gaps_found += 1
                continue
            if not left:
                return
            left -= 1
            await self._mend(sequence, findings)

    async def _mend(self, sequence: int, findings: Findings) -> None:
        change = await self._views.origin(sequence)
        findings.note(Drift.AUDIT_STREAM_GAP, _named(sequence, change))
        findings.gaps_found += 1
        if not findings.mends:
            return
        if change is None:
            await self._tell(sequence, change, "the ledger keeps it no longer", "lost")
            return
        for event in events_of(change.record) if change.record else ():
            await self._audit.append(event)
        # Last: what was cut off before it is done again, and an entry that is there twice is one.
        await self._tell(sequence, change, "its events follow the stream's other entries", "again")
        findings.gaps_mended += 1

    async def _tell(self, sequence: int, change: Change | None, what: str, outcome: str) -> None:
        record = change.record if change else None
        await self._trail.note(
            EventType.AUDIT_GAP,
            SYSTEM,
            reason=f"the stream of events passed over {_named(sequence, change)}; {what}",
            record=record,
            metadata={"ledger_sequence": sequence} | ({"revisions": [record.revision]} if record else {}),
            event_id=self._id(sequence, outcome),
        )

    def _id(self, sequence: int, outcome: str) -> str:
        """Of the entry that says so: sequences begin anew in a new epoch."""
        return str(uuid.uuid5(_NAMESPACE, f"{self._ledger.epoch}/{sequence}/{outcome}"))


def _all(passed: PassedOver) -> Iterator[int]:
    return (sequence for first, last in passed.gaps for sequence in range(first, last + 1))


def _named(sequence: int, change: Change | None) -> str:
    write = f"write {sequence} of the ledger"
    if change is None:
        return write
    return f"{write}, {change.key} " + (f"revision {change.record.revision}" if change.record else "purged")
