"""Drift: how a document or a row differs from what the ledger says it should be."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from enum import StrEnum
from operator import attrgetter

from jetway.core.documents import (
    GENERATED_HASH,
    Document,
    belongs_to_older_incarnation,
    decode_document,
    encode_document,
    version_of,
)
from jetway.core.ids import ServiceKey, ServiceType
from jetway.core.record import ServiceRecord
from jetway.core.rows import PackageRow, ServiceRow

_PRESENCE = frozenset({"last_seen", "is_healthy", "version"})
_NO_COLUMN: Mapping[ServiceType, frozenset[str]] = {
    ServiceType.POLLER: frozenset({"checker_kind"}),
    ServiceType.AGENT: frozenset({"checker_kind", "agent_count"}),
    ServiceType.CHECKER: frozenset({"agent_count", "checker_count"}),
}
_FACTS = {
    kind: attrgetter(*(f.name for f in fields(ServiceRow) if f.name not in _PRESENCE | absent))
    for kind, absent in _NO_COLUMN.items()
}


class Drift(StrEnum):
    """What is wrong, by what it is wrong with."""

    DOCUMENT_MISSING = "document_missing"
    DOCUMENT_STALE = "document_stale"
    DOCUMENT_CHANGED = "document_changed"
    DOCUMENT_ORPHANED = "document_orphaned"
    DOCUMENT_SET_ASIDE = "document_set_aside"
    ROW_MISSING = "row_missing"
    ROW_STALE = "row_stale"
    ROW_CHANGED = "row_changed"
    ROW_UNKNOWN = "row_unknown"
    ROW_SET_ASIDE = "row_set_aside"
    PACKAGE_ROW = "package_row"
    AUDIT_GAP = "audit_gap"
    AUDIT_STREAM_GAP = "audit_stream_gap"


def stored_document(data: bytes | None, record: ServiceRecord) -> Document | None:
    """What stands in the bucket, as far as it is this service's: an edit in it is kept."""
    document = decode_document(data) if data is not None else None
    return None if document is None or belongs_to_older_incarnation(document, record) else document


def document_drift(data: bytes | None, wanted: Document, record: ServiceRecord) -> Drift | None:
    """How the stored bytes differ from the document that is wanted; layout and order of keys do not count."""
    if data is None:
        return Drift.DOCUMENT_MISSING
    if data == encode_document(wanted):
        return None
    document = decode_document(data)
    if document is not None and _canonical(document) == _canonical(wanted):
        return None
    if document is not None and version_of(document) < record.version:
        return Drift.DOCUMENT_STALE
    return Drift.DOCUMENT_CHANGED


def is_ours(data: bytes, owner: ServiceKey) -> bool:
    """Whether a document was written by a gateway for this service: what others put there is left alone."""
    document = decode_document(data)
    if (
        document is None
        or not isinstance(document.get(GENERATED_HASH), str)
        or version_of(document) == (0, 0)
    ):
        return False
    named = (document.get("component_type"), document.get("component_id"))
    return named == (owner.service_type.value, owner.service_id)


def row_drift(stored: ServiceRow | None, wanted: ServiceRow) -> Drift | None:
    """How a row differs from the one that is wanted, what heartbeats tell left aside."""
    if stored is None:
        return Drift.ROW_MISSING
    if row_facts(stored) == row_facts(wanted):
        return None
    stale = (stored.epoch, stored.revision) < (wanted.epoch, wanted.revision)
    return Drift.ROW_STALE if stale else Drift.ROW_CHANGED


def package_drift(stored: PackageRow | None, wanted: PackageRow) -> Drift | None:
    """Whether a package's row is not the one that is wanted."""
    return None if stored == wanted else Drift.PACKAGE_ROW


def row_facts(row: ServiceRow) -> tuple[object, ...]:
    """The row without presence, and without what its table has no column for."""
    facts: tuple[object, ...] = _FACTS[row.service_type](row)
    return facts


def _canonical(document: Document) -> str:
    return json.dumps(document, sort_keys=True)
