"""What every durable feed must do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from jetway.adapters.nats.feeds import EventFeed, RecordFeed
from jetway.adapters.nats.stores import NatsAuditLog
from jetway.core.record import ServiceRecord
from jetway.core.rows import Event, events_of
from jetway.ports import AuditLog, Change, Feed, FeedItem, Ledger
from support.builders import NOW, record, transition, uid
from support.memory import MemoryAuditLog, MemoryFeed, MemoryLedger
from support.nats_server import NatsServer, gateway_on


@dataclass
class World:
    """A ledger, an audit log, and what reads them. `reopen`: the daemon was restarted."""

    ledger: Ledger
    audit: AuditLog
    records: Feed[Change]
    events: Feed[Sequence[Event]]
    reopen: Callable[[], Awaitable[None]]


@pytest.fixture(params=["memory", "nats"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    if request.param == "memory":
        yield _memory_world()
        return
    server = NatsServer(tmp_path / "nats-server")
    await server.start()
    try:
        async with gateway_on(server) as gateway:
            jetstream, names = gateway.jetstream, gateway.names
            records, events = RecordFeed(jetstream, names, "rows"), EventFeed(jetstream, names)

            async def reopen() -> None:
                await world.records.close()  # type: ignore[attr-defined]
                world.records = RecordFeed(jetstream, names, "rows")

            world = World(gateway.ledger, NatsAuditLog(jetstream, names), records, events, reopen)
            yield world
            for feed in (world.records, events):
                await feed.close()  # type: ignore[attr-defined]
    finally:
        await server.stop()


def _memory_world() -> World:
    ledger = MemoryLedger()
    records: MemoryFeed[Change] = MemoryFeed(ledger.changes)
    return World(ledger, MemoryAuditLog(ledger), records, MemoryFeed(ledger.events), records.reopen)


def revised(number: int = 1, service_id: str = "a1") -> ServiceRecord:
    return record(revision=number, service_id=service_id, transition=transition(transition_id=uid(number)))


async def take(feed: Feed[Change], count: int) -> list[FeedItem[Change]]:
    items: list[FeedItem[Change]] = []
    async with asyncio.timeout(30):
        while len(items) < count:
            items += await feed.fetch(500, 1.0)
    return items


async def test_a_feed_delivers_every_revision_in_order(world: World) -> None:
    sequence = 0
    for number in range(1, 6):
        sequence = await world.ledger.write(revised(number), sequence)

    items = await take(world.records, 5)

    assert [item.value.record for item in items] == [revised(n) for n in range(1, 6)]
    assert [item.position for item in items] == [item.value.sequence for item in items]


async def test_nothing_to_deliver_is_an_empty_answer_after_the_timeout(world: World) -> None:
    began = time.monotonic()

    assert await world.records.fetch(10, 0.2) == []
    assert time.monotonic() - began >= 0.15


async def test_a_fetch_ends_as_soon_as_something_comes(world: World) -> None:
    fetching = asyncio.create_task(world.records.fetch(10, 300.0))
    await asyncio.sleep(0.05)
    await world.ledger.write(revised(), 0)

    async with asyncio.timeout(30):
        assert len(await fetching) == 1


async def test_no_more_than_the_limit_is_handed_out(world: World) -> None:
    for number in range(5):
        await world.ledger.write(revised(service_id=f"a{number}"), 0)

    first = await world.records.fetch(2, 30.0)
    rest = await take(world.records, 5 - len(first))

    assert len(first) <= 2
    assert len({item.position for item in (*first, *rest)}) == 5


async def test_the_lag_is_what_was_not_acknowledged(world: World) -> None:
    for number in range(4):
        await world.ledger.write(revised(service_id=f"a{number}"), 0)
    assert await _settled(world.records, 4) == 4

    items = await take(world.records, 4)
    assert await world.records.lag() == 4

    await world.records.acknowledge(items[2].position)
    assert await _settled(world.records, 1) == 1
    await world.records.acknowledge(items[3].position)
    assert await _settled(world.records, 0) == 0


async def _settled(feed: Feed[Change], wanted: int) -> int:
    """The lag, once the server has seen the acknowledgements."""
    async with asyncio.timeout(30):
        while (lag := await feed.lag()) != wanted:  # noqa: ASYNC110 - there is nothing to wait on
            await asyncio.sleep(0.01)
    return lag


async def test_what_was_not_acknowledged_comes_again_to_a_new_daemon(world: World) -> None:
    for number in range(3):
        await world.ledger.write(revised(service_id=f"a{number}"), 0)
    items = await take(world.records, 3)
    await world.records.acknowledge(items[0].position)

    await world.reopen()

    async with asyncio.timeout(30):
        again = await take(world.records, 2)
    assert [item.position for item in again] == [item.position for item in items[1:]]


async def test_the_trail_has_the_events_of_records_and_of_the_gateway(world: World) -> None:
    outside = Event(
        event_id=uid(77), event_type="redeem_refused", actor="", timestamp=NOW, metadata={"why": "expired"}
    )
    await world.ledger.write(revised(), 0)
    await world.audit.append(outside)

    seen: list[Event] = []
    async with asyncio.timeout(30):
        while len(seen) < 2:
            for item in await world.events.fetch(10, 1.0):
                seen += item.value
                await world.events.acknowledge(item.position)

    assert sorted(seen, key=lambda e: e.event_id) == sorted(
        [outside, *events_of(revised())], key=lambda e: e.event_id
    )


async def test_an_event_that_is_appended_twice_is_there_once(world: World) -> None:
    outside = Event(event_id=uid(78), event_type="purged", actor="alice", timestamp=NOW)
    await world.audit.append(outside)
    await world.audit.append(outside)
    await world.ledger.write(revised(), 0)

    seen: list[Event] = []
    async with asyncio.timeout(30):
        while len(seen) < 2:
            for item in await world.events.fetch(10, 1.0):
                seen += item.value

    assert seen.count(outside) == 1


async def test_the_oldest_that_waits_has_an_age(world: World) -> None:
    assert await world.records.oldest() is None
    sequence = 0
    for number in range(1, 4):
        sequence = await world.ledger.write(revised(number), sequence)
    first = await world.records.oldest()
    assert first is not None
    assert first.tzinfo is not None

    items = await take(world.records, 3)
    assert await world.records.oldest() == first, "handed out is not dealt with"
    await world.records.acknowledge(items[0].position)
    assert await _settled(world.records, 2) == 2
    second = await world.records.oldest()
    assert second is not None
    assert second >= first
    await world.records.acknowledge(items[-1].position)
    assert await _settled(world.records, 0) == 0
    assert await world.records.oldest() is None


async def test_entries_of_the_trail_have_an_age_as_well(world: World) -> None:
    await world.ledger.write(revised(), 0)
    async with asyncio.timeout(30):
        while await world.events.oldest() is None:  # noqa: ASYNC110 - the server copies them by and by
            await asyncio.sleep(0.01)
