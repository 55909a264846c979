"""The audit trail and the ledger as they are stored, in memory; and a shelf for checkpoints."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

from pydantic import TypeAdapter

from jetway.core.checkpoint import Signed, TrailEntry
from jetway.core.record import EventType, encode_record
from jetway.core.rows import Event
from jetway.ports import StoredRevision
from support.memory import Failing, MemoryAuditLog, MemoryLedger

_EVENT: TypeAdapter[Event] = TypeAdapter(Event)


class MemoryTrail(Failing):
    """Implements `ports.AuditReader` over what the ledger and the log of other events hold."""

    def __init__(self, ledger: MemoryLedger, audit: MemoryAuditLog) -> None:
        super().__init__()
        self.ledger_id = "ledger-1"
        self.epoch = ledger.epoch
        self._ledger = ledger
        self._audit = audit

    async def last_sequence(self) -> int:
        """The newest."""
        with self._call("last_sequence"):
            return self._ledger.events.last

    async def entry(self, sequence: int) -> TrailEntry | None:
        """At that place."""
        with self._call("entry"):
            return next((entry for entry in self._all() if entry.sequence == sequence), None)

    async def entries(self, after: int = 0, until: int = 0) -> AsyncGenerator[Sequence[TrailEntry], None]:
        """All at once."""
        with self._call("entries"):
            pass
        until = until or self._ledger.events.last
        yield [entry for entry in self._all() if after < entry.sequence <= until]

    async def happened(self, kind: EventType) -> Sequence[Event]:
        """In order."""
        with self._call("happened"):
            return [event for event in self._audit.events if event.event_type == kind.value]

    async def revisions(self) -> AsyncGenerator[Sequence[StoredRevision], None]:
        """All at once."""
        with self._call("revisions"):
            pass
        yield [
            StoredRevision(str(x.key), encode_record(x.record) if x.record else None, x.sequence)
            for x in self._ledger.changes.values
        ]

    async def settle(self, seconds: float) -> int:
        """Always up to date."""
        return 0

    def _all(self) -> list[TrailEntry]:
        """What is no event of the gateway's own is a change of the ledger, in the same order."""
        own = {event.event_id for event in self._audit.events}
        changes = iter(self._ledger.changes.values)
        found = []
        for sequence, events in enumerate(self._ledger.events.values, 1):
            if events and events[0].event_id in own:
                data = _EVENT.dump_json(events[0])
                found.append(TrailEntry(sequence, f"gateway.{events[0].event_type}", data))
                continue
            change = next(changes)
            record = encode_record(change.record) if change.record else None
            found.append(TrailEntry(sequence, str(change.key), record, change.sequence))
        return found


class MemoryShelf(Failing):
    """Implements `ports.CheckpointShelf`."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[Signed] = []

    async def store(self, signed: Signed, public_pem: bytes) -> None:
        """Keep it."""
        with self._call("store"):
            self.kept.append(signed)
