"""Many services at once: bulk actions, and the labels and sites that they can be selected by."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from jetway.core.ids import ServiceId, ServiceType
from jetway.core.liveness import Liveness
from jetway.core.record import Approval, ServiceStatus, Source
from jetway.entry.http import fields as f
from jetway.entry.http import models as m
from jetway.entry.http import requests as r
from jetway.entry.http.api import Call, route
from jetway.entry.http.auth import Role, bearer_text
from jetway.entry.http.doors import Doors
from jetway.entry.http.problems import FieldError, ProblemError, invalid_fields
from jetway.services.actions import MOST_SERVICES, Action, Actions, Order, Result
from jetway.services.api_tokens import allows
from jetway.services.catalogue import ServiceFilter

TAG = "services"
MAX_BODY = 1024 * 1024
PREVIEW_SHOWN = 100
"""Results that a preview shows; its counts are of all."""
Outcome = Literal["done", "planned", "unchanged", "refused", "failed"]


class Selector(r.Taken):
    """Which services: those of the ids, or all that every other field agrees to. Deleted ones only by their id."""

    service_type: ServiceType
    ids: list[ServiceId] = Field(default_factory=list, max_length=MOST_SERVICES)
    status: list[ServiceStatus] = Field(default_factory=list, max_length=len(ServiceStatus))
    source: list[Source] = Field(default_factory=list, max_length=len(Source))
    liveness: list[Liveness] = Field(default_factory=list, max_length=len(Liveness))
    approval: list[Approval] = Field(default_factory=list, max_length=len(Approval))
    site: f.Line | None = None
    label: list[r.Selector] = Field(default_factory=list, max_length=16)
    parent_id: f.OptionalId | None = None
    q: f.Search = ""


class BulkAction(r.Taken):
    """What is to be done to them."""

    action: Action
    selector: Selector
    status: ServiceStatus | None = Field(
        default=None, description="Required for `set-status`, and only there."
    )
    reason: f.Reason = ""
    cascade: bool = True
    dry_run: bool = False
    expected_count: Annotated[int, Field(ge=0, le=MOST_SERVICES)] | None = Field(
        default=None,
        description="How many services the preview counted; 409 where it is another number by now. "
        "Required to do anything to services that are not selected by their ids.",
    )


class ActionResult(m.Answer):
    """What became of one service, or would."""

    service_type: ServiceType
    service_id: str
    outcome: Outcome = Field(description="`planned` in a dry run; `failed` may succeed in another call.")
    beneath: int = Field(description="Services beneath that were, or would be, revoked with it.")
    code: str
    detail: str


class ActionReport(m.Answer):
    """What became of all."""

    dry_run: bool
    selected: int
    done: int
    planned: int
    unchanged: int = Field(description="Those that were so already.")
    refused: int
    failed: int
    beneath: int
    results: list[ActionResult] = Field(description="In a dry run the first 100.")


class Suggest(r.Taken):
    """What is looked for."""

    q: f.Search = Field(default="", description="A part of it, in any case.")
    limit: f.Limit = 50


class Use(m.Answer):
    """How many services have it."""

    name: str
    count: int


class LabelUse(m.Answer):
    """A label's key with its most frequent values."""

    name: str
    count: int
    values: list[Use] = Field(description="At most 50.")
    values_total: int


class LabelList(m.Answer):
    """The most frequent keys."""

    items: list[LabelUse]
    next_cursor: None
    total: int


class SiteList(m.Answer):
    """The most frequent sites."""

    items: list[Use]
    next_cursor: None
    total: int


class SelectionRoutes:
    """Routes under /api/admin/services that are about many."""

    def __init__(self, doors: Doors) -> None:
        self._catalogue = doors.catalogue
        self._actions = Actions(doors.catalogue, doors.administrator)
        self._api_tokens = doors.api_tokens

    @route("GET", "/api/admin/services/labels", tag=TAG, role=Role.VIEWER)
    async def list_labels(self, query: Suggest) -> LabelList:
        """Labels in use, the most frequent first."""
        items, total = await self._catalogue.labels(query.q, query.limit)
        shown = [LabelUse.model_validate(item) for item in items]
        return LabelList(items=shown, next_cursor=None, total=total)

    @route("GET", "/api/admin/services/sites", tag=TAG, role=Role.VIEWER)
    async def list_sites(self, query: Suggest) -> SiteList:
        """Sites in use, the most frequent first."""
        items, total = await self._catalogue.sites(query.q, query.limit)
        return SiteList(items=[Use.model_validate(item) for item in items], next_cursor=None, total=total)

    @route(
        "POST",
        "/api/admin/services/actions",
        tag=TAG,
        role=Role.OPERATOR,
        errors=(409,),
        max_body=MAX_BODY,
        seconds=600,
        heavy=True,
    )
    async def act_on_services(self, body: BulkAction, call: Call) -> ActionReport:
        """Revoke, delete, approve, reject, or set the status of up to 10,000 services.

        Each has its own result. Where it was cut off, preview and call again: what is done stays as it is.
        To delete takes the role `admin`.
        """
        if body.action is Action.DELETE:
            self._require_admin(call)
        _check(body)
        order = _order(body)
        if body.dry_run:
            return _report(await self._actions.preview(order), dry_run=True)
        return _report(await self._actions.run(call.caller, order), dry_run=False)

    def _require_admin(self, call: Call) -> None:
        token = self._api_tokens.authenticate(bearer_text(call.request))
        if token is None or not allows(token.role, Role.ADMIN):
            raise ProblemError(403, "forbidden", "to delete takes a token with the role admin")


def _check(body: BulkAction) -> None:
    """What belongs together. Raises ProblemError."""
    wrong = []
    if body.selector.ids and body.selector.model_fields_set - {"service_type", "ids"}:
        wrong.append(FieldError(field="selector.ids", message="ids stand alone: give either ids or filters"))
    if (body.action is Action.SET_STATUS) is (body.status is None):
        wrong.append(FieldError(field="status", message="is required for set-status, and taken only there"))
    if not (body.dry_run or body.selector.ids or body.expected_count is not None):
        message = "is required where services are not selected by ids: a preview tells it"
        wrong.append(FieldError(field="expected_count", message=message))
    if wrong:
        detail = "; ".join(f"{each.field} {each.message}" for each in wrong)
        raise invalid_fields(422, detail, wrong)


def _order(body: BulkAction) -> Order:
    chosen = body.selector
    filters = ServiceFilter(
        service_type=chosen.service_type,
        statuses=[each.value for each in chosen.status],
        sources=[each.value for each in chosen.source],
        liveness=[each.value for each in chosen.liveness],
        approvals=[each.value for each in chosen.approval],
        site=chosen.site,
        labels=chosen.label,
        parent_id=chosen.parent_id,
        q=chosen.q,
    )
    return Order(
        action=body.action,
        filters=filters,
        ids=chosen.ids,
        status=body.status or ServiceStatus.REVOKED,
        reason=body.reason,
        cascade=body.cascade,
        expected_count=body.expected_count,
    )


def _report(results: list[Result], *, dry_run: bool) -> ActionReport:
    shown = [_shown(result, dry_run) for result in results]
    outcomes = [result.outcome for result in shown]
    return ActionReport(
        dry_run=dry_run,
        selected=len(shown),
        done=outcomes.count("done"),
        planned=outcomes.count("planned"),
        unchanged=outcomes.count("unchanged"),
        refused=outcomes.count("refused"),
        failed=outcomes.count("failed"),
        beneath=sum(result.beneath for result in shown),
        results=shown[:PREVIEW_SHOWN] if dry_run else shown,
    )


def _shown(result: Result, dry_run: bool) -> ActionResult:
    did: Outcome = "planned" if dry_run else "done"
    failed: Outcome | None = "refused" if result.refused else "failed" if result.failure else None
    return ActionResult(
        service_type=result.key.service_type,
        service_id=result.key.service_id,
        outcome=failed or (did if result.changed else "unchanged"),
        beneath=result.beneath,
        code=result.refused.code.value if result.refused else "",
        detail=result.refused.why if result.refused else result.failure,
    )
