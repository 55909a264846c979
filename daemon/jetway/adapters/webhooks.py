"""Webhooks: a signed POST to an address from the settings.

The address is resolved once and checked, and the connection goes to what was checked: a name that points
elsewhere a moment later changes nothing. Private, loopback and link-local addresses are refused unless the
settings allow them. No redirect is followed, and no proxy of the environment is used.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import socket
import ssl
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

from jetway.core.errors import RejectedError, StartupError, UnavailableError
from jetway.ports import Clock
from jetway.settings import AlertsSettings

SIGNATURE = "Jetway-Signature"
TIMESTAMP = "Jetway-Timestamp"
_TIMEOUT_SECONDS = 10.0
_SHORTEST_SECRET = 16
_TRY_LATER = frozenset({408, 425, 429})


class Webhook:
    """Implements `ports.AlertSender`."""

    def __init__(
        self,
        url: str,
        secret: bytes,
        clock: Clock,
        *,
        allow_private: bool | Sequence[str] = False,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._url = url
        self._host = urlsplit(url).hostname or ""
        self._secret = secret
        self._clock = clock
        self._allow_all = allow_private is True
        self._allowed = (
            [ip_network(each) for each in allow_private] if not isinstance(allow_private, bool) else []
        )
        self._tls = tls or ssl.create_default_context()

    async def send(self, alert_id: str, kind: str, body: bytes) -> None:
        """One attempt. Raises RejectedError where another one is of no use, else UnavailableError."""
        try:
            status = await self._post(alert_id, kind, body)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
            if isinstance(cause, _ForbiddenAddressError):
                raise RejectedError(str(cause)) from None
            # Not the error's own text: it may hold the whole address, and that a secret.
            raise UnavailableError(f"not reached: {type(error).__name__}") from None
        except ValueError as error:  # a name that cannot be looked up: it will not be better the next time
            raise RejectedError(f"its address cannot be used: {type(error).__name__}") from None
        if 200 <= status < 300:
            return
        if status >= 500 or status in _TRY_LATER:
            raise UnavailableError(f"answered {status}")
        raise RejectedError(f"answered {status}")

    async def _post(self, alert_id: str, kind: str, body: bytes) -> int:
        if _is_address(self._host):  # aiohttp resolves names only
            self.check(self._host)
        connector = aiohttp.TCPConnector(resolver=_Checked(self), ssl=self._tls, use_dns_cache=False)
        timeout = aiohttp.ClientTimeout(total=_TIMEOUT_SECONDS)
        headers = self._headers(alert_id, kind, body)
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout, trust_env=False) as session,
            session.post(self._url, data=body, headers=headers, allow_redirects=False) as answer,
        ):
            return answer.status

    def _headers(self, alert_id: str, kind: str, body: bytes) -> dict[str, str]:
        timestamp = str(int(self._clock.now().timestamp()))
        return {
            "Content-Type": "application/json",
            "User-Agent": "jetway",
            "Jetway-Event": kind,
            "Jetway-Delivery": alert_id,
            TIMESTAMP: timestamp,
            SIGNATURE: "sha256=" + sign(self._secret, timestamp, body),
        }

    def check(self, address: str) -> None:
        """Raise for an address that must not be connected to."""
        if self._allow_all or is_public(address):
            return
        found = _plain(address)
        if not any(found in network for network in self._allowed):
            raise _ForbiddenAddressError(
                f"{address} is not a public address, and allow_private does not name it"
            )


def open_webhooks(settings: AlertsSettings, clock: Clock) -> list[Webhook]:
    """Those of the settings, in their order. Raises StartupError, naming the setting."""
    return [
        Webhook(
            each.url.get_secret_value(),
            read_secret(each.secret_file),
            clock,
            allow_private=each.allow_private,
            tls=_tls(each.tls_ca),
        )
        for each in settings.webhooks
    ]


def sign(secret: bytes, timestamp: str, body: bytes) -> str:
    """HMAC-SHA256 over `<timestamp>.<body>`, hex."""
    return hmac.new(secret, timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()


def is_public(address: str) -> bool:
    """Whether an address belongs to the internet at large, also as IPv6 spells one of IPv4."""
    found = _plain(address)
    if isinstance(found, IPv6Address) and found.is_site_local:
        return False  # long out of use, and still private where somebody uses it
    return found.is_global and not found.is_multicast and not found.is_reserved


def _plain(address: str) -> IPv4Address | IPv6Address:
    """Without its zone, and as one of IPv4 where IPv6 only spells one."""
    found = ip_address(address.partition("%")[0])
    if isinstance(found, IPv6Address):
        return found.ipv4_mapped or found.sixtofour or found
    return found


def read_secret(file: Path) -> bytes:
    """The secret in a file, without white space around it. Raises StartupError."""
    try:
        secret = file.read_bytes().strip()
    except OSError as error:
        raise StartupError(f"alerts.webhooks.secret_file: cannot read {file}: {error.strerror}") from None
    if len(secret) < _SHORTEST_SECRET:
        raise StartupError(
            f"alerts.webhooks.secret_file: {file} must hold at least {_SHORTEST_SECRET} characters"
        )
    return secret


def _tls(ca: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=str(ca) if ca else None)
    except OSError as error:
        raise StartupError(f"alerts.webhooks.tls_ca: cannot use {ca}: {error.strerror}") from None


class _ForbiddenAddressError(OSError):
    """An address that is not to be reached from here."""


class _Checked(AbstractResolver):
    """Resolves, and gives out only what may be connected to."""

    def __init__(self, webhook: Webhook) -> None:
        self._webhook = webhook
        self._inner = ThreadedResolver(loop=asyncio.get_running_loop())

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = await self._inner.resolve(host, port, family)
        for each in found:
            self._webhook.check(each["host"])
        return found

    async def close(self) -> None:
        await self._inner.close()


def _is_address(host: str) -> bool:
    try:
        ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True
