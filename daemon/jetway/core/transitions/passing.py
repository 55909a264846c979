"""Time passing: silence, tokens and services that were never used, archives."""

from __future__ import annotations

from dataclasses import replace

from jetway.core import commands as c
from jetway.core.policy import ARCHIVED_REASON, PENDING_EXPIRED_REASON, keeps_answer_too_long
from jetway.core.record import (
    EventType,
    PackageStatus,
    ServiceRecord,
)
from jetway.core.transitions.leaving import end_service
from jetway.core.transitions.revision import INACTIVE, Outcome, next_revision


def deactivate(record: ServiceRecord, command: c.Deactivate, context: c.Context) -> Outcome:
    """Silent for too long."""
    since = command.silent_since.isoformat(timespec="seconds") if command.silent_since else ""
    reason = f"silent since {since}" if since else "silent"
    return next_revision(
        record, context, EventType.DEACTIVATED, reason=reason, status=INACTIVE, status_reason=reason
    )


def expire_package(record: ServiceRecord, command: c.ExpirePackage, context: c.Context) -> Outcome:
    """Nobody redeemed the token in time; or the time is up in which the answer to who did may be repeated."""
    package = record.package
    if keeps_answer_too_long(record, context.now):
        return next_revision(record, context, EventType.ANSWER_ERASED)
    if package is None or package.status is not PackageStatus.ISSUED:
        return record
    if context.now < package.token_expires_at:
        return record
    expired = replace(package, status=PackageStatus.EXPIRED)
    return next_revision(
        record, context, EventType.EXPIRED, reason="the token was not redeemed in time", package=expired
    )


def expire_pending(record: ServiceRecord, command: c.ExpirePending, context: c.Context) -> Outcome:
    """Never activated in the time given for it: its rights end."""
    return end_service(record, context, EventType.PENDING_EXPIRED, reason=PENDING_EXPIRED_REASON)


def archive(record: ServiceRecord, command: c.Archive, context: c.Context) -> Outcome:
    """Inactive for so long that its rights end; the reason tells it from a revocation."""
    return end_service(record, context, EventType.ARCHIVED, reason=ARCHIVED_REASON)
