"""One standing pull request on a consumer.

The server delivers only what was asked for, so a slow reader slows the delivery and nothing piles up here.
The request is renewed when it is used up or has expired, after a reconnect, and when the server's idle
heartbeats stay away. There is never a second one beside it: two would steal from each other.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import structlog
from nats.aio.msg import Msg

from jetway.adapters.nats.jetstream import OPERATION, JetStream, plain_headers
from jetway.adapters.nats.subscription import Subscription
from jetway.core.errors import PortError, StartupError

log = structlog.get_logger()

_QUEUE_MESSAGES = 1000
_QUEUE_BYTES = 16 * 1024 * 1024
_BATCH = 500
_BATCH_BYTES = 8 * 1024 * 1024
"""Larger than any one message may be, else the server could not deliver it."""
_EXPIRES_SECONDS = 30
_HEARTBEAT_SECONDS = 5
_SILENCE_SECONDS = 2.5 * _HEARTBEAT_SECONDS
_FIRST_PAUSE, _LAST_PAUSE = 0.05, 5.0
_ACK = "$JS.ACK."


@dataclass(frozen=True, slots=True)
class Delivered:
    """A message as a consumer delivered it."""

    subject: str
    data: bytes
    reply: str
    """Where to acknowledge."""
    consumer: str
    sequence: int
    """In the stream."""
    delivery: int
    """In the consumer: grows by one with every delivery."""
    pending: int
    """How many wait behind it."""
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def is_marker(self) -> bool:
        """Whether it says that a key was deleted or purged."""
        return OPERATION in self.headers


class Pull:
    """Keeps a bounded queue filled from a consumer.

    `attach` finds or makes the consumer and returns its name; it is called at the start and whenever the
    consumer seems to be gone, and with `ephemeral` after every reconnect. A StartupError from it ends the
    pull and comes out of `take`. `accept` may refuse a message before it is queued.
    """

    def __init__(
        self,
        jetstream: JetStream,
        stream: str,
        *,
        task_name: str,
        attach: Callable[[], Awaitable[str]],
        accept: Callable[[Delivered], bool],
        ephemeral: bool = False,
    ) -> None:
        self._js = jetstream
        self._connection = jetstream.connection
        self._stream = stream
        self._task_name = task_name
        self._attach = attach
        self._accept = accept
        self._ephemeral = ephemeral
        self._queue: deque[Delivered] = deque()
        self._bytes = 0
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._activity = asyncio.Event()
        self._inbox = ""
        self._number = 0
        self._left = 0
        self._status: str | None = None
        self._fatal: StartupError | None = None
        self._subscription: Subscription | None = None
        self._task: asyncio.Task[None] | None = None
        self.consumer = ""

    async def open(self) -> None:
        """Begin. Safe to call again."""
        if self._task is not None:
            return
        self._inbox = self._connection.new_inbox()
        self._subscription = await self._connection.subscribe(f"{self._inbox}.*", self._on_message)
        self._connection.on_disconnect.append(self._on_disconnect)
        self._task = asyncio.get_running_loop().create_task(self._run(), name=self._task_name)

    async def close(self) -> None:
        """End. What is queued is forgotten. Safe to call again."""
        task, self._task = self._task, None
        while task is not None and not task.done():
            task.cancel()  # again where it got lost: Python 3.11's wait_for may take it for its own end
            await asyncio.wait([task], timeout=0.5)
        with contextlib.suppress(ValueError):
            self._connection.on_disconnect.remove(self._on_disconnect)
        if self._subscription is not None:
            await self._connection.unsubscribe(self._subscription)
            self._subscription = None
        self._queue.clear()
        self._bytes = 0

    @property
    def queued(self) -> int:
        """How many messages wait here."""
        return len(self._queue)

    async def take(self, limit: int, timeout: float | None) -> Sequence[Delivered]:
        """What is queued, up to `limit`, waiting up to `timeout` seconds (None: for ever) until something is.

        May be empty before the timeout when `nudge` was called.
        """
        if not self._queue and self._fatal is None:
            self._arrived.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await self._arrived.wait()
        if not self._queue and self._fatal is not None:
            raise self._fatal
        taken = [self._queue.popleft() for _ in range(min(limit, len(self._queue)))]
        self._bytes -= sum(len(message.data) for message in taken)
        self._look_for_room()
        return taken

    def nudge(self) -> None:
        """Let a waiting `take` return."""
        self._arrived.set()

    def lose_consumer(self) -> None:
        """Attach again before the next request."""
        self.consumer = ""
        self._end("consumer given up")

    async def _run(self) -> None:
        pause = _FIRST_PAUSE
        while True:
            await self._connection.wait_connected()
            await self._room.wait()
            try:
                if not self.consumer:
                    self.consumer = await self._attach()
                if await self._ask():
                    pause = _FIRST_PAUSE
                    continue
            except StartupError as error:
                self._fatal = error
                self._arrived.set()
                return
            except PortError as error:
                self._connection.quiet.warning(
                    "a pull waits", action="nats_pull_waits", pull=self._task_name, error=str(error)
                )
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LAST_PAUSE)

    async def _ask(self) -> bool:
        """One request, to its end; whether the next may follow at once."""
        self._number += 1
        self._left = min(_BATCH, _QUEUE_MESSAGES - len(self._queue))
        self._status = None
        request = {
            "batch": self._left,
            "max_bytes": _BATCH_BYTES,
            "expires": _EXPIRES_SECONDS * 10**9,
            "idle_heartbeat": _HEARTBEAT_SECONDS * 10**9,
        }
        target = f"{self._js.api}CONSUMER.MSG.NEXT.{self._stream}.{self.consumer}"
        await self._connection.publish(
            target, json.dumps(request).encode(), reply=f"{self._inbox}.{self._number}"
        )
        while self._left > 0 and self._status is None:
            self._activity.clear()
            try:
                async with asyncio.timeout(_SILENCE_SECONDS):
                    await self._activity.wait()
            except TimeoutError:
                log.warning("NATS went silent on a pull", action="nats_pull_silent", pull=self._task_name)
                self._lose_if_ephemeral()
                return False
        return self._judge(self._status)

    def _judge(self, status: str | None) -> bool:
        if status is None or status.startswith(("408", "409 Batch Completed", "409 Message Size")):
            return True
        if status.startswith(("503", "404", "409 Consumer Deleted")):
            self.consumer = ""
        return False

    def _on_message(self, message: Msg) -> None:
        if not message.reply.startswith(_ACK):
            self._on_status(message)
            return
        delivered = _parse(message)
        if delivered.consumer != self.consumer:
            return  # of a consumer that was given up
        self._left -= 1
        if self._accept(delivered):
            self._queue.append(delivered)
            self._bytes += len(delivered.data)
            self._look_for_room()
            self._arrived.set()
        self._activity.set()

    def _on_status(self, message: Msg) -> None:
        if message.subject != f"{self._inbox}.{self._number}":
            return  # of an earlier request
        headers = plain_headers(message)
        status = headers.get("Status", "")
        if status == "100":
            self._activity.set()
        elif status:
            self._end(f"{status} {headers.get('Description', '')}")

    def _on_disconnect(self) -> None:
        self._lose_if_ephemeral()
        self._end("disconnected")

    def _lose_if_ephemeral(self) -> None:
        if self._ephemeral:
            self.consumer = ""

    def _end(self, status: str) -> None:
        self._status = status
        self._activity.set()

    def _look_for_room(self) -> None:
        if len(self._queue) <= _QUEUE_MESSAGES - _BATCH and self._bytes < _QUEUE_BYTES:
            self._room.set()
        else:
            self._room.clear()


def _parse(message: Msg) -> Delivered:
    """`$JS.ACK.<stream>.<consumer>.<times>.<sequence>.<delivery>.<time>.<pending>`.

    With a domain two more tokens, domain and account, follow on `$JS.ACK`.
    """
    tokens = message.reply.split(".")
    first = 2 if len(tokens) == 9 else 4
    consumer, sequence, delivery, pending = (tokens[first + i] for i in (1, 3, 4, 6))
    return Delivered(
        message.subject,
        message.data,
        message.reply,
        consumer,
        int(sequence),
        int(delivery),
        int(pending),
        plain_headers(message) if message.headers else {},
    )
