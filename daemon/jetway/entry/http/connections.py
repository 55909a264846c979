"""Connections: how many there may be, and how long one may take over its request or its answer.

A client that sends a head byte by byte, or never reads its answer, costs a descriptor for as long as it likes.
aiohttp closes what is idle; what is slow is closed here.
"""

from __future__ import annotations

import asyncio
import resource
import socket
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge

log = structlog.get_logger()

HEAD_SECONDS = 10.0
"""From the first byte of a request to the end of its head. It is a few packets, over any line."""
STALL_SECONDS = 30.0
"""How long an answer may stand still because its reader takes nothing of it. A slow reader takes some."""
SEND_SECONDS = 300.0
"""How long an answer may take whose progress cannot be seen: a file goes from the kernel's hand to the socket."""
LOOK_SECONDS = 1.0
"""How often a connection is looked at."""

_OTHER_FILES = 256
"""Descriptors for NATS, the database, keys and what libraries open."""

Reason = Literal["full", "slow_head", "stalled"]


class Connections:
    """All connections of the server, at most `most` at one time."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.most = 0
        self._open = 0
        self._handshakes = 0
        self._gauge = Gauge("jetway_http_connections", "Open HTTP connections.", registry=registry)
        self._cut = Counter(
            "jetway_http_connections_cut",
            "HTTP connections closed by the daemon, by reason.",
            ["reason"],
            registry=registry,
        )

    def open(self) -> bool:
        """Count one more; False where it is one too many, which is then not counted."""
        if self._open >= self.most:
            self.note_cut("full")
            return False
        self._open += 1
        self._gauge.set(self._open)
        return True

    def close(self) -> None:
        """Count one less."""
        self._open -= 1
        self._gauge.set(self._open)

    def begin_handshake(self) -> bool:
        """Keep a place for a connection that is not open yet; False where there is none left."""
        if self._open + self._handshakes >= self.most:
            self.note_cut("full")
            return False
        self._handshakes += 1
        return True

    def end_handshake(self) -> None:
        """The place is free: the connection is open, and counted as that, or was given up."""
        self._handshakes -= 1

    def note_cut(self, reason: Reason) -> None:
        """Count a connection that was closed because of what its client did."""
        self._cut.labels(reason).inc()


@dataclass(slots=True)
class Watch:
    """What is known of one connection's pace. The times are the event loop's."""

    busy: bool = False
    """Whether a request is being answered."""
    head_began: float | None = None
    answer_began: float | None = None
    _left: int = 0
    _left_since: float = field(default=0.0)

    def received(self, now: float) -> None:
        """Bytes came in; unless they belong to the request being answered, they begin a head."""
        if not self.busy and self.head_began is None:
            self.head_began = now

    def request_began(self) -> None:
        """A whole head is here."""
        self.busy, self.head_began = True, None

    def answer_begins(self, now: float) -> None:
        """The answer is known and about to be sent."""
        self.answer_began = now

    def request_ended(self) -> None:
        """The answer is sent, as far as we are concerned."""
        self.busy, self.answer_began = False, None

    def verdict(self, now: float, unsent: int) -> Reason | None:
        """Why the connection is to be closed, `unsent` bytes of answers still waiting; None where it is not."""
        if self.head_began is not None and now - self.head_began > HEAD_SECONDS:
            return "slow_head"
        if unsent != self._left or not unsent:
            self._left, self._left_since = unsent, now
        elif now - self._left_since > STALL_SECONDS:
            return "stalled"
        if self.answer_began is not None and not unsent and now - self.answer_began > SEND_SECONDS:
            return "stalled"
        return None


def allowed_connections(wanted: int) -> int:
    """How many of the wanted connections the limit of open files leaves room for, once it is raised for them."""
    needed = wanted + _OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < needed:
        reachable = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (reachable, hard))
            soft = reachable
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return wanted
    allowed = max(1, soft - _OTHER_FILES)
    log.warning(
        "fewer HTTP connections than set: raise the limit of open files",
        action="http_connections_limited",
        max_connections=wanted,
        allowed=allowed,
        open_files=soft,
    )
    return allowed


def unsent_bytes(transport: asyncio.Transport) -> int:
    """Bytes of answers that neither the peer nor the kernel has taken yet."""
    return transport.get_write_buffer_size()


def cut(transport: asyncio.Transport) -> None:
    """End a connection whose client does not read."""
    if unsent_bytes(transport):
        transport.abort()
        return
    # A file is being sent past the transport, which knows nothing of it: the socket itself has to say it is over.
    with suppress(OSError):
        transport.get_extra_info("socket").shutdown(socket.SHUT_RDWR)
