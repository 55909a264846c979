"""Who made a service what it is: its status and its approval, each with the actor, the time and the reason."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from jetway.core.errors import PortError
from jetway.core.record import Approval, EventType, ServiceRecord
from jetway.core.rows import Event
from jetway.services.catalogue import Catalogue, EventFilter

_SETTING = (
    EventType.REGISTERED, EventType.ISSUED, EventType.ACTIVATED, EventType.DEACTIVATED, EventType.REACTIVATED,
    EventType.REVOKED, EventType.PENDING_EXPIRED, EventType.REISSUED, EventType.ARCHIVED, EventType.DELETED,
    EventType.STATUS_OVERRIDE, EventType.ADOPTED, EventType.WITHDRAWN, EventType.RESTORED,
)  # fmt: skip
"""Events that can come with another status."""
_LOOKED_AT = 200


@dataclass(frozen=True, slots=True)
class Decided:
    """One thing that was made so, by whom, when and why."""

    word: str
    actor: str
    at: datetime
    reason: str


async def decided(
    catalogue: Catalogue, record: ServiceRecord, events: Sequence[Event] | None
) -> list[Decided]:
    """The status and, where somebody decided on it, the approval: the newest first.

    The record names the actor of its last change alone, which may have been about something else. `events`: the
    newest of its trail, None while the database is away.
    """
    status = _own(record) or _status(record, events or ())
    if status is None and events:
        status = _status(record, await _further(catalogue, record))
    found = [each for each in (status, _approval(record, events or ())) if each]
    found.sort(key=lambda each: each.at, reverse=True)
    if found and not found[0].reason:
        found[0] = replace(found[0], reason=record.status_reason)
    return found


def _own(record: ServiceRecord) -> Decided | None:
    made = record.transition
    if made.from_status is made.to_status:
        return None
    return Decided(record.status.value, made.actor, made.at, made.reason)


def _status(record: ServiceRecord, events: Iterable[Event]) -> Decided | None:
    for event in events:
        if event.to_status == record.status.value and event.from_status != event.to_status:
            return Decided(event.to_status, event.actor, event.timestamp, event.reason)
    return None


def _approval(record: ServiceRecord, events: Iterable[Event]) -> Decided | None:
    wanted = {Approval.GRANTED: EventType.APPROVED, Approval.REJECTED: EventType.REJECTED}.get(
        record.approval
    )
    for event in events:
        if wanted and event.event_type == wanted.value:
            return Decided(event.event_type, event.actor, event.timestamp, event.reason)
    return None


async def _further(catalogue: Catalogue, record: ServiceRecord) -> Sequence[Event]:
    """Older events than those of the page, and those alone that can have set a status."""
    wanted = EventFilter(
        types=[each.value for each in _SETTING],
        service_type=record.service_type.value,
        service_id=record.service_id,
        limit=_LOOKED_AT,
    )
    try:
        return (await catalogue.events(wanted)).items
    except PortError:
        return ()
