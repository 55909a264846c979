"""Rules that look at more than one record."""

from __future__ import annotations

from datetime import datetime

from jetway.core import commands as c
from jetway.core.errors import Code, Refused
from jetway.core.identity import erase_answer
from jetway.core.ids import ServiceKey, ServiceType
from jetway.core.record import EventType, PackageStatus, ServiceRecord, ServiceStatus

MAY_HAVE_CHILDREN = frozenset({ServiceStatus.PENDING, ServiceStatus.ACTIVE})
GONE = frozenset({ServiceStatus.REVOKED, ServiceStatus.DELETED})

ARCHIVED_REASON = "archived"
PENDING_EXPIRED_REASON = "pending_expired"
_PASSED_DOWN = {
    ARCHIVED_REASON: EventType.ARCHIVED,
    PENDING_EXPIRED_REASON: EventType.PENDING_EXPIRED,
}
"""What time did to a parent is told of its children in the same words: nobody revoked them."""


def unknown_service(key: ServiceKey) -> Refused:
    """The refusal that names a service that is not there."""
    return Refused(Code.NOT_FOUND, f"there is no {key.service_type.value} {key.service_id!r}")


def parent_key(service_type: ServiceType, parent_id: str) -> ServiceKey | Refused | None:
    """The key that a new service's parent must have: None for a poller, a refusal where the id does not fit."""
    kind = service_type.parent_type
    if kind is None:
        if parent_id:
            return Refused(Code.INVALID, "a poller has no parent", "parent_id")
        return None
    if not parent_id:
        article = "an" if kind is ServiceType.AGENT else "a"
        why = f"{service_type.value}s need a parent: name {article} {kind.value} in parent_id"
        return Refused(Code.INVALID, why, "parent_id")
    return ServiceKey(kind, parent_id)


def judge_parent(key: ServiceKey, parent: ServiceRecord | None) -> Refused | None:
    """Whether a child may be created beneath this parent."""
    name = f"{key.service_type.value} {key.service_id!r}"
    if parent is None:
        return Refused(Code.PARENT_MISSING, f"the parent {name} does not exist", "parent_id")
    if parent.status not in MAY_HAVE_CHILDREN:
        why = f"the parent {name} is {parent.status.value}: it must be pending or active"
        return Refused(Code.PARENT_NOT_LIVE, why, "parent_id")
    return None


def parent_went_away(parent: ServiceRecord | None) -> bool:
    """Whether a child that was just written must be taken back: its parent's cascade may have missed it."""
    return parent is None or parent.status in GONE


def follow_parent(key: ServiceKey, parent: ServiceRecord | None) -> c.Revoke:
    """What becomes of a child of a service that was taken out, for the reason for which that was."""
    event = None
    if parent is not None and parent.status is ServiceStatus.REVOKED:
        event = _PASSED_DOWN.get(parent.status_reason)
    if parent is None or event is None:
        return c.Revoke(reason=f"{key} was taken out", because_of=str(key))
    return c.Revoke(reason=parent.status_reason, because_of=str(key), event=event)


def keeps_answer_too_long(record: ServiceRecord, now: datetime) -> bool:
    """Whether an active service still has what was kept for a retry, though the token's time is up."""
    package = record.package
    if package is None or package.status is not PackageStatus.ACTIVATED or now < package.token_expires_at:
        return False
    return erase_answer(record.identity) is not record.identity
