"""Troubles with a service's heartbeats that are states and not single changes: it flaps, or two speak as one.

Each is one entry of the audit trail when it begins, and an end. Entries wait here while NATS is away; of several
daemons, all of which hear the same, the leading one writes them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import structlog
from pydantic import JsonValue

from jetway.core.clones import Instances, Sighting, follow, is_over
from jetway.core.errors import PortError
from jetway.core.flapping import FlapRule, is_flapping, was_flapping
from jetway.core.heartbeat import BatchEntry, Payload
from jetway.core.ids import ServiceKey
from jetway.core.record import EventType, ServiceRecord
from jetway.ports import Clock
from jetway.services.caller import SYSTEM
from jetway.services.changes import ChangeBook
from jetway.services.fence import TAKEOVER_SECONDS, Fence
from jetway.services.index import Index
from jetway.services.liveness import LivenessChange
from jetway.services.pace import Pace
from jetway.services.presence import PresenceTable, Seen
from jetway.services.trail import Trail

log = structlog.get_logger()

LOOK_SECONDS = 2.0
MOST_WAITING = 10_000
"""Entries that wait for NATS; with more the oldest is told in the log alone."""
MOST_CHANGED = 100_000
"""Services whose last instances are remembered."""


@dataclass(frozen=True, slots=True)
class _Entry:
    event: EventType
    record: ServiceRecord
    reason: str
    metadata: Mapping[str, JsonValue]
    at: float
    """When, by the clock that never jumps."""


class Troubles:
    """Who flaps, and who is cloned."""

    def __init__(
        self,
        index: Index,
        presence: PresenceTable,
        book: ChangeBook,
        trail: Trail,
        clock: Clock,
        fence: Fence,
        rule: FlapRule,
    ) -> None:
        self._index = index
        self._presence = presence
        self._book = book
        self._trail = trail
        self._clock = clock
        self._fence = fence
        self._rule = rule
        self._flapping: set[ServiceKey] = set()
        self._instances: dict[ServiceKey, Instances] = {}
        self._cloned: set[ServiceKey] = set()
        self._waiting: deque[_Entry] = deque()
        self._listeners: list[Callable[[ServiceKey], None]] = []
        presence.on_stranger = self._stranger

    def on_change(self, listener: Callable[[ServiceKey], None]) -> None:
        """Call `listener(key)` when a trouble with this service begins or ends. It must not block."""
        self._listeners.append(listener)

    def is_flapping(self, key: ServiceKey) -> bool:
        """Whether its verdict turns again and again."""
        return key in self._flapping

    def clones(self, key: ServiceKey) -> tuple[str, ...]:
        """The two instances or addresses that seem to speak as this service at one time; mostly none."""
        return (self._instances[key].suspects or ()) if key in self._cloned else ()

    def cloned(self) -> list[ServiceKey]:
        """All as which two seem to speak, by name."""
        return sorted(self._cloned, key=str)

    async def run(self) -> None:
        """Find what has ended, and tell the audit trail, for ever."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """Once."""
        pace = Pace()
        for key in tuple(self._flapping):
            self._look_at_flapping(key)
            await pace.breathe()
        for key in tuple(self._cloned):
            self._look_at_clones(key)
            await pace.breathe()
        await self._tell()

    # --- flapping

    async def recall(self) -> None:
        """Know who flapped when the last run ended, by the changes that it kept: it has told so already."""
        pace = Pace()
        for key in self._book.services():
            moments = self._book.moments(key)
            if len(moments) > self._rule.changes and was_flapping(moments, self._rule):
                self._flapping.add(key)
            await pace.breathe()

    def changed(self, change: LivenessChange) -> None:
        """A verdict turned, and stands in the book."""
        key = change.record.key
        if key in self._flapping:
            return
        moments = self._book.moments(key)
        now = change.at.timestamp()
        if len(moments) > self._rule.changes and is_flapping(moments, now, self._rule, was_flapping=False):
            self._flapping.add(key)
            minutes = self._rule.window.total_seconds() / 60
            why = f"more than {self._rule.changes} changes of its liveness in {minutes:g} min"
            self._begin_or_end(EventType.FLAPPING, change.record, why)

    def _look_at_flapping(self, key: ServiceKey) -> None:
        if key not in self._flapping:  # it was forgotten meanwhile
            return
        now = self._clock.now().timestamp()
        if is_flapping(self._book.moments(key), now, self._rule, was_flapping=True):
            return
        self._flapping.discard(key)
        record = self._index.get(key)
        if record is not None:
            self._begin_or_end(EventType.FLAPPING_ENDED, record, f"{self._verdict(key)} since")

    def _verdict(self, key: ServiceKey) -> str:
        seen = self._presence.seen(key)
        return seen.verdict.value if seen else "not heard"

    # --- clones

    def _stranger(self, key: ServiceKey, seen: Seen, payload: Payload) -> None:
        before, who = _compared(seen, payload)
        if not before or not who or before == who:
            return
        now = self._clock.monotonic()
        known = follow(
            self._instances.pop(key, Instances()),
            Sighting(before, seen.heard_at),
            who,
            now,
            alive_seconds=self._alive_seconds(key),
        )
        self._instances[key] = known
        if known.suspects and known.returned_at == now and key not in self._cloned:
            self._suspect(key, known.suspects)
        self._forget_the_oldest()

    def _suspect(self, key: ServiceKey, suspects: tuple[str, str]) -> None:
        record = self._index.get(key)
        if record is None:
            return
        self._cloned.add(key)
        first, second = suspects
        why = f"heartbeats come in turns from {first} and {second}"
        self._begin_or_end(EventType.CLONE_SUSPECTED, record, why, {"suspects": [first, second]})

    def _look_at_clones(self, key: ServiceKey) -> None:
        hearing, known = self._presence.hearing, self._instances.get(key)
        if hearing is None or known is None:  # it was forgotten meanwhile
            return
        alive = self._alive_seconds(key)
        if not is_over(known, hearing.since, hearing.until, alive_seconds=alive):
            return
        self._cloned.discard(key)
        del self._instances[key]
        log.info("no more clones", action="clones_gone", service=str(key))
        self._notify(key)

    def _alive_seconds(self, key: ServiceKey) -> float:
        """How long it may be silent without being offline."""
        record = self._index.get(key)
        interval = self._presence.interval_seconds(record) if record else self._presence.default_interval
        return interval * self._presence.thresholds.offline_after

    def _forget_the_oldest(self) -> None:
        if len(self._instances) > MOST_CHANGED:
            oldest = next(iter(self._instances))
            del self._instances[oldest]
            self._cloned.discard(oldest)

    # --- both

    def forget(self, key: ServiceKey) -> None:
        """Who comes under this id later is somebody else."""
        self._flapping.discard(key)
        self._cloned.discard(key)
        self._instances.pop(key, None)

    def _begin_or_end(
        self,
        event: EventType,
        record: ServiceRecord,
        why: str,
        metadata: Mapping[str, JsonValue] | None = None,
    ) -> None:
        log.warning(why, action=event.value, service=str(record.key))
        if len(self._waiting) >= MOST_WAITING:
            self._waiting.popleft()
        self._waiting.append(_Entry(event, record, why, metadata or {}, self._clock.monotonic()))
        self._notify(record.key)

    def _notify(self, key: ServiceKey) -> None:
        for listener in self._listeners:
            listener(key)

    async def _tell(self) -> None:
        if not self._fence.leads():
            self._leave_to_another()
            return
        while self._waiting:
            entry = self._waiting[0]
            try:
                await self._trail.note(
                    entry.event, SYSTEM, reason=entry.reason, record=entry.record, metadata=entry.metadata
                )
            except PortError as error:
                log.debug("an audit entry waits", action="audit_waits", error=str(error))
                return
            if self._waiting and self._waiting[0] is entry:
                self._waiting.popleft()

    def _leave_to_another(self) -> None:
        """The one that leads hears the same, and has written it by now; where none does, the next one will."""
        over = self._clock.monotonic() - TAKEOVER_SECONDS
        while self._waiting and self._waiting[0].at <= over and self._fence.another_leads():
            self._waiting.popleft()


def _compared(seen: Seen, payload: Payload) -> tuple[str, str]:
    """Who spoke before and who speaks now: by instance where both say it, else by address.

    A relay may know a service by another address than the one that it has by itself: those are not compared.
    """
    if seen.instance_id or payload.instance_id:
        return seen.instance_id, payload.instance_id
    if seen.relayed is not isinstance(payload, BatchEntry):
        return "", ""
    return seen.source_ip, payload.source_ip
