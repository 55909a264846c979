"""Checkpoints: once a day the gateway signs what the audit trail and the ledger hold."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass, field

import structlog

from jetway.core.chain import digest_of
from jetway.core.checkpoint import (
    Checkpoint,
    Run,
    Signed,
    TrailEntry,
    decode_signed,
    place_of,
    read_checkpoint,
    records_digest,
    text_digest,
    text_of,
)
from jetway.core.errors import PortError, UnavailableError
from jetway.core.record import EventType
from jetway.core.times import to_milliseconds
from jetway.ports import AuditReader, CheckpointShelf, CheckpointSigner, Clock
from jetway.services.caller import SYSTEM
from jetway.services.trail import Trail

log = structlog.get_logger()

SETTLE_SECONDS = 10.0
"""How long entries have stood when they are signed: the server brings the trail to disk a little later."""
_ATTEMPTS = 3


@dataclass(slots=True)
class _Covered:
    """What was walked through."""

    run: Run = field(default_factory=Run)
    ends_at: str = ""
    sequence: int = 0
    ledger_sequence: int = 0

    def take(self, entry: TrailEntry, place: bytes) -> None:
        self.run.add(entry.digest)
        if not entry.of_gateway:
            self.ledger_sequence = max(self.ledger_sequence, entry.origin)
        self.ends_at, self.sequence = place.hex(), entry.sequence


class Checkpoints:
    """Makes them. Only on the daemon that leads."""

    def __init__(
        self,
        reader: AuditReader,
        signer: CheckpointSigner,
        shelf: CheckpointShelf,
        trail: Trail,
        clock: Clock,
        settle_seconds: float = SETTLE_SECONDS,
    ) -> None:
        self._reader = reader
        self._signer = signer
        self._shelf = shelf
        self._trail = trail
        self._clock = clock
        self._settle_seconds = settle_seconds

    async def make(self) -> Checkpoint | None:
        """One more, into the trail and onto the shelf; None where there is nothing to sign. Raises PortError."""
        before = self._newest(await find_signed(self._reader))
        end = await self._reader.last_sequence()
        await asyncio.sleep(self._settle_seconds)
        for _ in range(_ATTEMPTS):
            covered, starts_after = await self._walk(before, end)
            if not covered.run.entries:
                return None
            heads = await self._heads(covered.ledger_sequence)
            if heads is not None:
                return await self._sign(before, covered, starts_after, heads)
            # What was purged meanwhile is not in the ledger any more.
            end = await self._reader.last_sequence()
            await asyncio.sleep(self._settle_seconds)
        raise UnavailableError("too much is being purged: the checkpoint is made later")

    async def count(self) -> int:
        """How many entries the next one would cover. Raises PortError."""
        before = self._newest(await find_signed(self._reader))
        covered, _ = await self._walk(before, await self._reader.last_sequence())
        return covered.run.entries

    def _newest(self, signed: list[Signed]) -> tuple[Signed, Checkpoint] | None:
        found = [(each, read_checkpoint(each)) for each in signed if self._signer.verify(each)]
        return max(found, key=lambda pair: (pair[1].number, pair[1].made_at), default=None)

    async def _walk(self, before: tuple[Signed, Checkpoint] | None, end: int) -> tuple[_Covered, str]:
        last = before[1] if before else None
        if last is None:
            return await self._cover(0, end, ""), ""
        there = await self._reader.entry(last.sequence)
        if there is not None and there.data is not None and there.digest.hex() == last.ends_at:
            return await self._cover(last.sequence, end, "", last), last.ends_at
        # A restored trail has other sequences, and a marker does not name its place by itself.
        covered = await self._cover(0, end, last.ends_at, last)
        if covered.ends_at:
            return covered, last.ends_at
        log.error("the trail lacks what the last checkpoint ended at", action="audit_cut", number=last.number)
        return await self._cover(0, end, ""), ""

    async def _cover(self, after: int, end: int, behind: str, last: Checkpoint | None = None) -> _Covered:
        """Entries after that place, or behind the entry of that digest."""
        same = last is not None and last.epoch == self._reader.epoch
        covered = _Covered(ledger_sequence=last.ledger_sequence if last and same else 0)
        place = bytes.fromhex(last.ends_at) if last and not behind else b""
        async with aclosing(self._reader.entries(after, end)) as batches:
            async for batch in batches:
                for entry in batch:
                    place = place_of(entry, place)
                    if not behind:
                        covered.take(entry, place)
                    elif place.hex() == behind:
                        behind = ""
        return covered

    async def _heads(self, until: int) -> dict[str, bytes] | None:
        """Every record's newest revision as of that write; None where the ledger cannot tell any more."""
        heads: dict[str, bytes] = {}
        async with aclosing(self._reader.revisions()) as batches:
            async for batch in batches:
                for revision in batch:
                    if revision.sequence > until:
                        if revision.data is None:
                            return None
                    elif revision.data is None:
                        heads.pop(revision.key, None)
                    else:
                        heads[revision.key] = digest_of(revision.data)
        return heads

    async def _sign(
        self,
        before: tuple[Signed, Checkpoint] | None,
        covered: _Covered,
        starts_after: str,
        heads: dict[str, bytes],
    ) -> Checkpoint:
        checkpoint = Checkpoint(
            number=before[1].number + 1 if before else 1,
            ledger_id=self._reader.ledger_id,
            epoch=self._reader.epoch,
            made_at=to_milliseconds(self._clock.now()),
            previous_sha256=text_digest(before[0]) if before else "",
            starts_after=starts_after,
            ends_at=covered.ends_at,
            entries=covered.run.entries,
            entries_sha256=covered.run.digest,
            sequence=covered.sequence,
            ledger_sequence=covered.ledger_sequence,
            records=len(heads),
            records_sha256=await asyncio.to_thread(records_digest, heads),
        )
        signed = self._signer.sign(text_of(checkpoint))
        # Into the trail first: a file without its entry would look like an entry that was taken away.
        facts = {"text": signed.text, "signature": signed.signature, "key_id": signed.key_id}
        await self._trail.note(EventType.CHECKPOINT, SYSTEM, metadata={**facts})
        await self._shelf.store(signed, self._signer.public_pem)
        log.info("checkpoint", action="checkpoint", number=checkpoint.number, entries=checkpoint.entries)
        return checkpoint


async def find_signed(reader: AuditReader) -> list[Signed]:
    """The checkpoints in the trail, whoever signed them. Raises PortError for an entry that holds none."""
    found = []
    for event in await reader.happened(EventType.CHECKPOINT):
        try:
            found.append(decode_signed(event.metadata))
            read_checkpoint(found[-1])
        except ValueError:
            raise PortError(f"the entry {event.event_id} of the trail is no checkpoint") from None
    return found
