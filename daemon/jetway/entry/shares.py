"""What is read of each sender: one share over all it may send, so that none is heard at the cost of others."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping

from jetway.core.heartbeat import HEADERS_NOT_READ, MalformedError, parse_subject
from jetway.core.ids import ServiceKey
from jetway.ports import Clock, HeartbeatMessage
from jetway.services.allowance import Allowance

_SHARE_BYTES = 5 * 1024 * 1024
"""Of one sender in five seconds: reading more would keep the daemon from what others say. It is five messages of
the largest size, 16 of the usual batches of 1,000, or 10,000 small messages."""
_FLOOD_BYTES = 8 * 1024 * 1024
"""Whoever sends so much in five seconds has to be stopped from sending: not to read it is not enough."""
MESSAGE_BYTES = 512
"""What a message costs beside its payload: a daemon on a busy machine takes in 10,000 in a second."""


def sender_shares(clock: Clock, on_flood: Callable[[ServiceKey], None] = lambda _key: None) -> Allowance:
    """The shares, by address: what follows the prefix in a subject that is one service's.

    `on_flood` is told who sends far more than is read of it. It must not block.
    """

    def floods(address: str) -> None:
        with contextlib.suppress(MalformedError):
            on_flood(parse_subject(f"any.{address}", "any").key)

    return Allowance(clock, _SHARE_BYTES, excess=_FLOOD_BYTES, on_excess=floods)


def cost(message: HeartbeatMessage) -> int:
    """What it costs to take it in, in bytes, with its headers."""
    if not message.headers:
        return MESSAGE_BYTES + len(message.data)
    unread = message.headers.get(HEADERS_NOT_READ, "")
    is_told = unread.isdecimal() and len(unread) < 10
    headers = int(unread) if is_told else sum(map(len, message.headers.values()))
    return MESSAGE_BYTES + len(message.data) + headers


def made_by_the_server(headers: Mapping[str, str]) -> bool:
    """The server can be made to send messages to any subject; they carry such headers."""
    return any(name.lower() == "status" or name.lower().startswith("nats-") for name in headers)


def refuse_the_servers(message: HeartbeatMessage, address: str, shares: Allowance) -> str:
    """Why a message is refused that the server was made to send; empty for any other.

    Anybody can have the server send one to anybody's subject, so it is at nobody's cost: a host could use up
    another's share with them. What has more headers than are read only the sender itself can have made.
    """
    if not message.headers or not made_by_the_server(message.headers):
        return ""
    is_the_senders = HEADERS_NOT_READ in message.headers
    if is_the_senders and address and not shares.take(address, cost(message)):
        return "too_much"
    return "server_message"
