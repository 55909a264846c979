"""The config bucket keeps a few versions of a document, so that hosts are told of each status."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import nats
import pytest
from nats.aio.msg import Msg

from jetway.adapters.nats.documents import NatsDocuments
from jetway.adapters.nats.jetstream import JetStream
from jetway.adapters.nats.layout import CONFIG_HISTORY, Layout
from jetway.adapters.nats.names import Names
from jetway.adapters.nats.schema import Schema
from jetway.core.errors import StartupError
from jetway.ports import StoredDocument
from support.nats_server import Gateway, NatsServer, connect_to, settled

LAYOUT = Layout(Names(), 1, timedelta(days=90))
SECONDS = 60


async def make_bucket(jetstream: JetStream, history: int) -> None:
    """The bucket as it was before anything else is set up."""
    wanted = next(dict(s) for s in LAYOUT.streams((2, 12, 0)) if s["name"] == "KV_config")
    await jetstream.call("STREAM.CREATE.KV_config", {**wanted, "max_msgs_per_subject": history})


async def test_a_bucket_that_kept_one_version_keeps_more_from_now_on(nats_server: NatsServer) -> None:
    connection = await connect_to(nats_server)
    jetstream = JetStream(connection)
    await make_bucket(jetstream, 1)
    documents = NatsDocuments(jetstream, Names())
    first = await documents.write("config/pollers/p1.json", b"1", 0)
    await Schema(jetstream, LAYOUT).ensure()
    info = await jetstream.call("STREAM.INFO.KV_config")
    assert info["config"]["max_msgs_per_subject"] == CONFIG_HISTORY > 1
    assert (await documents.read("config/pollers/p1.json")).data == b"1"
    second = await documents.write("config/pollers/p1.json", b"2", first)
    assert await documents.read("config/pollers/p1.json") == StoredDocument(b"2", second)
    assert await documents.keys("config/") == ["config/pollers/p1.json"]
    scanned = [stretch async for stretch in documents.scan("config/")]
    assert [found for stretch in scanned for found in stretch] == [
        ("config/pollers/p1.json", StoredDocument(b"2", second))
    ]
    await documents.delete("config/pollers/p1.json", second)
    assert await documents.keys("config/") == []
    await connection.close()


async def test_a_bucket_that_keeps_more_is_not_cut(nats_server: NatsServer) -> None:
    connection = await connect_to(nats_server)
    jetstream = JetStream(connection)
    await make_bucket(jetstream, 60)
    with pytest.raises(StartupError, match="KV_config has max_msgs_per_subject = 60"):
        await Schema(jetstream, LAYOUT).ensure()
    await connection.close()


async def test_earlier_versions_can_be_dropped_and_what_stands_is_kept(nats_server: NatsServer) -> None:
    connection = await connect_to(nats_server)
    jetstream = JetStream(connection)
    await make_bucket(jetstream, CONFIG_HISTORY)
    documents = NatsDocuments(jetstream, Names())
    for name in ("p1", "p2"):
        sequence = await documents.write(f"config/pollers/{name}.json", b"a secret", 0)
        sequence = await documents.write(f"config/pollers/{name}.json", b"another", sequence)
    await documents.delete("config/pollers/p1.json", sequence - 2)
    for name in ("p1", "p3"):
        await documents.forget_earlier(f"config/pollers/{name}.json")
    info = await jetstream.call("STREAM.INFO.KV_config", {"subjects_filter": ">"})
    assert info["state"]["subjects"] == {
        "$KV.config.config/pollers/p1.json": 1,
        "$KV.config.config/pollers/p2.json": 2,
    }
    assert await documents.read("config/pollers/p1.json") == StoredDocument(None, sequence + 1)
    await connection.close()


async def test_a_view_that_was_slow_tells_of_a_status_that_a_deletion_followed(
    nats_server: NatsServer,
) -> None:
    """As slow as can be: here it is made only when all is written."""
    connection = await connect_to(nats_server)
    jetstream = JetStream(connection)
    await make_bucket(jetstream, CONFIG_HISTORY)
    documents = NatsDocuments(jetstream, Names())
    sequence = 0
    for status in (b"pending", b"active", b"revoked"):
        sequence = await documents.write("config/pollers/p1.json", status, sequence)
    await documents.delete("config/pollers/p1.json", sequence)
    told: list[bytes] = []

    async def hear(message: Msg) -> None:
        told.append(message.data)

    client = await nats.connect(nats_server.url)
    await client.subscribe("edge.config.pollers.p1", cb=hear)
    await settled(client)
    await Schema(jetstream, LAYOUT).ensure()
    async with asyncio.timeout(SECONDS):
        while b"" not in told:  # noqa: ASYNC110 - there is nothing to wait on
            await asyncio.sleep(0.05)
    assert told == [b"pending", b"active", b"revoked", b""]
    await client.close()
    await connection.close()


async def test_documents_do_not_end_by_themselves(gateway: Gateway) -> None:
    """Nothing but a deletion takes one away: not its age, nor how many others there are."""
    for stream in ("KV_config", "KV_config_watch", "KV_registry"):
        config = (await gateway.jetstream.call(f"STREAM.INFO.{stream}"))["config"]
        assert config["max_age"] == 0
        assert (config["max_msgs"], config["max_bytes"]) == (-1, -1)
