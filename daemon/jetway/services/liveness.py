"""Liveness: the published verdict on every service, and whoever wants to know when it changes.

A verdict gets worse by silence alone, which is found when its turn comes in a timing wheel, and better by a
heartbeat alone, which shows at once. A steady heartbeat moves nothing: when its sender's turn comes it is judged
by what was heard since, and put where its silence would count now. So nothing is ever searched through, and the
event loop is never held for longer than some milliseconds.

What was found before a gap in the hearing stands until the service is heard again: a gap proves nothing, also
not that somebody is back.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from jetway.core.ids import ServiceKey, ServiceType
from jetway.core.liveness import Hearing, Liveness, judged_again_at, liveness
from jetway.core.record import ServiceRecord, ServiceStatus
from jetway.ports import Clock
from jetway.services.index import Index
from jetway.services.metrics import Metrics
from jetway.services.pace import Pace
from jetway.services.presence import NOWHERE, PresenceTable, Seen
from jetway.services.wheel import Wheel

SWEEP_SECONDS = 0.1
_EXPECTED = (ServiceStatus.ACTIVE, ServiceStatus.INACTIVE)


@dataclass(frozen=True, slots=True)
class LivenessChange:
    """One service's verdict turned from `before` to `after`."""

    record: ServiceRecord
    before: Liveness
    after: Liveness
    at: datetime


class Verdicts:
    """The verdict on every service, as everybody sees it.

    To be built before whatever else listens to the index: it counts a service before others forget it.
    """

    def __init__(self, index: Index, presence: PresenceTable, clock: Clock, metrics: Metrics) -> None:
        self._index = index
        self._presence = presence
        self._clock = clock
        self._counters = {
            (kind, verdict): metrics.liveness_changes.labels(kind.value, verdict.value)
            for kind in ServiceType
            for verdict in (Liveness.ONLINE, Liveness.LATE, Liveness.OFFLINE)
        }
        self._wheel: Wheel[ServiceKey] = Wheel()
        self._listeners: list[Callable[[LivenessChange], None]] = []
        self._mourners: list[Callable[[ServiceKey], None]] = []
        self.counts: Counter[tuple[ServiceType, Liveness]] = Counter()
        """How many services that are not deleted have which verdict, kept with every change."""
        self.missed: Counter[ServiceType] = Counter()
        """How many of those that should be heard, active or inactive ones, are offline."""
        presence.on_turn = self._heard
        presence.on_adopt = self._adopted
        presence.on_forget = self._forgotten
        index.on_change(self._follow)
        index.on_forget(self._leave)

    def on_change(self, listener: Callable[[LivenessChange], None]) -> None:
        """Call `listener(change)` for every verdict that turns. It must not block, and not raise."""
        self._listeners.append(listener)

    def on_forget(self, listener: Callable[[ServiceKey], None]) -> None:
        """Call `listener(key)` for every service that is gone: who comes under its id later is somebody else."""
        self._mourners.append(listener)

    def of(self, key: ServiceKey) -> Liveness:
        """The verdict that stands."""
        seen = self._presence.seen(key)
        return seen.verdict if seen else Liveness.NEVER

    def next_look(self, key: ServiceKey) -> int:
        """The turn in which this service is judged again; NOWHERE where only a heartbeat changes anything."""
        seen = self._presence.seen(key)
        return seen.turn if seen else NOWHERE

    async def run(self) -> None:
        """Find who has become silent, for ever."""
        while True:
            await self.sweep()
            await asyncio.sleep(SWEEP_SECONDS)

    async def sweep(self) -> int:
        """Judge everybody whose turn has come, as far as is proven to be heard; how many were looked at."""
        hearing = self._presence.hearing
        if hearing is None:
            return 0
        looked, pace = 0, Pace()
        for turn, key in self._wheel.due(hearing.until):
            self._look(key, turn, hearing)
            looked += 1
            await pace.breathe()
        return looked

    def _look(self, key: ServiceKey, turn: int, hearing: Hearing) -> None:
        seen = self._presence.seen(key)
        if seen is None or seen.turn != turn:
            return  # forgotten, or put in another turn since
        seen.turn = NOWHERE
        record = self._index.get(key)
        if record is None:
            return
        interval = self._interval(record, seen)
        verdict = self._judge(seen, interval, hearing)
        if verdict.is_worse_than(seen.verdict):
            self._publish(record, seen, verdict)
        self._wait(key, seen, interval, hearing)

    def _wait(self, key: ServiceKey, seen: Seen, interval: int, hearing: Hearing) -> None:
        """Put it in the turn in which its silence would count, unless it has one before that."""
        if seen.verdict is Liveness.OFFLINE:
            return  # nothing is worse
        at = judged_again_at(
            seen.heard_at,
            seen.verdict,
            interval_seconds=interval,
            hearing=hearing,
            thresholds=self._presence.thresholds,
        )
        if seen.turn == NOWHERE or self._wheel.is_earlier(at, seen.turn):
            seen.turn = self._wheel.put(key, at)

    def _wait_for_the_next(self, key: ServiceKey, seen: Seen) -> None:
        if seen.verdict is not Liveness.OFFLINE and seen.turn == NOWHERE:
            seen.turn = self._wheel.put(key)

    def _heard(self, key: ServiceKey, seen: Seen) -> None:
        """A heartbeat that is not a steady one: the first, one after silence, the last, or of another interval."""
        record = self._index.get(key)
        if record is None:
            return
        verdict = Liveness.OFFLINE if seen.stopping else Liveness.ONLINE
        if verdict is not seen.verdict:
            self._publish(record, seen, verdict)
        hearing = self._presence.hearing
        if hearing is None:
            self._wait_for_the_next(key, seen)
        else:
            self._wait(key, seen, self._interval(record, seen), hearing)

    def _publish(self, record: ServiceRecord, seen: Seen, verdict: Liveness) -> None:
        before, seen.verdict = seen.verdict, verdict
        self._recount(record, before, verdict)
        self._counters[record.service_type, verdict].inc()
        change = LivenessChange(record, before, verdict, self._clock.now())
        for listener in self._listeners:
            listener(change)

    def _judge(self, seen: Seen, interval: int, hearing: Hearing) -> Liveness:
        return liveness(
            seen.heard_at,
            interval_seconds=interval,
            hearing=hearing,
            stopping=seen.stopping,
            thresholds=self._presence.thresholds,
        )

    def _interval(self, record: ServiceRecord, seen: Seen) -> int:
        own = record.heartbeat_interval_seconds or seen.interval_seconds
        return own or self._presence.default_interval

    # --- services that come and go

    def _adopted(self, key: ServiceKey, seen: Seen) -> None:
        record = self._index.get(key)
        if record is not None:
            self._recount(record, Liveness.NEVER, seen.verdict)
        self._wait_for_the_next(key, seen)

    def _forgotten(self, key: ServiceKey, seen: Seen) -> None:
        record = self._index.get(key)
        if record is not None:
            self._recount(record, seen.verdict, Liveness.NEVER)
        for mourner in self._mourners:
            mourner(key)

    def _leave(self, record: ServiceRecord) -> None:
        self._count(record, self.of(record.key), -1)

    def _follow(self, before: ServiceRecord | None, after: ServiceRecord) -> None:
        seen = self._presence.seen(after.key)
        verdict = seen.verdict if seen else Liveness.NEVER
        if before is not None:
            self._count(before, verdict, -1)
        self._count(after, verdict, 1)
        if seen is None:
            return
        if before is None:
            self._wait_for_the_next(after.key, seen)
        elif before.incarnation == after.incarnation and _has_another_interval(before, after):
            self._reconsider(after, seen)

    def _reconsider(self, record: ServiceRecord, seen: Seen) -> None:
        """Its interval is another one: what was silence may be none any more, and the other way round."""
        hearing = self._presence.hearing
        if hearing is None:
            seen.turn = NOWHERE
            self._wait_for_the_next(record.key, seen)
            return
        interval = self._interval(record, seen)
        verdict = self._judge(seen, interval, hearing)
        # What was found before a gap stands: after it only a part of the silence counts, and that proves nothing.
        since_gap = seen.heard_at >= hearing.since
        if verdict.is_worse_than(seen.verdict) or (since_gap and verdict is not seen.verdict):
            self._publish(record, seen, verdict)
        self._wait(record.key, seen, interval, hearing)

    def _recount(self, record: ServiceRecord, before: Liveness, after: Liveness) -> None:
        self._count(record, before, -1)
        self._count(record, after, 1)

    def _count(self, record: ServiceRecord, verdict: Liveness, by: int) -> None:
        if record.status is not ServiceStatus.DELETED:
            self.counts[record.service_type, verdict] += by
        if verdict is Liveness.OFFLINE and record.status in _EXPECTED:
            self.missed[record.service_type] += by


def _has_another_interval(before: ServiceRecord, after: ServiceRecord) -> bool:
    return before.heartbeat_interval_seconds != after.heartbeat_interval_seconds
