"""Who was heard when: in memory, written to the database in batches, never to the ledger."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import cast

from jetway.core.heard import Heard
from jetway.core.heartbeat import BatchEntry, Payload
from jetway.core.ids import ServiceKey, ServiceType
from jetway.core.liveness import BEFORE, Hearing, Liveness, Thresholds, liveness
from jetway.core.record import ServiceRecord
from jetway.core.rows import Presence
from jetway.ports import Clock

_NOBODY = Presence()
NOWHERE = -1
"""The turn of a service that waits for none."""


@dataclass(slots=True)
class Seen:
    """The newest heartbeat of one service."""

    last_seen: datetime
    """By the wall clock, to be shown."""
    heard_at: float
    """By the clock that never jumps, to be judged by."""
    healthy: bool | None = None
    version: str = ""
    interval_seconds: int | None = None
    stopping: bool = False
    beats: int = 1
    instance_id: str = ""
    source_ip: str = ""
    relayed: bool = False
    """Whether the address was told by a batch or a relay, which may know the service by another one."""
    verdict: Liveness = Liveness.NEVER
    """As it was last published; `services.liveness` alone changes it."""
    turn: int = NOWHERE
    """When it is to be judged again."""

    def note(self, at: datetime, heard_at: float, payload: Payload) -> None:
        """Take in a heartbeat received at `at`."""
        if at > self.last_seen:
            self.last_seen = at
        self.heard_at = heard_at
        self.beats += 1
        self.say(payload)

    def follow(self, before: Seen) -> None:
        """Stand after what is only now known to have been heard before."""
        self.last_seen = max(self.last_seen, before.last_seen)
        self.healthy = before.healthy if self.healthy is None else self.healthy
        self.version = self.version or before.version

    def say(self, payload: Payload) -> None:
        """Take in what the service says of itself; what it leaves out stays as it was."""
        if payload.healthy is not None:
            self.healthy = payload.healthy
        if payload.version:
            self.version = payload.version
        if payload.interval_seconds is not None:
            self.interval_seconds = payload.interval_seconds
        self.stopping = payload.stopping
        self.instance_id = payload.instance_id or self.instance_id
        if payload.source_ip:
            self.source_ip = payload.source_ip
            self.relayed = isinstance(payload, BatchEntry)


Notice = Callable[[ServiceKey, Seen], None]


def _nothing(_key: ServiceKey, _seen: Seen) -> None: ...


class PresenceTable:
    """The newest heartbeat of every service that is in the registry."""

    def __init__(
        self,
        clock: Clock,
        *,
        default_interval: int,
        thresholds: Thresholds,
        shown: timedelta = timedelta(days=7),
        longest_silence: timedelta = timedelta(days=1),
    ) -> None:
        """`shown`: how far back anybody may ask what was heard; `longest_silence`: what any verdict needs."""
        self._clock = clock
        self._shown = shown
        self._longest_silence = longest_silence
        self.default_interval = default_interval
        self.thresholds = thresholds
        self._seen: dict[ServiceKey, Seen] = {}
        self._unwritten: set[ServiceKey] = set()
        self._hearing: Hearing | None = None
        self._is_proven = False
        self._remembered = BEFORE
        self.heard = Heard()
        """When heartbeats could be heard, by the wall clock."""
        self.on_turn: Notice = _nothing
        """Called for a heartbeat that may change the verdict, which a steady one does not."""
        self.on_adopt: Notice = _nothing
        """Called for a service that was heard by an earlier run of the daemon."""
        self.on_forget: Notice = _nothing
        """Called for a service that is forgotten."""
        self.on_stranger: Callable[[ServiceKey, Seen, Payload], None] = lambda _key, _seen, _payload: None
        """Called before a heartbeat is noted that comes from another instance or address than the last one."""

    @property
    def hearing(self) -> Hearing | None:
        """From when to when the daemon has been listening without a gap; None while it is deaf.

        Until now, unless somebody proves it from time to time.
        """
        if self._hearing is None or self._is_proven:
            return self._hearing
        return Hearing(self._hearing.since, self._clock.monotonic())

    def listening(self) -> None:
        """From now on heartbeats reach the daemon."""
        if self._hearing is None:
            now = self._clock.monotonic()
            self._hearing = Hearing(now, now)

    def require_proof(self) -> None:
        """From now on nothing counts as heard but what is proven: a server may stand still from the start."""
        self._is_proven = True

    def deaf(self) -> None:
        """Heartbeats do not reach the daemon: silence proves nothing."""
        self.remember_hearing()
        self._hearing = None

    def proven(self, at: float) -> bool:
        """It came back now that everything sent until `at` was heard; False if there was a gap before.

        Needed from the first call on, or from `require_proof` on.
        """
        if self._hearing is None:
            return True  # the link was lost meanwhile: that has been told
        began = self._hearing.since
        self.remember_hearing()
        if self._is_proven:
            self._hearing = self._hearing.proven(at, self._clock.monotonic())
        else:
            self._hearing = Hearing(began, max(began, at))
        self._is_proven = True
        return self._hearing.since == began

    def remember_hearing(self) -> None:
        """Keep, by the wall clock, until when everything was heard: what was added since the last time.

        What was kept stays where it is when the wall clock is set, as the times at which services were seen do.
        """
        hearing = self.hearing
        if hearing is None or hearing.until <= self._remembered:
            return
        ahead = self._clock.now() - timedelta(seconds=self._clock.monotonic())
        until = ahead + timedelta(seconds=hearing.until)
        if hearing.since > self._remembered:
            self.heard.add(ahead + timedelta(seconds=hearing.since), until)
        else:
            self.heard.go_on(ahead + timedelta(seconds=self._remembered), until)
        self._remembered = hearing.until
        self.heard.forget_before(self._clock.now() - self._shown, self._longest_silence)

    def silence_seconds(self, last_seen: datetime) -> float:
        """For how long nothing came from a service last seen then, as far as that could be heard."""
        self.remember_hearing()
        return self.heard.between(last_seen, self._clock.now()).total_seconds()

    def note(self, key: ServiceKey, payload: Payload, at: datetime) -> None:
        """A heartbeat of a service in the registry was received at `at`."""
        seen = self._seen.get(key)
        if seen is None:
            self._seen[key] = seen = Seen(at, self._clock.monotonic(), beats=0)
        self.note_again(key, seen, payload, at)

    def seen(self, key: ServiceKey) -> Seen | None:
        """What is known of this service's heartbeats; replaced by another one once it is forgotten."""
        return self._seen.get(key)

    def note_again(self, key: ServiceKey, seen: Seen, payload: Payload, at: datetime) -> None:
        """The same as `note`, for whoever holds what `seen` gave."""
        interval = seen.interval_seconds
        if payload.instance_id != seen.instance_id or payload.source_ip != seen.source_ip:
            if _is_farewell_of_another(seen, payload):
                return
            self.on_stranger(key, seen, payload)
        seen.note(at, self._clock.monotonic(), payload)
        self._unwritten.add(key)
        if seen.verdict is not Liveness.ONLINE or seen.stopping or seen.interval_seconds != interval:
            self.on_turn(key, seen)

    def forget(self, key: ServiceKey) -> None:
        """The service is gone."""
        seen = self._seen.pop(key, None)
        self._unwritten.discard(key)
        if seen is not None:
            self.on_forget(key, seen)

    def remember(self, stored: Mapping[ServiceKey, Presence]) -> None:
        """Take in what the database knows; what was heard since stays, and moves nothing back."""
        for key, presence in stored.items():
            seen = self._seen.get(key)
            if seen is not None and (presence.last_seen is None or presence.last_seen < seen.last_seen):
                self._unwritten.add(key)
            if presence.last_seen is None:
                continue
            before = Seen(presence.last_seen, BEFORE, presence.healthy, presence.version, beats=0)
            if seen is None:
                self.adopt(key, before, Liveness.ONLINE)
            else:
                seen.follow(before)

    def adopt(self, key: ServiceKey, before: Seen, verdict: Liveness) -> None:
        """Take in a service that an earlier run heard and judged so. Whoever is known here already stays."""
        if key not in self._seen:
            self._seen[key] = before
            before.verdict = verdict
            self.on_adopt(key, before)

    def everybody(self) -> tuple[tuple[ServiceKey, ...], tuple[Seen, ...]]:
        """All who were heard; what is told of them goes on changing. Cheap, for it is made on the event loop."""
        return tuple(self._seen), tuple(self._seen.values())

    def of_type(self, kind: ServiceType) -> Callable[[str], Seen | None]:
        """Gives what was heard of a service of this type, by its id: for many at once."""
        # A plain tuple is equal to a key, and made in a fifth of the time.
        seen = cast("dict[tuple[ServiceType, str], Seen]", self._seen)
        return lambda service_id: seen.get((kind, service_id))

    def presence(self, key: ServiceKey) -> Presence:
        """What goes into the row."""
        seen = self._seen.get(key)
        return Presence(seen.last_seen, seen.healthy, seen.version) if seen else _NOBODY

    def interval_seconds(self, record: ServiceRecord) -> int:
        """The interval that a service is judged by: its record's, its own word's, or the default."""
        if record.heartbeat_interval_seconds:
            return record.heartbeat_interval_seconds
        seen = self._seen.get(record.key)
        return (seen.interval_seconds if seen else None) or self.default_interval

    def liveness(self, record: ServiceRecord) -> Liveness:
        """What silence says of it now, whatever was published."""
        seen = self._seen.get(record.key)
        if seen is None:
            return Liveness.NEVER
        return liveness(
            seen.heard_at,
            interval_seconds=self.interval_seconds(record),
            hearing=self.hearing,
            stopping=seen.stopping,
            thresholds=self.thresholds,
        )

    def take_unwritten(self, limit: int) -> list[ServiceKey]:
        """Up to `limit` services whose row is behind their heartbeats; they count as written from now on."""
        return [self._unwritten.pop() for _ in range(min(limit, len(self._unwritten)))]

    def put_back(self, keys: Iterable[ServiceKey]) -> None:
        """Their rows could not be written after all."""
        self._unwritten.update(key for key in keys if key in self._seen)

    @property
    def unwritten(self) -> int:
        """How many rows are behind."""
        return len(self._unwritten)


def _is_farewell_of_another(seen: Seen, payload: Payload) -> bool:
    """Whether one stops in whose place another has begun: the service goes on."""
    return payload.stopping and "" != payload.instance_id != seen.instance_id != ""
