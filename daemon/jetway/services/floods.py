"""Floods: who sends more than anybody can read is shut out for a while, so that the others are heard.

Not reading it is not enough: what a host sends over several connections the daemon cannot even receive in time,
and the NATS server then drops the daemon's own connection as too slow. So the server is told to refuse the host's
credentials, as if they were revoked, and drops its connections at once. Only a server of the gateway's own can be
told, and only of hosts that have credentials.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from datetime import timedelta

import structlog

from jetway.core.errors import PortError
from jetway.core.ids import ServiceKey
from jetway.core.record import EventType, ServiceRecord
from jetway.ports import Clock
from jetway.services.caller import SYSTEM
from jetway.services.index import Index
from jetway.services.metrics import Metrics
from jetway.services.revocations import Revocations
from jetway.services.trail import Trail

log = structlog.get_logger()

SHUT_OUT = timedelta(seconds=60)
"""Then it may try again; if it floods again, it is shut out again."""
_LOOK_SECONDS = 1.0
_MOST_UNTOLD = 1_000
"""Entries of the audit trail that wait for NATS; the log has them all."""


@dataclass(frozen=True, slots=True)
class _ShutOut:
    public_key: str
    until: float
    """By the clock that never jumps."""


class Floods:
    """Who is shut out, and until when."""

    def __init__(
        self, index: Index, revocations: Revocations, trail: Trail, clock: Clock, metrics: Metrics
    ) -> None:
        self._index = index
        self._revocations = revocations
        self._trail = trail
        self._clock = clock
        self._metrics = metrics
        self._out: dict[ServiceKey, _ShutOut] = {}
        self._untold: deque[tuple[ServiceRecord, str]] = deque(maxlen=_MOST_UNTOLD)

    def begin(self, key: ServiceKey) -> None:
        """This service floods. Does not wait for anything."""
        record = self._index.get(key)
        if record is None or key in self._out or not self._revocations.can_tell:
            return
        identity = record.identity
        if identity is None or not identity.nats_expires_at:
            return
        self._out[key] = _ShutOut(
            identity.nats_public_key, self._clock.monotonic() + SHUT_OUT.total_seconds()
        )
        # Until the end, so that credentials which it renews meanwhile are refused as well.
        self._revocations.suspend(identity.nats_public_key, self._clock.now() + SHUT_OUT)
        self._metrics.floods.inc()
        why = f"it flooded the gateway with messages: shut out for {SHUT_OUT.total_seconds():g} s"
        log.warning(why, action="flood", service=str(key))
        self._untold.append((record, why))

    async def run(self) -> None:
        """Let in again whose time is up, and tell the audit trail, for ever."""
        while True:
            await self.look()
            await asyncio.sleep(_LOOK_SECONDS)

    async def look(self) -> None:
        """Once."""
        now = self._clock.monotonic()
        for key in [key for key, out in self._out.items() if out.until <= now]:
            self._revocations.lift(self._out.pop(key).public_key)
            log.info("the flood is over: it may connect again", action="flood_over", service=str(key))
        while self._untold:
            record, why = self._untold[0]
            try:
                await self._trail.note(EventType.FLOODED, SYSTEM, reason=why, record=record)
            except PortError as error:
                log.debug("an audit entry waits", action="audit_waits", error=str(error))
                return
            self._untold.popleft()
