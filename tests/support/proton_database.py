"""A database of its own on a Proton server, the stand-in or a real one, and the adapter on it."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from jetway.adapters.clock import SystemClock
from jetway.adapters.database.proton import ProtonDatabase
from jetway.adapters.database.proton_client import ProtonClient, Target, verifying_context
from jetway.core.errors import PortError
from jetway.database_url import parse_proton_url
from jetway.ports import Clock

PROTON_MIGRATIONS = Path(__file__).parents[2] / "migrations" / "proton"


def target_of(url: str, *, database: str = "", authority: Path | None = None, **changes: Any) -> Target:
    """What the daemon would make of a URL; another `database` in place of its own."""
    parts = parse_proton_url(url)
    return Target(
        label=parts.label,
        host=parts.host,
        port=parts.port,
        database=database or parts.database,
        user=parts.user,
        password=lambda: parts.password,
        tls=verifying_context(authority) if parts.tls else None,
        **changes,
    )


@contextlib.contextmanager
def own_database(url: str) -> Iterator[Target]:
    """A database that nobody else uses, dropped at the end. The user of the URL may create databases."""
    name = f"jetway_test_{uuid.uuid4().hex[:12]}"
    with contextlib.closing(ProtonClient(target_of(url))) as client:
        client.command(f"CREATE DATABASE {name}")
    try:
        yield target_of(url, database=name)
    finally:
        # The one that made it may have lost its connection; a server that is gone has nothing to be dropped.
        with contextlib.closing(ProtonClient(target_of(url))) as client, contextlib.suppress(PortError):
            client.command(f"DROP DATABASE {name}")


@contextlib.asynccontextmanager
async def opened(
    target: Target,
    *,
    migrations: Path = PROTON_MIGRATIONS,
    clock: Clock | None = None,
    deadline: float = 15.0,
) -> AsyncIterator[ProtonDatabase]:
    """The adapter, open and not migrated."""
    database = ProtonDatabase(target, migrations, clock or SystemClock(), deadline=deadline)
    await database.open()
    try:
        yield database
    finally:
        await database.close()
