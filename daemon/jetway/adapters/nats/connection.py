"""One link to NATS that comes back by itself.

nats-py's own reconnecting is switched off, for three reasons: it buffers publishes while it is away and
sends them late; it gives up for good when the server refuses it once, as it does with an expired JWT; and a
request in flight waits for its timeout although the link is known to be gone. Here a lost link is followed by
a new client that gets all subscriptions again, and whatever was in flight fails at once.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.errors import NoServersError, SlowConsumerError

from jetway.adapters.nats.dial import (
    ConnectionOptions,
    Identity,
    ToldClient,
    close_client,
    open_client,
    without_user,
)
from jetway.adapters.nats.inbox import Inbox
from jetway.adapters.nats.quiet import QuietLog
from jetway.adapters.nats.subscription import Handler, Subscription
from jetway.core.errors import RejectedError, StartupError, UnavailableError
from jetway.ports import Clock

log = structlog.get_logger()

_CONNECT_SECONDS = 5.0
_FIRST_BACKOFF, _LAST_BACKOFF = 0.05, 5.0
_ANSWERS_LIMIT = 256 * 1024 * 1024
"""Bytes of answers that may wait to be handed out."""
_UNSENT_LIMIT = 32 * 1024 * 1024
"""Bytes that may wait for a socket that does not take them; beyond, publishing is refused."""


@dataclass(frozen=True, slots=True)
class LinkState:
    """Whether the link stands, and since when it has been so."""

    connected: bool
    since: datetime
    since_monotonic: float
    """`Clock.monotonic()` of the same moment, in seconds."""
    reconnects: int


class Connection:
    """The link. Publishing and asking raise PortErrors only."""

    def __init__(self, options: ConnectionOptions, clock: Clock, *, name: str = "jetway") -> None:
        self._options = options
        self._clock = clock
        self._name = name
        self._client: Client | None = None
        self._subscriptions: list[Subscription] = []
        self._up = asyncio.Event()
        self._lost = asyncio.Event()
        self._supervisor: asyncio.Task[None] | None = None
        self._closing = False
        self._identity: Identity | None = None
        self._last_error = ""
        # What a server said itself tells more than the broken pipe that follows it.
        self._refusal = ""
        self._state = LinkState(False, clock.now(), clock.monotonic(), 0)
        self._inbox = Inbox(self.publish)
        self._subscriptions.append(
            Subscription(self._inbox.pattern, self._inbox.take, Inbox.LIMIT * 2, _ANSWERS_LIMIT)
        )
        self.quiet = QuietLog(clock)
        """For lines that a broken link repeats."""
        self.on_disconnect: list[Callable[[], None]] = []
        """Called when the link is lost; must not block."""
        self.on_reconnect: list[Callable[[], None]] = []
        """Called when a lost link is back and all subscriptions stand again; must not block."""

    @property
    def state(self) -> LinkState:
        """Whether the link stands, since when, and how often it was made anew."""
        return self._state

    @property
    def connected(self) -> bool:
        """Whether the link stands."""
        return self._state.connected

    @property
    def reconnects(self) -> int:
        """How often the link was made anew."""
        return self._state.reconnects

    @property
    def server_version(self) -> tuple[int, int, int]:
        """(major, minor, patch) of the server at the other end; zeros before the first link."""
        if self._client is None:
            return (0, 0, 0)
        version = self._client.connected_server_version
        return (version.major, version.minor, version.patch)

    async def connect(self, timeout: float = 10.0) -> None:
        """Make the first link, trying for `timeout` seconds. Raises StartupError naming where and why not."""
        self._identity = Identity.of(self._options, self._name)
        deadline = self._clock.monotonic() + timeout
        backoff = _FIRST_BACKOFF
        while not await self._try_all():
            if self._clock.monotonic() + backoff > deadline:
                where = ", ".join(map(without_user, self._options.urls))
                why = self._refusal or self._last_error or "no answer"
                raise StartupError(f"nats.urls: no connection to {where}: {why}")
            await asyncio.sleep(backoff)
            backoff = min(backoff * 2, _LAST_BACKOFF)
        self._supervisor = asyncio.get_running_loop().create_task(self._keep_up(), name="nats-connection")
        self._set_state(connected=True)

    async def close(self) -> None:
        """Let go of the link, within a few seconds. What is in flight fails. Safe to call again."""
        self._closing = True
        supervisor, self._supervisor = self._supervisor, None
        while supervisor is not None and not supervisor.done():
            # Asked again, for a connection attempt that fails at this very moment forgets that it was asked.
            supervisor.cancel()
            await asyncio.wait([supervisor], timeout=0.5)
        self._set_state(connected=False)
        self._inbox.fail_all()
        self._subscriptions.clear()
        client, self._client = self._client, None
        await close_client(client)

    async def wait_connected(self, timeout: float | None = None) -> bool:
        """Wait until the link stands, up to `timeout` seconds; whether it does."""
        try:
            async with asyncio.timeout(timeout):
                await self._up.wait()
        except TimeoutError:
            return False
        return True

    async def subscribe(
        self,
        subject: str,
        handler: Handler,
        *,
        queue: str = "",
        pending_messages: int = 65_536,
        pending_bytes: int = 64 * 1024 * 1024,
    ) -> Subscription:
        """Hand every message on `subject` to `handler`, which must not block.

        With `queue` each goes to one of those who named the same. What exceeds the limits is dropped and counted.
        """
        subscription = Subscription(subject, handler, pending_messages, pending_bytes, queue)
        try:
            return await self._subscribe(subscription)
        except (NatsError, OSError) as error:
            raise UnavailableError(f"NATS refused a subscription: {error}") from error

    async def unsubscribe(self, subscription: Subscription) -> None:
        """End it. Safe to call again."""
        if subscription in self._subscriptions:
            self._subscriptions.remove(subscription)
        await subscription.detach()

    async def publish(
        self, subject: str, data: bytes = b"", *, reply: str = "", headers: dict[str, str] | None = None
    ) -> None:
        """Send without waiting. Raises UnavailableError when there is no link: nothing is kept for later."""
        client = self._client
        if client is None or not self._state.connected or not client.is_connected:
            raise UnavailableError("NATS is not connected")
        if client.pending_data_size > _UNSENT_LIMIT:
            raise UnavailableError("NATS does not take what is sent")
        # The client counts the data alone; the server would count the headers too, and close the connection.
        size = len(data) + _size_of(headers)
        if size > client.max_payload:
            raise RejectedError(f"{size} bytes are more than the NATS server takes in a message")
        try:
            await client.publish(subject, data, reply=reply, headers=headers)
        except (NatsError, OSError) as error:
            raise UnavailableError(f"NATS: {error}") from error

    async def request(
        self, subject: str, data: bytes = b"", *, headers: dict[str, str] | None = None, timeout: float = 5.0
    ) -> Msg:
        """Ask and wait up to `timeout` seconds.

        Raises UnavailableError when the question was not sent or nobody listens, and OutcomeUnknownError when
        it was sent and no answer came: timeout, or the link went away.
        """
        return await self._inbox.ask(subject, data, headers, timeout)

    def new_inbox(self) -> str:
        """A fresh subject for replies."""
        return self._inbox.fresh()

    async def _subscribe(self, subscription: Subscription) -> Subscription:
        # Registered first: if the link is lost meanwhile, the next one makes up for it.
        self._subscriptions.append(subscription)
        client = self._client
        if client is not None and client.is_connected:
            try:
                await subscription.attach(client)
            except (NatsError, OSError):
                if client.is_connected:
                    # Refused for what it is: it would be refused on every link, and keep that from standing.
                    self._subscriptions.remove(subscription)
                    raise
        return subscription

    async def _keep_up(self) -> None:
        while not self._closing:
            await self._lost.wait()
            self._lost.clear()
            backoff = _FIRST_BACKOFF
            while not await self._renew():
                # Jitter, lest all clients of a restarted server come at once.
                await asyncio.sleep(backoff * random.uniform(0.5, 1.0))  # noqa: S311 - not a secret
                backoff = min(backoff * 2, _LAST_BACKOFF)

    async def _renew(self) -> bool:
        """One attempt; whether no other is needed."""
        if self._closing:
            return True
        if not await self._try_all():
            return False
        self._set_state(connected=True, reconnects=self._state.reconnects + 1)
        log.info("connected to NATS again", action="nats_reconnected", reconnects=self._state.reconnects)
        _call(self.on_reconnect)
        return True

    async def _try_all(self) -> bool:
        urls = list(self._options.urls)
        random.shuffle(urls)
        for url in urls:
            if await self._try(url):
                return True
        return False

    async def _try(self, url: str) -> bool:
        assert self._identity is not None  # noqa: S101 - set by connect()
        identity, client = self._identity, ToldClient()
        self._last_error = ""

        async def closed() -> None:
            if client is self._client:
                self._on_lost()

        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                await open_client(client, url, identity, on_error=self._on_error, on_closed=closed)
                await self._attach_all(client)
                await client.flush(timeout=2)
                await self._attach_all(client)
        except Exception as error:  # a damaged seed, for one, raises what nobody else does
            self._last_error = self._last_error or str(error) or type(error).__name__
            if isinstance(error, NatsError) and not isinstance(error, OSError | NoServersError):
                self._refusal = str(error)
            self.quiet.warning("no connection to NATS", action="nats_unreachable", error=self._last_error)
            await close_client(client)
            return False
        except BaseException:
            await close_client(client)
            raise
        if not client.is_connected:
            await close_client(client)
            return False
        # No waiting from here on until the state is set: the link could be lost unnoticed.
        self._client = client
        return True

    async def _attach_all(self, client: Client) -> None:
        """Once more after every wait: somebody may have subscribed meanwhile."""
        while waiting := [s for s in self._subscriptions if not s.is_on(client)]:
            for subscription in waiting:
                await subscription.attach(client)

    def _on_lost(self) -> None:
        if self._closing:
            return
        self._set_state(connected=False)
        self._inbox.fail_all()
        log.warning("the connection to NATS is lost", action="nats_disconnected", error=self._last_error)
        self._lost.set()
        _call(self.on_disconnect)

    async def _on_error(self, error: Exception) -> None:
        self._last_error = str(error) or type(error).__name__
        if not isinstance(error, SlowConsumerError):
            self.quiet.warning("NATS reports an error", action="nats_error", error=self._last_error)
            return
        # One call per dropped message: counted singly, logged seldom.
        for subscription in self._subscriptions:
            if subscription.is_behind(error.sub):
                subscription.dropped += 1
        self.quiet.warning(
            "messages were dropped: too slow", action="nats_slow_consumer", subject=error.subject
        )

    def _set_state(self, *, connected: bool, reconnects: int | None = None) -> None:
        count = self._state.reconnects if reconnects is None else reconnects
        self._state = LinkState(connected, self._clock.now(), self._clock.monotonic(), count)
        if connected:
            self._up.set()
        else:
            self._up.clear()


def _size_of(headers: dict[str, str] | None) -> int:
    """Bytes on the wire."""
    if not headers:
        return 0
    lines = (len(name.encode()) + len(value.encode()) + len(": \r\n") for name, value in headers.items())
    return len("NATS/1.0\r\n\r\n") + sum(lines)


def _call(callbacks: Sequence[Callable[[], None]]) -> None:
    for callback in tuple(callbacks):
        try:
            callback()
        except Exception:
            log.exception("a callback failed", action="nats_callback_failed")


__all__ = ["Connection", "ConnectionOptions", "LinkState", "Subscription"]
