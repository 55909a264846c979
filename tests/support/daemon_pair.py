"""Two installed daemons on one NATS server, with one registry database and the same keys."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from support.daemon import TOO_SLOW, Daemon, eventually
from support.nats_server import NatsServer

START_AGAIN_SECONDS = 60.0
"""A lease and a few looks at it, on a machine that is slow at times."""


class SharingDaemon(Daemon):
    """One of several."""

    def __init__(self, folder: Path, server: NatsServer, database: Path, **settings: str) -> None:
        self.database = database
        external = {
            "JETWAY_NATS__MODE": "external",
            "JETWAY_NATS__URLS": json.dumps([server.url]),
            "JETWAY_DATABASE__URL": f"sqlite:///{database}",
            "JETWAY_HTTP__PUBLIC_URL": "http://gw.example",
            "JETWAY_HTTP__DETAIL_FOR_ALL": "true",
            "JETWAY_HTTP__FAILURES_PER_MINUTE": "1000000",
        }
        super().__init__(folder, **{**external, **settings})
        self.expected_errors |= TOO_SLOW

    def rows(self, query: str) -> list[dict[str, Any]]:
        with contextlib.closing(
            sqlite3.connect(f"file:{self.database}?mode=ro", uri=True, timeout=30)
        ) as database:
            database.row_factory = sqlite3.Row
            return [dict(row) for row in database.execute(query)]

    @property
    def leads(self) -> bool:
        """What it said last of the lease; a process that is gone leads no more."""
        assert self.process is not None
        said = [line.action for line in self.log_lines() if line.action in ("lease_taken", "lease_lost")]
        return self.process.poll() is None and said[-1:] == ["lease_taken"]

    def take_keys_of(self, other: Daemon) -> None:
        self.state.mkdir(mode=0o700, parents=True, exist_ok=True)
        shutil.copytree(other.state / "keys", self.state / "keys")


@dataclass
class Pair:
    """Both, and what they stand on. `one` was there first."""

    server: NatsServer
    one: SharingDaemon
    other: SharingDaemon

    @property
    def both(self) -> tuple[SharingDaemon, SharingDaemon]:
        return self.one, self.other

    async def leader(self) -> tuple[SharingDaemon, SharingDaemon]:
        """(who leads, who stands by), once one does."""

        def found() -> tuple[SharingDaemon, SharingDaemon]:
            leading = [daemon for daemon in self.both if daemon.leads]
            assert len(leading) == 1, f"{len(leading)} lead"
            return leading[0], self.other if leading[0] is self.one else self.one

        return await asyncio.to_thread(eventually, found, START_AGAIN_SECONDS)

    @asynccontextmanager
    async def sessions(self) -> AsyncIterator[tuple[aiohttp.ClientSession, aiohttp.ClientSession]]:
        """HTTP sessions of the administrator's, one with each."""
        headers = {"Authorization": f"Bearer {self.one.token}"}
        timeout = aiohttp.ClientTimeout(total=60)
        async with (
            aiohttp.ClientSession(self.one.url, headers=headers, timeout=timeout) as first,
            aiohttp.ClientSession(self.other.url, headers=headers, timeout=timeout) as second,
        ):
            yield first, second


def make_pair(folder: Path, server: NatsServer, **settings: str) -> Pair:
    """Two that have not begun yet."""
    database = folder / "registry.db"
    one = SharingDaemon(folder / "one", server, database, **settings)
    return Pair(server, one, SharingDaemon(folder / "other", server, database, **settings))


@asynccontextmanager
async def two_daemons(folder: Path, **settings: str) -> AsyncIterator[Pair]:
    """Both running; ended, and their logs looked through, with the block."""
    server = NatsServer(folder / "nats-server")
    await server.start()
    pair = make_pair(folder, server, **settings)
    try:
        await asyncio.to_thread(pair.one.start)
        pair.other.take_keys_of(pair.one)
        await asyncio.to_thread(pair.other.start)
        pair.other.token = pair.one.token
        pair.other.secrets.add(pair.one.token)
        yield pair
        for daemon in pair.both:
            if daemon.process is not None and daemon.process.poll() is None:
                assert await asyncio.to_thread(daemon.stop) == 0
            daemon.check_log()
    finally:
        for daemon in pair.both:
            daemon.discard()
        await server.stop()
