"""A service's config document as it stands in NATS, and whether it is what the gateway would write."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from pydantic_core import to_json

from jetway.core.documents import (
    Document,
    belongs_to_older_incarnation,
    decode_document,
    edited_by_hand,
    has_document,
)
from jetway.core.drift import Drift, document_drift, is_ours
from jetway.core.errors import UnavailableError
from jetway.core.ids import ServiceKey, document_key
from jetway.core.record import ServiceRecord
from jetway.ports import Documents
from jetway.services.rendering import Rendering

SECONDS = 2.0
"""How long NATS has to answer."""
_ON_ITS_WAY_SECONDS = 0.3
"""After which what seemed wrong is looked at again: a document follows its record within milliseconds."""
_NAMED = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentState:
    """What stands in the bucket at `path`."""

    path: str
    size: int
    """Bytes; 0 where nothing is there."""
    document: Document | None
    """None where nothing is there, or no document."""
    drift: Drift | None
    """What the next reconciliation would mend."""
    edited: bool
    """A person changed the checker_config, which the gateway keeps."""
    differs: tuple[str, ...] = ()
    """The fields that differ, at most 20 of them."""


class DocumentReader:
    """Reads and judges one document at a time, by the rules of `compare_documents`; it mends nothing."""

    def __init__(self, documents: Documents, rendering: Rendering) -> None:
        self._documents = documents
        self._rendering = rendering

    async def read(self, key: ServiceKey) -> DocumentState | None:
        """The document of a service; None for a service that is not known.

        Raises PortError, UnavailableError where NATS does not answer in time.
        """
        try:
            async with asyncio.timeout(SECONDS):
                state = await self._look(key)
                if state is not None and state.drift:
                    await asyncio.sleep(_ON_ITS_WAY_SECONDS)
                    state = await self._look(key)
                return state
        except TimeoutError:
            raise UnavailableError(f"NATS did not answer within {SECONDS:g} s") from None

    async def _look(self, key: ServiceKey) -> DocumentState | None:
        known = self._rendering.index.get(key)
        if known is None:
            return None
        path = document_key(known.lineage)
        data = (await self._documents.read(path)).data
        record = self._rendering.index.get(key) or known
        if document_key(record.lineage) != path:
            record = known  # it moved meanwhile: told at the next look
        if not has_document(record):
            return await asyncio.to_thread(_left_over, path, data, record)
        # Who is a parent of thousands has a document to match: only the index is read on the event loop.
        document = await asyncio.to_thread(decode_document, data) if data is not None else None
        is_older = document is not None and belongs_to_older_incarnation(document, record)
        wanted = self._rendering.document(record, None if is_older else document)
        return await asyncio.to_thread(_judge, path, data, document, wanted, record)


def _judge(
    path: str, data: bytes | None, document: Document | None, wanted: Document, record: ServiceRecord
) -> DocumentState:
    # The usual case first, which for a long document is ten times faster.
    is_same = document is not None and to_json(document) == to_json(wanted)
    drift = None if is_same else document_drift(data, wanted, record)
    names = [*wanted, *(name for name in document if name not in wanted)] if document and drift else []
    differs = [name for name in names if document and _field(document, name) != _field(wanted, name)]
    return DocumentState(
        path=path,
        size=len(data or b""),
        document=document,
        drift=drift,
        edited=document is not None and edited_by_hand(document),
        differs=tuple(differs[:_NAMED]),
    )


def _field(document: Document, name: str) -> tuple[bool, object]:
    """A field's value; one that is absent differs from one that is null."""
    return name in document, document.get(name)


def _left_over(path: str, data: bytes | None, record: ServiceRecord) -> DocumentState:
    ours = data is not None and is_ours(data, record.key)
    return DocumentState(
        path=path,
        size=len(data or b""),
        document=decode_document(data) if data is not None else None,
        drift=Drift.DOCUMENT_ORPHANED if ours else None,
        edited=False,
    )
