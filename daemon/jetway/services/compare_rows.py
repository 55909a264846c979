"""Registry rows against the ledger: what is missing, stale or changed is written anew, the unknown is named."""

from __future__ import annotations

from collections.abc import Sequence

from jetway.core.drift import Drift, package_drift, row_drift, row_facts
from jetway.core.errors import RejectedError
from jetway.core.ids import ServiceKey, ServiceType
from jetway.core.record import ServiceStatus
from jetway.core.rows import PackageRow, ServiceRow, package_rows
from jetway.ports import Ledger, RegistryDatabase
from jetway.services.findings import BATCH, Findings, batches, for_each, paced
from jetway.services.rendering import Rendering
from jetway.services.row_writer import RowWriter
from jetway.services.set_aside import SetAside
from jetway.services.settling import Settling, confirm

Wanted = tuple[ServiceRow, Sequence[PackageRow]]
Seen = tuple[Drift, tuple[tuple[object, ...], Sequence[PackageRow]]]
"""What is wrong, and the rows that are wanted: others mean that the service changed meanwhile."""


class RowComparison:
    """Reads the tables in batches, and a second time what seems to be wrong."""

    def __init__(
        self,
        database: RegistryDatabase,
        ledger: Ledger,
        rendering: Rendering,
        writer: RowWriter,
        settling: Settling,
        set_aside: SetAside,
    ) -> None:
        self._database = database
        self._ledger = ledger
        self._rendering = rendering
        self._writer = writer
        self._settling = settling
        self._set_aside = set_aside
        self._known: frozenset[ServiceKey] = frozenset()

    async def run(self, findings: Findings) -> None:
        """Compare and mend. Raises PortError; what was mended stays mended."""
        if findings.mends:
            await self._writer.retry()
        for keys in batches(list(self._rendering.index.records)):
            confirmed = await confirm(await self._look(keys), self._settling.rows, self._look)
            for key, (drift, _) in confirmed.items():
                findings.note(drift, str(key))
            if confirmed and findings.mends:
                refused = await self._writer.rewrite(confirmed)
                findings.rows_mended += len(confirmed) - len(refused)
        for refusal in self._set_aside.all():
            findings.note(Drift.ROW_SET_ASIDE, str(refusal), known=True)
        if len(self._set_aside):
            findings.failed(RejectedError(f"rows that the database refuses: {len(self._set_aside)}"))
        unknown: set[ServiceKey] = set()
        for service_type in ServiceType:
            unknown.update(await self._find_unknown(service_type))
        for key in sorted(unknown):
            findings.note(Drift.ROW_UNKNOWN, str(key), known=key in self._known)
        findings.orphans = len(unknown)
        if findings.mends:
            self._known = frozenset(unknown)

    async def _look(self, keys: Sequence[ServiceKey]) -> dict[ServiceKey, Seen]:
        refused = self._writer.refused
        keys = [key for key in keys if key not in refused]
        wanted = {key: found async for key in paced(keys) if (found := self._wanted(key))}
        rows = await self._database.load_rows(list(wanted))
        ids = [package.package_id for _, packages in wanted.values() for package in packages]
        packages = await self._database.load_packages(ids)
        seen = {}
        async for key, (row, own) in paced(wanted.items()):
            drift = row_drift(rows.get(key), row) or next(
                filter(None, (package_drift(packages.get(p.package_id), p) for p in own)), None
            )
            if drift:
                seen[key] = (drift, (row_facts(row), own))
        return seen

    def _wanted(self, key: ServiceKey) -> Wanted | None:
        row, record = self._rendering.row(key), self._rendering.index.get(key)
        return (row, package_rows(record)) if row and record else None

    async def _find_unknown(self, service_type: ServiceType) -> list[ServiceKey]:
        """Services that have a row and no record. A deleted one's row may stay when its record is purged."""
        unknown: list[ServiceKey] = []
        after = ""
        while keys := await self._database.find_row_keys(service_type, after=after, limit=BATCH):
            after = keys[-1].service_id
            strangers = [key for key in keys if self._rendering.index.get(key) is None]
            rows = await self._database.load_rows(strangers) if strangers else {}
            strangers = [key for key in strangers if not _is_deleted(rows.get(key))]
            # The ledger itself decides: what the index could not read is not unknown.
            entries = await for_each(strangers, self._ledger.read)
            unknown += [key for key, entry in zip(strangers, entries, strict=True) if entry.record is None]
        return unknown


def _is_deleted(row: ServiceRow | None) -> bool:
    return row is not None and row.status == ServiceStatus.DELETED.value
