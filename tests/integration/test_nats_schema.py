"""Streams and buckets: made, checked, refused by name; and what the server makes of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import nats
import pytest

from jetway.adapters.clock import RandomIdentifiers, SystemClock
from jetway.adapters.nats.connection import Connection
from jetway.adapters.nats.documents import NatsDocuments
from jetway.adapters.nats.feeds import EventFeed
from jetway.adapters.nats.jetstream import JetStream
from jetway.adapters.nats.layout import Layout
from jetway.adapters.nats.meta import MetaStore
from jetway.adapters.nats.names import Names
from jetway.adapters.nats.schema import Schema, check_sync
from jetway.adapters.nats.stores import NatsAuditLog
from jetway.core.errors import StartupError
from jetway.core.rows import Event
from support.builders import NOW, FakeClock, record, uid
from support.nats_server import Gateway, NatsServer, connect_to, gateway_on, settled

LAYOUT = Layout(Names(), 1, timedelta(days=90))


@pytest.fixture
async def jetstream(nats_server: NatsServer) -> AsyncIterator[JetStream]:
    """On a server where nothing is set up yet."""
    connection = await connect_to(nats_server)
    yield JetStream(connection)
    await connection.close()


async def config_of(jetstream: JetStream, stream: str) -> dict[str, Any]:
    config: dict[str, Any] = (await jetstream.call(f"STREAM.INFO.{stream}"))["config"]
    return config


async def test_every_stream_is_made_as_designed(gateway: Gateway) -> None:
    registry = await config_of(gateway.jetstream, "KV_registry")
    assert registry["max_msgs_per_subject"] == 64
    assert registry["discard"] == "new"
    assert registry["allow_atomic"]
    assert registry["allow_direct"]
    assert registry["deny_delete"]
    assert registry.get("persist_mode", "default") == "default"

    events = await config_of(gateway.jetstream, "REGISTRY_EVENTS")
    assert events["persist_mode"] == "async"
    assert events["max_age"] == 90 * 86_400 * 10**9
    assert events["deny_purge"]
    assert events["deny_delete"]
    assert not events["allow_rollup_hdrs"]

    audit = await config_of(gateway.jetstream, "REGISTRY_AUDIT")
    assert audit["max_age"] == events["max_age"]
    assert audit.get("persist_mode", "default") == "default"
    assert (await config_of(gateway.jetstream, "KV_idempotency"))["max_age"] == 86_400 * 10**9


async def test_setting_up_again_changes_nothing(gateway: Gateway) -> None:
    before = await config_of(gateway.jetstream, "REGISTRY_EVENTS")

    await Schema(gateway.jetstream, LAYOUT).ensure()

    assert await config_of(gateway.jetstream, "REGISTRY_EVENTS") == before


async def test_where_a_ledger_must_be_and_is_none_nothing_is_made(jetstream: JetStream) -> None:
    with pytest.raises(StartupError, match=r"no stream KV_registry.*ledger 4711: restore NATS"):
        await Schema(jetstream, LAYOUT).ensure(ledger_id="4711")
    assert (await jetstream.call("STREAM.NAMES"))["total"] == 0
    await Schema(jetstream, LAYOUT).ensure()
    await Schema(jetstream, LAYOUT).ensure(ledger_id="4711")


async def test_how_long_the_trail_is_kept_can_be_changed(gateway: Gateway) -> None:
    await Schema(gateway.jetstream, Layout(Names(), 1, timedelta(days=9))).ensure()

    for stream in ("REGISTRY_EVENTS", "REGISTRY_AUDIT"):
        assert (await config_of(gateway.jetstream, stream))["max_age"] == 9 * 86_400 * 10**9


@pytest.mark.parametrize(
    ("stream", "config", "told"),
    [
        ("KV_registry", {"max_msgs_per_subject": 5}, r"KV_registry has max_msgs_per_subject = 5, but 64"),
        ("KV_registry", {"storage": "memory"}, r"KV_registry has storage = 'memory', but 'file'"),
        ("KV_config", {"persist_mode": "async"}, r"KV_config has persist_mode = 'async', but 'default'"),
        ("KV_registry", {"subjects": ["$KV.registry.*"]}, r"KV_registry has subjects = "),
        ("KV_api_tokens", {"max_age": 10**12, "discard": "old"}, r"KV_api_tokens has discard = 'old'"),
        ("REGISTRY_EVENTS", {}, r"REGISTRY_EVENTS has "),
    ],
)
async def test_a_stream_that_is_otherwise_is_refused_by_name(
    jetstream: JetStream, stream: str, config: dict[str, Any], told: str
) -> None:
    wanted = next(s for s in LAYOUT.streams((2, 12, 0)) if s["name"] == stream)
    made = {**wanted, **config}
    if stream == "REGISTRY_EVENTS":
        made = {"name": stream, "subjects": ["something.else"]}
    await jetstream.call(f"STREAM.CREATE.{stream}", made)

    with pytest.raises(StartupError, match=told):
        await Schema(jetstream, LAYOUT).ensure()


async def test_subjects_that_another_stream_has_are_told(jetstream: JetStream) -> None:
    await jetstream.call("STREAM.CREATE.OTHERS", {"name": "OTHERS", "subjects": ["registry.audit.>"]})

    with pytest.raises(StartupError, match="REGISTRY_AUDIT cannot be set up"):
        await Schema(jetstream, LAYOUT).ensure()


async def test_a_consumer_that_is_otherwise_is_refused_by_name(gateway: Gateway) -> None:
    await gateway.jetstream.call("CONSUMER.DELETE.KV_registry.rows")
    config = {"durable_name": "rows", "ack_policy": "none", "deliver_policy": "all"}
    body = {"stream_name": "KV_registry", "config": config}
    await gateway.jetstream.call("CONSUMER.CREATE.KV_registry.rows", body)

    with pytest.raises(StartupError, match="consumer rows of KV_registry has ack_policy = 'none'"):
        await Schema(gateway.jetstream, LAYOUT).ensure()


async def test_a_server_without_jetstream_is_refused(tmp_path: Path) -> None:
    server = NatsServer(tmp_path / "plain", jetstream=False)
    await server.start()
    connection = await connect_to(server)
    try:
        with pytest.raises(StartupError, match="JetStream is not available"):
            await Schema(JetStream(connection), LAYOUT).ensure(patience=0.1)
    finally:
        await connection.close()
        await server.stop()


async def test_a_server_that_is_too_old_is_refused(
    jetstream: JetStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Connection, "server_version", (2, 9, 25))

    with pytest.raises(StartupError, match=r"2\.9\.25; at least 2\.10\.0"):
        await Schema(jetstream, LAYOUT).ensure()


async def test_a_server_without_atomic_batches_gets_a_layout_without_them() -> None:
    for config in LAYOUT.streams((2, 10, 29)):
        assert "allow_atomic" not in config
        assert "persist_mode" not in config


async def test_with_replicas_no_view_is_written_without_waiting() -> None:
    assert not any(
        "persist_mode" in config for config in Layout(Names(), 3, timedelta(days=1)).streams((2, 15, 0))
    )


async def test_what_cannot_be_known_of_the_disk_is_said_so(gateway: Gateway) -> None:
    assert (await check_sync(gateway.jetstream, embedded=True)).startswith("always")
    assert (await check_sync(gateway.jetstream, embedded=False)).startswith("unknown")


async def test_the_ledger_keeps_its_identity(gateway: Gateway) -> None:
    again = await MetaStore(gateway.jetstream, gateway.names, SystemClock(), RandomIdentifiers()).open()

    assert again == gateway.meta
    assert again.epoch > 1_700_000_000


async def test_daemons_that_start_at_once_agree_on_one_ledger(jetstream: JetStream) -> None:
    await Schema(jetstream, LAYOUT).ensure()
    stores = [MetaStore(jetstream, Names(), SystemClock(), RandomIdentifiers()) for _ in range(5)]

    metas = await asyncio.gather(*(store.open() for store in stores))

    assert len(set(metas)) == 1


async def test_a_new_epoch_is_higher_even_if_the_clock_went_back(gateway: Gateway) -> None:
    store = MetaStore(gateway.jetstream, gateway.names, FakeClock(), RandomIdentifiers())

    newer = await store.begin_epoch()

    assert newer.epoch == gateway.meta.epoch + 1
    assert (await store.open()).epoch == newer.epoch


async def test_a_watcher_and_a_subscriber_see_their_poller_and_no_other(gateway: Gateway) -> None:
    documents = NatsDocuments(gateway.jetstream, gateway.names)
    client = await nats.connect(gateway.server.url)
    try:
        bucket = await client.jetstream(timeout=30).key_value("config_watch")
        watcher = await bucket.watch("config.pollers.p.agents.*")
        assert await watcher.updates(timeout=30) is None
        live = await client.subscribe("edge.config.pollers.p.>")
        await settled(client)

        key = "config/pollers/p/agents/a1.json"
        await documents.write("config/pollers/other/agents/a2.json", b"no", 0)
        await documents.write("config/agents/a1/checkers/c1.json", b"no", 0)
        await documents.write("templates/checkers/snmp.json", b"no", 0)
        # One at a time: the bucket keeps one value per key, and a view only ever has the newest.
        first = await documents.write(key, b"1", 0)
        seen, heard = [await watcher.updates(timeout=30)], [await live.next_msg(timeout=30)]
        second = await documents.write(key, b"2", first)
        seen, heard = [*seen, await watcher.updates(timeout=30)], [*heard, await live.next_msg(timeout=30)]
        await documents.delete(key, second)
        seen, heard = [*seen, await watcher.updates(timeout=30)], [*heard, await live.next_msg(timeout=30)]
        assert [(e.key, e.value, e.operation) for e in seen] == [
            ("config.pollers.p.agents.a1", b"1", None),
            ("config.pollers.p.agents.a1", b"2", None),
            ("config.pollers.p.agents.a1", b"", "DEL"),
        ]
        assert [m.subject for m in heard] == ["edge.config.pollers.p.agents.a1"] * 3
        assert [m.data for m in heard] == [b"1", b"2", b""]
        assert (heard[2].headers or {})["KV-Operation"] == "DEL"
        with pytest.raises(nats.errors.TimeoutError):
            await live.next_msg(timeout=0.2)
        await watcher.stop()
    finally:
        await client.close()


async def test_the_view_has_all_kinds_of_keys(gateway: Gateway) -> None:
    documents = NatsDocuments(gateway.jetstream, gateway.names)
    keys = {
        "config/pollers/p.json": "config.pollers.p",
        "config/pollers/p/agents/a.json": "config.pollers.p.agents.a",
        "config/agents/a/checkers/c.json": "config.agents.a.checkers.c",
        "templates/checkers/snmp.json": "templates.checkers.snmp",
    }
    # Keys that a person may have written by hand: not in the view, and in nobody's way.
    for stray in ("notes", "config//odd.json", "a/b.txt"):
        await documents.write(stray, b"{}", 0)
    for key in keys:
        await documents.write(key, key.encode(), 0)

    for key, token_key in keys.items():
        stored = None
        async with asyncio.timeout(30):
            while stored is None:
                stored = await gateway.jetstream.read_last("KV_config_watch", f"$KV.config_watch.{token_key}")
        assert stored.data == key.encode()


async def test_a_purge_of_a_key_does_not_erase_its_trail(gateway: Gateway) -> None:
    feed = EventFeed(gateway.jetstream, gateway.names)
    try:
        await gateway.ledger.write(record(), 0)
        assert [len(item.value) for item in await feed.fetch(10, 30.0)] == [1]
        headers = {"KV-Operation": "PURGE", "Nats-Rollup": "sub"}
        await gateway.jetstream.publish("$KV.registry.agent.a1", b"", headers=headers)
        assert [len(item.value) for item in await feed.fetch(10, 30.0)] == [0]
    finally:
        await feed.close()

    for stream, kept in (("KV_registry", 1), ("REGISTRY_EVENTS", 2)):
        assert (await gateway.jetstream.call(f"STREAM.INFO.{stream}"))["state"]["messages"] == kept


async def test_two_gateways_on_one_server_do_not_mix(nats_server: NatsServer) -> None:
    async with gateway_on(nats_server, Names("one-")) as one, gateway_on(nats_server, Names("two-")) as two:
        assert one.meta.ledger_id != two.meta.ledger_id
        sequence = await one.ledger.write(record(), 0)
        await NatsDocuments(one.jetstream, one.names).write("config/pollers/p1.json", b"one", 0)
        event = Event(event_id=uid(1), event_type="purged", actor="alice", timestamp=NOW)
        await NatsAuditLog(one.jetstream, one.names).append(event)

        assert (await one.ledger.read(record().key)).sequence == sequence
        assert (await two.ledger.read(record().key)).sequence == 0
        assert (await NatsDocuments(two.jetstream, two.names).read("config/pollers/p1.json")).data is None
        feeds = [EventFeed(g.jetstream, g.names) for g in (one, two)]
        try:
            items: list[Any] = []
            async with asyncio.timeout(30):
                while len(items) < 2:
                    items += await feeds[0].fetch(10, 1.0)
            assert await feeds[1].fetch(10, 0.3) == []
        finally:
            for feed in feeds:
                await feed.close()


async def test_the_live_subjects_of_two_gateways_are_apart(nats_server: NatsServer) -> None:
    async with gateway_on(nats_server, Names("one-")) as one, gateway_on(nats_server) as plain:
        heard: list[str] = []
        for prefix in ("", "one-"):
            await plain.connection.subscribe(f"{prefix}edge.config.>", lambda m: heard.append(m.subject))
        await NatsDocuments(one.jetstream, one.names).write("config/pollers/p1.json", b"1", 0)
        async with asyncio.timeout(30):
            while not heard:  # noqa: ASYNC110 - there is nothing to wait on
                await asyncio.sleep(0.01)

        assert set(heard) == {"one-edge.config.pollers.p1"}
