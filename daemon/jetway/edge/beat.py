"""Heartbeats: what is said, how often, and what is learnt from the answer."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import structlog
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from jetway import __version__
from jetway.core.documents import Document
from jetway.core.times import rfc3339
from jetway.edge.link import Link, LinkError

log = structlog.get_logger()

ASK_EVERY = 10
"""Every how many beats one is sent as a request; the first always is."""
JITTER = 0.1
INSTANCE = secrets.token_hex(8)
"""Of this start of the program: the gateway tells a restart from a second host by it."""
_GONE = frozenset({"revoked", "deleted"})


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    status: str | None = None
    known: bool = True
    interval_seconds: int | None = Field(default=None, ge=1, le=86_400)
    config_revision: int | None = None


@dataclass(slots=True)
class Pulse:
    """The rhythm of one service, over all its connections."""

    interval: int
    sent: int = 0

    def learn(self, document: Document | None) -> None:
        """The own document names an interval."""
        seconds = document.get("heartbeat_interval_seconds") if document else None
        if isinstance(seconds, int) and not isinstance(seconds, bool) and 1 <= seconds <= 86_400:
            self.interval = seconds

    def pause(self, chance: Callable[[], float]) -> float:
        """Seconds to the next beat: the interval ± 10 %, so that many hosts do not beat as one."""
        return self.interval * (1 - JITTER + 2 * JITTER * chance())


def gone(document: Document | None, *, deleted: bool) -> str:
    """`revoked` or `deleted` where the own document takes the service's rights away, else empty."""
    if deleted:
        return "deleted"
    status = document.get("status") if document else None
    return status if isinstance(status, str) and status in _GONE else ""


def payload(now: datetime, interval: int, document: Document | None, *, stopping: bool = False) -> bytes:
    """One heartbeat."""
    beat: dict[str, object] = {
        "timestamp": rfc3339(now),
        "healthy": True,
        "version": __version__,
        "instance_id": INSTANCE,
        "interval_seconds": interval,
    }
    revision = document.get("revision") if document else None
    if isinstance(revision, int) and revision >= 0:
        beat["config_revision"] = revision
    if stopping:
        beat["stopping"] = True
    return json.dumps(beat).encode()


async def send(link: Link, subject: str, data: bytes, pulse: Pulse) -> bool:
    """Send a beat, now and then as a request. Whether the answer hints at a document newer than ours.

    No answer is no trouble: the beat itself was sent. Raises LinkError when it could not be.
    """
    asks = pulse.sent % ASK_EVERY == 0
    pulse.sent += 1
    if not asks:
        await link.publish(subject, data)
        return False
    try:
        message = await link.request(subject, data)
    except LinkError as error:
        if not link.is_open:
            raise
        log.info("heartbeat got no answer", action="heartbeat_unanswered", reason=str(error))
        return False
    return _learn(message.data, data, pulse)


def _learn(answer: bytes, beat: bytes, pulse: Pulse) -> bool:
    try:
        told = _Answer.model_validate_json(answer)
    except ValidationError:
        log.warning("the answer to a heartbeat makes no sense", action="heartbeat_answer_malformed")
        return False
    if not told.known:
        log.warning("the gateway does not know this service", action="heartbeat_unknown")
    if told.interval_seconds is not None and told.interval_seconds != pulse.interval:
        log.info("new interval", action="interval_changed", seconds=told.interval_seconds)
        pulse.interval = told.interval_seconds
    ours = json.loads(beat).get("config_revision")
    return told.status in _GONE or (told.config_revision is not None and told.config_revision != ours)
