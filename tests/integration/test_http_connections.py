"""Connections that are too many, and those whose clients are too slow. Real sockets, short deadlines."""

from __future__ import annotations

import asyncio
import json
import resource
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from jetway.core.record import ServiceRecord
from jetway.entry.http import api, connections, protocol
from jetway.entry.http.connections import Watch, allowed_connections
from support.http_world import World, http_world

PACKAGES = "/api/admin/edge-packages"
NEW = {"component_type": "poller", "label": "x"}
GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 1.0)
    monkeypatch.setattr(connections, "STALL_SECONDS", 1.0)
    monkeypatch.setattr(connections, "SEND_SECONDS", 1.0)
    monkeypatch.setattr(protocol, "LOOK_SECONDS", 0.02)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with http_world(tmp_path, max_connections=4) as made:
        yield made


@asynccontextmanager
async def connection(world: World) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    host, port = world.server.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield reader, writer
    finally:
        writer.close()
        await asyncio.gather(writer.wait_closed(), return_exceptions=True)


async def until(check: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not check():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)


def gauge(world: World, name: str, **labels: str) -> float:
    return world.registry.get_sample_value(name, labels) or 0.0


def is_open(world: World, number: int) -> Callable[[], bool]:
    return lambda: gauge(world, "jetway_http_connections") == number


# --- too many


async def test_one_connection_too_many_is_told_so_and_a_free_place_is_taken(world: World) -> None:
    async with connection(world), connection(world), connection(world):
        async with connection(world) as (reader, writer):
            await until(is_open(world, 4))
            async with connection(world) as (late, _):
                async with asyncio.timeout(30):
                    head, _, body = (await late.read()).partition(b"\r\n\r\n")
            lines = head.split(b"\r\n")
            assert lines[0] == b"HTTP/1.1 503 Service Unavailable"
            assert {b"Connection: close", b"Retry-After: 5", b"Server: jetway"} <= set(lines)
            assert f"Content-Length: {len(body)}".encode() in lines
            assert json.loads(body)["code"] == "too_many_connections"
            writer.write(GET)
            assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
        await until(is_open(world, 3))
        async with connection(world) as (reader, writer):
            writer.write(GET)
            assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
    await until(is_open(world, 0))
    assert gauge(world, "jetway_http_connections_cut_total", reason="full") == 1


def test_open_files_leave_room_for_what_is_not_http(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = [(1024, 4096)]
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _, new: limits.append(new))
    assert allowed_connections(500) == 500
    assert limits == [(1024, 4096)], "there was room"
    assert allowed_connections(2000) == 2000
    assert limits[-1] == (2256, 4096), "raised as far as needed"
    with capture_logs() as lines:
        assert allowed_connections(10_000) == 4096 - 256
    assert limits[-1] == (4096, 4096), "raised as far as possible"
    assert [line["action"] for line in lines] == ["http_connections_limited"]


def test_a_limit_that_may_not_be_raised_is_lived_with(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: int, __: tuple[int, int]) -> None:
        raise ValueError("not allowed to raise maximum limit")

    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 4096))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    assert allowed_connections(2000) == 1024 - 256


# --- too slow


@pytest.mark.usefixtures("hasty")
async def test_a_head_that_trickles_is_ended(world: World) -> None:
    async with connection(world) as (reader, writer):
        # Not to its end: a byte that crosses the answer makes that a reset.
        answer = asyncio.create_task(reader.readline())
        for byte in b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + b"X: " + b"x" * 2000:
            if answer.done():
                break
            writer.write(bytes([byte]))
            await asyncio.sleep(0.01)
        assert (await answer).startswith(b"HTTP/1.1 408 ")
    await until(is_open(world, 0))
    assert gauge(world, "jetway_http_connections_cut_total", reason="slow_head") == 1


@pytest.mark.usefixtures("hasty")
async def test_a_second_head_that_trickles_is_ended_too(world: World) -> None:
    async with connection(world) as (reader, writer):
        writer.write(GET)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        await reader.readexactly(len(b'{"status":"ok"}'))
        writer.write(b"GET /healthz")
        async with asyncio.timeout(30):
            assert (await reader.read()).startswith(b"HTTP/1.1 408 ")


@pytest.mark.usefixtures("hasty")
async def test_an_idle_connection_and_a_slow_handler_are_no_slow_clients(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = world.ledger.write

    async def slow(record: ServiceRecord, expected: int) -> int:
        await asyncio.sleep(1.5)
        return await write(record, expected)

    monkeypatch.setattr(world.ledger, "write", slow)
    async with connection(world) as (reader, writer):
        assert (await world.call("POST", PACKAGES, NEW)).status == 201
        writer.write(GET)
        assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("path", ["/openapi.json", "/docs/swagger-ui-bundle.js"], ids=["document", "file"])
async def test_an_answer_that_nobody_reads_is_given_up(world: World, path: str) -> None:
    host, port = world.server.url.removeprefix("http://").split(":")
    loop = asyncio.get_running_loop()
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        await loop.sock_connect(client, (host, int(port)))
        await loop.sock_sendall(client, f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode() * 200)
        await until(lambda: gauge(world, "jetway_http_connections_cut_total", reason="stalled") == 1)
    await until(is_open(world, 0))


def test_a_reader_that_takes_a_little_is_slow_but_not_stalled() -> None:
    watch = Watch()
    for second in range(0, 600, 20):
        assert watch.verdict(float(second), unsent=1_000_000 - second) is None
    assert watch.verdict(600.0, unsent=1_000_000 - 580) is None
    assert watch.verdict(611.0, unsent=1_000_000 - 580) == "stalled"


async def test_a_handler_that_takes_too_long_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def forever(*_: object) -> int:
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    # A route's deadline is taken from here when it is declared, so what is declared already is replaced.
    real = asyncio.timeout
    monkeypatch.setattr(
        asyncio, "timeout", lambda delay: real(0.2 if delay == api.HANDLER_SECONDS else delay)
    )
    async with http_world(tmp_path) as world:
        monkeypatch.setattr(world.ledger, "write", forever)
        answer = await world.call("POST", PACKAGES, NEW)
        assert (answer.status, answer.code) == (503, "outcome_unknown")
        monkeypatch.setattr(world.database, "find_events", forever)
        answer = await world.call("GET", "/api/admin/events")
        assert (answer.status, answer.code) == (503, "unavailable")
