"""What the database refuses for its contents: set aside by name, so that the others go on, and tried again.

A row is set aside at one version. It is tried again when a newer revision of it comes, and by reconcile. Nothing
is lost meanwhile: rows are made anew from the ledger, and an entry of the audit trail is kept here. The table is
bounded; a database that refuses more than that has a fault of its own, and the projection holds its place.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from jetway.core.errors import PortError
from jetway.core.gaps import Version
from jetway.core.ids import ServiceKey, ServiceType
from jetway.core.rows import Event, PackageRow, ServiceRow
from jetway.services.metrics import Metrics

log = structlog.get_logger()

Row = ServiceRow | PackageRow | Event
KINDS = (*(kind.value for kind in ServiceType), "package", "event")
LIMIT = 1000
"""Rows that are remembered, about 1 KB each."""
_REASON_LENGTH = 300


@dataclass(frozen=True, slots=True)
class Refusal:
    """A row that the database refused, at which version, and why."""

    kind: str
    name: str
    version: Version
    reason: str
    """The database's own words, which name no value."""
    owner: ServiceKey | None
    event: Event | None = None

    def __str__(self) -> str:
        revision = f" revision {self.version[1]}" if self.version[1] else ""
        return f"{self.name}{revision}: {self.reason}"


class SetAside:
    """The rows that are set aside: counted by kind, named, and never more than `limit`."""

    def __init__(self, metrics: Metrics, *, limit: int = LIMIT) -> None:
        self._metrics = metrics
        self._limit = limit
        self._rows: dict[str, Refusal] = {}
        for kind in KINDS:
            metrics.rows_set_aside.labels(kind).set(0)

    def __len__(self) -> int:
        return len(self._rows)

    def holds(self, row: Row) -> bool:
        """Whether this version of the row was refused, so that trying it again waits for reconcile."""
        refusal = self._rows.get(name_of(row))
        return refusal is not None and refusal.version >= (row.epoch, row.revision)

    def any_of(self, keys: Sequence[ServiceKey]) -> bool:
        """Whether a row of one of these services, or of a package of theirs, is set aside."""
        return not {refusal.owner for refusal in self._rows.values()}.isdisjoint(keys)

    def put(self, row: Row, error: PortError) -> None:
        """Remember a refused row. Raises `error` when there is no more room."""
        name = name_of(row)
        before = self._rows.get(name)
        if before is None and len(self._rows) >= self._limit:
            raise PortError(f"{error}; {self._limit} rows are set aside already") from error
        refusal = Refusal(
            kind_of(row),
            name,
            (row.epoch, row.revision),
            str(error)[:_REASON_LENGTH],
            owner_of(row),
            row if isinstance(row, Event) else None,
        )
        self._rows[name] = refusal
        if before is None or (before.version, before.reason) != (refusal.version, refusal.reason):
            log.error(
                "the database refuses a row: it is set aside, the others go on",
                action="row_set_aside",
                kind=refusal.kind,
                row=name,
                revision=row.revision,
                reason=refusal.reason,
            )
        self._count()

    def take(self, row: Row) -> None:
        """The row was written: it is set aside no more."""
        if self._rows:
            self.forget(name_of(row), "written after all")

    def forget(self, name: str, why: str) -> None:
        """It is set aside no more."""
        if self._rows.pop(name, None) is not None:
            log.info("a row is no longer set aside", action="row_taken_back", row=name, why=why)
            self._count()

    def rows(self) -> list[Refusal]:
        """Those of services and packages."""
        return [refusal for refusal in self._rows.values() if refusal.event is None]

    def events(self) -> list[Event]:
        """Those of the audit trail."""
        return [refusal.event for refusal in self._rows.values() if refusal.event is not None]

    def all(self) -> list[Refusal]:
        """Every one, in the order in which they were refused first."""
        return list(self._rows.values())

    def _count(self) -> None:
        counts = Counter(refusal.kind for refusal in self._rows.values())
        for kind in KINDS:
            self._metrics.rows_set_aside.labels(kind).set(counts[kind])


def kind_of(row: Row) -> str:
    """What is counted by."""
    if isinstance(row, ServiceRow):
        return row.service_type.value
    return "package" if isinstance(row, PackageRow) else "event"


def name_of(row: Row) -> str:
    """What people find it by, and no two rows share."""
    if isinstance(row, ServiceRow):
        return str(ServiceKey(row.service_type, row.service_id))
    if isinstance(row, PackageRow):
        return f"package {row.package_id} of {row.component_type}.{row.component_id}"
    owner = f" of {row.service_type}.{row.service_id}" if row.service_id else ""
    return f"event {row.event_id}{owner}"


def owner_of(row: Row) -> ServiceKey | None:
    """The service that the row is made of."""
    if isinstance(row, ServiceRow):
        return ServiceKey(row.service_type, row.service_id)
    if isinstance(row, PackageRow):
        return ServiceKey(ServiceType(row.component_type), row.component_id)
    return None
