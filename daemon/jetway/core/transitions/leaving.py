"""Being taken out: revoked, deleted, withdrawn, and the cascade beneath."""

from __future__ import annotations

from dataclasses import replace

from pydantic import JsonValue

from jetway.core import commands as c
from jetway.core.errors import Code, Refused
from jetway.core.ids import ServiceType
from jetway.core.record import (
    Cascade,
    EventType,
    PackageStatus,
    ServiceRecord,
    ServiceStatus,
)
from jetway.core.times import to_milliseconds
from jetway.core.transitions.packages import end_package
from jetway.core.transitions.revision import DELETED, REVOKED, Outcome, next_revision


def revoke(record: ServiceRecord, command: c.Revoke, context: c.Context) -> Outcome:
    """End a live service; without cascade only where nothing lives beneath it."""
    if command.because_of and command.because_of != str(record.parent):
        return record
    if _superseded(record, command):
        return Refused(Code.SUPERSEDED, "this package was superseded: revoke the service's current one")
    if not command.cascade and command.live_children:
        return children_live(record, command.live_children)
    facts: dict[str, JsonValue] = {"because_of": command.because_of} if command.because_of else {}
    return end_service(record, context, command.event, reason=command.reason, facts=facts)


def revoke_again(record: ServiceRecord, command: c.Revoke, context: c.Context) -> Outcome:
    """Revoking twice is no error; an interrupted cascade goes on by itself."""
    if _superseded(record, command):
        return Refused(Code.SUPERSEDED, "this package was superseded: the service's current one is revoked")
    return record


def _superseded(record: ServiceRecord, command: c.Revoke) -> bool:
    if not command.package_id:
        return False
    return record.package is None or record.package.package_id != command.package_id


def end_service(
    record: ServiceRecord,
    context: c.Context,
    *events: EventType,
    reason: str,
    facts: dict[str, JsonValue] | None = None,
    status: ServiceStatus = REVOKED,
) -> ServiceRecord:
    """A service taken out: its package ends with it, and whoever can have children runs a cascade."""
    over = PackageStatus.EXPIRED if EventType.PENDING_EXPIRED in events else PackageStatus.REVOKED
    return next_revision(
        record,
        context,
        *events,
        reason=reason,
        metadata=facts,
        status=status,
        status_reason=reason,
        package=end_package(record, over, context),
        cascade=cascade_of(record),
    )


def cascade_of(record: ServiceRecord) -> Cascade:
    """Whoever can have children runs a cascade, seen children or not: one may just be being created."""
    return Cascade.RUNNING if record.service_type.child_type else Cascade.NONE


def children_live(record: ServiceRecord, count: int) -> Refused:
    """The refusal that says how many children stand in the way."""
    kind = record.service_type.child_type or ServiceType.CHECKER
    noun = kind.value if count == 1 else kind.plural
    why = f"{record.service_type.value} {record.service_id!r} has {count} live {noun}"
    return Refused(Code.CHILDREN_LIVE, f"{why}: use cascade, or take them out first", "cascade")


def still_cascading(record: ServiceRecord) -> Refused:
    """Coming back now would forget the children that are still to be revoked."""
    name = f"{record.service_type.value} {record.service_id!r}"
    return Refused(
        Code.ILLEGAL_TRANSITION, f"what was beneath {name} is still being revoked: try again shortly"
    )


def finish_cascade(record: ServiceRecord, command: c.FinishCascade, context: c.Context) -> Outcome:
    """Nothing is left alive beneath the service."""
    if record.cascade is Cascade.NONE:
        return record
    facts: dict[str, JsonValue] = {"revoked": command.revoked}
    return next_revision(record, context, EventType.CASCADE_COMPLETED, metadata=facts, cascade=Cascade.NONE)


def close(record: ServiceRecord, command: c.Close, context: c.Context) -> Outcome:
    """Closed to children. A revision each time: whoever closed it before no longer has its newest version."""
    return next_revision(record, context, EventType.CLOSED_TO_CHILDREN, cascade=Cascade.CLOSING)


def reopen(record: ServiceRecord, command: c.Reopen, context: c.Context) -> Outcome:
    """Open to children again."""
    if record.cascade is not Cascade.CLOSING:
        return record
    return next_revision(record, context, EventType.OPENED_TO_CHILDREN, cascade=Cascade.NONE)


def delete(record: ServiceRecord, command: c.Delete, context: c.Context) -> Outcome:
    """Out of the registry; the record stays until the purge."""
    if not command.cascade and command.live_children:
        return children_live(record, command.live_children)
    return end_service(record, context, EventType.DELETED, reason=command.reason, status=DELETED)


def withdraw(record: ServiceRecord, command: c.Withdraw, context: c.Context) -> Outcome:
    """A registration that lost its parent while it was being written."""
    return end_service(record, context, EventType.WITHDRAWN, reason=command.reason, status=DELETED)


def delete_package(record: ServiceRecord, command: c.DeletePackage, context: c.Context) -> Outcome:
    """Hide a package that is over."""
    package = record.find_package(command.package_id)
    if package is None or package.deleted_at:
        return Refused(Code.NOT_FOUND, "there is no such package")
    if package.status not in (PackageStatus.REVOKED, PackageStatus.EXPIRED):
        why = f"the package is {package.status.value}: only a revoked or expired one can be deleted"
        return Refused(Code.ILLEGAL_TRANSITION, why)
    gone = replace(package, deleted_at=to_milliseconds(context.now))
    facts: dict[str, JsonValue] = {"deleted_package_id": package.package_id}
    if package is record.package:
        return next_revision(record, context, EventType.PACKAGE_DELETED, metadata=facts, package=gone)
    earlier = tuple(gone if p is package else p for p in record.earlier_packages)
    return next_revision(record, context, EventType.PACKAGE_DELETED, metadata=facts, earlier_packages=earlier)
