"""What the HTTPS listener shows: a certificate that can be exchanged while connections live on."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable

import structlog
from prometheus_client import CollectorRegistry, Gauge

from jetway.core.errors import PortError, StartupError
from jetway.ports import ServedCertificate, ServerCertificate

log = structlog.get_logger()

LOOK_SECONDS = 60.0
"""How often the certificate is looked at: after a renewal by somebody else, new connections see it so late."""


class Tls:
    """The server's side of TLS, 1.2 or newer. `open()`, then `context`; `run()` keeps the certificate fresh."""

    def __init__(self, source: ServerCertificate, registry: CollectorRegistry) -> None:
        self._source = source
        self._served: ServedCertificate | None = None
        self._current: ssl.SSLContext | None = None
        self._reloading = asyncio.Lock()
        self._failed = ""
        self.on_change: list[Callable[[], None]] = []
        """Called after another certificate is shown."""
        self._expires = Gauge(
            "jetway_http_certificate_expires_seconds",
            "When the certificate that is shown expires, in seconds since 1970.",
            registry=registry,
        )
        self.context = _context()
        """For the listener. Each handshake is led on to the certificate of that moment."""
        self.context.sni_callback = self._choose

    @property
    def certificate_pem(self) -> str:
        """The certificate that is shown, alone: what a program on this machine knows the server by."""
        return self._served.alone if self._served else ""

    async def open(self) -> None:
        """Load the first certificate. Raises StartupError, naming the setting."""
        try:
            await self._load()
        except PortError as error:
            raise StartupError(str(error)) from error

    async def reload(self) -> bool:
        """Load the certificate anew; whether that worked. If not, the one before goes on being shown."""
        async with self._reloading:
            try:
                await self._load()
            except PortError as error:
                # Looked at every minute, told once.
                if str(error) != self._failed:
                    log.error("the old certificate stays", action="http_certificate_kept", why=str(error))
                self._failed = str(error)
                return False
        self._failed = ""
        for tell in self.on_change:
            try:
                tell()
            except OSError as error:
                # The disk is full: what is served is the new one all the same.
                log.error("the new certificate is not told", action="http_certificate_untold", why=str(error))
        return True

    async def run(self) -> None:
        """Renew, or take over changed files, for ever."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            await self.look()

    async def look(self) -> None:
        """Load the certificate anew where it is time for that."""
        if self._served is not None and await asyncio.to_thread(self._source.due, self._served):
            await self.reload()

    async def _load(self) -> None:
        served, context = await asyncio.to_thread(self._read)
        self._served, self._current = served, context
        self._expires.set(served.expires_at.timestamp())
        at = served.expires_at.isoformat()
        log.info("certificate loaded", action="http_certificate", file=str(served.certificate), expires_at=at)

    def _read(self) -> tuple[ServedCertificate, ssl.SSLContext]:
        served, context = self._source.load(), _context()
        try:
            context.load_cert_chain(served.certificate, served.key, password=_no_password)
        except (OSError, ValueError) as error:
            # An SSLError is an OSError; its text names no contents.
            reason = getattr(error, "reason", None) or error
            raise PortError(
                f"http.tls_cert, tls_key: {served.certificate} cannot be used: {reason}"
            ) from None
        return served, context

    def _choose(self, connection: ssl.SSLObject, _name: str | None, _first: ssl.SSLContext) -> None:
        if self._current is not None:
            connection.context = self._current


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


def _no_password() -> str:
    """Without this an encrypted key would have the daemon ask at the terminal."""
    raise ValueError("the key is encrypted")
