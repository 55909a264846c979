"""The line to one webhook: what waits for it, what it was told, and the worker that tells it."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from enum import Enum

import structlog
from prometheus_client import Counter

from jetway.core.alerts import Alert, AlertKind, encode_alert
from jetway.core.errors import PortError, RejectedError
from jetway.core.ids import ServiceKey
from jetway.ports import AlertSender, Clock

log = structlog.get_logger()

WAITING = 1000
"""Alerts that wait for one target."""
ATTEMPTS = 8
_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 60.0
REMEMBERED = 50_000

Topic = tuple[ServiceKey, AlertKind]


@dataclass(frozen=True, slots=True)
class Target:
    """Where alerts go, and which."""

    name: str
    """For logs: its host. What else stands in its address may be a secret."""
    sender: AlertSender
    kinds: Collection[AlertKind]


class Offer(Enum):
    """What a line makes of an alert that it is offered."""

    TAKEN = "taken"
    UNDER_WAY = "under way"
    REPEATED = "repeated"
    FULL = "full"


@dataclass(slots=True, eq=False)
class Owed:
    """A trouble that has yet to be told. It stays so until every line has told it, or until it is over."""

    alert: Alert
    since: float
    """When it was seen, or was last kept quiet by a maintenance window."""
    left: set[Line] = field(default_factory=set)
    counted: set[str] = field(default_factory=set)
    """Why it was put off, as far as that was counted."""

    @property
    def topic(self) -> Topic:
        """What it is about."""
        return self.alert.record.key, self.alert.kind


class Line:
    """To one target."""

    def __init__(
        self, target: Target, clock: Clock, count: Counter, *, gateway: str, repeat_seconds: float
    ) -> None:
        self.target = target
        self._clock = clock
        self._count = count
        self._gateway = gateway
        self._repeat_seconds = repeat_seconds
        self._queue = asyncio.Queue[Owed](WAITING)
        self._under_way: dict[Topic, set[Line]] = {}
        self._told: dict[Topic, float] = {}

    def offer(self, owed: Owed) -> Offer:
        """Put it in the queue, unless the same waits there or was told a short while ago."""
        topic = owed.topic
        under_way = self._under_way.get(topic)
        if under_way is not None:
            return Offer.UNDER_WAY if under_way is owed.left else Offer.REPEATED
        told = self._told.get(topic)
        if told is not None and self._clock.monotonic() - told < self._repeat_seconds:
            return Offer.REPEATED
        if self._queue.full():
            return Offer.FULL
        # As it is now: what waits may be offered again with a newer record.
        self._queue.put_nowait(replace(owed, left=owed.left))
        self._under_way[topic] = owed.left
        return Offer.TAKEN

    async def run(self) -> None:
        """Tell, for ever."""
        while True:
            owed = await self._queue.get()
            outcome = await self._deliver(owed.alert)
            del self._under_way[owed.topic]
            if outcome != "away":
                self._remember(owed.topic)
            if outcome == "sent":
                owed.left.discard(self)
            self._count.labels(owed.alert.kind.value, "sent" if outcome == "sent" else "failed").inc()

    def _remember(self, topic: Topic) -> None:
        self._told.pop(topic, None)
        self._told[topic] = self._clock.monotonic()
        if len(self._told) > REMEMBERED:
            del self._told[next(iter(self._told))]

    async def _deliver(self, alert: Alert) -> str:
        """Try until it is `sent`, `refused`, or the target has been `away` for too long."""
        body, pause, why, outcome = encode_alert(alert, self._gateway), _FIRST_PAUSE, "", "away"
        for attempt in range(ATTEMPTS):
            if attempt:
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
            try:
                await self.target.sender.send(alert.alert_id, alert.kind.value, body)
                return "sent"
            except RejectedError as error:
                why, outcome = str(error), "refused"
                break
            except PortError as error:
                why = str(error)
        log.warning(
            "an alert was not taken",
            action="alert_failed",
            target=self.target.name,
            kind=alert.kind.value,
            service=str(alert.record.key),
            error=why,
        )
        return outcome
