"""Observe: what a heartbeat does.

A steady one touches memory only. One that changes something (the first, the first after silence, an unknown
service's) is queued and written by a few workers, so that a burst of thousands stays a burst of small writes.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import structlog

from jetway.core import commands as c
from jetway.core.errors import Code, PortError, Refused
from jetway.core.heartbeat import Beat, Payload
from jetway.core.ids import Lineage, ServiceKey, ServiceType
from jetway.core.lifecycle import step
from jetway.core.policy import parent_went_away
from jetway.core.record import Approval, ServiceRecord, ServiceStatus
from jetway.services.caller import Caller
from jetway.services.index import Index
from jetway.services.metrics import Metrics
from jetway.services.presence import PresenceTable, Seen
from jetway.services.rate import Rate
from jetway.services.recorder import Applied, Recorder
from jetway.services.waiting_room import FULL, SHARE_USED, WaitingRoom

log = structlog.get_logger()

ImplicitMode = Literal["allow", "quarantine", "deny"]

_TOO_FAST = Refused(Code.TOO_MANY_FAILURES, "too many unknown services at one time")
_OWN_REASONS = {FULL: "quarantine_full", SHARE_USED: "quarantine_share", _TOO_FAST: "too_many_unknown"}
_WORKERS = 64
_QUEUE_LIMIT = 100_000


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a heartbeat, for an answer to the sender."""

    status: str
    known: bool
    interval_seconds: int
    config_revision: int
    refused: Code | None = None


Answer = Callable[[Verdict], None]


@dataclass(frozen=True, slots=True)
class Steady:
    """A service whose next heartbeat changes nothing: all that is needed to note it."""

    key: ServiceKey
    seen: Seen


@dataclass(slots=True)
class _Waiting:
    beat: Beat
    at: datetime
    answers: list[Answer]


class Observer:
    """Takes heartbeats in."""

    def __init__(
        self,
        recorder: Recorder,
        presence: PresenceTable,
        metrics: Metrics,
        *,
        implicit: ImplicitMode,
        room: WaitingRoom,
        implicit_per_minute: int = 6000,
    ) -> None:
        self._recorder = recorder
        self._presence = presence
        self._metrics = metrics
        self._implicit = implicit
        self._room = room
        self._implicit_rate = Rate(recorder.clock, implicit_per_minute)
        self._accepted = {kind: metrics.heartbeats.labels(kind.value) for kind in ServiceType}
        self._queue: OrderedDict[ServiceKey, _Waiting] = OrderedDict()
        self._tokens = asyncio.Semaphore(0)
        self._steady: dict[str, Steady] = {}
        recorder.index.on_change(self._follow)
        recorder.index.on_forget(self._leave)

    @property
    def _index(self) -> Index:
        return self._recorder.index

    @property
    def waiting(self) -> int:
        """Heartbeats that wait for a write."""
        return len(self._queue)

    def steady(self, address: str) -> Steady | None:
        """The sender at this address (`Lineage.address`), if it was heard before and stands as it stood then."""
        return self._steady.get(address)

    def again(self, sender: Steady, payload: Payload, at: datetime) -> None:
        """Take in one more heartbeat of a steady sender, received at `at`. The short way of `observe`."""
        self._presence.note_again(sender.key, sender.seen, payload, at)
        self._accepted[sender.key.service_type].inc()

    def observe(self, beat: Beat, at: datetime, answer: Answer | None = None) -> Code | None:
        """Take one heartbeat in, received at `at`; why it was refused, if that is known at once."""
        record = self._index.get(beat.lineage.key)
        if record is not None and _is_steady(record) and _same_parents(record, beat.lineage):
            self._note(record, beat.payload, at)
            self._remember(record)
            if answer:
                answer(self._verdict(record))
            return None
        return self._judge(record, beat, at, answer)

    def refuse(self, reason: str) -> None:
        """Count a message that never became a heartbeat."""
        self._metrics.heartbeats_refused.labels(reason).inc()

    def _judge(
        self, record: ServiceRecord | None, beat: Beat, at: datetime, answer: Answer | None
    ) -> Code | None:
        """The slow path: decide on the index, and queue what has to be written."""
        if record is None:
            if self._implicit == "deny":
                return self._refused(Refused(Code.UNKNOWN_SERVICE, ""), record, answer)
            refused = self._unfit_parents(beat.lineage)
            if refused:
                return self._refused(refused, record, answer)
            refused = self._no_room(beat)
            if refused:
                return self._refused(refused, record, answer, _OWN_REASONS[refused])
            return self._enqueue(beat, at, answer)
        outcome = step(record, c.Heartbeat(lineage=beat.lineage), self._rehearsal(at))
        if isinstance(outcome, Refused):
            if outcome.code is Code.APPROVAL_REQUIRED:
                # Somebody has to look at who knocks; whoever else is refused is not heard.
                self._presence.note(record.key, beat.payload, at)
            return self._refused(outcome, record, answer)
        if self._presence.seen(record.key) is not None:
            # Its silence counts already, and its write may wait for long behind others', or for the ledger.
            self._presence.note(record.key, beat.payload, at)
        return self._enqueue(beat, at, answer)

    def _unfit_parents(self, lineage: Lineage) -> Refused | None:
        """Why nobody is let in beneath these parents, as far as they are known here: without a write or a read."""
        for above in _from_the_root(lineage):
            known = self._index.get(above.key)
            refused = _unfit_parent(known, above) if known else None
            if refused:
                return refused
        return None

    def _enqueue(self, beat: Beat, at: datetime, answer: Answer | None) -> Code | None:
        key = beat.lineage.key
        waiting = self._queue.get(key)
        if waiting is not None:
            waiting.at = at
            if waiting.beat.lineage == beat.lineage:
                waiting.beat = beat
            if answer and len(waiting.answers) < 8:
                waiting.answers.append(answer)
            return None
        if len(self._queue) >= _QUEUE_LIMIT:
            self.refuse("overloaded")
            return Code.TOO_MANY_FAILURES
        self._queue[key] = _Waiting(beat, at, [answer] if answer else [])
        self._tokens.release()
        return None

    async def run(self) -> None:
        """Write what heartbeats change, for ever."""
        async with asyncio.TaskGroup() as group:
            for number in range(_WORKERS):
                group.create_task(self._work(), name=f"heartbeat-writer-{number}")

    async def _work(self) -> None:
        while True:
            await self._tokens.acquire()
            key, waiting = self._queue.popitem(last=False)
            try:
                outcome = await self._write(waiting)
            except PortError as error:
                # The service will beat again; what it said is not lost but late.
                self.refuse("ledger_unavailable")
                log.debug(
                    "a heartbeat waits for NATS", action="heartbeat_waits", service=str(key), error=str(error)
                )
                continue
            self._finish(waiting, outcome)

    async def _write(self, waiting: _Waiting) -> Applied | Refused:
        beat = waiting.beat
        command = c.Heartbeat(lineage=beat.lineage)
        caller = _speaker(beat)
        outcome = await self._recorder.attempt(beat.lineage.key, command, caller)
        if isinstance(outcome, Refused) and outcome.code is Code.UNKNOWN_SERVICE:
            return await self._admit(beat, caller)
        return outcome

    def _finish(self, waiting: _Waiting, outcome: Applied | Refused) -> None:
        beat = waiting.beat
        record = self._index.get(beat.lineage.key)
        if isinstance(outcome, Refused):
            self._refused(outcome, record, reason=_OWN_REASONS.get(outcome, ""))
        else:
            record = outcome.after
            seen = self._presence.seen(record.key)
            if seen is None or seen.last_seen < waiting.at:  # else it was noted as it came
                self._presence.note(record.key, beat.payload, waiting.at)
            self._accepted[record.service_type].inc()
            _log_transition(outcome)
        verdict = self._verdict(record, outcome.code if isinstance(outcome, Refused) else None)
        for answer in waiting.answers:
            answer(verdict)

    # --- unknown services

    async def _admit(self, beat: Beat, caller: Caller) -> Applied | Refused:
        """Register an unknown service, and parents that only its subject names, by the implicit policy."""
        applied: Applied | Refused = Refused(Code.UNKNOWN_SERVICE, "no service of this id is registered")
        if self._implicit == "deny":
            return applied
        for lineage in _from_the_root(beat.lineage):
            heard = lineage == beat.lineage
            if not heard and (known := await self._recorder.read(lineage.key)):
                refused = _unfit_parent(known, lineage)
                if refused:
                    return refused
                continue
            no_room = self._no_room(beat)
            if no_room:
                return no_room
            if not self._implicit_rate.take():
                return _TOO_FAST
            applied = await self._register(lineage, heard, caller)
            if isinstance(applied, Applied) and not heard:
                refused = _unfit_parent(applied.after, lineage) or await self._take_back_orphan(
                    applied, caller
                )
                if refused:
                    return refused
        if isinstance(applied, Refused):
            return applied
        if not applied.changed:  # somebody else registered it meanwhile
            return await self._recorder.attempt(beat.lineage.key, c.Heartbeat(lineage=beat.lineage), caller)
        return await self._settle(applied, beat, caller)

    async def _register(self, lineage: Lineage, heard: bool, caller: Caller) -> Applied | Refused:
        command = c.Admit(lineage=lineage, approval_required=self._implicit == "quarantine", heard=heard)
        with self._room.entering(self._room.sender(lineage.poller_id, caller.source_ip)):
            return await self._recorder.attempt(lineage.key, command, caller)

    def _no_room(self, beat: Beat) -> Refused | None:
        """Why no further service of this sender may wait for approval."""
        if self._implicit != "quarantine":
            return None
        return self._room.why_not(self._room.sender(beat.lineage.poller_id, beat.payload.source_ip))

    async def _settle(self, applied: Applied, beat: Beat, caller: Caller) -> Applied | Refused:
        """After an admission: take it back if the parent went away, and say whether it waits for approval."""
        record = applied.after
        log.info(
            "unknown service registered",
            action="implicit",
            service=str(record.key),
            status=record.status.value,
        )
        refused = await self._take_back_orphan(applied, caller)
        if refused:
            return refused
        if record.approval is Approval.REQUIRED:
            self._presence.note(record.key, beat.payload, record.first_registered)
            return Refused(Code.APPROVAL_REQUIRED, "waits for an administrator's approval")
        return applied

    async def _take_back_orphan(self, applied: Applied, caller: Caller) -> Refused | None:
        """Look at the parent after the write: its cascade may have passed before this service was there."""
        record = applied.after
        if not applied.changed or record.parent is None:
            return None
        if not parent_went_away(await self._recorder.read_settled(record.parent)):
            return None
        why = "the parent was revoked meanwhile"
        await self._recorder.attempt(record.key, c.Revoke(reason=why), caller)
        return Refused(Code.PARENT_NOT_LIVE, why)

    def _remember(self, record: ServiceRecord) -> None:
        """Know the sender at once the next time, until its record changes."""
        key = record.key
        seen = self._presence.seen(key)
        if seen is not None:
            self._steady[record.lineage.address] = Steady(key, seen)

    def _leave(self, record: ServiceRecord) -> None:
        self._steady.pop(record.lineage.address, None)
        self._room.leave(record.key)
        self._presence.forget(record.key)  # who comes under this id later is somebody else

    def _follow(self, before: ServiceRecord | None, after: ServiceRecord) -> None:
        if before is not None:
            self._steady.pop(before.lineage.address, None)
        if before is not None and before.incarnation != after.incarnation:
            self._presence.forget(after.key)  # what was heard was another service of the same id
        self._room.follow(after)

    # --- counting and answering

    def _note(self, record: ServiceRecord, payload: Payload, at: datetime) -> None:
        self._presence.note(record.key, payload, at)
        self._accepted[record.service_type].inc()

    def _refused(
        self, refused: Refused, record: ServiceRecord | None, answer: Answer | None = None, reason: str = ""
    ) -> Code:
        self.refuse(reason or refused.code.value)
        if answer:
            answer(self._verdict(record, refused.code))
        return refused.code

    def _verdict(self, record: ServiceRecord | None, refused: Code | None = None) -> Verdict:
        if record is None:
            return Verdict("", False, self._presence.default_interval, 0, refused)
        return Verdict(
            record.status.value, True, self._presence.interval_seconds(record), record.revision, refused
        )

    def _rehearsal(self, at: datetime) -> c.Context:
        return c.Context(now=at, actor="", transition_id="", epoch=self._recorder.ledger.epoch)


def _is_steady(record: ServiceRecord) -> bool:
    """Whether one more heartbeat changes nothing."""
    return record.status is ServiceStatus.ACTIVE and record.first_seen is not None


def _same_parents(record: ServiceRecord, lineage: Lineage) -> bool:
    return record.poller_id == lineage.poller_id and record.agent_id == lineage.agent_id


def _speaker(beat: Beat) -> Caller:
    return Caller(f"heartbeat:{beat.lineage.key}", beat.payload.source_ip)


def _from_the_root(lineage: Lineage) -> Iterator[Lineage]:
    kinds = (ServiceType.POLLER, ServiceType.AGENT, ServiceType.CHECKER)
    ids = lineage.ids
    for depth in range(1, len(ids) + 1):
        yield Lineage(kinds[depth - 1], *ids[:depth])


def _unfit_parent(known: ServiceRecord, lineage: Lineage) -> Refused | None:
    if known.lineage != lineage:
        return Refused(Code.WRONG_PARENTS, "the parents in the subject are not the service's")
    if not known.live:
        return Refused(Code.PARENT_NOT_LIVE, f"{known.key} is {known.status.value}")
    if known.approval is Approval.REJECTED:
        return Refused(Code.REJECTED, f"{known.key} was rejected by an administrator")
    return None


def _log_transition(applied: Applied) -> None:
    if applied.changed:
        events = [event.value for event in applied.after.transition.events]
        log.info("service heard", action="service_heard", service=str(applied.after.key), events=events)
