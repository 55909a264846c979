"""What can be done to many services at once."""

from __future__ import annotations

from dataclasses import dataclass

from jetway.core.record import ServiceStatus
from jetway.entry.web.visit import Visit
from jetway.services.actions import Action


@dataclass(frozen=True, slots=True)
class Choice:
    """One deed, and the words for it."""

    name: str
    title: str
    done: str
    """`revoked`: what is said of services that it was done to."""
    action: Action
    status: ServiceStatus = ServiceStatus.REVOKED
    """What `set-status` sets."""
    role: str = "operator"
    grave: bool = False


CHOICES = {
    choice.name: choice
    for choice in (
        Choice("activate", "Set active", "set active", Action.SET_STATUS, ServiceStatus.ACTIVE),
        Choice("deactivate", "Set inactive", "set inactive", Action.SET_STATUS, ServiceStatus.INACTIVE),
        Choice("approve", "Approve", "approved", Action.APPROVE),
        Choice("reject", "Reject", "rejected", Action.REJECT, grave=True),
        Choice("revoke", "Revoke", "revoked", Action.REVOKE, grave=True),
        Choice("delete", "Delete", "deleted", Action.DELETE, role="admin", grave=True),
    )
}


def choices_for(visit: Visit, *names: str) -> list[Choice]:
    """Those of `names`, or of all, that the visitor's role allows."""
    return [CHOICES[name] for name in names or CHOICES if visit.may(CHOICES[name].role)]
