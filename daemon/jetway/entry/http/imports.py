"""What an import takes and answers."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from jetway.core.ids import ServiceId, ServiceType
from jetway.core.importing import Imported, Verdict
from jetway.entry.http.models import Answer
from jetway.entry.http.requests import RegisterService, Taken
from jetway.services.issue import NewService

MOST_ROWS = 500
PlannedId = Annotated[
    str, Field(max_length=80, pattern=r"^(poller|agent)\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")
]


class ImportRow(RegisterService):
    """A service as it reports elsewhere so far."""

    service_type: ServiceType


class Import(Taken):
    """Rows in any order: parents are brought in before their children."""

    rows: list[ImportRow] = Field(max_length=MOST_ROWS)
    dry_run: bool = False
    planned: list[PlannedId] = Field(
        default_factory=list,
        max_length=MOST_ROWS,
        description="With `dry_run`: parents that an earlier part of the same run would create, `poller.site-a`.",
    )


class ImportResult(Answer):
    """What became of a row, or with `dry_run` would."""

    service_type: ServiceType
    service_id: ServiceId
    outcome: Imported
    field: str
    why: str


class ImportReport(Answer):
    """One result for each row, in the order of the rows."""

    dry_run: bool
    results: list[ImportResult]


def new_service(kind: ServiceType, body: RegisterService) -> NewService:
    """What a body says of a service."""
    return NewService(
        service_type=kind,
        service_id=body.service_id,
        label=body.label or body.service_id,
        parent_id=body.parent_id,
        site=body.site,
        labels=body.labels,
        metadata=body.metadata,
        checker_kind=body.checker_kind,
        checker_config=body.checker_config,
        spiffe_id=body.spiffe_id,
        heartbeat_interval_seconds=body.heartbeat_interval_seconds,
    )


def result(row: ImportRow, verdict: Verdict) -> ImportResult:
    """The row's own result."""
    return ImportResult(
        service_type=row.service_type,
        service_id=row.service_id,
        outcome=verdict.outcome,
        field=verdict.field,
        why=verdict.why,
    )
