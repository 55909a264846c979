"""The database away or slow is a lag: everything else goes on, and it is caught up with without a hand."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from pathlib import Path
from typing import TypeVar

import pytest

from jetway.adapters.clock import SystemClock
from jetway.core.errors import UnavailableError
from jetway.core.heartbeat import EMPTY, Beat
from jetway.core.ids import ServiceKey, document_key
from jetway.core.record import ServiceStatus
from jetway.core.rows import events_of
from jetway.ports import EventQuery, RegistryDatabase
from jetway.services import issue
from jetway.services.health import Component, Health, HealthReport
from jetway.services.issue import Issued, NewPackageRequest
from jetway.services.redeem import RedeemRequest
from support.faulty_database import FaultyDatabase
from support.house import ALICE, new_service
from support.real_house import RealHouse, real_house

COUNT = 60
"""Services. A feed hands out 500 changes at a time, and each service makes several."""
AT_ONCE = 16
PATIENCE = 30.0

R = TypeVar("R")


class World:
    """A house whose database can fail, and what people and edge hosts do to it."""

    def __init__(self, real: RealHouse, database: FaultyDatabase) -> None:
        self.house = real.house
        self.real = real
        self.database = database
        self.health = Health(
            self.house.index,
            self.house.projections,
            database,
            lambda: Component("ok"),
            SystemClock(),
            set_aside=self.house.set_aside,
        )

    async def create(self, number: int) -> Issued:
        request = NewPackageRequest(service=new_service(service_id=f"p{number}", label=f"Poller {number}"))
        return await self.house.issuer.create(ALICE, request, None, body_sha256="")

    async def live(self, issued: Issued) -> None:
        """Redeem, and be heard for the first time."""
        await self.house.redeemer.redeem(RedeemRequest(token=issued.token), source_ip="192.0.2.1")
        heard = asyncio.Event()
        beat = Beat(issued.record.lineage, EMPTY)
        self.house.observer.observe(beat, SystemClock().now(), lambda _: heard.set())
        await asyncio.wait_for(heard.wait(), PATIENCE)

    async def revoke(self, key: ServiceKey) -> None:
        await self.house.administrator.override(
            ALICE, key, ServiceStatus.REVOKED, reason="stolen", cascade=True, dry_run=False
        )

    async def document_status(self, key: ServiceKey) -> str:
        """What its config document says, read from NATS."""
        await self.house.settling.documents()
        record = self.house.index.records[key]
        stored = await self.house.document_writer._documents.read(document_key(record.lineage))
        assert stored.data is not None
        return "revoked" if b'"revoked"' in stored.data else "live"

    async def readyz(self) -> HealthReport:
        return await self.health.report()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made: list[FaultyDatabase] = []

    def wrap(database: RegistryDatabase) -> RegistryDatabase:
        made.append(FaultyDatabase(database))
        return made[0]

    async with real_house(tmp_path, wrap) as real:
        yield World(real, made[0])


async def all_of(work: Iterable[Callable[[], Awaitable[R]]]) -> list[R]:
    """A few at a time; results in order."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(do: Callable[[], Awaitable[R]]) -> R:
        async with gate:
            return await do()

    return list(await asyncio.gather(*(one(do) for do in work)))


async def lives(world: World, first: int = 0) -> list[ServiceKey]:
    """Create, redeem, hear, revoke every third: what was answered was done, whatever the database does."""
    issued = await all_of([lambda n=n: world.create(first + n) for n in range(COUNT)])  # type: ignore[misc]
    await all_of([lambda i=i: world.live(i) for i in issued])  # type: ignore[misc]
    keys = [each.record.key for each in issued]
    await all_of([lambda k=k: world.revoke(k) for k in keys[::3]])  # type: ignore[misc]
    return keys


def require_in_memory(world: World, keys: list[ServiceKey]) -> None:
    """What is read says the newest."""
    for number, key in enumerate(keys):
        view = world.house.catalogue.get(key)
        assert view.record.status.value == ("active" if number % 3 else "revoked")


async def require_caught_up(world: World, keys: list[ServiceKey]) -> None:
    """Rows, packages and trail are what the ledger says; no row ever went back."""
    await world.house.settling.rows()
    await world.house.row_writer.flush_presence()
    await world.house.settling.events()
    rows = await world.database.load_rows(keys)
    versions: dict[ServiceKey, list[tuple[int, int]]] = defaultdict(list)
    for key, version in world.database.written:
        versions[key].append(version)
    for key in keys:
        record = world.house.index.records[key]
        assert (rows[key].status, rows[key].revision) == (record.status.value, record.revision)
        assert rows[key].last_seen is not None
        assert versions[key] == sorted(versions[key])
        query = EventQuery(service_type="poller", service_id=key.service_id, limit=20)
        trail = [event.event_id for event in (await world.database.find_events(query)).events]
        history = await world.house.recorder.ledger.history(key)
        assert [each.revision for each in history] == list(range(1, record.revision + 1))
        assert sorted(trail) == sorted(event.event_id for each in history for event in events_of(each))


async def test_everything_goes_on_while_the_database_is_away(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = issue.PROJECTION_SECONDS
    monkeypatch.setattr(issue, "PROJECTION_SECONDS", PATIENCE)
    before = await world.create(9000)
    assert before.projection == {"document": "written", "row": "written"}
    monkeypatch.setattr(issue, "PROJECTION_SECONDS", usual)
    world.database.away = True
    refused = world.database.refused

    keys = await lives(world)
    answer = await world.create(9001)

    assert answer.projection["row"] == "queued"
    require_in_memory(world, keys)
    assert await world.document_status(keys[0]) == "revoked"
    assert await world.document_status(keys[1]) == "live"
    assert world.database.refused > refused

    report = await world.readyz()
    assert (report.ready, report.status) == (True, "degraded")
    assert report.components["database"].state == "degraded"
    assert report.components["projection_documents"].state == "ok"
    for name in ("projection_rows", "projection_events"):
        said = report.components[name]
        assert said.state == "degraded"
        assert "changes wait, the oldest for " in said.detail
        assert "refuses connections" in said.detail
    assert (await world.house.projections.rows.backlog()).records >= 3 * COUNT

    world.database.away = False
    await require_caught_up(world, keys)
    assert world.house.set_aside.all() == []
    assert (await world.readyz()).status == "ok"
    monkeypatch.setattr(issue, "PROJECTION_SECONDS", PATIENCE)
    assert (await world.create(9002)).projection == {"document": "written", "row": "written"}


async def test_nothing_piles_up_in_memory_while_it_is_away(world: World) -> None:
    world.database.away = True
    keys = await lives(world)
    rows = world.house.projections.rows
    await lives(world, first=1000)
    assert rows.written == 0
    # What is in hand is a batch and what the standing request has brought, however much waits in NATS.
    feed = rows._feed
    assert len(feed._handed_out) <= 500  # type: ignore[attr-defined]
    assert len(feed._replies) <= 2500  # type: ignore[attr-defined]
    # Heartbeats go on: one entry a service waits, however often it is heard and a flush fails.
    for _ in range(5):
        for key in keys:
            world.house.presence.note(key, EMPTY, SystemClock().now())
        with pytest.raises(UnavailableError):
            await world.house.row_writer.flush_presence()
    assert world.house.presence.unwritten <= 2 * COUNT
    world.database.away = False
    await require_caught_up(world, keys)
    assert world.house.presence.unwritten == 0


async def test_a_slow_database_is_a_lag_as_well(world: World) -> None:
    world.database.delay = 0.4
    keys = await lives(world)
    report = await world.readyz()
    assert report.ready
    require_in_memory(world, keys)
    world.database.delay = 0.0
    await require_caught_up(world, keys)


async def test_a_database_that_swallows_everything_holds_nobody_up(world: World) -> None:
    world.database.deaf.clear()
    keys = await lives(world)
    report = await world.readyz()
    assert (report.ready, report.components["database"].state) == (True, "degraded")
    assert (await world.create(9000)).projection["row"] == "queued"
    world.database.deaf.set()
    await require_caught_up(world, keys)
