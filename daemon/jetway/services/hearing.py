"""Hearing: whether heartbeats reach the daemon, proven by one of its own, time and again.

A link that stands proves nothing: the NATS server may stand still, the network may swallow everything, and the
daemon itself may have been stopped. So a message goes the heartbeats' way, through the server and the very
subscription that hears them. While none comes back no silence counts, and after a gap it counts from its end.
"""

from __future__ import annotations

import asyncio

import structlog

from jetway.core.errors import PortError
from jetway.core.liveness import GAP_SECONDS
from jetway.ports import Clock, Ears
from jetway.services.presence import PresenceTable

log = structlog.get_logger()

_EVERY_SECONDS = 0.25
_PATIENCE_SECONDS = 2.0
_MENTIONED_AFTER_SECONDS = 5.0


class HearingWatch:
    """Tells the presence table up to when everything was heard."""

    def __init__(self, ears: Ears, presence: PresenceTable, clock: Clock) -> None:
        self._ears = ears
        self._presence = presence
        self._clock = clock
        self._heard_at = clock.monotonic()
        self._dropped = ears.dropped
        presence.require_proof()

    @property
    def age_seconds(self) -> float:
        """Since when nothing is proven to be heard; 0 while it is."""
        seconds = self._clock.monotonic() - self._heard_at
        return seconds if seconds > GAP_SECONDS else 0.0

    @property
    def trouble(self) -> str:
        """What to tell an operator; empty while all is heard."""
        seconds = self._clock.monotonic() - self._heard_at
        if seconds < _MENTIONED_AFTER_SECONDS:
            return ""
        return f"heartbeats are not heard since {seconds:.0f} s: no service is judged by its silence"

    async def run(self) -> None:
        """Prove it, for ever."""
        while True:
            await self.prove()
            await asyncio.sleep(_EVERY_SECONDS)

    async def prove(self) -> None:
        """Once."""
        began = self._clock.monotonic()
        try:
            await self._ears.echo(_PATIENCE_SECONDS)
        except PortError:
            return  # said in /readyz, and in the log when it is over
        if self._ears.dropped != self._dropped:
            # Whoever was silent may be among those that were dropped.
            self._dropped = self._ears.dropped
            self._presence.deaf()
            self._presence.listening()
        if not self._presence.proven(began):
            gap = round(began - self._heard_at, 1)
            log.warning("heartbeats were not heard for a while", action="hearing_gap", seconds=gap)
        self._heard_at = began
