"""What must not be lost: writes of unknown outcome, and deliveries across kills, gaps and floods."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from jetway.adapters.nats import schema, tail
from jetway.adapters.nats.documents import NatsDocuments
from jetway.adapters.nats.feeds import EventFeed, RecordFeed
from jetway.adapters.nats.jetstream import JetStream
from jetway.adapters.nats.layout import Layout
from jetway.adapters.nats.ledger import NatsLedger
from jetway.adapters.nats.pull import Delivered, Pull
from jetway.adapters.nats.schema import Schema
from jetway.adapters.nats.stores import NatsApiTokenStore, NatsAuditLog, NatsIdempotencyStore
from jetway.adapters.nats.tail import StreamReplacedError
from jetway.core.errors import ConflictError, OutcomeUnknownError, UnavailableError
from jetway.core.record import ServiceRecord, encode_record
from jetway.core.rows import Event
from jetway.ports import ApiToken, Change, ChangeBatch, Claim, Feed, FeedItem
from support.builders import NOW, record, transition, uid
from support.nats_server import Gateway, connect_to


def revised(number: int = 1, service_id: str = "a1") -> ServiceRecord:
    return record(revision=number, service_id=service_id, transition=transition(transition_id=uid(number)))


def fail_next_publish(jetstream: JetStream, monkeypatch: pytest.MonkeyPatch, *, after_effect: bool) -> None:
    """The next publish has an unknown outcome: done, or not."""
    publish = jetstream.publish
    calls = 0

    async def once(*args: Any, **options: Any) -> int:
        nonlocal calls
        calls += 1
        if calls > 1:
            return await publish(*args, **options)
        if after_effect:
            await publish(*args, **options)
        raise OutcomeUnknownError("the answer was lost")

    monkeypatch.setattr(jetstream, "publish", once)


async def follow(ledger: NatsLedger, after: int = 0) -> AsyncIterator[ChangeBatch]:
    async with aclosing(ledger.follow(after)) as batches:  # type: ignore[type-var]
        async for batch in batches:
            yield batch


async def changes_until(ledger: NatsLedger, newest: int, seen: list[Change]) -> None:
    async with aclosing(follow(ledger)) as batches:
        async for batch in batches:
            seen += batch.changes
            if seen and seen[-1].sequence >= newest:
                return


async def test_a_write_whose_answer_was_lost_is_found(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = gateway.ledger
    fail_next_publish(gateway.jetstream, monkeypatch, after_effect=True)

    sequence = await ledger.write(revised(), 0)

    assert (await ledger.read(revised().key)).sequence == sequence


async def test_a_write_that_was_not_done_stays_unknown(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_next_publish(gateway.jetstream, monkeypatch, after_effect=False)

    with pytest.raises(OutcomeUnknownError):
        await gateway.ledger.write(revised(), 0)


async def test_an_unknown_write_that_another_came_before_is_a_conflict(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    await gateway.ledger.write(revised(1), 0)
    fail_next_publish(gateway.jetstream, monkeypatch, after_effect=False)

    with pytest.raises(ConflictError):
        await gateway.ledger.write(revised(2), 0)


async def test_an_unknown_write_is_found_beneath_later_ones(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger, publish = gateway.ledger, gateway.jetstream.publish

    async def overtaken(*args: Any, **options: Any) -> int:
        monkeypatch.setattr(gateway.jetstream, "publish", publish)
        first = await publish(*args, **options)
        await ledger.write(revised(2), first)
        raise OutcomeUnknownError("the answer was lost")

    monkeypatch.setattr(gateway.jetstream, "publish", overtaken)

    sequence = await ledger.write(revised(1), 0)

    assert sequence == (await ledger.read(revised().key)).sequence - 1


async def test_an_unknown_write_stays_so_when_it_cannot_be_read_back(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jetway.adapters.nats.jetstream._READ_BACK_SECONDS", 0.1)
    ledger = gateway.ledger
    await ledger.read(revised().key)  # before its first call on a link the ledger asks for its stream
    await gateway.server.pause()
    writing = asyncio.create_task(ledger.write(revised(), 0))
    await asyncio.sleep(0.05)
    await gateway.server.kill()

    with pytest.raises(OutcomeUnknownError):
        async with asyncio.timeout(30):
            await writing


async def test_the_other_stores_find_their_lost_writes_too(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    jetstream, names = gateway.jetstream, gateway.names
    documents, tokens = NatsDocuments(jetstream, names), NatsApiTokenStore(jetstream, names)
    token = ApiToken(name="alice", role="admin", sha256="0", created_at=NOW, created_by="jetway")
    claim = Claim(body_sha256="1", service_key="agent.a1", package_id="2")
    event = Event(event_id=uid(5), event_type="purged", actor="alice", timestamp=NOW)
    steps: list[Callable[[], Awaitable[object]]] = [
        lambda: documents.write("config/pollers/p.json", b"1", 0),
        lambda: documents.delete("config/pollers/p.json", 1),
        lambda: tokens.put(token),
        lambda: tokens.remove("alice"),
        lambda: NatsIdempotencyStore(jetstream, names).claim("00", claim),
        lambda: NatsAuditLog(jetstream, names).append(event),
    ]
    for step in steps:
        fail_next_publish(jetstream, monkeypatch, after_effect=True)
        await step()

    assert (await documents.read("config/pollers/p.json")).data is None
    assert await tokens.load() == []
    assert (await jetstream.call("STREAM.INFO.REGISTRY_AUDIT"))["state"]["messages"] == 1


async def write_through(gateway: Gateway, count: int) -> dict[int, ServiceRecord]:
    """Write, again where it did not go through; sequence → record."""
    written: dict[int, ServiceRecord] = {}

    async def one(number: int) -> None:
        made = revised(number, f"a{number}")
        while True:
            try:
                written[await gateway.ledger.write(made, 0)] = made
                return
            except ConflictError:
                try:
                    entry = await gateway.ledger.read(made.key)
                except UnavailableError:  # killed once more
                    await asyncio.sleep(0.02)
                    continue
                assert entry.record == made
                written[entry.sequence] = made
                return
            except UnavailableError:
                await asyncio.sleep(0.02)

    for start in range(0, count, 20):
        await asyncio.gather(*(one(start + n) for n in range(20)))
    return written


async def drain(feed: Feed[Any], seen: dict[int, Any], enough: Callable[[], bool]) -> None:
    while not enough():
        for item in await feed.fetch(100, 0.5):
            seen[item.position] = item.value
        try:
            if seen:
                await feed.acknowledge(max(seen))
        except UnavailableError:
            await asyncio.sleep(0.02)


async def test_a_killed_server_loses_nothing_for_anybody(gateway: Gateway) -> None:
    count = 1000
    rows = RecordFeed(gateway.jetstream, gateway.names, "rows")
    trail = EventFeed(gateway.jetstream, gateway.names)
    followed: list[Change] = []
    of_rows: dict[int, Change] = {}
    of_trail: dict[int, Any] = {}
    following = asyncio.create_task(_collect(gateway.ledger, followed))
    draining = [
        asyncio.create_task(drain(rows, of_rows, lambda: len(of_rows) >= count)),
        asyncio.create_task(drain(trail, of_trail, lambda: len(of_trail) >= count)),
    ]
    try:
        async with asyncio.timeout(240):
            writing = asyncio.create_task(write_through(gateway, count))
            for number in range(1, 4):
                await asyncio.sleep(0.15)
                await gateway.server.kill()
                await gateway.server.start()
                while gateway.connection.state.reconnects < number:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            written = await writing
            await asyncio.gather(*draining)
            while len(followed) < count:  # noqa: ASYNC110 - there is nothing to wait on
                await asyncio.sleep(0.01)
    finally:
        for task in (following, *draining):
            task.cancel()
        await asyncio.wait([following, *draining])
        await rows.close()
        await trail.close()

    assert gateway.connection.state.reconnects >= 3
    assert [change.sequence for change in followed] == sorted(written)
    assert {change.sequence: change.record for change in followed} == written
    assert {position: change.record for position, change in of_rows.items()} == written
    assert len({events[0].event_id for events in of_trail.values()}) == count


async def _collect(ledger: NatsLedger, seen: list[Change]) -> None:
    async with aclosing(follow(ledger)) as batches:
        async for batch in batches:
            seen += batch.changes


async def test_a_message_lost_on_the_way_to_a_follower_is_asked_for_again(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    _lose_one_message(monkeypatch)
    for number in range(1, 11):
        await gateway.ledger.write(revised(number, f"a{number}"), 0)

    seen: list[Change] = []
    async with asyncio.timeout(30):
        await changes_until(gateway.ledger, 10, seen)

    assert [change.sequence for change in seen] == list(range(1, 11))


async def test_a_message_lost_on_the_way_to_a_feed_is_not_acknowledged_by_its_successors(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "_ACK_WAIT_SECONDS", 1)
    _lose_one_message(monkeypatch)
    for number in range(1, 11):
        await gateway.ledger.write(revised(number, f"a{number}"), 0)
    feed = RecordFeed(gateway.jetstream, gateway.names, "rows")
    seen: dict[int, Change] = {}
    try:
        async with asyncio.timeout(30):
            await drain(feed, seen, lambda: len(seen) == 10)
    finally:
        await feed.close()

    assert list(seen) != list(range(1, 11))


def _lose_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    deliver = Pull._on_message
    lost: list[object] = []

    def lossy(pull: Pull, message: Any) -> None:
        if message.reply and not lost and ".5." in message.reply:
            lost.append(message)
            return
        deliver(pull, message)

    monkeypatch.setattr(Pull, "_on_message", lossy)


async def test_a_slow_reader_of_many_changes_holds_few_of_them(gateway: Gateway) -> None:
    await _fill(gateway, 5000)
    held: list[int] = []
    seen = 0
    feed = RecordFeed(gateway.jetstream, gateway.names, "rows")
    try:
        async with asyncio.timeout(30):
            while seen < 5000:
                items = await feed.fetch(200, 30.0)
                await asyncio.sleep(0.01)
                held.append(feed._pull.queued + len(feed._replies))
                seen += len(items)
                await feed.acknowledge(items[-1].position)
    finally:
        await feed.close()

    assert max(held) <= 2500


async def test_deliveries_that_come_again_do_not_pile_up(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "_ACK_WAIT_SECONDS", 1)
    await _fill(gateway, 300)
    feed = RecordFeed(gateway.jetstream, gateway.names, "rows")
    try:
        async with asyncio.timeout(30):
            items = list(await feed.fetch(500, 30.0))
            while len(items) < 300:
                items += await feed.fetch(500, 30.0)
            assert await feed.fetch(500, 2.5) == []
        await feed.acknowledge(items[-1].position)
        async with asyncio.timeout(30):
            while await feed.lag():  # noqa: ASYNC110 - there is nothing to wait on
                await asyncio.sleep(0.05)
    finally:
        await feed.close()


async def _fill(gateway: Gateway, count: int) -> None:
    for start in range(0, count, 50):
        records = [revised(1, f"a{start + n}") for n in range(min(50, count - start))]
        await asyncio.gather(*(gateway.ledger.write(made, 0) for made in records))


async def test_a_value_that_is_no_record_is_passed_over_and_named(gateway: Gateway) -> None:
    ledger = gateway.ledger
    await gateway.jetstream.publish("$KV.registry.agent.bad", b"{}")
    await gateway.jetstream.publish("$KV.registry.nonsense", encode_record(revised()))
    newest = await ledger.write(revised(), 0)
    seen: list[Change] = []

    with capture_logs() as lines:
        async with asyncio.timeout(30):
            await changes_until(ledger, newest, seen)
        feed = RecordFeed(gateway.jetstream, gateway.names, "rows")
        items: list[FeedItem[ServiceRecord]] = []
        while not items:  # those that are passed over may come first, alone
            items += await feed.fetch(10, 30.0)
        await feed.close()

    assert [change.sequence for change in seen] == [newest]
    assert [item.position for item in items] == [newest]
    assert ledger.undecodable == 2
    assert {line["key"] for line in lines if line["action"] == "ledger_undecodable"} == {
        "agent.bad",
        "nonsense",
    }


async def test_a_marker_is_a_change_without_a_record(gateway: Gateway) -> None:
    sequence = await gateway.ledger.write(revised(), 0)
    await gateway.jetstream.publish("$KV.registry.agent.a1", b"", headers={"KV-Operation": "DEL"})
    seen: list[Change] = []
    async with asyncio.timeout(30):
        await changes_until(gateway.ledger, sequence + 1, seen)

    assert seen == [Change(revised().key, None, sequence + 1)]
    entry = await gateway.ledger.read(revised().key)
    assert (entry.record, entry.sequence) == (None, sequence + 1)
    assert await gateway.ledger.write(revised(), sequence + 1) == sequence + 2


async def test_a_ledger_that_was_replaced_ends_the_following(gateway: Gateway) -> None:
    await gateway.ledger.write(revised(), 0)
    seen: list[Change] = []
    following = asyncio.create_task(_collect(gateway.ledger, seen))
    async with asyncio.timeout(30):
        while not seen:  # noqa: ASYNC110 - there is nothing to wait on
            await asyncio.sleep(0.01)
    config = (await gateway.jetstream.call("STREAM.INFO.KV_registry"))["config"]
    await gateway.jetstream.call("STREAM.DELETE.KV_registry")
    await gateway.jetstream.call("STREAM.CREATE.KV_registry", {**config, "metadata": {}})

    with pytest.raises(StreamReplacedError, match="KV_registry"):
        async with asyncio.timeout(20):
            await following


async def test_a_ledger_that_is_gone_ends_the_following(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tail, "_MISSING_SECONDS", 0.2)
    await gateway.ledger.write(revised(), 0)
    seen: list[Change] = []
    following = asyncio.create_task(_collect(gateway.ledger, seen))
    async with asyncio.timeout(30):
        while not seen:  # noqa: ASYNC110 - there is nothing to wait on
            await asyncio.sleep(0.01)
    await gateway.jetstream.call("STREAM.DELETE.KV_registry")
    with pytest.raises(StreamReplacedError, match="KV_registry is not there any more"):
        async with asyncio.timeout(20):
            await following


async def test_in_a_world_that_a_reconnect_brought_nothing_is_read_or_written(gateway: Gateway) -> None:
    """Its keys are free, so a write that expects none would be welcome there."""
    ledger = gateway.ledger
    await ledger.write(revised(), 0)
    await gateway.server.kill()
    shutil.rmtree(gateway.server.directory / "jetstream")
    await gateway.server.start()
    assert await gateway.connection.wait_connected(30)
    with pytest.raises(UnavailableError, match="cannot be found"):
        await ledger.read(revised().key)
    await Schema(gateway.jetstream, Layout(gateway.names, 1, timedelta(days=90))).ensure()
    for attempt in (ledger.read(revised().key), ledger.write(revised(), 0)):
        with pytest.raises(UnavailableError, match="not the one"):
            await attempt
    assert (await gateway.jetstream.call("STREAM.INFO.KV_registry"))["state"]["messages"] == 0


async def test_a_ledger_that_ends_before_what_was_read_is_refused(gateway: Gateway) -> None:
    await gateway.ledger.write(revised(), 0)

    with pytest.raises(StreamReplacedError, match="ends at 1, but 50 was read"):
        async with asyncio.timeout(30), aclosing(follow(gateway.ledger, after=50)) as batches:
            await anext(batches)


async def test_a_durable_consumer_that_somebody_deleted_is_made_again(gateway: Gateway) -> None:
    await gateway.ledger.write(revised(), 0)
    feed = RecordFeed(gateway.jetstream, gateway.names, "rows")
    try:
        items = await feed.fetch(10, 30.0)
        await feed.acknowledge(items[-1].position)
        await gateway.jetstream.call("CONSUMER.DELETE.KV_registry.rows")
        await gateway.ledger.write(replace(revised(2), service_id="a2"), 0)

        positions: set[int] = set()
        async with asyncio.timeout(30):
            while 2 not in positions:
                positions |= {item.position for item in await feed.fetch(10, 1.0)}
    finally:
        await feed.close()


async def test_followed_tokens_survive_a_killed_server(gateway: Gateway) -> None:
    store = NatsApiTokenStore(gateway.jetstream, gateway.names)
    token = ApiToken(name="alice", role="admin", sha256="0", created_at=NOW, created_by="jetway")
    seen: list[list[str]] = []

    async def watch() -> None:
        async for tokens in store.follow():
            seen.append([t.name for t in tokens])

    watching = asyncio.create_task(watch())
    await store.put(token)
    await gateway.server.kill()
    await gateway.server.start()
    assert await gateway.connection.wait_connected(30)
    await store.put(replace(token, name="bob"))
    try:
        async with asyncio.timeout(30):
            while not seen or seen[-1] != ["alice", "bob"]:  # noqa: ASYNC110 - there is nothing to wait on
                await asyncio.sleep(0.01)
    finally:
        watching.cancel()
        await asyncio.wait([watching])


async def test_a_follower_that_stops_leaves_no_consumer_behind(gateway: Gateway) -> None:
    async with asyncio.timeout(30), aclosing(follow(gateway.ledger)) as batches:
        await anext(batches)
        assert len(await _consumers(gateway)) == 3

    assert sorted(await _consumers(gateway)) == ["documents", "rows"]


async def _consumers(gateway: Gateway) -> list[str]:
    return list((await gateway.jetstream.call("CONSUMER.NAMES.KV_registry"))["consumers"])


async def test_reads_can_ask_the_leader(gateway: Gateway) -> None:
    sequence = await gateway.ledger.write(revised(), 0)
    connection = await connect_to(gateway.server)
    try:
        jetstream = JetStream(connection)
        jetstream.replicas = 3
        ledger = NatsLedger(jetstream, gateway.names, gateway.meta)
        assert (await ledger.read(revised().key)).record == revised()
        assert (await ledger.read(revised(1, "nobody").key)).sequence == 0
        marker = {"KV-Operation": "DEL"}
        await jetstream.publish("$KV.registry.agent.a1", b"", expected=sequence, headers=marker)
        assert (await ledger.read(revised().key)).record is None
    finally:
        await connection.close()


def test_a_domain_adds_two_tokens_to_where_to_acknowledge() -> None:
    from jetway.adapters.nats.pull import _parse

    class Message:
        subject, data, headers = "s", b"", None
        reply = "$JS.ACK.hub.ACCHASH.KV_registry.rows.1.42.7.1700000000.3"

    delivered: Delivered = _parse(Message())  # type: ignore[arg-type]

    assert (delivered.consumer, delivered.sequence, delivered.delivery, delivered.pending) == (
        "rows",
        42,
        7,
        3,
    )


async def test_what_cannot_be_passed_over_now_loses_nothing_that_came_with_it(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The link is lost when a value that is no record is to be acknowledged."""
    monkeypatch.setattr(schema, "_ACK_WAIT_SECONDS", 1)
    first = await gateway.ledger.write(revised(1, "a1"), 0)
    await gateway.jetstream.publish("$KV.registry.nonsense", b"{}")
    last = await gateway.ledger.write(revised(1, "a2"), 0)
    feed = RecordFeed(gateway.jetstream, gateway.names, "rows")
    publish, failed = gateway.connection.publish, 0

    async def fail_once(subject: str, data: bytes = b"", **options: Any) -> None:
        nonlocal failed
        if data == b"+ACK" and not failed:
            failed += 1
            raise UnavailableError("NATS is not connected")
        await publish(subject, data, **options)

    monkeypatch.setattr(gateway.connection, "publish", fail_once)
    seen: list[int] = []
    try:
        async with asyncio.timeout(30):
            while last not in seen:
                seen += [item.position for item in await feed.fetch(10, 5.0)]
            await feed.acknowledge(last)
            while await feed.lag():
                await feed.fetch(10, 0.2)
    finally:
        await feed.close()
    assert seen == [first, last]
    assert failed == 1
