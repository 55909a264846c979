"""Renewals: requests of edge hosts on core NATS, each handed to one daemon of those that serve."""

from __future__ import annotations

from collections.abc import Callable

import structlog
from nats.aio.msg import Msg

from jetway.adapters.nats.connection import Connection
from jetway.adapters.nats.jetstream import plain_headers
from jetway.adapters.nats.subscription import Subscription
from jetway.ports import HeartbeatMessage

log = structlog.get_logger()

QUEUE = "jetway"
_PENDING_MESSAGES = 4096
_PENDING_BYTES = 32 * 1024 * 1024


class NatsRenewals:
    """Listens under `prefix`, and implements `ports.Replies`."""

    def __init__(self, connection: Connection, prefix: str) -> None:
        self._connection = connection
        self._prefix = prefix
        self._handler: Callable[[HeartbeatMessage], None] | None = None
        self._subscription: Subscription | None = None

    async def open(self, handler: Callable[[HeartbeatMessage], None]) -> None:
        """Begin; `handler` must not block. The subscription outlives lost connections."""
        self._handler = handler
        self._subscription = await self._connection.subscribe(
            f"{self._prefix}.>",
            self._on_message,
            queue=QUEUE,
            pending_messages=_PENDING_MESSAGES,
            pending_bytes=_PENDING_BYTES,
        )

    async def close(self) -> None:
        """Stop listening. Safe to call again."""
        if self._subscription is not None:
            await self._connection.unsubscribe(self._subscription)
        self._handler = None

    async def reply(self, subject: str, data: bytes) -> None:
        """Send, without waiting for anything. The caller has checked the subject: the server will not."""
        await self._connection.publish(subject, data)

    def _on_message(self, message: Msg) -> None:
        if self._handler is None:
            return
        headers = plain_headers(message) if message.headers else {}
        try:
            self._handler(HeartbeatMessage(message.subject, message.data, message.reply, headers))
        except Exception:
            log.exception("a renewal was not handled", action="renewal_failed")
