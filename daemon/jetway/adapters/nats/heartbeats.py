"""Heartbeats: core NATS messages, handed on as they come."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable

import structlog
from nats.aio.msg import Msg

from jetway.adapters.nats.connection import Connection
from jetway.adapters.nats.jetstream import plain_headers
from jetway.adapters.nats.subscription import Subscription
from jetway.core.errors import UnavailableError
from jetway.ports import HeartbeatMessage

log = structlog.get_logger()

_PENDING_MESSAGES = 131_072
_PENDING_BYTES = 128 * 1024 * 1024


class NatsHeartbeats:
    """Listens under the heartbeat prefix, and implements `ports.Replies` and `ports.Ears`.

    What the handler does not keep up with waits in a bounded queue; what finds it full is dropped, counted.
    """

    def __init__(
        self,
        connection: Connection,
        prefix: str,
        *,
        pending_messages: int = _PENDING_MESSAGES,
        pending_bytes: int = _PENDING_BYTES,
    ) -> None:
        self._connection = connection
        self._prefix = prefix
        self._pending = (pending_messages, pending_bytes)
        self._handler: Callable[[HeartbeatMessage], None] | None = None
        self._subscription: Subscription | None = None
        self._echo_subject = f"{prefix}.echo"
        self._echoes: dict[bytes, asyncio.Future[None]] = {}
        self.received = 0
        self.failed = 0
        """Messages whose handling raised, which it should not."""

    @property
    def dropped(self) -> int:
        """Messages that were lost because they found the queue full."""
        return self._subscription.dropped if self._subscription else 0

    async def open(self, handler: Callable[[HeartbeatMessage], None]) -> None:
        """Begin; `handler` must not block. The subscription outlives lost connections."""
        self._handler = handler
        messages, size = self._pending
        self._subscription = await self._connection.subscribe(
            f"{self._prefix}.>", self._on_message, pending_messages=messages, pending_bytes=size
        )

    async def close(self) -> None:
        """Stop listening. Safe to call again."""
        if self._subscription is not None:
            await self._connection.unsubscribe(self._subscription)
        self._handler = None

    async def reply(self, subject: str, data: bytes) -> None:
        """Send, without waiting for anything. The caller has checked the subject: the server will not."""
        await self._connection.publish(subject, data)

    async def echo(self, timeout: float) -> None:
        """Return once a message sent now has come back through the server and the queue of heartbeats."""
        word = secrets.token_hex(8).encode()
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._echoes[word] = future
        try:
            await self._connection.publish(self._echo_subject, word)
            async with asyncio.timeout(timeout):
                await future
        except TimeoutError as error:
            raise UnavailableError(f"no heartbeat came back from NATS within {timeout:g} s") from error
        finally:
            del self._echoes[word]

    def _on_message(self, message: Msg) -> None:
        if self._handler is None:
            return
        if message.subject == self._echo_subject:
            echo = self._echoes.get(message.data)  # others have echoes of their own
            if echo is not None and not echo.done():
                echo.set_result(None)
            return
        self.received += 1
        try:
            self._handler(_as_it_came(message))
        except Exception:
            self.failed += 1
            if self.failed == 1 or self.failed % 1000 == 0:
                log.exception("a heartbeat was not handled", action="heartbeat_failed", failed=self.failed)


def _as_it_came(message: Msg) -> HeartbeatMessage:
    if message.headers:
        return HeartbeatMessage(message.subject, message.data, message.reply, plain_headers(message))
    return HeartbeatMessage(message.subject, message.data, message.reply)
