"""Opening and closing one client of nats-py."""

from __future__ import annotations

import asyncio
import base64
import importlib.util
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import structlog
from nats.aio.client import DEFAULT_BUFFER_SIZE, Client
from nats.errors import Error as NatsError
from nats.protocol.parser import Parser

from jetway.core.errors import StartupError
from jetway.core.heartbeat import HEADERS_NOT_READ
from jetway.nats_client import SecureClient
from jetway.settings import NatsSettings

log = structlog.get_logger()

_CLOSE_SECONDS = 3.0
_BACKLOG = 2_000
"""Messages that may wait to be handled before reading stops."""
_HEADERS_LIMIT = 16 * 1024
"""Bytes; NATS itself and the daemon need a few hundred."""
_PING_SECONDS = 15
"""A link that is silently dead is given up after three of these."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user that exists in memory only."""

    jwt: Callable[[], str] = field(repr=False)
    """Made anew for every link."""
    sign: Callable[[bytes], bytes] = field(repr=False)
    """Signs the server's nonce."""


@dataclass(frozen=True, slots=True)
class ConnectionOptions:
    """Where to connect, and as whom."""

    urls: Sequence[str]
    creds_file: Path | None = None
    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    credentials: Credentials | None = None
    """In the place of `creds_file`."""
    ca_pem: str = ""
    """In the place of `tls_ca`."""
    tls_hostname: str = ""
    """Whom the server's certificate must name; empty: the host in the URL."""

    @classmethod
    def external(cls, settings: NatsSettings) -> ConnectionOptions:
        """Somebody else's server, as the settings describe it."""
        return cls(settings.urls, settings.creds_file, settings.tls_ca, settings.tls_cert, settings.tls_key)

    @property
    def wants_tls(self) -> bool:
        """Whether an unencrypted link is to be refused."""
        given = bool(self.tls_ca or self.tls_cert or self.ca_pem)
        return given or any(url.startswith("tls://") for url in self.urls)


@dataclass(frozen=True, slots=True)
class Identity:
    """As whom to connect, and how."""

    name: str
    creds_file: Path | None = None
    tls: Callable[[], ssl.SSLContext] | None = None
    """Made anew for every attempt, for files that were replaced meanwhile."""
    credentials: Credentials | None = None
    tls_hostname: str = ""

    @classmethod
    def of(cls, options: ConnectionOptions, name: str) -> Identity:
        """What the options say. Raises StartupError where files are missing or wrong."""
        if options.creds_file is not None and importlib.util.find_spec("nkeys") is None:
            raise StartupError("nats.creds_file: needs the Python package nkeys, which is not installed")
        if not options.wants_tls:
            return cls(name, options.creds_file, None, options.credentials)
        try:
            _tls_context(options)
        except OSError as error:
            raise StartupError(f"nats.tls_ca, tls_cert, tls_key: {error}") from error
        tls = partial(_tls_context, options)
        return cls(name, options.creds_file, tls, options.credentials, options.tls_hostname)


class PacedParser(Parser):
    """nats-py's parser, which gives everybody else a turn after every full buffer.

    Reading goes on without a pause while there is anything to read: in a flood that is a third of a megabyte.
    Nor is more read while much waits to be handled: the NATS server holds it meanwhile.
    """

    async def parse(self, data: bytes = b"") -> None:
        """Parse what was read."""
        await super().parse(data)
        if len(data) >= DEFAULT_BUFFER_SIZE:
            await asyncio.sleep(0)
            while self.nc.backlog > _BACKLOG:  # noqa: ASYNC110 - an event would cost more for each message
                await asyncio.sleep(0)


class ToldClient(SecureClient):
    """A client of nats-py that always tells when it has closed.

    With something unsent nats-py stumbles over the reset connection in the middle of closing: it then calls nobody
    back and leaves its tasks behind. The second time there is nothing unsent.

    Nor does it read headers of any size: a few of a megabyte each would keep it busy for a second.
    """

    def __init__(self) -> None:
        super().__init__()
        self._ps = PacedParser(self)

    @property
    def backlog(self) -> int:
        """How many messages wait in the fullest subscription."""
        return max((subscription.pending_msgs for subscription in self._subs.values()), default=0)

    async def _process_headers(self, headers: bytes) -> dict[str, str] | None:
        if not headers:
            return None  # as with nearly all heartbeats: at once
        if len(headers) > _HEADERS_LIMIT:
            return {HEADERS_NOT_READ: str(len(headers))}
        return await super()._process_headers(headers)

    async def _close(self, status: int, do_cbs: bool = True) -> None:
        try:
            await super()._close(status, do_cbs)
        except OSError as error:
            log.debug("the rest was not sent to NATS", action="nats_unsent", error=str(error))
            self._status = Client.DISCONNECTED
            await super()._close(status, do_cbs)


async def open_client(
    client: SecureClient,
    url: str,
    identity: Identity,
    *,
    on_error: Callable[[Exception], Awaitable[None]],
    on_closed: Callable[[], Awaitable[None]],
) -> None:
    """Connect it, once. Raises errors of nats-py, OSError, TimeoutError, ValueError."""
    options: dict[str, Any] = {}
    if identity.tls is not None:
        options["tls"] = identity.tls()
        client.tls_only = True
        if identity.tls_hostname:
            options["tls_hostname"] = identity.tls_hostname
    if identity.credentials is not None:
        options |= _callbacks(identity.credentials)
    elif identity.creds_file is not None:
        _check_creds(identity.creds_file)
        options["user_credentials"] = str(identity.creds_file)
    await client.connect(
        [url],
        name=identity.name,
        allow_reconnect=False,
        max_reconnect_attempts=1,
        reconnect_time_wait=0,
        connect_timeout=3,
        ping_interval=_PING_SECONDS,
        max_outstanding_pings=2,
        pending_size=0,  # no buffer: publishing without a link fails
        error_cb=on_error,
        closed_cb=on_closed,
        **options,
    )


async def close_client(client: Client | None) -> None:
    """Close it, within a few seconds."""
    if client is None or client.is_closed:
        return
    try:
        async with asyncio.timeout(_CLOSE_SECONDS):
            await client.close()
    except AssertionError:
        pass  # nats-py's, of a client that never began to connect: nothing is open
    except (NatsError, OSError, TimeoutError) as error:
        log.warning("NATS was not closed in order", action="nats_close_failed", error=str(error))


def without_user(url: str) -> str:
    """The URL without the user and the password that it may carry."""
    scheme, separator, rest = url.rpartition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"


def _callbacks(credentials: Credentials) -> dict[str, Any]:
    def sign(nonce: str) -> bytes:
        return base64.b64encode(credentials.sign(nonce.encode()))

    return {"user_jwt_cb": lambda: credentials.jwt().encode(), "signature_cb": sign}


def _tls_context(options: ConnectionOptions) -> ssl.SSLContext:
    ca, cert, key = (str(f) if f else None for f in (options.tls_ca, options.tls_cert, options.tls_key))
    context = ssl.create_default_context(cafile=ca, cadata=options.ca_pem or None)
    # What is given may be a server's own certificate; Python 3.13 does so by itself.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if cert:
        context.load_cert_chain(cert, key)
    return context


def _check_creds(file: Path) -> None:
    """nats-py looks for the JWT in an endless loop: a file without one would stop the whole program."""
    content = file.read_bytes()
    if b"BEGIN NATS USER JWT" not in content or b"BEGIN USER NKEY SEED" not in content:
        raise ValueError(f"nats.creds_file: {file} is not a .creds file")
