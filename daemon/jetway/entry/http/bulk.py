"""Many packages in one call."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue, TypeAdapter, ValidationError

from jetway.core.errors import Code, Refused
from jetway.core.ids import ServiceType
from jetway.entry.http import models as m
from jetway.entry.http import requests as r
from jetway.entry.http.api import Call, Header, route
from jetway.entry.http.auth import Role
from jetway.entry.http.csv_rows import rows_of_csv
from jetway.entry.http.doors import Doors
from jetway.entry.http.fields import IdempotencyKey, QueryTruth
from jetway.entry.http.packages import package_request
from jetway.entry.http.problems import field_errors
from jetway.services.bulk import MOST_ROWS, BulkIssuer, BulkResult, BulkRow

MAX_BODY = 32 * 1024 * 1024
"""10,000 rows of 3 KB."""
_ROW: TypeAdapter[r.CreatePackage] = TypeAdapter(r.CreatePackage)
_ROW_SCHEMA: dict[str, Any] = {"items": {"$ref": "#/components/schemas/CreatePackage"}}

BulkKey = Annotated[
    IdempotencyKey,
    Header(
        "Idempotency-Key",
        "Required: the same call with the same key gets the same packages and tokens, 24 h.",
    ),
]


class BulkCreate(r.Taken):
    """Packages to be created, each as in a call of its own."""

    rows: list[dict[str, JsonValue]] = Field(
        min_length=1, max_length=MOST_ROWS, description="Each as the body of a single creation. In any order."
    )


class BulkQuery(r.Taken):
    """How it is done."""

    dry_run: QueryTruth = Field(default=False, description="Only say what would become of each row.")


class BulkRowResult(m.Answer):
    """What became of a row."""

    row: int = Field(description="Counted from 1.")
    outcome: Literal["created", "planned", "refused", "failed"] = Field(
        description="`planned` in a dry run; `failed` may succeed when the same call is made again."
    )
    service_type: ServiceType | None
    service_id: str
    package_id: str
    token: str = Field(repr=False, description="Shown here and never again.")
    code: str
    field: str
    detail: str


class BulkReport(m.Answer):
    """What became of all rows."""

    dry_run: bool
    created: int
    planned: int
    refused: int
    failed: int
    rows: list[BulkRowResult]


class BulkRoutes:
    """The route /api/admin/edge-packages/bulk."""

    def __init__(self, doors: Doors) -> None:
        self._bulk = BulkIssuer(doors.issuer)

    @route(
        "POST",
        "/api/admin/edge-packages/bulk",
        tag="packages",
        role=Role.OPERATOR,
        media={"text/csv": rows_of_csv},
        max_body=MAX_BODY,
        seconds=600,
        heavy=True,
    )
    async def create_packages(
        self, body: BulkCreate, query: BulkQuery, idempotency_key: BulkKey, call: Call
    ) -> BulkReport:
        """Create up to 10,000 packages, from JSON or CSV; each row has its own result.

        Parents may be among the rows. Where it was cut off, make the same call again with the same key.
        """
        rows = await asyncio.to_thread(rows_of, body)
        results = await self._bulk.create(call.caller, rows, idempotency_key, dry_run=query.dry_run)
        return await asyncio.to_thread(report_of, rows, results, dry_run=query.dry_run)


def rows_of(body: BulkCreate) -> list[BulkRow]:
    """Each row as it is wanted, or with what is wrong in it. To be called off the event loop."""
    return [_row(row) for row in body.rows]


def report_of(rows: Sequence[BulkRow], results: Sequence[BulkResult], *, dry_run: bool) -> BulkReport:
    """What became of the rows. To be called off the event loop."""
    pairs = enumerate(zip(rows, results, strict=True), 1)
    shown = [_shown(number, *pair, dry_run) for number, pair in pairs]
    outcomes = [row.outcome for row in shown]
    return BulkReport(
        dry_run=dry_run,
        created=outcomes.count("created"),
        planned=outcomes.count("planned"),
        refused=outcomes.count("refused"),
        failed=outcomes.count("failed"),
        rows=shown,
    )


def _row(said: dict[str, JsonValue]) -> BulkRow:
    text = json.dumps(said, sort_keys=True)
    try:
        package = _ROW.validate_json(text, strict=True)
    except ValidationError as error:
        wrong = field_errors(error)
        why = "; ".join(f"{each.field}: {each.message}" for each in wrong[:5])
        return BulkRow(request=None, refused=Refused(Code.INVALID, why, wrong[0].field))
    return BulkRow(request=package_request(package), sha256=hashlib.sha256(text.encode()).hexdigest())


def _shown(number: int, row: BulkRow, result: BulkResult, dry_run: bool) -> BulkRowResult:
    issued, refused, service = result.issued, result.refused, row.request.service if row.request else None
    outcome: Literal["created", "planned", "refused", "failed"] = (
        "refused" if refused else "failed" if result.failure else "planned" if dry_run else "created"
    )
    return BulkRowResult(
        row=number,
        outcome=outcome,
        service_type=service.service_type if service else None,
        service_id=issued.record.service_id if issued else service.service_id if service else "",
        package_id=issued.package.package_id if issued else "",
        token=issued.token if issued else "",
        code=refused.code.value if refused else "",
        field=refused.field if refused else "",
        detail=refused.why if refused else result.failure,
    )
