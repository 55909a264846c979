"""A house in order, the ways to bring it out of order, and the look whether it is again."""

from __future__ import annotations

import asyncio
from typing import Any

from jetway.core.documents import encode_document
from jetway.core.drift import Drift
from jetway.core.ids import ServiceKey, document_key
from jetway.ports import StoredDocument
from jetway.services.findings import ReconcileReport
from support.builders import LINEAGES
from support.house import House

PATHS = {lineage.key: document_key(lineage) for lineage in LINEAGES.values()}
"""Where the documents of p1, a1 and c1 stand."""


async def reconcile(house: House) -> ReconcileReport:
    async with asyncio.timeout(20):
        report = await house.reconciler.run()
    await house.settle()
    return report


async def assert_whole(house: House) -> None:
    report = await reconcile(house)
    assert (report.findings, report.errors) == ((), ())
    assert report.documents_mended == report.rows_mended == report.gaps_found == 0


def drifts(house: House) -> dict[str, int]:
    """The counter, by kind."""
    counted = {kind: house.metrics.drift.labels(kind.value)._value.get() for kind in Drift}
    return {kind.value: int(count) for kind, count in counted.items() if count}


def put(house: House, path: str, data: bytes | None) -> None:
    """As a person with NATS tools would."""
    sequence = house.documents.documents.get(path, StoredDocument(None, 0)).sequence
    house.documents._swap(path, data, sequence)


def edit(house: House, key: ServiceKey, **changes: Any) -> None:
    document = house.document(LINEAGES[key.service_type])
    assert document is not None
    put(house, PATHS[key], encode_document({**document, **changes}))


def lose_events(house: House, key: ServiceKey, *revisions: int) -> None:
    """Rows of the audit trail that are gone."""
    lost = {(key.service_type.value, key.service_id, revision) for revision in revisions}
    for event_id, event in list(house.database.events.items()):
        if (event.service_type, event.service_id, event.revision) in lost:
            del house.database.events[event_id]
