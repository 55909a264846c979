"""The audit trail and the ledger as they are stored, read from end to end: to make checkpoints and to verify."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing

from jetway.adapters.nats.feeds import decode_events
from jetway.adapters.nats.image import NatsImage
from jetway.adapters.nats.jetstream import JetStream
from jetway.adapters.nats.meta import LedgerMeta
from jetway.adapters.nats.names import EVENTS_PREFIX, GATEWAY_EVENTS_PREFIX, Names, stream_of, subject_of
from jetway.adapters.nats.pull import Delivered
from jetway.adapters.nats.tail import Tail
from jetway.core.checkpoint import TrailEntry
from jetway.core.errors import UnavailableError
from jetway.core.record import EventType
from jetway.core.rows import Event
from jetway.ports import StoredRevision

_SILENT_SECONDS = 30.0
_SOURCE_HEADER = "Nats-Stream-Source"


class NatsTrail:
    """Implements `ports.AuditReader`."""

    def __init__(self, jetstream: JetStream, names: Names, meta: LedgerMeta) -> None:
        self._js = jetstream
        self._names = names
        self._registry = stream_of(names.registry_bucket)
        self.ledger_id = meta.ledger_id
        self.epoch = meta.epoch

    async def last_sequence(self) -> int:
        """Of the newest entry."""
        return await self._end(self._names.events_stream)

    async def entry(self, sequence: int) -> TrailEntry | None:
        """The entry at that place."""
        stored = await self._js.read_next(self._names.events_stream, ">", sequence) if sequence else None
        if stored is None or stored.sequence != sequence:
            return None
        data = None if stored.is_marker else stored.data
        return _entry(stored.sequence, stored.subject, data, stored.headers)

    async def entries(self, after: int = 0, until: int = 0) -> AsyncGenerator[Sequence[TrailEntry], None]:
        """All after the place `after`, up to `until` or to where the trail ended when it was asked for."""
        stream = self._names.events_stream
        async with aclosing(self._read(stream, f"{EVENTS_PREFIX}>", after, until)) as batches:
            async for batch in batches:
                yield [
                    _entry(m.sequence, m.subject, None if m.is_marker else m.data, m.headers) for m in batch
                ]

    async def happened(self, kind: EventType) -> Sequence[Event]:
        """All events of a kind that happens outside records and is rare, the oldest first."""
        subject = f"{GATEWAY_EVENTS_PREFIX}{kind.value}"
        found: list[Event] = []
        sequence = 0
        stream = self._names.events_stream
        while (stored := await self._js.read_next(stream, subject, sequence + 1)) is not None:
            sequence = stored.sequence
            message = Delivered(stored.subject, stored.data, "", "", sequence, 0, 0, dict(stored.headers))
            found += decode_events(message)
        return found

    async def revisions(self) -> AsyncGenerator[Sequence[StoredRevision], None]:
        """Every revision that the ledger still keeps, in the order in which they were written, and purges."""
        start = len(subject_of(self._names.registry_bucket, ""))
        subjects = subject_of(self._names.registry_bucket, ">")
        async with aclosing(self._read(self._registry, subjects, 0, 0)) as batches:
            async for batch in batches:
                yield [
                    StoredRevision(m.subject[start:], None if m.is_marker else m.data, m.sequence)
                    for m in batch
                ]

    async def settle(self, seconds: float) -> int:
        """Wait until the trail has what the ledger holds now; how many changes it lacks after `seconds`."""
        return await NatsImage(self._js, self._names).settle_trail(seconds)

    async def _read(
        self, stream: str, subjects: str, after: int, until: int
    ) -> AsyncGenerator[Sequence[Delivered], None]:
        end = until or await self._end(stream)
        if end <= after:
            return
        tail = Tail(self._js, stream, subjects, after=after, name=f"{stream}-audit", whole=True)
        try:
            while True:
                try:
                    async with asyncio.timeout(_SILENT_SECONDS):
                        stretch = await tail.next()
                except TimeoutError:
                    why = f"the stream {stream} was not read on for {_SILENT_SECONDS:g} s"
                    raise UnavailableError(why) from None
                yield [message for message in stretch.messages if message.sequence <= end]
                if stretch.caught_up or (stretch.messages and stretch.messages[-1].sequence >= end):
                    return
        finally:
            await tail.close()

    async def _end(self, stream: str) -> int:
        return int((await self._js.call(f"STREAM.INFO.{stream}"))["state"]["last_seq"])


def _entry(sequence: int, subject: str, data: bytes | None, headers: Mapping[str, str]) -> TrailEntry:
    origin = headers.get(_SOURCE_HEADER, "").split(" ")
    known = len(origin) > 1 and origin[1].isdecimal()
    return TrailEntry(sequence, subject.removeprefix(EVENTS_PREFIX), data, int(origin[1]) if known else 0)
