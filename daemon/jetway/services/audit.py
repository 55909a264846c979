"""Verification of the audit trail: the chain of every record, the checkpoints, and the ledger against both.

Streams: what is kept in memory are digests, of each record at most those of its last 64 revisions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import datetime

from pydantic import TypeAdapter

from jetway.core.chain import Link, Seen, begin, digest_of, follow, read_link
from jetway.core.checkpoint import (
    Checkpoint,
    Run,
    Signed,
    TrailEntry,
    place_of,
    read_checkpoint,
    records_digest,
    text_digest,
)
from jetway.core.errors import PortError
from jetway.core.record import EventType
from jetway.core.rows import Event
from jetway.core.times import rfc3339
from jetway.ports import AuditReader, CheckpointVerifier
from jetway.services.checkpoints import find_signed
from jetway.services.restores import Restores, find_restores, shown, shown_unproven

FINDINGS_SHOWN = 100
_SETTLE_SECONDS = 15.0
_PURGED = f"gateway.{EventType.PURGED.value}"
_EVENT: TypeAdapter[Event] = TypeAdapter(Event)


@dataclass(slots=True)
class Verified:
    """What was looked through, and what does not fit, the first of it first."""

    entries: int = 0
    revisions: int = 0
    records: int = 0
    checkpoints: int = 0
    breaks: int = 0
    findings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def report(self, what: str) -> None:
        """A break or a gap."""
        self.breaks += 1
        if len(self.findings) < FINDINGS_SHOWN:
            self.findings.append(what)


class AuditVerifier:
    """Verifies once.

    `kept`: checkpoints from outside the trail. `oldest`: what was made before then the trail may have forgotten.
    """

    def __init__(
        self,
        reader: AuditReader,
        key: CheckpointVerifier,
        kept: Sequence[Signed],
        oldest: datetime,
        told: Callable[[int], None] = lambda _entries: None,
        settle_seconds: float = _SETTLE_SECONDS,
    ) -> None:
        self._reader = reader
        self._key = key
        self._kept = kept
        self._oldest = oldest
        self._told = told
        self._settle_seconds = settle_seconds
        self._done = Verified()
        self._seen: dict[str, Seen] = {}
        self._late: dict[str, Link] = {}
        """Records whose first entry is not their first revision, which that is, and of which epoch."""
        self._purged: dict[str, int] = {}
        """Markers of a purge that no event has announced, and where they stand."""
        self._announced: set[str] = set()
        self._checkpoints: list[Checkpoint] = []
        self._runs: dict[str, Run] = {}
        self._heads: dict[str, bytes] = {}
        """Every record's newest revision at the newest checkpoint, as far as the trail tells."""
        self._at_newest = False
        self._first = 0
        self._restores = Restores()
        self._epochs: set[int] = set()

    async def run(self) -> Verified:
        """All of it. Raises PortError where NATS is away."""
        await self._reader.settle(self._settle_seconds)
        await self._read_restores()
        await self._read_checkpoints()
        await self._walk_trail()
        self._judge_trail()
        await self._walk_ledger()
        self._done.records = len(self._seen)
        return self._done

    async def _read_restores(self) -> None:
        """What was restored is always told: nobody but the operator knows whether it should have been."""
        self._restores = await find_restores(self._reader, self._key)
        self._done.notes += map(shown, self._restores.proven)
        for event in self._restores.unproven:
            self._done.report(shown_unproven(event))

    # --- checkpoints

    async def _read_checkpoints(self) -> None:
        try:
            signed = await find_signed(self._reader)
        except PortError as error:
            self._done.report(str(error))
            signed = []
        there = {each.text for each in signed}
        lost = [each for each in self._kept if each.text not in there]
        good = self._signed(signed)
        for _, checkpoint in self._signed(lost):
            if checkpoint.made_at >= self._oldest:
                self._tell_lost(checkpoint)
        self._check_numbers(good)
        self._checkpoints = [checkpoint for _, checkpoint in good]
        self._done.checkpoints = len(good)

    def _signed(self, signed: Sequence[Signed]) -> list[tuple[Signed, Checkpoint]]:
        good = []
        for each in signed:
            checkpoint = read_checkpoint(each)
            if not self._key.verify(each):
                self._done.report(f"{_named(checkpoint)}: the signature is not by the gateway's key")
            elif checkpoint.ledger_id != self._reader.ledger_id:
                self._done.report(f"{_named(checkpoint)}: it is of the ledger {checkpoint.ledger_id}")
            else:
                good.append((each, checkpoint))
        return sorted(good, key=lambda pair: (pair[1].number, pair[1].made_at))

    def _tell_lost(self, checkpoint: Checkpoint) -> None:
        if self._restores.undid(checkpoint):
            self._done.notes.append(f"{_named(checkpoint)} was made after the backup that was restored")
        else:
            self._done.report(f"{_named(checkpoint)} is not in the trail: it was cut off or replaced")

    def _check_numbers(self, good: Sequence[tuple[Signed, Checkpoint]]) -> None:
        by_number: dict[int, set[str]] = {}
        for signed, checkpoint in good:
            by_number.setdefault(checkpoint.number, set()).add(text_digest(signed))
        lowest = min(by_number, default=0)
        for _, checkpoint in good:
            before = by_number.get(checkpoint.number - 1)
            if before is None and checkpoint.number > lowest:
                self._done.report(f"{_named(checkpoint)}: checkpoint {checkpoint.number - 1} is missing")
            elif before is not None and checkpoint.previous_sha256 not in before:
                self._done.report(f"{_named(checkpoint)}: it was not made after the one before it")
            elif checkpoint.number > 1 and not checkpoint.starts_after:
                self._done.report(f"{_named(checkpoint)}: the trail had lost what the one before it ended at")

    # --- the trail

    async def _walk_trail(self) -> None:
        wanted = {each.starts_after for each in self._checkpoints}
        ends: dict[str, list[Checkpoint]] = {}
        for each in self._checkpoints:
            ends.setdefault(each.ends_at, []).append(each)
        newest = self._checkpoints[-1] if self._checkpoints else None
        self._runs = {"": Run()} if "" in wanted else {}
        last, place = 0, b""
        async with aclosing(self._reader.entries()) as batches:
            async for batch in batches:
                for entry in batch:
                    if last and entry.sequence != last + 1:
                        self._done.report(
                            f"entries {last + 1} to {entry.sequence - 1} of the trail are missing"
                        )
                    self._first, last = self._first or entry.sequence, entry.sequence
                    self._take(entry)
                    for run in self._runs.values():
                        run.add(entry.digest)
                    place = place_of(entry, place)
                    name = place.hex()
                    for checkpoint in ends.pop(name, ()):
                        self._compare(checkpoint)
                        if checkpoint is newest:
                            self._heads = {key: seen.head for key, seen in self._seen.items()}
                            self._at_newest = True
                    if name in wanted:
                        self._runs[name] = Run()
                self._done.entries += len(batch)
                self._told(len(batch))
        for checkpoint in (each for some in ends.values() for each in some):
            if checkpoint.made_at >= self._oldest:
                self._done.report(
                    f"{_named(checkpoint)}: the entry that it ended at is missing or was changed"
                )

    def _compare(self, checkpoint: Checkpoint) -> None:
        run = self._runs.get(checkpoint.starts_after)
        if run is None:
            self._done.notes.append(f"{_named(checkpoint)}: the trail does not reach back to where it begins")
            return
        if (run.entries, run.digest) == (checkpoint.entries, checkpoint.entries_sha256):
            return
        cut = self._first > 1 or checkpoint.epoch < self._restores.newest
        if not checkpoint.starts_after and cut and run.entries < checkpoint.entries:
            self._done.notes.append(f"{_named(checkpoint)}: the trail does not reach back to where it begins")
            return
        self._done.report(
            f"{_named(checkpoint)} does not fit: it covers {checkpoint.entries} entries, and of the {run.entries}"
            " that stand there some were changed, moved, added or taken away"
        )

    def _take(self, entry: TrailEntry) -> None:
        if entry.of_gateway:
            if entry.subject == _PURGED and entry.data is not None:
                self._take_announcement(entry)
        elif entry.data is None:
            self._take_purge(entry)
        else:
            self._take_revision(entry, entry.data)

    def _take_announcement(self, entry: TrailEntry) -> None:
        try:
            event = _EVENT.validate_json(entry.data or b"")
        except ValueError:
            self._done.report(f"entry {entry.sequence} of the trail ({entry.subject}) cannot be read")
            return
        key = f"{event.service_type}.{event.service_id}"
        head = event.metadata.get("record_sha256")
        if self._at_newest and key not in self._seen and isinstance(head, str):
            self._heads.setdefault(key, bytes.fromhex(head))
        if self._purged.pop(key, None) is None:
            self._announced.add(key)

    def _take_purge(self, entry: TrailEntry) -> None:
        self._seen.pop(entry.subject, None)
        self._late.pop(entry.subject, None)
        if entry.subject in self._announced:
            self._announced.discard(entry.subject)
        else:
            self._purged[entry.subject] = entry.sequence

    def _take_revision(self, entry: TrailEntry, data: bytes) -> None:
        self._done.revisions += 1
        link = self._link(entry.subject, data, f"entry {entry.sequence} of the trail")
        if link is None:
            return
        self._epochs.add(link.epoch)
        digest = digest_of(data)
        seen = self._seen.get(entry.subject)
        if seen is None:
            self._begin(entry, link, digest)
            return
        if link.epoch == seen.epoch and seen.digest(link.revision) == digest:
            self._done.report(f"{_told(link)}: it is in the trail twice, again at entry {entry.sequence}")
            return
        self._seen[entry.subject], why = follow(seen, link, digest)
        if why:
            self._done.report(f"{_told(link)}, entry {entry.sequence} of the trail: {why}")

    def _begin(self, entry: TrailEntry, link: Link, digest: bytes) -> None:
        self._seen[entry.subject] = begin(link, digest)
        if link.revision > 1:
            self._late[entry.subject] = link
            if self._at_newest and link.previous_sha256:
                self._heads.setdefault(entry.subject, bytes.fromhex(link.previous_sha256))

    def _link(self, key: str, data: bytes, where: str) -> Link | None:
        try:
            link = read_link(data)
        except ValueError:
            self._done.report(f"{where}, of {key}: it is no revision of a record")
            return None
        if str(link.key) != key:
            self._done.report(f"{where}: {_told(link)} stands under {key}")
            return None
        return link

    def _judge_trail(self) -> None:
        for key, sequence in self._purged.items():
            self._done.report(f"{key}: purged at entry {sequence} of the trail, and not by the gateway")
        for epoch in sorted(self._epochs)[1:]:
            if not self._restores.began(epoch):
                self._done.report(f"epoch {epoch}: no restore that the gateway's key signed began it")
        if self._first > 1:
            return  # the beginning is older than the trail is kept
        for key, link in self._late.items():
            if link.epoch > self._restores.newest:  # else the trail of the backup did not reach back so far
                self._done.report(
                    f"{key}: the trail begins with its revision {link.revision}; what was before is missing"
                )

    # --- the ledger

    async def _walk_ledger(self) -> None:
        there: set[str] = set()
        async with aclosing(self._reader.revisions()) as batches:
            async for batch in batches:
                for revision in batch:
                    if revision.data is None:
                        continue
                    link = self._link(revision.key, revision.data, "the ledger")
                    if link is not None:
                        there.add(revision.key)
                        self._compare_stored(link, digest_of(revision.data))
        for key, seen in self._seen.items():
            if key not in there and seen.epoch >= self._restores.newest:
                self._done.report(f"{key}: the trail has its revision {seen.revision}, the ledger lacks it")
        self._compare_heads()

    def _compare_stored(self, link: Link, digest: bytes) -> None:
        key = str(link.key)
        seen = self._seen.get(key)
        if seen is None:
            self._take_old(key, link, digest)
            return
        known = seen.digest(link.revision)
        if known and known != digest:
            self._done.report(f"{_told(link)}: the ledger and the trail differ: one of the two was changed")
        elif link.revision > seen.revision and link.epoch >= self._restores.newest:
            self._done.report(f"{_told(link)}: it is in the ledger, and the trail lacks it")

    def _take_old(self, key: str, link: Link, digest: bytes) -> None:
        """A record of which the trail knows nothing any more, because nothing happened to it for so long."""
        if link.transition.at >= self._oldest:
            self._done.report(f"{_told(link)}: it is in the ledger, and the trail lacks it")
        elif self._at_newest:
            self._heads[key] = digest

    def _compare_heads(self) -> None:
        if not self._at_newest:
            return
        newest = self._checkpoints[-1]
        found = (len(self._heads), records_digest(self._heads))
        if found != (newest.records, newest.records_sha256):
            self._done.report(
                f"{_named(newest)} does not fit: the newest revisions of its {newest.records} records are not"
                f" those that stand there, of {found[0]}"
            )


def _told(link: Link) -> str:
    return f"{link.key} revision {link.revision} of {rfc3339(link.transition.at)}"


def _named(checkpoint: Checkpoint) -> str:
    return f"checkpoint {checkpoint.number} of {rfc3339(checkpoint.made_at)}"
