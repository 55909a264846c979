"""Every record in memory, fed by the ledger: what lists, trees, metrics and admission read.

The index may trail the ledger by a moment; decisions that must be right read the ledger itself. Versions are
ordered by (epoch, revision), so what arrives late or twice changes nothing.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import Counter
from collections.abc import Callable, Iterator

import structlog

from jetway.core.errors import PortError
from jetway.core.ids import ServiceKey, ServiceType
from jetway.core.record import Approval, ServiceRecord, ServiceStatus, Source
from jetway.core.rows import Counts
from jetway.ports import Change, Entry, Ledger

log = structlog.get_logger()

_RETRY_SECONDS = 1.0
_TAKEN_A_TURN = 100
"""Some milliseconds; then others have the event loop."""
_PURGES_REMEMBERED = 100_000
"""More than a day's purges: what a projection gets once more is younger than that."""

Kind = tuple[ServiceType, ServiceStatus, Source, Approval]
"""What records are counted by."""


class SequenceWaiters:
    """Lets callers wait until a position has been reached."""

    def __init__(self) -> None:
        self.position = 0
        self._heap: list[tuple[int, int, asyncio.Future[None]]] = []
        self._count = 0

    def advance(self, position: int) -> None:
        """The position is reached; whoever waited for it goes on."""
        self.position = max(self.position, position)
        while self._heap and self._heap[0][0] <= self.position:
            future = heapq.heappop(self._heap)[2]
            if not future.done():
                future.set_result(None)

    async def reached(self, position: int, timeout: float) -> bool:
        """Wait up to `timeout` seconds for the position; whether it was reached."""
        if position <= self.position:
            return True
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._count += 1
        heapq.heappush(self._heap, (position, self._count, future))
        try:
            async with asyncio.timeout(timeout):
                await future
        except TimeoutError:
            self._heap = [item for item in self._heap if item[2] is not future]
            heapq.heapify(self._heap)
            return False
        return True


class Index:
    """All records by key, with their children and packages."""

    def __init__(self) -> None:
        self.records: dict[ServiceKey, ServiceRecord] = {}
        self._by_type: dict[ServiceType, dict[str, ServiceRecord]] = {kind: {} for kind in ServiceType}
        self.tally: Counter[Kind] = Counter()
        """How many records there are of every kind, kept with every change."""
        self._sequences: dict[ServiceKey, int] = {}
        self._digests: dict[ServiceKey, bytes] = {}
        self._purged: dict[ServiceKey, int] = {}
        self._children: dict[ServiceKey, set[ServiceKey]] = {}
        self._packages: dict[str, ServiceKey] = {}
        self._listeners: list[Callable[[ServiceRecord | None, ServiceRecord], None]] = []
        self._mourners: list[Callable[[ServiceRecord], None]] = []
        self.progress = SequenceWaiters()
        self.ready = asyncio.Event()
        """Set once everything that the ledger held at the start has been read."""

    def get(self, key: ServiceKey) -> ServiceRecord | None:
        """The newest record known here."""
        return self.records.get(key)

    def entry(self, key: ServiceKey) -> Entry:
        """The record with the ledger's sequence of it, as far as they are known: to be tried, not trusted."""
        return Entry(self.records.get(key), self._sequences.get(key, 0), self._digests.get(key, b""))

    def of_type(self, kind: ServiceType) -> list[ServiceRecord]:
        """All records of one type, deleted ones too, in no order."""
        return list(self._by_type[kind].values())

    def by_package(self, package_id: str) -> ServiceRecord | None:
        """The record that carries this package, as its current or an earlier one."""
        key = self._packages.get(package_id)
        return self.records.get(key) if key else None

    def children(self, key: ServiceKey) -> Iterator[ServiceRecord]:
        """The direct children that are not deleted, in no order."""
        for child in tuple(self._children.get(key, ())):
            record = self.records.get(child)
            if record:
                yield record

    def child_keys(self, key: ServiceKey) -> list[ServiceKey]:
        """The direct children's keys, sorted."""
        return sorted(self._children.get(key, ()))

    def counts(self, key: ServiceKey) -> Counts:
        """How many agents and checkers stand beneath a service."""
        direct = self._children.get(key, ())
        if key.service_type.child_type is None:
            return Counts()
        if key.service_type.parent_type is not None:
            return Counts(checkers=len(direct))
        return Counts(agents=len(direct), checkers=sum(len(self._children.get(a, ())) for a in direct))

    def on_change(self, listener: Callable[[ServiceRecord | None, ServiceRecord], None]) -> None:
        """Call `listener(before, after)` for every newer version. It must not block."""
        self._listeners.append(listener)

    def on_forget(self, listener: Callable[[ServiceRecord], None]) -> None:
        """Call `listener(record)` for every record that was purged. It must not block."""
        self._mourners.append(listener)

    def apply(self, record: ServiceRecord, sequence: int = 0, digest: bytes = b"") -> bool:
        """Take in a version; whether it was newer than the one here.

        `sequence`, `digest`: where in the ledger it stands, and the SHA-256 of its bytes there, if they are known.
        """
        if sequence and sequence <= self._purged.get(record.key, 0):
            return False  # from before the purge: it comes late, or once more
        before = self.records.get(record.key)
        if sequence and (before is None or before.version <= record.version):
            self._sequences[record.key] = sequence
        if before is None or before.version <= record.version:
            self._learn_digest(record.key, digest, anew=before is None or before.version < record.version)
        if before is not None and before.version >= record.version:
            return False
        self.records[record.key] = record
        self._by_type[record.service_type][record.service_id] = record
        self._count(before, -1)
        self._count(record, 1)
        self._index_packages(before, record)
        self._index_parent(before, record)
        for listener in self._listeners:
            listener(before, record)
        return True

    def _learn_digest(self, key: ServiceKey, digest: bytes, *, anew: bool) -> None:
        if digest:
            self._digests[key] = digest
        elif anew:
            self._digests.pop(key, None)

    def forget(self, key: ServiceKey, sequence: int = 0) -> None:
        """The record was purged, at `sequence` if that is known; what was written later stays."""
        if sequence:
            if self._sequences.get(key, 0) > sequence:
                return
            self._remember_purge(key, sequence)
        record = self.records.pop(key, None)
        self._sequences.pop(key, None)
        self._digests.pop(key, None)
        if record is None:
            return
        del self._by_type[key.service_type][key.service_id]
        self._count(record, -1)
        for package in (record.package, *record.earlier_packages):
            if package:
                self._packages.pop(package.package_id, None)
        if record.parent:
            self._children.get(record.parent, set()).discard(key)
        if not self._children.get(key):
            self._children.pop(key, None)
        for listener in self._mourners:
            listener(record)

    def _remember_purge(self, key: ServiceKey, sequence: int) -> None:
        self._purged.pop(key, None)
        self._purged[key] = sequence
        if len(self._purged) > _PURGES_REMEMBERED:
            del self._purged[next(iter(self._purged))]

    def _count(self, record: ServiceRecord | None, by: int) -> None:
        if record is not None:
            kind = (record.service_type, record.status, record.registration_source, record.approval)
            self.tally[kind] += by
            if not self.tally[kind]:
                del self.tally[kind]

    def _index_packages(self, before: ServiceRecord | None, after: ServiceRecord) -> None:
        if before is not None and before.package is after.package:
            return
        for package in (after.package, *after.earlier_packages):
            if package:
                self._packages[package.package_id] = after.key

    def _index_parent(self, before: ServiceRecord | None, record: ServiceRecord) -> None:
        parent = record.parent
        if parent is None:
            return
        if before is not None and before.parent is not None and before.parent != parent:
            self._children.get(before.parent, set()).discard(record.key)  # made anew beneath another parent
        if record.status is ServiceStatus.DELETED:
            self._children.get(parent, set()).discard(record.key)
        else:
            self._children.setdefault(parent, set()).add(record.key)

    def take(self, change: Change) -> None:
        """Take in a change from the ledger."""
        if change.record is None:
            self.forget(change.key, change.sequence)
        else:
            self.apply(change.record, change.sequence, change.digest)


async def follow_ledger(index: Index, ledger: Ledger) -> None:
    """Feed the index for ever. An interrupted feed goes on where it stopped."""
    while True:
        try:
            async for batch in ledger.follow(index.progress.position):
                for number, change in enumerate(batch.changes, 1):
                    index.take(change)
                    if number % _TAKEN_A_TURN == 0:
                        await asyncio.sleep(0)
                newest = batch.changes[-1].sequence if batch.changes else 0
                index.progress.advance(max(newest, batch.position))
                if batch.caught_up:
                    index.ready.set()
        except PortError as error:
            log.warning("the index lost its feed and starts it again", action="index_feed", error=str(error))
            await asyncio.sleep(_RETRY_SECONDS)
