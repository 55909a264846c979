"""Config documents: brought up to what the records say, whatever a person changed in them but the checker's."""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from jetway.core import documents as doc
from jetway.core.errors import ConflictError, PortError, UnavailableError
from jetway.core.ids import Lineage, ServiceKey, document_key
from jetway.core.record import ServiceRecord
from jetway.ports import Change, Documents, FeedItem
from jetway.services.documents_aside import PATIENCE, Again, DocumentsAside
from jetway.services.fence import Fence
from jetway.services.index import Index
from jetway.services.rendering import Rendering

_DOCUMENTS_AT_ONCE = 32
_SWAPS = 20
_KNOWN_LIMIT = 50_000
"""Documents whose last state this writer remembers, about 200 bytes each."""


AskLedger = Callable[[ServiceKey], Awaitable[ServiceRecord | None]]
"""The record as the ledger has it now; the index learns of it as well."""


@dataclass(frozen=True, slots=True)
class _Left:
    """A document as this writer left it."""

    sequence: int
    digest: bytes


def touched_by(index: Index, change: Change) -> Iterable[ServiceKey]:
    """The service itself, and the parent, whose document lists its children."""
    record = change.record
    index.take(change)
    yield change.key
    if record is not None and record.parent is not None:
        yield record.parent


class DocumentWriter:
    """Writes the config documents that a batch of changes touches: the services' own and their parents'."""

    def __init__(
        self,
        documents: Documents,
        rendering: Rendering,
        ask_ledger: AskLedger,
        fence: Fence,
        aside: DocumentsAside,
    ) -> None:
        self._documents = documents
        self._aside = aside
        self._fence = fence
        self._rendering = rendering
        self._ask_ledger = ask_ledger
        self._gate = asyncio.Semaphore(_DOCUMENTS_AT_ONCE)
        self._known: OrderedDict[str, _Left] = OrderedDict()

    def forget(self) -> None:
        """Take nothing for known: others may have written since."""
        self._known.clear()
        self._aside.clear()

    async def write(self, items: Sequence[FeedItem[Change]]) -> None:
        """Bring every touched document up to date, but for those that cannot be written: they are set aside.

        Raises PortError; what was written stays written.
        """
        index = self._rendering.index
        touched: dict[ServiceKey, None] = {}
        for item in items:
            touched.update(dict.fromkeys(touched_by(index, item.value)))
        update = partial(self.bring_up_to_date, look=False)
        failed = await self._all_of({str(key): partial(update, key) for key in touched})
        # Asked afterwards: a service may move beneath another parent while its document is being written.
        left = {r.lineage: None for item in items if (r := item.value.record) and self._has_moved(r.lineage)}
        failed += await self._all_of({document_key(old): partial(self._clear, old) for old in left})
        if failed:
            raise failed[0]

    async def mend(self, key: ServiceKey) -> bool:
        """`bring_up_to_date` for one among many: one that cannot be written is set aside at once.

        Raises UnavailableError, or another PortError where no more can be set aside.
        """
        written = False

        async def update() -> None:
            nonlocal written
            written = await self.bring_up_to_date(key)

        error = await self._guarded(str(key), update, patience=1)
        if error:
            raise error
        return written

    async def retry(self) -> None:
        """Try again what is set aside. Raises PortError where the bucket is away."""
        for refused in self._aside.all():
            error = await self._guarded(refused.name, refused.again, patience=1)
            if error:
                raise error

    async def _all_of(self, writes: Mapping[str, Again]) -> list[PortError]:
        """Make them, a few at a time; the errors of those that failed and must come again."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._guarded(name, write)) for name, write in writes.items()]
        return [error for task in tasks if (error := task.result())]

    async def _guarded(self, name: str, write: Again, *, patience: int = PATIENCE) -> PortError | None:
        """One document's failure does not keep the others from being written."""
        async with self._gate:
            try:
                await write()
            except UnavailableError as error:
                return error
            except PortError as error:
                return None if self._aside.put(name, error, write, patience=patience) else error
        self._aside.take(name)
        return None

    async def bring_up_to_date(self, key: ServiceKey, *, look: bool = True) -> bool:
        """Write or delete one document if it is not as it should be; whether anything was written.

        Without `look` the document is taken to be as this writer left it, or absent for a new service: the swap
        fails where it is not, and then it is looked at. That saves a read for each change.
        """
        for _ in range(_SWAPS):
            record = self._rendering.index.get(key)
            if record is None:
                return False
            path = document_key(record.lineage)
            left = None if look else self._left(path, record)
            try:
                if left is None:
                    return await self._look_and_swap(path, record)
                return await self._swap(path, record, left)
            except ConflictError:
                self._known.pop(path, None)
                look = True
        raise PortError(f"the config document of {key} changes too fast")

    def _has_moved(self, lineage: Lineage) -> bool:
        """Whether the service was made anew beneath other parents, and its document stands elsewhere now."""
        record = self._rendering.index.get(lineage.key)
        return record is not None and document_key(record.lineage) != document_key(lineage)

    async def _clear(self, lineage: Lineage) -> None:
        """Delete the document that an earlier incarnation left behind."""
        path = document_key(lineage)
        for _ in range(_SWAPS):
            stored = await self._documents.read(path)
            if stored.data is None or not self._has_moved(lineage):
                return None
            try:
                self._fence.require()
                return await self._documents.delete(path, stored.sequence)
            except ConflictError:
                continue
        raise PortError(f"the config document {path} changes too fast")

    def _left(self, path: str, record: ServiceRecord) -> _Left | None:
        """How this writer left the document; a service's very first revision finds none."""
        known = self._known.get(path)
        if known is None and record.revision == 1:
            return _Left(0, b"")
        return known

    async def _swap(self, path: str, record: ServiceRecord, left: _Left) -> bool:
        """Write over a document that nobody touched since."""
        if not doc.has_document(record):
            self._fence.require()
            await self._documents.delete(path, left.sequence)
            self._known.pop(path, None)
            return True
        wanted = doc.encode_document(self._rendering.document(record, None))
        if _digest(wanted) == left.digest:
            return False
        self._fence.require()
        self._remember(path, await self._documents.write(path, wanted, left.sequence), wanted)
        return True

    async def _look_and_swap(self, path: str, record: ServiceRecord) -> bool:
        stored = await self._documents.read(path)
        present = doc.decode_document(stored.data) if stored.data is not None else None
        if present is not None and doc.version_of(present) > record.version:
            # Ahead of the index: either the index trails, or somebody changed the revision by hand.
            newest = await self._ask_ledger(record.key)
            if newest is None or doc.version_of(present) == newest.version:
                return False
            record = newest
        if not doc.has_document(record):
            if stored.data is None:
                return False
            self._fence.require()
            await self._documents.delete(path, stored.sequence)
            return True
        if present is not None and doc.belongs_to_older_incarnation(present, record):
            present = None
        wanted = doc.encode_document(self._rendering.document(record, present))
        if wanted == stored.data:
            return False
        self._fence.require()
        sequence = await self._documents.write(path, wanted, stored.sequence)
        if present is None or not doc.edited_by_hand(present):
            self._remember(path, sequence, wanted)
        return True

    def _remember(self, path: str, sequence: int, data: bytes) -> None:
        self._known[path] = _Left(sequence, _digest(data))
        self._known.move_to_end(path)
        if len(self._known) > _KNOWN_LIMIT:
            self._known.popitem(last=False)


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()[:16]
