"""An administrator's word: which statuses may be set by hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from jetway.core import commands as c
from jetway.core.errors import Code, Refused
from jetway.core.record import (
    Approval,
    EventType,
    PackageStatus,
    ServiceRecord,
    ServiceStatus,
)
from jetway.core.times import to_milliseconds
from jetway.core.transitions.leaving import children_live, end_service
from jetway.core.transitions.revision import (
    ACTIVE,
    DELETED,
    INACTIVE,
    PENDING,
    REVOKED,
    Decide,
    Outcome,
    next_revision,
)


def override(record: ServiceRecord, command: c.Override, context: c.Context) -> Outcome:
    """Set a status by hand, where the pair is allowed."""
    if command.status is record.status:
        return record
    decide = _OVERRIDES.get((record.status, command.status))
    if decide is None:
        why = f"{record.service_type.value} {record.service_id!r} is {record.status.value}"
        hint = {DELETED: ": use DELETE", PENDING: ": use a reissue"}.get(command.status, "")
        return Refused(
            Code.ILLEGAL_TRANSITION, f"{why} and cannot become {command.status.value}{hint}", "status"
        )
    return decide(record, command, context)


def _override_to_active(record: ServiceRecord, command: c.Override, context: c.Context) -> Outcome:
    package = record.package
    if package and package.status in (PackageStatus.ISSUED, PackageStatus.EXPIRED):
        why = f"its package is {package.status.value}: redeem or reissue it first"
        return Refused(Code.ILLEGAL_TRANSITION, why, "status")
    if package and package.status is PackageStatus.DELIVERED:
        package = replace(package, status=PackageStatus.ACTIVATED, activated_at=to_milliseconds(context.now))
    waited = record.approval in (Approval.REQUIRED, Approval.REJECTED)
    return next_revision(
        record,
        context,
        EventType.STATUS_OVERRIDE,
        reason=command.reason,
        status=ACTIVE,
        status_reason=command.reason,
        approval=Approval.GRANTED if waited else record.approval,
        package=package,
    )


def _override_to_inactive(record: ServiceRecord, command: c.Override, context: c.Context) -> Outcome:
    reason = command.reason
    return next_revision(
        record, context, EventType.STATUS_OVERRIDE, reason=reason, status=INACTIVE, status_reason=reason
    )


def _override_to_revoked(record: ServiceRecord, command: c.Override, context: c.Context) -> Outcome:
    if not command.cascade and command.live_children:
        return children_live(record, command.live_children)
    return end_service(record, context, EventType.STATUS_OVERRIDE, EventType.REVOKED, reason=command.reason)


_OVERRIDES: Mapping[tuple[ServiceStatus, ServiceStatus], Decide] = {
    (PENDING, ACTIVE): _override_to_active,
    (INACTIVE, ACTIVE): _override_to_active,
    (ACTIVE, INACTIVE): _override_to_inactive,
    (PENDING, REVOKED): _override_to_revoked,
    (ACTIVE, REVOKED): _override_to_revoked,
    (INACTIVE, REVOKED): _override_to_revoked,
}
