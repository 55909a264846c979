"""Alerts out: what troubles a service is told to webhooks, once, unless it is in maintenance.

What all daemons see, the leading one tells; a refused redemption is told by the daemon that refused it. What all
see is owed until it was taken, and is looked at again every minute: a window that ends, a lease that is taken, a
target that is back or a time that is up lets out what was held back, if it is still so. Each target has a line of
its own, so that one that is away holds nothing back from another. All of it is bounded, and a restart forgets what
waits. The audit trail forgets nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from jetway.core.alerts import Alert, AlertKind
from jetway.core.ids import ServiceKey
from jetway.core.liveness import Liveness
from jetway.core.record import Approval, EventType, ServiceRecord, ServiceStatus
from jetway.ports import Clock, Identifiers
from jetway.services.alert_lines import REMEMBERED, Line, Offer, Owed, Target, Topic
from jetway.services.census import is_stuck
from jetway.services.index import Index
from jetway.services.liveness import LivenessChange
from jetway.services.metrics import Metrics
from jetway.services.pace import Pace, in_slices

_LOOK_SECONDS = 60.0
_FIRST_LOOK = timedelta(hours=1)
"""How far back the first look goes: what became stuck while nobody looked."""
_STANDBY_SECONDS = 15 * 60.0
"""For so long a daemon that does not lead keeps what it would tell: the one that leads may end untold."""
_EXPECTED = (ServiceStatus.ACTIVE, ServiceStatus.INACTIVE)
"""Whose silence is worth an alert."""


def _always(_kind: AlertKind, _key: ServiceKey) -> bool:
    return True


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
        self._lines = [
            Line(
                target,
                clock,
                metrics.alerts,
                gateway=gateway,
                repeat_seconds=repeat_after.total_seconds(),
            )
            for target in targets
        ]
        self._index = index
        self._clock = clock
        self._identifiers = identifiers
        self._count = metrics.alerts
        self._stuck_after = stuck_after
        self._owed: dict[Topic, Owed] = {}
        self._looked_at = clock.now() - _FIRST_LOOK
        self.leads: Callable[[], bool] = lambda: True
        """Whether it is this daemon that tells what all of them see."""
        self.another_leads: Callable[[], bool] = lambda: not self.leads()
        """Whether another one does."""
        self.silenced_since: Callable[[ServiceRecord], datetime | None] = lambda _record: None
        """Since when a service has been in maintenance; None where it is not now."""
        self.goes_on: Callable[[AlertKind, ServiceKey], bool] = _always
        """Whether a service is still offline, flapping or cloned."""
        self.offline_since: Callable[[ServiceKey], datetime | None] = lambda _key: None
        """Since when a service that is offline has been so, as far as that is known."""

    # --- what happens

    def liveness_changed(self, change: LivenessChange) -> None:
        """A verdict turned."""
        record = change.record
        if change.after is not Liveness.OFFLINE:
            self._owed.pop((record.key, AlertKind.OFFLINE), None)
        elif record.status in _EXPECTED and record.approval is not Approval.REJECTED:
            self._seen_by_all(AlertKind.OFFLINE, record, f"was {change.before.value}, is offline")

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

    def _lines_for(self, kind: AlertKind) -> list[Line]:
        return [line for line in self._lines if kind in line.target.kinds]

    def _seen_by_all(self, kind: AlertKind, record: ServiceRecord, reason: str) -> None:
        lines = self._lines_for(kind)
        if not lines:
            return
        owed = Owed(self._alert(kind, record, reason), self._clock.monotonic(), set(lines))
        self._owed.pop(owed.topic, None)
        self._owed[owed.topic] = owed
        if len(self._owed) > REMEMBERED:
            oldest = self._owed.pop(next(iter(self._owed)))
            self._count.labels(oldest.alert.kind.value, "dropped").inc()
        if self.leads():
            self._offer(owed, record)

    def _alert(self, kind: AlertKind, record: ServiceRecord, reason: str) -> Alert:
        at, alert_id = self._clock.now(), self._identifiers.new_id()
        return Alert(alert_id=alert_id, kind=kind, record=record, reason=reason, at=at)

    def _offer(self, owed: Owed, record: ServiceRecord) -> None:
        """Put it into the lines that have not told it. Where one does not take it, it stays owed."""
        if self.silenced_since(record) is not None:
            owed.since = self._clock.monotonic()
            self._count_once(owed, "silenced")
            return
        owed.alert = replace(owed.alert, record=record)
        for line in owed.left:
            if line.offer(owed) is Offer.REPEATED:
                self._count_once(owed, "repeated")

    def _count_once(self, owed: Owed, outcome: str) -> None:
        if outcome not in owed.counted:
            owed.counted.add(outcome)
            self._count.labels(owed.alert.kind.value, outcome).inc()

    def _tell(self, kind: AlertKind, record: ServiceRecord, reason: str) -> None:
        """Tell what nobody else knows: now or not at all."""
        lines = self._lines_for(kind)
        if not lines:
            return
        if self.silenced_since(record) is not None:
            self._count.labels(kind.value, "silenced").inc()
            return
        owed = Owed(self._alert(kind, record, reason), self._clock.monotonic())
        for line in lines:
            offer = line.offer(owed)
            if offer is Offer.FULL:
                self._count.labels(kind.value, "dropped").inc()
            elif offer is not Offer.TAKEN:
                self._count_once(owed, "repeated")

    # --- telling it

    async def run(self) -> None:
        """Tell, for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch(), name="alerts-look")
            for line in self._lines:
                group.create_task(line.run(), name=f"alerts-{line.target.name}")

    async def _watch(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(_LOOK_SECONDS)

    async def look(self) -> None:
        """Find what no change tells of, and offer once more what is owed."""
        await self._find()
        pace = Pace()
        for topic, owed in tuple(self._owed.items()):
            if self._owed.get(topic) is owed:
                self._look_at(topic, owed)
            await pace.breathe()

    def _look_at(self, topic: Topic, owed: Owed) -> None:
        key, kind = topic
        record = self._index.get(key)
        if not owed.left or record is None or not self._is_so(kind, record):
            del self._owed[topic]
        elif self.leads():
            self._offer(owed, record)
        elif self.silenced_since(record) is not None:
            owed.since = self._clock.monotonic()  # the one that leads keeps quiet as well
        elif self.another_leads() and self._clock.monotonic() - owed.since >= _STANDBY_SECONDS:
            del self._owed[topic]  # and has told it by now, or still tries

    def _is_so(self, kind: AlertKind, record: ServiceRecord) -> bool:
        """Whether what is owed is still true."""
        match kind:
            case AlertKind.REVOKED:
                return record.status is ServiceStatus.REVOKED
            case AlertKind.QUARANTINE:
                return record.approval is Approval.REQUIRED and record.live
            case AlertKind.STUCK_PENDING:
                return is_stuck(record, self._clock.now(), self._stuck_after)
            case AlertKind.OFFLINE if record.status not in _EXPECTED:
                return False
        return self.goes_on(kind, record.key)

    async def _find(self) -> None:
        """Who has become stuck since the last look, and who went offline in maintenance before a restart."""
        now, since = self._clock.now(), self._looked_at
        self._looked_at = now
        stuck, offline = map(self._lines_for, (AlertKind.STUCK_PENDING, AlertKind.OFFLINE))
        if not stuck and not offline:
            return
        async for records in in_slices(tuple(self._index.records.values())):
            for record in records:
                if record.status in _EXPECTED:
                    self._find_silenced(record)
                elif is_stuck(record, now, self._stuck_after) and not is_stuck(
                    record, since, self._stuck_after
                ):
                    self._seen_by_all(AlertKind.STUCK_PENDING, record, "is pending for long")

    def _find_silenced(self, record: ServiceRecord) -> None:
        key, kind = record.key, AlertKind.OFFLINE
        if (key, kind) in self._owed or not self.goes_on(kind, key):
            return
        window = self.silenced_since(record)
        since = self.offline_since(key) if window is not None else None
        if window is not None and since is not None and since >= window:
            self._seen_by_all(kind, record, "went offline in maintenance, is offline")
