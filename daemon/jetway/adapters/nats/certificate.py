"""The embedded server's certificate: exchanged while connections live on."""

from __future__ import annotations

import asyncio
from pathlib import Path

import structlog

from jetway.adapters.nats.server import EmbeddedServer
from jetway.adapters.statedir import atomic_write
from jetway.core.errors import PortError
from jetway.ports import ServedCertificate, ServerCertificate

log = structlog.get_logger()

LOOK_SECONDS = 60.0
CA_FILE = "ca.pem"
"""In the server's directory: what trusts its certificate on this machine."""


class CertificateKeeper:
    """Loads the certificate, and again when it is time for another; the server is then told to look."""

    def __init__(self, source: ServerCertificate, directory: Path) -> None:
        self._source = source
        self._trust = directory / CA_FILE
        self._served: ServedCertificate | None = None
        self._failed = ""

    async def load(self) -> ServedCertificate:
        """Load it, and write what trusts it. Raises PortError, OSError."""
        self._trust.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._served = served = await asyncio.to_thread(self._source.load)
        atomic_write(self._trust, served.pem.encode(), 0o644)
        return served

    async def run(self, server: EmbeddedServer) -> None:
        """Renew it, or take over changed files, for ever."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if self._served is not None and await asyncio.to_thread(self._source.due, self._served):
                await self.reload(server)

    async def reload(self, server: EmbeddedServer) -> bool:
        """Load it anew; whether that worked. If not, the one before goes on being shown."""
        try:
            served = await self.load()
        except (PortError, OSError) as error:
            if str(error) != self._failed:  # looked at every minute, told once
                log.error("the old certificate stays", action="nats_certificate_kept", why=str(error))
            self._failed = str(error)
            return False
        self._failed = ""
        server.reload()
        log.info("certificate loaded", action="nats_certificate", expires_at=served.expires_at.isoformat())
        return True
