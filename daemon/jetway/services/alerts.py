"""Alerts out: what troubles a service is told to webhooks, once, unless it is in maintenance.

What all daemons see, the leading one tells; a refused redemption is told by the daemon that refused it. Each
target has a queue and a worker of its own, so that one that is away holds nothing back from another. A queue is
bounded: what finds it full is counted, and a restart forgets what waits. The audit trail forgets nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta

import structlog

from jetway.core.alerts import Alert, AlertKind, encode_alert
from jetway.core.errors import PortError, RejectedError
from jetway.core.ids import ServiceKey
from jetway.core.liveness import Liveness
from jetway.core.record import Approval, EventType, ServiceRecord, ServiceStatus
from jetway.ports import AlertSender, Clock, Identifiers
from jetway.services.census import is_stuck
from jetway.services.index import Index
from jetway.services.liveness import LivenessChange
from jetway.services.metrics import Metrics
from jetway.services.pace import in_slices

log = structlog.get_logger()

WAITING = 1000
"""Alerts that wait for one target."""
ATTEMPTS = 8
_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 60.0
_REMEMBERED = 50_000
_LOOK_SECONDS = 60.0
_FIRST_LOOK = timedelta(hours=1)
"""How far back the first look goes: what became stuck while nobody looked."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where alerts go, and which."""

    name: str
    """For logs: its host. What else stands in its address may be a secret."""
    sender: AlertSender
    kinds: Collection[AlertKind]


class Alerts:
    """Takes troubles in, and sees that they are told."""

    def __init__(
        self,
        targets: Sequence[Target],
        index: Index,
        clock: Clock,
        identifiers: Identifiers,
        metrics: Metrics,
        *,
        gateway: str,
        repeat_after: timedelta,
        stuck_after: timedelta,
    ) -> None:
        self._queues = [(target, asyncio.Queue[Alert](WAITING)) for target in targets]
        self._index = index
        self._clock = clock
        self._identifiers = identifiers
        self._count = metrics.alerts
        self._gateway = gateway
        self._repeat_seconds = repeat_after.total_seconds()
        self._stuck_after = stuck_after
        self._told: dict[tuple[ServiceKey, AlertKind], float] = {}
        self._looked_at = clock.now() - _FIRST_LOOK
        self.leads: Callable[[], bool] = lambda: True
        """Whether it is this daemon that tells what all of them see."""
        self.is_silenced: Callable[[ServiceRecord], bool] = lambda _record: False

    # --- what happens

    def liveness_changed(self, change: LivenessChange) -> None:
        """A verdict turned."""
        if change.after is Liveness.OFFLINE and change.record.status is not ServiceStatus.REVOKED:
            self._seen_by_all(AlertKind.OFFLINE, change.record, f"was {change.before.value}, is offline")

    def record_changed(self, before: ServiceRecord | None, after: ServiceRecord) -> None:
        """A newer version of a record is there."""
        was_waiting = before is not None and before.approval is Approval.REQUIRED
        if after.approval is Approval.REQUIRED and after.live and not was_waiting:
            self._seen_by_all(AlertKind.QUARANTINE, after, "registered itself and waits for approval")
        newly = after.status is ServiceStatus.REVOKED and (
            before is None or before.status is not ServiceStatus.REVOKED
        )
        if newly and EventType.ARCHIVED not in after.transition.events and not self._goes_with_parent(after):
            self._seen_by_all(AlertKind.REVOKED, after, after.status_reason)

    def trouble(self, kind: AlertKind, key: ServiceKey, reason: str) -> None:
        """A trouble with heartbeats began."""
        record = self._index.get(key)
        if record is not None:
            self._seen_by_all(kind, record, reason)

    def redeem_refused(self, record: ServiceRecord, reason: str) -> None:
        """A token was refused here; no other daemon knows of it."""
        self._tell(AlertKind.REDEEM_REFUSED, record, reason)

    def _goes_with_parent(self, record: ServiceRecord) -> bool:
        """Whether it was revoked with what it stands beneath: that is told once."""
        parent = self._index.get(record.parent) if record.parent else None
        return parent is not None and parent.status is ServiceStatus.REVOKED

    def _seen_by_all(self, kind: AlertKind, record: ServiceRecord, reason: str) -> None:
        if self.leads():
            self._tell(kind, record, reason)

    def _tell(self, kind: AlertKind, record: ServiceRecord, reason: str) -> None:
        queues = [queue for target, queue in self._queues if kind in target.kinds]
        if not queues:
            return
        if self.is_silenced(record):
            self._count.labels(kind.value, "silenced").inc()
            return
        if self._is_repeated(record.key, kind):
            self._count.labels(kind.value, "repeated").inc()
            return
        at = self._clock.now()
        alert = Alert(alert_id=self._identifiers.new_id(), kind=kind, record=record, reason=reason, at=at)
        for queue in queues:
            try:
                queue.put_nowait(alert)
            except asyncio.QueueFull:
                self._count.labels(kind.value, "dropped").inc()

    def _is_repeated(self, key: ServiceKey, kind: AlertKind) -> bool:
        now = self._clock.monotonic()
        told = self._told.pop((key, kind), None)
        repeated = told is not None and now - told < self._repeat_seconds
        self._told[key, kind] = told if repeated and told is not None else now
        if len(self._told) > _REMEMBERED:
            del self._told[next(iter(self._told))]
        return repeated

    # --- telling it

    async def run(self) -> None:
        """Tell, for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch(), name="alerts-stuck")
            for target, queue in self._queues:
                group.create_task(self._serve(target, queue), name=f"alerts-{target.name}")

    async def _serve(self, target: Target, queue: asyncio.Queue[Alert]) -> None:
        while True:
            alert = await queue.get()
            outcome = "sent" if await self._deliver(target, alert) else "failed"
            self._count.labels(alert.kind.value, outcome).inc()

    async def _deliver(self, target: Target, alert: Alert) -> bool:
        """Try until it is taken, refused, or no longer worth it."""
        body, pause, why = encode_alert(alert, self._gateway), _FIRST_PAUSE, ""
        for attempt in range(ATTEMPTS):
            if attempt:
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
            try:
                await target.sender.send(alert.alert_id, alert.kind.value, body)
                return True
            except RejectedError as error:
                why = str(error)
                break
            except PortError as error:
                why = str(error)
        log.warning(
            "an alert was not taken",
            action="alert_failed",
            target=target.name,
            kind=alert.kind.value,
            service=str(alert.record.key),
            error=why,
        )
        return False

    async def _watch(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(_LOOK_SECONDS)

    async def look(self) -> None:
        """Find who has become stuck since the last look."""
        now, since = self._clock.now(), self._looked_at
        self._looked_at = now
        if not any(AlertKind.STUCK_PENDING in target.kinds for target, _ in self._queues):
            return
        async for records in in_slices(tuple(self._index.records.values())):
            for record in records:
                if is_stuck(record, now, self._stuck_after) and not is_stuck(
                    record, since, self._stuck_after
                ):
                    self._seen_by_all(AlertKind.STUCK_PENDING, record, "is pending for long")
