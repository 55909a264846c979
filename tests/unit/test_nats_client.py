"""Whoever stands between a client and NATS cannot talk it out of TLS. Flushing waits for what was sent."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from jetway.adapters.authority.nkeys import Kind, NatsKey
from jetway.adapters.clock import SystemClock
from jetway.adapters.nats.connection import Connection, ConnectionOptions
from jetway.adapters.nats.dial import Credentials
from jetway.core.creds import creds_text
from jetway.core.errors import StartupError
from jetway.edge.joined import CREDS_FILE, parse_answer
from jetway.edge.link import Link, LinkError
from support.fake_gateway import redeem_answer
from support.tls import authority

GREETING = {
    "server_id": "between",
    "version": "2.15.1",
    "proto": 1,
    "headers": True,
    "max_payload": 1048576,
    "auth_required": True,
    "nonce": "NONCEOFTHEREALSERVER",
}


class Between:
    """A server that relays a greeting without `tls_required`, and takes whatever comes."""

    def __init__(self) -> None:
        self.port = 0
        self.greeted = 0
        self.heard = b""

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.greeted += 1
        writer.write(b"INFO " + json.dumps(GREETING).encode() + b"\r\n")
        while line := await reader.readline():
            self.heard += line
            if line.startswith(b"PING"):
                writer.write(b"PONG\r\n")
        writer.close()


@asynccontextmanager
async def between() -> AsyncIterator[Between]:
    it = Between()
    server = await asyncio.start_server(it.take, "127.0.0.1", 0)
    it.port = server.sockets[0].getsockname()[1]
    try:
        yield it
    finally:
        server.close()
        await server.wait_closed()


@pytest.mark.parametrize(
    ("scheme", "with_ca"), [("tls", False), ("tls", True), ("nats", True)], ids=["url", "both", "authority"]
)
async def test_the_daemon_tells_nothing_to_a_server_without_tls(scheme: str, with_ca: bool) -> None:
    asked: list[bytes] = []

    def sign(nonce: bytes) -> bytes:
        asked.append(nonce)
        return b"signed"

    async with between() as it:
        options = ConnectionOptions(
            (f"{scheme}://127.0.0.1:{it.port}",),
            credentials=Credentials(lambda: "the.daemon's.jwt", sign),
            ca_pem=authority().root_pem if with_ca else "",
        )
        connection = Connection(options, SystemClock())
        with pytest.raises(StartupError, match="does not offer TLS"):
            await connection.connect(timeout=0.2)
        await connection.close()

        assert it.greeted
    assert (it.heard, asked) == (b"", [])


@pytest.mark.parametrize(
    ("scheme", "with_ca"),
    [("tls", False), ("tls", True), ("nats", True), ("ws", True)],
    ids=["url", "both", "authority", "websocket"],
)
async def test_an_edge_host_tells_nothing_to_a_server_without_tls(
    tmp_path: Path, scheme: str, with_ca: bool
) -> None:
    (tmp_path / CREDS_FILE).write_text(creds_text("a.b.c", NatsKey.generate(Kind.USER).seed))
    async with between() as it:
        answer = redeem_answer(nats_url=f"{scheme}://127.0.0.1:{it.port}")
        answer["nats"]["ca_pem"] = authority().root_pem if with_ca else ""
        link = Link(parse_answer(json.dumps(answer).encode()), tmp_path)
        with pytest.raises(LinkError) as refused:
            await link.open()
        await link.close()

    assert b"CONNECT" not in it.heard
    if scheme != "ws":
        assert "does not offer TLS" in str(refused.value)


async def test_where_no_tls_is_asked_for_a_plain_server_is_spoken_to(tmp_path: Path) -> None:
    async with between() as it:
        link = Link(
            parse_answer(json.dumps(redeem_answer(nats_url=f"nats://127.0.0.1:{it.port}")).encode()), tmp_path
        )
        await link.open()
        assert link.is_open
        await link.close()

    assert it.heard.startswith(b"CONNECT")


async def test_nothing_comes_to_the_server_behind_the_last_ping_of_a_flush(tmp_path: Path) -> None:
    async def ignore(_message: object) -> None: ...

    async with between() as it:
        link = Link(
            parse_answer(json.dumps(redeem_answer(nats_url=f"nats://127.0.0.1:{it.port}")).encode()), tmp_path
        )
        await link.open()
        await link.subscribe("edge.config.pollers.p1", ignore)
        for _ in range(1000):
            await link.publish("edge.heartbeat.poller.p1", b"{}")
        await link.flush()

        heard = it.heard.splitlines()
        await link.close()

    commands = [line.split()[0] for line in heard if line.startswith((b"SUB", b"PUB", b"PING"))]
    assert (commands.count(b"SUB"), commands.count(b"PUB")) == (1, 1000)
    assert commands[-1] == b"PING"
