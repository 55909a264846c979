"""A real nats-server for tests, on a free loopback port, ended by the test that started it."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from nats.aio.client import Client

from jetway.adapters.clock import RandomIdentifiers, SystemClock
from jetway.adapters.nats.connection import Connection, ConnectionOptions
from jetway.adapters.nats.jetstream import JetStream
from jetway.adapters.nats.layout import Layout
from jetway.adapters.nats.ledger import NatsLedger
from jetway.adapters.nats.meta import LedgerMeta, MetaStore
from jetway.adapters.nats.names import Names
from jetway.adapters.nats.process import find_binary
from jetway.adapters.nats.schema import Schema
from support.ports import free_port

_READY_SECONDS = 60.0

_CONFIG = """\
server_name: "test"
listen: "127.0.0.1:{port}"
max_payload: {max_payload}
pid_file: "{directory}/pid"
{jetstream}
{extra}
"""


class NatsServer:
    """A plain child process: the test decides when it dies and comes back."""

    def __init__(
        self, directory: Path, *, jetstream: bool = True, extra: str = "", max_payload: str = "4MB"
    ) -> None:
        self.directory = directory
        self.port = free_port()
        store = f'jetstream {{ store_dir: "{directory}", sync_interval: always }}' if jetstream else ""
        directory.mkdir(parents=True, exist_ok=True)
        self._config = directory / "test.conf"
        self._config.write_text(
            _CONFIG.format(
                port=self.port, directory=directory, jetstream=store, extra=extra, max_payload=max_payload
            )
        )
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Start it, and return when it takes connections."""
        with (self.directory / "log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                str(find_binary()), "-c", str(self._config), stdout=log, stderr=log
            )
        async with asyncio.timeout(_READY_SECONDS):
            while not await self._answers():
                assert self._process.returncode is None, (self.directory / "log").read_text()
                await asyncio.sleep(0.01)

    async def _answers(self) -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        writer.close()
        await writer.wait_closed()
        return True

    async def kill(self) -> None:
        """As a power cut would, but for what the kernel keeps."""
        await self._end(signal.SIGKILL)

    async def stop(self) -> None:
        """In order. Safe to call again."""
        await self._end(signal.SIGTERM)

    async def pause(self) -> None:
        """It keeps its connections and says nothing more."""
        self._signal(signal.SIGSTOP)
        assert self._process is not None
        threads = Path(f"/proc/{self._process.pid}/task")
        async with asyncio.timeout(_READY_SECONDS):
            while not _are_stopped(threads):  # noqa: ASYNC110 - there is nothing to wait on
                await asyncio.sleep(0.005)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)

    async def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        if (
            number is not signal.SIGKILL
        ):  # which a process that stands still obeys as well, without another word
            process.send_signal(signal.SIGCONT)
        process.send_signal(number)
        await process.wait()


def _are_stopped(threads: Path) -> bool:
    return all(map(_is_stopped, threads.glob("*/stat")))


def _is_stopped(stat: Path) -> bool:
    try:
        return stat.read_text().rpartition(")")[2].split()[0] == "T"
    except OSError:
        return True


@dataclass
class Gateway:
    """What a daemon has of NATS."""

    server: NatsServer
    connection: Connection
    jetstream: JetStream
    names: Names
    meta: LedgerMeta

    @property
    def ledger(self) -> NatsLedger:
        return NatsLedger(self.jetstream, self.names, self.meta)


@asynccontextmanager
async def gateway_on(server: NatsServer, names: Names | None = None) -> AsyncIterator[Gateway]:
    """A connection with everything set up."""
    names = names or Names()
    connection = await connect_to(server)
    try:
        jetstream = JetStream(connection)
        await Schema(jetstream, Layout(names, 1, timedelta(days=90))).ensure()
        meta = await MetaStore(jetstream, names, SystemClock(), RandomIdentifiers()).open()
        yield Gateway(server, connection, jetstream, names, meta)
    finally:
        await connection.close()


async def settled(client: Client) -> None:
    """Return once the server has whatever the client sent or subscribed to so far.

    One flush of nats-py is not enough: its ping is written ahead of what still waits to be written.
    """
    for _ in range(2):
        await client.flush(timeout=30)


async def connect_to(server: NatsServer) -> Connection:
    """A connection; the caller closes it."""
    connection = Connection(ConnectionOptions((server.url,)), SystemClock())
    await connection.connect()
    return connection


@pytest.fixture
async def nats_server(tmp_path: Path) -> AsyncIterator[NatsServer]:
    """A server of the test's own, with an empty store."""
    server = NatsServer(tmp_path / "nats-server")
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def gateway(nats_server: NatsServer) -> AsyncIterator[Gateway]:
    """A gateway on a server of the test's own."""
    async with gateway_on(nats_server) as gateway:
        yield gateway
