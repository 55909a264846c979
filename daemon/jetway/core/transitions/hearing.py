"""Being heard: what a heartbeat may change, and what it may not."""

from __future__ import annotations

from dataclasses import replace

from jetway.core import commands as c
from jetway.core.errors import Code, Refused
from jetway.core.record import (
    Approval,
    EventType,
    PackageStatus,
    ServiceRecord,
)
from jetway.core.times import to_milliseconds
from jetway.core.transitions.revision import ACTIVE, Outcome, next_revision


def heard_pending(record: ServiceRecord, command: c.Heartbeat, context: c.Context) -> Outcome:
    """The first heartbeat: it activates where a person or an installer has cleared the way."""
    refused = _wrong_parents(record, command)
    if refused:
        return refused
    if record.approval is Approval.REQUIRED:
        return Refused(Code.APPROVAL_REQUIRED, "waits for an administrator's approval")
    if record.approval is Approval.REJECTED:
        return Refused(Code.REJECTED, "was rejected by an administrator")
    package = record.package
    if package and package.status is not PackageStatus.DELIVERED:
        return Refused(Code.NOT_DELIVERED, f"its package is {package.status.value}, not delivered")
    now = to_milliseconds(context.now)
    if package:
        package = replace(
            package,
            status=PackageStatus.ACTIVATED,
            activated_at=now,
            activated_from=context.source_ip or None,
        )
    return next_revision(
        record,
        context,
        EventType.ACTIVATED,
        status=ACTIVE,
        status_reason="",
        first_seen=record.first_seen or now,
        package=package,
    )


def heard_active(record: ServiceRecord, command: c.Heartbeat, context: c.Context) -> Outcome:
    """A steady heartbeat changes nothing; what was made active by hand is heard for the first time once."""
    refused = _wrong_parents(record, command)
    if refused:
        return refused
    if record.first_seen is not None:
        return record
    return next_revision(record, context, EventType.FIRST_HEARD, first_seen=to_milliseconds(context.now))


def heard_inactive(record: ServiceRecord, command: c.Heartbeat, context: c.Context) -> Outcome:
    """A heartbeat after long silence reactivates."""
    refused = _wrong_parents(record, command)
    if refused:
        return refused
    seen = record.first_seen or to_milliseconds(context.now)
    return next_revision(
        record, context, EventType.REACTIVATED, status=ACTIVE, status_reason="", first_seen=seen
    )


def heard_revoked(record: ServiceRecord, command: c.Heartbeat, context: c.Context) -> Outcome:
    """No heartbeat brings a revoked service back."""
    return Refused(Code.REVOKED, "was revoked")


def heard_deleted(record: ServiceRecord, command: c.Heartbeat, context: c.Context) -> Outcome:
    """No heartbeat brings a deleted service back."""
    return Refused(Code.DELETED, "was deleted")


def heard_unknown(_: None, command: c.Heartbeat, context: c.Context) -> Outcome:
    """Whether an unknown service is admitted is not decided here."""
    return Refused(Code.UNKNOWN_SERVICE, "no service of this id is registered")


def _wrong_parents(record: ServiceRecord, command: c.Heartbeat) -> Refused | None:
    if record.lineage == command.lineage:
        return None
    return Refused(Code.WRONG_PARENTS, "the parents in the subject are not the service's")
