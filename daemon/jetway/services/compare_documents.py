"""Config documents against the ledger: what is missing, stale, changed by hand or left over is mended."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import aclosing

from jetway.core.documents import encode_document, has_document
from jetway.core.drift import Drift, document_drift, is_ours, stored_document
from jetway.core.errors import ConflictError, RejectedError
from jetway.core.ids import ServiceKey, document_key, document_owner
from jetway.core.record import ServiceRecord
from jetway.ports import Documents, Ledger, StoredDocument
from jetway.services.document_writer import DocumentWriter
from jetway.services.documents_aside import DocumentsAside
from jetway.services.fence import Fence
from jetway.services.findings import Findings, batches, for_each, paced
from jetway.services.rendering import Rendering
from jetway.services.settling import Settling, confirm

_PREFIX = "config/"

Seen = tuple[Drift, bytes]
"""What is wrong, and the document that is wanted: another one means that the service changed meanwhile."""


class DocumentComparison:
    """Reads the whole bucket once, and a second time what seems to be wrong."""

    def __init__(
        self,
        documents: Documents,
        ledger: Ledger,
        rendering: Rendering,
        writer: DocumentWriter,
        settling: Settling,
        fence: Fence,
        aside: DocumentsAside,
    ) -> None:
        self._documents = documents
        self._ledger = ledger
        self._rendering = rendering
        self._writer = writer
        self._settling = settling
        self._fence = fence
        self._aside = aside

    async def run(self, findings: Findings) -> None:
        """Compare and mend. Raises PortError; what was mended stays mended."""
        if findings.mends:
            await self._writer.retry()
        found: set[ServiceKey] = set()
        async with aclosing(self._documents.scan(_PREFIX)) as stretches:
            async for stretch in stretches:
                await self._compare(stretch, found, findings)
        for keys in batches(list(self._rendering.index.records)):
            missing = [key for key in keys if key not in found and self._path(key)]
            await self._settle_and_mend(await self._look(missing), findings)
        for refused in self._aside.all():
            findings.note(Drift.DOCUMENT_SET_ASIDE, str(refused), known=True)
        if len(self._aside):
            findings.failed(RejectedError(f"documents that cannot be written: {len(self._aside)}"))

    async def _compare(
        self, stretch: Sequence[tuple[str, StoredDocument]], found: set[ServiceKey], findings: Findings
    ) -> None:
        suspects: dict[ServiceKey, Seen] = {}
        strays: dict[str, Seen] = {}
        async for path, stored in paced(stretch):
            owner = document_owner(path)
            if owner is None:
                continue
            if self._path(owner) == path:
                found.add(owner)
                suspects |= self._judge(owner, stored)
            elif stored.data is not None and is_ours(stored.data, owner):
                strays[path] = (Drift.DOCUMENT_ORPHANED, b"")
        await self._settle_and_mend(suspects, findings)
        await self._clear(strays, findings)

    def _path(self, key: ServiceKey) -> str:
        """Where the service's document belongs; empty where it must have none."""
        record = self._rendering.index.get(key)
        return document_key(record.lineage) if record and has_document(record) else ""

    def _judge(self, key: ServiceKey, stored: StoredDocument) -> dict[ServiceKey, Seen]:
        record = self._rendering.index.get(key)
        if record is None or not has_document(record):
            return {}
        if stored.data == encode_document(self._rendering.document(record, None)):
            return {}  # the usual case, and the stored one need not even be read
        wanted = self._rendering.document(record, stored_document(stored.data, record))
        drift = document_drift(stored.data, wanted, record)
        return {key: (drift, encode_document(wanted))} if drift else {}

    async def _look(self, keys: Iterable[ServiceKey]) -> dict[ServiceKey, Seen]:
        seen: dict[ServiceKey, Seen] = {}

        async def look(key: ServiceKey) -> None:
            path = self._path(key)
            if path:
                stored = await self._documents.read(path)
                seen.update(self._judge(key, stored))

        await for_each(keys, look)
        return seen

    async def _settle_and_mend(self, suspects: dict[ServiceKey, Seen], findings: Findings) -> None:
        confirmed = await confirm(suspects, self._settling.documents, self._look)
        for key, (drift, _) in confirmed.items():
            findings.note(drift, str(key))

        if not findings.mends:
            return

        async def mend(key: ServiceKey) -> None:
            # Not in one line: `+=` would take the count from before the wait.
            written = await self._writer.mend(key)
            findings.documents_mended += written

        await for_each(confirmed, mend)

    # --- documents that no record wants

    async def _clear(self, strays: dict[str, Seen], findings: Findings) -> None:
        confirmed = await confirm(strays, self._settling.documents, self._look_at_strays)
        for path, (drift, _) in confirmed.items():
            findings.note(drift, path)

        if not findings.mends:
            return

        async def delete(path: str) -> None:
            if path in await self._look_at_strays([path]):
                stored = await self._documents.read(path)
                try:
                    self._fence.require()
                    await self._documents.delete(path, stored.sequence)
                except ConflictError:
                    return  # somebody is at it: the next run will see
                findings.documents_mended += 1

        await for_each(confirmed, delete)

    async def _look_at_strays(self, paths: Sequence[str]) -> dict[str, Seen]:
        strays: dict[str, Seen] = {}

        async def look(path: str) -> None:
            owner = document_owner(path)
            stored = await self._documents.read(path)
            if owner is None or stored.data is None or not is_ours(stored.data, owner):
                return
            # The ledger itself decides: what the index could not read must not lose its document.
            if not _wants(path, (await self._ledger.read(owner)).record):
                strays[path] = (Drift.DOCUMENT_ORPHANED, b"")

        await for_each(paths, look)
        return strays


def _wants(path: str, record: ServiceRecord | None) -> bool:
    return record is not None and has_document(record) and document_key(record.lineage) == path
