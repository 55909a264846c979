"""Coming back, and approval: reissue, approve, reject."""

from __future__ import annotations

from pydantic import JsonValue

from jetway.core import commands as c
from jetway.core.errors import Code, Refused
from jetway.core.record import (
    SUPERSEDED_PACKAGE,
    Approval,
    Cascade,
    EventType,
    ServiceRecord,
    Source,
)
from jetway.core.transitions.identities import end_identity
from jetway.core.transitions.leaving import still_cascading
from jetway.core.transitions.packages import last_generation, new_package, packages_before
from jetway.core.transitions.revision import PENDING, Outcome, next_revision


def reissue(record: ServiceRecord, command: c.Reissue, context: c.Context) -> Outcome:
    """Pending again, with a new package; the old token is dead at once.

    The old identity works until the new package is redeemed, or ends at once with `revoke_now`.
    """
    if record.cascade is Cascade.RUNNING:
        return still_cascading(record)
    implicit = record.registration_source is Source.IMPLICIT
    facts: dict[str, JsonValue] = {"revoke_now": command.revoke_now}
    if record.package:
        facts[SUPERSEDED_PACKAGE] = record.package.package_id
    ended = end_identity(record, context.now) if command.revoke_now else {}
    return next_revision(
        record,
        context,
        EventType.REISSUED,
        EventType.ISSUED,
        reason=command.reason,
        metadata=facts,
        status=PENDING,
        status_reason=command.reason,
        approval=Approval.NONE if record.approval is Approval.NONE else Approval.GRANTED,
        registration_source=Source.EDGE_ONBOARDING if implicit else record.registration_source,
        package=new_package(command.package, last_generation(record) + 1, context),
        earlier_packages=packages_before(record),
        **ended,
    )


def approve(record: ServiceRecord, command: c.Approve, context: c.Context) -> Outcome:
    """Let a service in that registered itself."""
    if record.approval is Approval.GRANTED:
        return record
    if record.approval is Approval.NONE:
        return Refused(
            Code.ILLEGAL_TRANSITION, f"{record.service_id!r} did not register itself: no approval needed"
        )
    return next_revision(
        record,
        context,
        EventType.APPROVED,
        reason=command.reason,
        approval=Approval.GRANTED,
        status_reason=command.reason,
    )


def reject(record: ServiceRecord, command: c.Reject, context: c.Context) -> Outcome:
    """Keep a service out that registered itself."""
    if record.approval is Approval.REJECTED:
        return record
    if record.approval is not Approval.REQUIRED:
        return Refused(
            Code.ILLEGAL_TRANSITION, f"{record.service_id!r} does not wait for approval: revoke it instead"
        )
    return next_revision(
        record,
        context,
        EventType.REJECTED,
        reason=command.reason,
        approval=Approval.REJECTED,
        status_reason=command.reason,
    )
