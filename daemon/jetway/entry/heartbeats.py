"""The heartbeat door: messages in, beats out, answers only into the sender's own inbox.

The server checks no permission on a reply subject, and the daemon's own rights are wide: an unchecked answer
would let any sender publish anywhere in the daemon's name.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping

from jetway.core.heartbeat import (
    Beat,
    MalformedError,
    parse_batch,
    parse_payload,
    parse_subject,
)
from jetway.core.ids import Lineage, ServiceType, is_id
from jetway.entry.shares import MESSAGE_BYTES, cost, refuse_the_servers
from jetway.ports import Clock, HeartbeatMessage, Replies
from jetway.services.allowance import Allowance
from jetway.services.observe import Answer, Observer, Verdict

_ANSWERS_AT_ONCE = 10_000
_OTHERS = ("batch.", "relay")
"""How addresses begin that are no single service's."""
_ENTRY_BYTES, _MALFORMED_ENTRY_BYTES = 256, 1024
"""What an entry of a batch costs beside its bytes: to judge it, and to find out what is wrong with it."""


class HeartbeatDoor:
    """Parses messages under the heartbeat prefix and hands them to the observer."""

    def __init__(
        self,
        observer: Observer,
        replies: Replies,
        clock: Clock,
        prefix: str,
        shares: Allowance,
    ) -> None:
        """`shares` are those of `jetway.entry.shares`."""
        self._observer = observer
        self._replies = replies
        self._clock = clock
        self._prefix = prefix
        self._own = f"{prefix}."
        self._cut = len(self._own)
        self._batch = f"{prefix}.batch."
        self._relay = f"{prefix}.relay"
        self._shares = shares
        self._sending: set[asyncio.Task[None]] = set()

    def take(self, message: HeartbeatMessage) -> None:
        """Take one message in. Never raises for anything that a sender can do."""
        address = message.subject[self._cut :]
        # Nearly all heartbeats come single and without headers, so that way is short.
        speaker = _speaker(address) if address.startswith(_OTHERS) else address
        size = MESSAGE_BYTES + len(message.data)
        if message.headers:
            refused = refuse_the_servers(message, speaker, self._shares)
            if refused:
                self._observer.refuse(refused)
                return
            size = cost(message)
        if speaker and not self._shares.take(speaker, size):
            self._observer.refuse("too_much")
            return
        try:
            if not message.reply and self._take_steady(message, address):
                return
            if message.subject == self._relay:
                self._take_many(message, None)
            elif message.subject.startswith(self._batch):
                self._take_batch(message, speaker)
            else:
                self._take_one(message)
        except MalformedError:
            self._observer.refuse("malformed")

    def _take_steady(self, message: HeartbeatMessage, address: str) -> bool:
        """The short way, which nearly all heartbeats take: nothing to parse in the subject, nothing to decide."""
        if not message.subject.startswith(self._own):
            return False
        sender = self._observer.steady(address)
        if sender is None:
            return False
        self._observer.again(sender, parse_payload(message.data), self._clock.now())
        return True

    def _take_one(self, message: HeartbeatMessage) -> None:
        lineage = parse_subject(message.subject, self._prefix)
        beat = Beat(lineage, parse_payload(message.data))
        self._observer.observe(beat, self._clock.now(), self._answer_to(message, lineage))

    def _take_batch(self, message: HeartbeatMessage, speaker: str) -> None:
        entries, malformed = self._take_many(message, self._batch_sender(message.subject))
        self._shares.charge(speaker, entries * _ENTRY_BYTES + malformed * _MALFORMED_ENTRY_BYTES)

    def _take_many(self, message: HeartbeatMessage, poller_id: str | None) -> tuple[int, int]:
        """How many entries there were, and how many of them were none."""
        now = self._clock.now()
        refused = malformed = 0
        entries = parse_batch(message.data, poller_id)
        for entry in entries:
            if isinstance(entry, MalformedError):
                self._observer.refuse("malformed_entry")
                malformed += 1
            elif self._observer.observe(entry, now) is not None:
                refused += 1
        if message.reply:
            self._answer_batch(message, poller_id, len(entries), refused + malformed)
        return len(entries), malformed

    def _batch_sender(self, subject: str) -> str:
        poller_id = subject.removeprefix(self._batch)
        if not is_id(poller_id):
            raise MalformedError("a batch's subject ends with the poller's id")
        return poller_id

    def _answer_to(self, message: HeartbeatMessage, lineage: Lineage) -> Answer | None:
        """How to answer this sender; None when it did not ask, or asks for an answer elsewhere."""
        if not message.reply:
            return None
        if not message.reply.startswith(lineage.inbox_prefix):
            self._observer.refuse("foreign_reply")
            return None
        return lambda verdict: self._send(message.reply, _verdict_document(verdict))

    def _answer_batch(
        self, message: HeartbeatMessage, poller_id: str | None, total: int, refused: int
    ) -> None:
        """A relay has no inbox of its own: its subject does not tell who it is."""
        own = Lineage(ServiceType.POLLER, poller_id).inbox_prefix if poller_id is not None else None
        if own is None or not message.reply.startswith(own):
            self._observer.refuse("foreign_reply")
            return
        self._send(message.reply, {"heartbeats": total, "refused": refused})

    def _send(self, subject: str, document: Mapping[str, object]) -> None:
        """Send without waiting; an answer more than can be sent is dropped, the sender does not depend on it."""
        if len(self._sending) >= _ANSWERS_AT_ONCE:
            self._observer.refuse("answer_dropped")
            return
        data = json.dumps(document).encode()
        task = asyncio.get_running_loop().create_task(
            self._replies.reply(subject, data), name="heartbeat-answer"
        )
        self._sending.add(task)
        task.add_done_callback(self._sent)

    def _sent(self, task: asyncio.Task[None]) -> None:
        self._sending.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._observer.refuse("answer_failed")

    async def drain(self) -> None:
        """Wait for answers under way."""
        if self._sending:
            await asyncio.wait(self._sending, timeout=2)


def _speaker(address: str) -> str:
    """Whose share a message uses up: a poller has one, with its batches; a relay, which is trusted, none."""
    kind, _, poller_id = address.partition(".")
    if kind == "batch":
        return f"{ServiceType.POLLER}.{poller_id}"
    return "" if address == "relay" else address


def _verdict_document(verdict: Verdict) -> dict[str, object]:
    document: dict[str, object] = {
        "status": verdict.status,
        "known": verdict.known,
        "interval_seconds": verdict.interval_seconds,
        "config_revision": verdict.config_revision,
    }
    if verdict.refused:
        document["refused"] = verdict.refused.value
    return document
