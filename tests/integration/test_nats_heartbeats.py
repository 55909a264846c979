"""Heartbeats from the wire to the handler."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import nats
import pytest

from jetway.adapters.nats.heartbeats import NatsHeartbeats
from jetway.core.errors import UnavailableError
from jetway.ports import HeartbeatMessage
from support.nats_server import Gateway, settled

PREFIX = "edge.heartbeat"


async def eventually(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not holds():  # noqa: ASYNC110 - there is nothing to wait on
            await asyncio.sleep(0.01)


async def test_a_heartbeat_comes_as_it_was_sent(gateway: Gateway) -> None:
    heard: list[HeartbeatMessage] = []
    heartbeats = NatsHeartbeats(gateway.connection, PREFIX)
    await heartbeats.open(heard.append)
    client = await nats.connect(gateway.server.url)
    try:
        await client.publish(f"{PREFIX}.poller.p1", b"{}", reply="_INBOX_poller_p1.1", headers={"Trace": "7"})
        await client.publish(f"{PREFIX}.agent.p1.a1")
        await client.publish("edge.other", b"no")
        await eventually(lambda: len(heard) == 2)
    finally:
        await client.close()

    assert heard == [
        HeartbeatMessage(f"{PREFIX}.poller.p1", b"{}", "_INBOX_poller_p1.1", {"Trace": "7"}),
        HeartbeatMessage(f"{PREFIX}.agent.p1.a1", b""),
    ]
    await heartbeats.close()


async def test_an_answer_reaches_the_sender(gateway: Gateway) -> None:
    heartbeats = NatsHeartbeats(gateway.connection, PREFIX)
    answers: set[asyncio.Task[None]] = set()

    def answer(message: HeartbeatMessage) -> None:
        answers.add(asyncio.ensure_future(heartbeats.reply(message.reply, b"known")))

    await heartbeats.open(answer)
    client = await nats.connect(gateway.server.url, inbox_prefix="_INBOX_poller_p1")
    try:
        assert (await client.request(f"{PREFIX}.poller.p1", timeout=30)).data == b"known"
    finally:
        await client.close()
        await heartbeats.close()


async def test_a_handler_that_fails_is_counted_and_harms_no_other(gateway: Gateway) -> None:
    heartbeats = NatsHeartbeats(gateway.connection, PREFIX)

    def fail(message: HeartbeatMessage) -> None:
        raise ValueError(message.subject)

    await heartbeats.open(fail)
    for _ in range(3):
        await gateway.connection.publish(f"{PREFIX}.poller.p1")
    await eventually(lambda: heartbeats.received == 3)

    assert heartbeats.failed == 3
    await heartbeats.close()


async def test_what_finds_the_queue_full_is_dropped_and_counted(gateway: Gateway) -> None:
    heard: list[HeartbeatMessage] = []
    heartbeats = NatsHeartbeats(gateway.connection, PREFIX, pending_messages=10)
    await heartbeats.open(heard.append)
    client = await nats.connect(gateway.server.url)
    try:
        for _ in range(5000):
            await client.publish(f"{PREFIX}.poller.p1", b"x" * 100)
        await settled(client)
        await eventually(lambda: len(heard) + heartbeats.dropped == 5000)
    finally:
        await client.close()

    assert heartbeats.dropped > 0
    await heartbeats.close()


async def test_heartbeats_go_on_after_the_server_came_back(gateway: Gateway) -> None:
    heard: list[HeartbeatMessage] = []
    heartbeats = NatsHeartbeats(gateway.connection, PREFIX)
    await heartbeats.open(heard.append)
    await gateway.server.kill()
    await eventually(lambda: not gateway.connection.connected)
    await gateway.server.start()
    await gateway.connection.wait_connected(30)

    await gateway.connection.publish(f"{PREFIX}.poller.p1")
    await eventually(lambda: len(heard) == 1)
    await heartbeats.close()


async def test_a_closed_subscription_hears_nothing(gateway: Gateway) -> None:
    heard: list[HeartbeatMessage] = []
    heartbeats = NatsHeartbeats(gateway.connection, PREFIX)
    await heartbeats.open(heard.append)
    await heartbeats.close()
    await heartbeats.close()

    await gateway.connection.publish(f"{PREFIX}.poller.p1")
    await gateway.jetstream.call("INFO")

    assert heard == []


async def test_an_echo_comes_back_the_way_heartbeats_come_and_is_none(gateway: Gateway) -> None:
    heard: list[HeartbeatMessage] = []
    heartbeats = NatsHeartbeats(gateway.connection, PREFIX)
    await heartbeats.open(heard.append)
    await gateway.connection.publish(f"{PREFIX}.poller.p1")
    await heartbeats.echo(10)
    assert [message.subject for message in heard] == [
        f"{PREFIX}.poller.p1"
    ]  # what was sent before has been heard
    await gateway.connection.publish(f"{PREFIX}.echo", b"somebody else's")
    await asyncio.gather(*(heartbeats.echo(10) for _ in range(20)))
    assert (heartbeats.received, len(heard)) == (1, 1)

    await gateway.server.pause()
    with pytest.raises(UnavailableError):
        await heartbeats.echo(0.1)
    gateway.server.resume()
    await heartbeats.echo(10)
    await heartbeats.close()
