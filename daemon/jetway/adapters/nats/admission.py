"""Questions of core servers on core NATS: each is handed to one daemon of those that serve, or to all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import structlog
from nats.aio.msg import Msg

from jetway.adapters.nats.connection import Connection
from jetway.adapters.nats.jetstream import plain_headers
from jetway.adapters.nats.subscription import Subscription
from jetway.ports import HeartbeatMessage

log = structlog.get_logger()

QUEUE = "jetway"
"""Of those who listen under this name, one gets each question."""
_PENDING_MESSAGES = 16_384
_PENDING_BYTES = 32 * 1024 * 1024


class NatsQuestions:
    """Listens where the ledger is, out of edge hosts' reach; implements `ports.Answers`."""

    def __init__(self, connection: Connection, *subjects: str, queue: str = QUEUE) -> None:
        """`queue` empty: every daemon gets every question."""
        self._connection = connection
        self._subjects = subjects
        self._queue = queue
        self._handler: Callable[[HeartbeatMessage], None] | None = None
        self._subscriptions: list[Subscription] = []

    async def open(self, handler: Callable[[HeartbeatMessage], None]) -> None:
        """Begin; `handler` must not block. The subscriptions outlive lost connections."""
        self._handler = handler
        for subject in self._subjects:
            self._subscriptions.append(await self._subscribe(subject))

    async def close(self) -> None:
        """Stop listening. Safe to call again."""
        while self._subscriptions:
            await self._connection.unsubscribe(self._subscriptions.pop())
        self._handler = None

    async def answer(self, subject: str, data: bytes, headers: Mapping[str, str]) -> None:
        """Send, without waiting for anything. The caller has checked the subject: the server will not.

        Raises PortError.
        """
        await self._connection.publish(subject, data, headers=dict(headers) or None)

    async def _subscribe(self, subject: str) -> Subscription:
        return await self._connection.subscribe(
            subject,
            self._on_message,
            queue=self._queue,
            pending_messages=_PENDING_MESSAGES,
            pending_bytes=_PENDING_BYTES,
        )

    def _on_message(self, message: Msg) -> None:
        if self._handler is None:
            return
        headers = plain_headers(message) if message.headers else {}
        try:
            self._handler(HeartbeatMessage(message.subject, message.data, message.reply, headers))
        except Exception:
            log.exception("a question was not handled", action="admission_failed")
