"""Time passing: silence, tokens and services that were never used, archives."""

from __future__ import annotations

from dataclasses import replace

from jetway.core import commands as c
from jetway.core.record import (
    EventType,
    PackageStatus,
    ServiceRecord,
)
from jetway.core.transitions.leaving import cascade_of
from jetway.core.transitions.packages import end_package
from jetway.core.transitions.revision import INACTIVE, REVOKED, Outcome, next_revision

ARCHIVED_REASON = "archived"
PENDING_EXPIRED_REASON = "pending_expired"


def deactivate(record: ServiceRecord, command: c.Deactivate, context: c.Context) -> Outcome:
    """Silent for too long."""
    since = command.silent_since.isoformat(timespec="seconds") if command.silent_since else ""
    reason = f"silent since {since}" if since else "silent"
    return next_revision(
        record, context, EventType.DEACTIVATED, reason=reason, status=INACTIVE, status_reason=reason
    )


def expire_package(record: ServiceRecord, command: c.ExpirePackage, context: c.Context) -> Outcome:
    """Nobody redeemed the token in time."""
    package = record.package
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
    return next_revision(
        record,
        context,
        EventType.PENDING_EXPIRED,
        reason=PENDING_EXPIRED_REASON,
        status=REVOKED,
        status_reason=PENDING_EXPIRED_REASON,
        package=end_package(record, PackageStatus.EXPIRED, context),
        cascade=cascade_of(record),
    )


def archive(record: ServiceRecord, command: c.Archive, context: c.Context) -> Outcome:
    """Inactive for so long that its rights end; the reason tells it from a revocation."""
    return next_revision(
        record,
        context,
        EventType.ARCHIVED,
        reason=ARCHIVED_REASON,
        status=REVOKED,
        status_reason=ARCHIVED_REASON,
        package=end_package(record, PackageStatus.REVOKED, context),
        cascade=cascade_of(record),
    )
