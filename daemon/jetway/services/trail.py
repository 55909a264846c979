"""What happens outside a record and belongs into the audit trail all the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import structlog
from pydantic import JsonValue

from jetway.core.errors import PortError
from jetway.core.record import EventType, ServiceRecord
from jetway.core.rows import Event
from jetway.core.times import to_milliseconds
from jetway.ports import AuditLog, Clock, Identifiers
from jetway.services.caller import Caller

log = structlog.get_logger()


class Trail:
    """Appends to the audit trail."""

    def __init__(self, audit: AuditLog, clock: Clock, identifiers: Identifiers) -> None:
        self._audit = audit
        self._clock = clock
        self._identifiers = identifiers
        self.on_redeem_refused: Callable[[ServiceRecord, str], None] = lambda _record, _reason: None
        """Called for a refused redemption of a service that is known. It must not block."""

    async def note(
        self,
        event_type: EventType,
        caller: Caller,
        *,
        reason: str = "",
        record: ServiceRecord | None = None,
        package_id: str = "",
        metadata: Mapping[str, JsonValue] | None = None,
        event_id: str = "",
    ) -> None:
        """Append one entry; with an `event_id` of one's own once only. Raises PortError while it cannot be."""
        if event_type is EventType.REDEEM_REFUSED and record is not None:
            self.on_redeem_refused(record, reason)
        await self._audit.append(
            Event(
                event_id=event_id or self._identifiers.new_id(),
                event_type=event_type.value,
                service_type=record.service_type.value if record else "",
                service_id=record.service_id if record else "",
                parent_id=record.parent_id if record else "",
                registration_source=record.registration_source.value if record else "",
                package_id=package_id,
                actor=caller.actor,
                timestamp=to_milliseconds(self._clock.now()),
                source_ip=caller.source_ip,
                request_id=caller.request_id,
                reason=reason,
                metadata=dict(metadata or {}),
            )
        )

    async def try_note(self, event_type: EventType, caller: Caller, **details: object) -> None:
        """Append where a refusal must not turn into a failure; what is lost is in the log."""
        try:
            await self.note(event_type, caller, **details)  # type: ignore[arg-type]
        except PortError as error:
            log.error(
                "an audit entry could not be written",
                action="audit_lost",
                event_type=event_type.value,
                actor=caller.actor,
                source_ip=caller.source_ip,
                error=str(error),
            )
