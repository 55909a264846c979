"""The way of a question over NATS: an endpoint takes it in, and its answer goes to the inbox of who asked.

As with heartbeats, the server checks no permission on a reply subject, and the daemon's own rights are wide: an
answer goes to an inbox and nowhere else. Edge hosts may not ask: their credentials do not let them publish here,
and where they have an account of their own nobody listens there.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

import structlog
from prometheus_client import Counter

from jetway.core.errors import PortError
from jetway.entry.shares import made_by_the_server
from jetway.ports import Answers, HeartbeatMessage

log = structlog.get_logger()

_INBOXES = ("_INBOX.", "_INBOX_", "_R_.")
"""Where answers go: an inbox, also one with a prefix of its own, or what the server itself makes of one between
two accounts."""
_LONGEST_HEADER = 200
_MALFORMED = 400
_DRAIN_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Told:
    """An answer: JSON, and for an error its HTTP status, its code and a sentence."""

    data: bytes
    status: int = 200
    code: str = ""
    error: str = ""

    @property
    def headers(self) -> Mapping[str, str]:
        """What NATS micro services say of an error beside the body; empty where there is none."""
        if not self.error:
            return {}
        # One line of ASCII: what a header can hold. The body has the sentence as it is.
        sentence = self.error.encode("ascii", "replace").decode()
        line = "".join(c if c.isprintable() else " " for c in sentence)[:_LONGEST_HEADER]
        return {"Nats-Service-Error": line, "Nats-Service-Error-Code": str(self.status)}


@dataclass(slots=True)
class Tally:
    """What an endpoint has done since it opened, as discovery tells of it."""

    requests: int = 0
    errors: int = 0
    nanoseconds: int = 0
    last_error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Something that can be asked."""

    name: str
    subject: str
    description: str
    answer: Callable[[HeartbeatMessage], Awaitable[Told]]
    """From memory. What it raises is a mistake of the daemon, and answered as such."""
    at_once: int
    """Answers that may be on their way at one time; what is asked beyond is dropped and counted."""
    tally: Tally = field(default_factory=Tally)


class QuestionDoor:
    """Takes the questions of one endpoint in, and sends the answers."""

    def __init__(
        self,
        endpoint: Endpoint,
        answers: Answers,
        requests: Counter,
        on_dropped: Callable[[str], None] = lambda _reason: None,
    ) -> None:
        """`requests` counts by endpoint and outcome; `on_dropped` hears why a question got no proper answer."""
        self._endpoint = endpoint
        self._answers = answers
        self._requests = requests
        self._answered = requests.labels(endpoint.name, "answered")
        self._on_dropped = on_dropped
        self._under_way: set[asyncio.Task[None]] = set()

    def take(self, message: HeartbeatMessage) -> None:
        """Take one question in. Never raises for anything that a sender can do."""
        reason = self._why_dropped(message)
        if reason:
            self._drop(reason)
            return
        task = asyncio.get_running_loop().create_task(
            self._serve(message), name=f"answer-{self._endpoint.name}"
        )
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def drain(self) -> None:
        """Wait for answers under way."""
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=_DRAIN_SECONDS)

    def _why_dropped(self, message: HeartbeatMessage) -> str:
        if message.headers and made_by_the_server(message.headers):
            return "server_message"
        if not message.reply.startswith(_INBOXES):
            return "foreign_reply"
        return "overloaded" if len(self._under_way) >= self._endpoint.at_once else ""

    def _drop(self, reason: str) -> None:
        self._requests.labels(self._endpoint.name, reason).inc()
        self._on_dropped(reason)

    async def _serve(self, message: HeartbeatMessage) -> None:
        told = await self._ask(message)
        try:
            await self._answers.answer(message.reply, told.data, told.headers)
        except PortError:
            self._drop("answer_failed")
            return
        if not told.error:
            self._answered.inc()
        elif told.status == _MALFORMED:
            self._drop("malformed")
        else:
            self._requests.labels(self._endpoint.name, told.code).inc()

    async def _ask(self, message: HeartbeatMessage) -> Told:
        tally, began = self._endpoint.tally, time.perf_counter_ns()
        try:
            told = await self._endpoint.answer(message)
        except Exception:
            log.exception("a question was not answered", action="question_failed", name=self._endpoint.name)
            told = _MISTAKE
        tally.requests += 1
        tally.nanoseconds += time.perf_counter_ns() - began
        if told.error:
            tally.errors += 1
            tally.last_error = told.headers["Nats-Service-Error"]
        return told


def _mistake() -> Told:
    detail = "the daemon made a mistake: its log has the details"
    data = json.dumps({"status": 500, "code": "internal", "detail": detail}).encode()
    return Told(data, 500, "internal", detail)


_MISTAKE = _mistake()
