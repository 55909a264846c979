"""The connection to NATS. A lost one is not mended but replaced: see `run`."""

from __future__ import annotations

import asyncio
import re
import ssl
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import nats.errors
import structlog
from nats.aio.msg import Msg

from jetway.edge.errors import EdgeError
from jetway.edge.joined import CREDS_FILE, Joined
from jetway.nats_client import SecureClient

log = structlog.get_logger()

CONNECT_TIMEOUT = 5.0
REQUEST_TIMEOUT = 2.0
_PING_INTERVAL = 20
_PENDING_LIMIT = 16 * 1024 * 1024
_LOG_EVERY = 60.0
_NOT_LET_IN = re.compile(r"authorization|authentication", re.IGNORECASE)
"""In the words of nats-server: "Authorization Violation", "User Authentication Expired"."""


class LinkError(Exception):
    """NATS is not reachable, or a request got no answer."""


class NotLetInError(LinkError):
    """A server took the connection and ended it: it may not take the credentials, or their absence."""


class Link:
    """One connection, from its beginning to its end. `lost` is set when it has ended."""

    def __init__(self, joined: Joined, folder: Path) -> None:
        self._joined = joined
        self._folder = folder
        self._client = SecureClient()
        self._begun = False
        self._last_error: Exception | None = None
        self._last_error_logged = float("-inf")
        self.lost = asyncio.Event()

    async def open(self) -> None:
        """Connect to one of the servers. Raises LinkError."""
        options: dict[str, Any] = {}
        creds = self._folder / CREDS_FILE
        if creds.exists():
            # Imported here: cryptography is slow to load, and a gateway without credentials needs none of it.
            from jetway.edge.keys import read_creds

            credentials = read_creds(creds.read_text())
            options |= {"user_jwt_cb": credentials.user_jwt, "signature_cb": credentials.sign}
        context = _tls(self._joined)
        if context is not None:
            options["tls"] = context
            self._client.tls_only = True
        urls = list(self._joined.nats.urls)
        self._begun = True
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT * (2 * len(urls) + 1)):
                await self._client.connect(
                    urls,
                    name=f"jetway-{self._joined.service.service_type.value}-{self._joined.service.service_id}",
                    inbox_prefix=self._joined.lineage.inbox_prefix.removesuffix("."),
                    # A connection that ended is never resumed: its end is also how expired credentials show,
                    # and a new one reads credentials and documents afresh.
                    allow_reconnect=False,
                    max_reconnect_attempts=1,
                    reconnect_time_wait=0,
                    connect_timeout=int(CONNECT_TIMEOUT),
                    ping_interval=_PING_INTERVAL,
                    max_outstanding_pings=2,
                    error_cb=self._on_error,
                    closed_cb=self._on_closed,
                    **options,
                )
        except (nats.errors.Error, OSError, TimeoutError) as error:
            await self.close()
            # nats-py ends with "no servers available"; why none was is what its callback heard last.
            last = self._last_error or error
            reason = _reason(last)
            kind = NotLetInError if _turned_away(last) else LinkError
            raise kind(f"{', '.join(map(shown, urls))}: {reason}") from error

    @property
    def server(self) -> str:
        """The server that was reached, without a password."""
        url = self._client.connected_url
        return shown(url.geturl()) if url is not None else ""

    @property
    def is_open(self) -> bool:
        """Whether messages go through."""
        return self._client.is_connected

    async def subscribe(self, subject: str, callback: Callable[[Msg], Awaitable[None]]) -> None:
        """Hear a subject. The server has it when the next flush returns."""
        try:
            await self._client.subscribe(subject, cb=callback, pending_bytes_limit=_PENDING_LIMIT)
        except (nats.errors.Error, OSError) as error:
            raise LinkError(_reason(error)) from error

    async def publish(self, subject: str, data: bytes) -> None:
        """Send. Raises LinkError."""
        try:
            await self._client.publish(subject, data)
        except (nats.errors.Error, OSError) as error:
            raise LinkError(_reason(error)) from error

    async def flush(self) -> None:
        """Everything sent so far is with the server. Raises LinkError."""
        try:
            await self._client.flush(timeout=int(REQUEST_TIMEOUT))
        except (nats.errors.Error, OSError, TimeoutError) as error:
            raise LinkError(_reason(error)) from error

    async def request(self, subject: str, data: bytes = b"", *, timeout: float | None = None) -> Msg:
        """Send and wait for the answer, two seconds or `timeout`. Raises LinkError."""
        try:
            return await self._client.request(subject, data, timeout=timeout or REQUEST_TIMEOUT)
        except nats.errors.NoRespondersError as error:
            raise LinkError("nobody answers") from error
        except (nats.errors.Error, OSError, TimeoutError) as error:
            raise LinkError(_reason(error)) from error

    async def close(self) -> None:
        """End the connection, whatever state it is in."""
        if not self._begun:
            return  # nats-py fails on a client that never tried
        try:
            await self._client.close()
        except (nats.errors.Error, OSError, asyncio.InvalidStateError) as error:
            log.debug("closing failed", action="close", reason=_reason(error))

    async def _on_closed(self) -> None:
        self.lost.set()

    async def _on_error(self, error: Exception) -> None:
        """A slow consumer or a missing right shows once per message: say it once a minute."""
        self._last_error = error
        if not self._client.is_connected:
            return  # `open` or the loss of the connection tells of it
        now = time.monotonic()
        if now - self._last_error_logged >= _LOG_EVERY:
            self._last_error_logged = now
            log.warning("NATS complains", action="nats_error", reason=_reason(error))


def _turned_away(error: BaseException) -> bool:
    # With TLS what the server says is often lost: it closes while the client still writes.
    cut_off = isinstance(error, ConnectionResetError | BrokenPipeError | nats.errors.UnexpectedEOF)
    return cut_off or bool(_NOT_LET_IN.search(str(error)))


def shown(url: str) -> str:
    """A server's address without user and password."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _reason(error: BaseException) -> str:
    text = str(error).removeprefix("nats: ").strip()
    return text or type(error).__name__


def _tls(joined: Joined) -> ssl.SSLContext | None:
    """Verified TLS where the gateway named an authority or an address asks for it."""
    ca = joined.nats.ca_pem
    if not ca and not any(url.startswith(("tls://", "wss://")) for url in joined.nats.urls):
        return None
    try:
        return ssl.create_default_context(cadata=ca or None)
    except ssl.SSLError as error:
        raise EdgeError(
            "the NATS authority in service.json is damaged: join again with a new token"
        ) from error
