"""A served world's doors, opened once more over HTTPS."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

from prometheus_client import CollectorRegistry

from jetway.adapters.authority.ca import OwnAuthority
from jetway.entry.http.server import HttpServer
from jetway.entry.http.tls import Tls
from jetway.ports import ServerCertificate
from support.http_world import World, http_settings


@asynccontextmanager
async def served_by(
    authority: OwnAuthority, world: World, folder: Path, source: ServerCertificate, **http: object
) -> AsyncIterator[tuple[HttpServer, Tls]]:
    """A server of that authority, which shows the certificate of `source`; more are settings of `http`."""
    registry = CollectorRegistry()
    tls = Tls(source, registry)
    await tls.open()

    async def nothing_revoked() -> str:
        return authority.crl([], datetime.now(UTC))

    doors = dataclasses.replace(world.doors, certificates=authority, crl=nothing_revoked)
    server = HttpServer(doors, http_settings(folder, **http), registry, world.clock, tls)
    await server.start()
    try:
        yield server, tls
    finally:
        await server.stop()
