"""The link: fails fast, comes back, keeps its subscriptions, and stays small."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import nats
import pytest
from nkeys import ErrInvalidSeed
from structlog.testing import capture_logs

from jetway.adapters.clock import SystemClock
from jetway.adapters.nats.connection import Connection, ConnectionOptions
from jetway.adapters.nats.dial import ToldClient
from jetway.core.errors import (
    ExhaustedError,
    OutcomeUnknownError,
    PortError,
    RejectedError,
    StartupError,
    UnavailableError,
)
from support.nats_server import Gateway, NatsServer, connect_to, settled


@pytest.fixture
async def connection(nats_server: NatsServer) -> AsyncIterator[Connection]:
    connection = await connect_to(nats_server)
    yield connection
    await connection.close()


async def eventually(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not holds():  # noqa: ASYNC110 - there is nothing to wait on
            await asyncio.sleep(0.01)


async def answer_with(connection: Connection, subject: str, answer: bytes) -> None:
    """Somebody at the other end who answers."""
    tasks: set[asyncio.Task[None]] = set()
    await connection.subscribe(
        subject, lambda m: tasks.add(asyncio.ensure_future(connection.publish(m.reply, answer)))
    )


async def test_a_damaged_seed_at_one_attempt_does_not_end_them_all(
    connection: Connection, nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of credentials that is being rewritten: what the library raises is no error of NATS."""
    failed: list[str] = []

    async def damaged(*arguments: Any, **more: Any) -> None:
        if len(failed) < 2:
            failed.append("seed")
            raise ErrInvalidSeed
        await send_connect(*arguments, **more)

    send_connect = ToldClient._process_connect_init
    monkeypatch.setattr(ToldClient, "_process_connect_init", damaged)
    await nats_server.kill()
    await nats_server.start()
    await eventually(lambda: len(failed) == 2 and connection.connected)


async def test_a_file_of_credentials_that_is_none_is_said_so_and_tried_again(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    file = tmp_path / "jetway.creds"
    file.write_text("half of a file\n")
    connection = Connection(ConnectionOptions((nats_server.url,), creds_file=file), SystemClock())
    with pytest.raises(StartupError, match=r"jetway\.creds"):
        await connection.connect(timeout=0.1)
    await connection.close()


async def test_a_question_gets_its_answer(connection: Connection) -> None:
    await answer_with(connection, "question", b"answer")

    answers = await asyncio.gather(*(connection.request("question") for _ in range(200)))

    assert {answer.data for answer in answers} == {b"answer"}


async def test_a_question_that_nobody_hears_fails_at_once(connection: Connection) -> None:
    with pytest.raises(UnavailableError) as raised:
        async with asyncio.timeout(30):
            await connection.request("nobody", timeout=600)

    assert not isinstance(raised.value, OutcomeUnknownError)


async def test_a_question_without_an_answer_has_an_unknown_outcome(connection: Connection) -> None:
    await connection.subscribe("silence", lambda m: None)

    with pytest.raises(OutcomeUnknownError):
        await connection.request("silence", timeout=0.1)


async def test_what_is_in_flight_fails_when_the_link_goes(
    connection: Connection, nats_server: NatsServer
) -> None:
    heard: list[str] = []
    await connection.subscribe("silence", lambda m: heard.append(m.subject))
    asking = asyncio.create_task(connection.request("silence", timeout=600))
    await eventually(lambda: bool(heard))

    await nats_server.kill()

    with pytest.raises(OutcomeUnknownError):
        async with asyncio.timeout(30):
            await asking


async def test_without_a_link_nothing_is_kept_for_later(
    connection: Connection, nats_server: NatsServer
) -> None:
    await nats_server.kill()
    await eventually(lambda: not connection.connected)

    async with asyncio.timeout(30):  # not for as long as an answer may take
        with pytest.raises(UnavailableError) as raised:
            await connection.request("anything", timeout=600)
        with pytest.raises(UnavailableError):
            await connection.publish("anything", b"late")

    assert not isinstance(raised.value, OutcomeUnknownError)
    heard: list[bytes] = []
    await connection.subscribe("anything", lambda m: heard.append(m.data))
    await nats_server.start()
    assert await connection.wait_connected(30)
    await connection.publish("anything", b"now")
    await eventually(lambda: bool(heard))
    assert heard == [b"now"]


async def test_the_link_comes_back_with_all_subscriptions_and_tells(
    connection: Connection, nats_server: NatsServer
) -> None:
    told: list[str] = []
    connection.on_disconnect.append(lambda: told.append("lost"))
    connection.on_reconnect.append(lambda: told.append("back"))
    heard: list[bytes] = []
    await connection.subscribe("news", lambda m: heard.append(m.data))
    before = connection.state

    for round_ in range(2):
        await nats_server.kill()
        await eventually(lambda: not connection.connected)
        assert not await connection.wait_connected(0.01)
        await nats_server.start()
        assert await connection.wait_connected(30)
        await connection.publish("news", b"%d" % round_)
        await eventually(lambda: len(heard) == round_ + 1)  # noqa: B023 - called at once

    assert told == ["lost", "back", "lost", "back"]
    assert connection.state.connected
    assert connection.state.reconnects == before.reconnects + 2
    assert connection.state.since > before.since
    assert connection.state.since_monotonic > before.since_monotonic


async def test_a_link_that_is_lost_with_something_unsent_comes_back(
    connection: Connection, nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With something unsent the library stumbles over the reset while it closes, and calls nobody back."""
    client: Any = connection._client

    async def drain() -> None:
        raise ConnectionResetError

    monkeypatch.setattr(client._transport, "drain", drain)
    client._pending, client._pending_data_size = [b"PING\r\n"], 6
    await client._process_op_err(ConnectionResetError())
    assert not connection.connected
    assert await connection.wait_connected(30)
    await connection.publish("news", b"")


async def test_a_callback_that_fails_harms_no_other(connection: Connection, nats_server: NatsServer) -> None:
    told: list[str] = []

    def fail() -> None:
        raise ValueError("no")

    connection.on_disconnect.extend([fail, lambda: told.append("lost")])
    await nats_server.kill()
    await eventually(lambda: told == ["lost"])


async def test_a_subscription_that_is_refused_does_not_keep_the_link_from_coming_back(
    connection: Connection, nats_server: NatsServer
) -> None:
    with pytest.raises(UnavailableError):
        await connection.subscribe("not a subject", lambda m: None)

    await nats_server.kill()
    await nats_server.start()
    await eventually(lambda: connection.state.reconnects == 1)


async def test_an_unsubscribed_handler_hears_nothing(connection: Connection) -> None:
    heard: list[bytes] = []
    subscription = await connection.subscribe("news", lambda m: heard.append(m.data))
    await connection.unsubscribe(subscription)
    await connection.unsubscribe(subscription)
    await connection.publish("news", b"1")
    await answer_with(connection, "question", b"answer")
    await connection.request("question")

    assert heard == []


async def test_no_server_is_told_with_the_address_and_without_the_password() -> None:
    options = ConnectionOptions(("nats://user:hunter2@127.0.0.1:1",))
    connection = Connection(options, SystemClock())

    with pytest.raises(StartupError, match=r"nats\.urls: no connection to nats://127\.0\.0\.1:1") as raised:
        await connection.connect(timeout=0.2)

    assert "hunter2" not in str(raised.value)
    await connection.close()


async def test_a_second_address_is_tried(nats_server: NatsServer) -> None:
    connection = Connection(ConnectionOptions(("nats://127.0.0.1:1", nats_server.url)), SystemClock())
    await connection.connect()
    assert connection.connected
    await connection.close()


async def test_a_wrong_password_is_told(tmp_path: Path) -> None:
    server = NatsServer(tmp_path / "strict", extra="authorization { user: daemon, password: right }")
    await server.start()
    url = server.url.replace("://", "://daemon:wrong@")
    connection = Connection(ConnectionOptions((url,)), SystemClock())
    try:
        with pytest.raises(StartupError, match=r"(?i)authorization"):
            await connection.connect(timeout=3.0)
    finally:
        await connection.close()
        await server.stop()


async def test_a_server_without_tls_is_refused_where_tls_is_asked_for(nats_server: NatsServer) -> None:
    connection = Connection(ConnectionOptions((nats_server.url.replace("nats://", "tls://"),)), SystemClock())
    with pytest.raises(StartupError, match="does not offer TLS"):
        await connection.connect(timeout=0.2)
    await connection.close()


@pytest.mark.parametrize("name", ["tls_ca", "tls_cert"])
async def test_tls_files_that_cannot_be_read_are_told(tmp_path: Path, name: str) -> None:
    options = ConnectionOptions(("nats://127.0.0.1:1",), **{name: tmp_path / "absent"})  # type: ignore[arg-type]

    with pytest.raises(StartupError, match=r"nats\.tls_ca"):
        await Connection(options, SystemClock()).connect(timeout=0.2)


async def test_a_message_that_is_too_large_is_an_error_and_the_link_stands(connection: Connection) -> None:
    with pytest.raises(PortError, match="more than the NATS server takes"):
        await connection.publish("anything", b"x" * (5 * 1024 * 1024))

    assert connection.connected


async def test_a_slow_handler_costs_messages_and_no_memory(
    nats_server: NatsServer, connection: Connection
) -> None:
    heard = 0

    def handle(_: object) -> None:
        nonlocal heard
        heard += 1

    with capture_logs() as lines:
        subscription = await connection.subscribe("flood", handle, pending_messages=50, pending_bytes=100_000)
        client = await nats.connect(nats_server.url)
        for _ in range(20_000):
            await client.publish("flood", b"x" * 200)
        await settled(client)
        await client.close()
        await eventually(lambda: heard + subscription.dropped == 20_000)

    assert subscription.dropped > 1000
    assert len([line for line in lines if line["action"] == "nats_slow_consumer"]) <= 2


async def test_a_server_that_says_nothing_more_makes_outcomes_unknown_and_closing_quick(
    nats_server: NatsServer,
) -> None:
    connection = await connect_to(nats_server)
    await nats_server.pause()
    try:
        with pytest.raises(OutcomeUnknownError):
            await connection.request("$JS.API.INFO", timeout=0.2)
        async with asyncio.timeout(30):
            await connection.close()
    finally:
        nats_server.resume()
        await connection.close()


async def test_closing_twice_is_harmless_and_ends_everything(nats_server: NatsServer) -> None:
    connection = await connect_to(nats_server)
    await connection.close()
    await connection.close()

    assert not connection.connected
    with pytest.raises(UnavailableError):
        await connection.publish("anything")


async def test_closing_while_the_server_is_away_is_quick(nats_server: NatsServer) -> None:
    connection = await connect_to(nats_server)
    await nats_server.kill()
    await eventually(lambda: not connection.connected)

    async with asyncio.timeout(30):
        await connection.close()

    assert not connection.connected


async def test_headers_count_among_what_is_too_large(connection: Connection) -> None:
    """The server counts them, and closes the connection of who sends more than it takes."""
    largest = 4 * 1024 * 1024
    headers = {"Nats-Expected-Last-Subject-Sequence": "0"}
    for size in range(largest - 60, largest + 1, 5):
        try:
            await connection.publish("anything", b"x" * size, headers=headers)
        except RejectedError:
            break
    else:
        raise AssertionError("nothing was refused")
    with pytest.raises(UnavailableError, match="nobody"):
        await connection.request("nobody.listens")
    assert (connection.connected, connection.reconnects) == (True, 0)


async def test_a_stream_without_room_is_told_from_one_that_refuses(gateway: Gateway) -> None:
    config = {"name": "SMALL", "subjects": ["small"], "max_bytes": 2000, "discard": "new"}
    await gateway.jetstream.call("STREAM.CREATE.SMALL", config)
    with pytest.raises(ExhaustedError, match="maximum bytes exceeded"):
        for _ in range(3):
            await gateway.jetstream.publish("small", b"x" * 900)
    config = {"name": "NARROW", "subjects": ["narrow"], "max_msg_size": 100}
    await gateway.jetstream.call("STREAM.CREATE.NARROW", config)
    with pytest.raises(RejectedError, match="10054"):
        await gateway.jetstream.publish("narrow", b"x" * 900)
