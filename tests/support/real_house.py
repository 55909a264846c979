"""The whole house over a real NATS server and a real SQLite file, its workers running."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from jetway.adapters.archive import FileArchive
from jetway.adapters.authority.keys import load_or_create_keys
from jetway.adapters.authority.tokens import TokenAuthority
from jetway.adapters.clock import RandomIdentifiers, SystemClock
from jetway.adapters.database.sqlite import SqliteDatabase
from jetway.adapters.nats.documents import NatsDocuments
from jetway.adapters.nats.feeds import EventFeed, RecordFeed
from jetway.adapters.nats.jobs import NatsJobStore
from jetway.adapters.nats.maintenance import NatsMaintenanceStore
from jetway.adapters.nats.stores import NatsApiTokenStore, NatsAuditLog, NatsIdempotencyStore
from jetway.adapters.nats.views import NatsViews
from jetway.core.heartbeat import EMPTY, Beat
from jetway.core.ids import ServiceKey, ServiceType
from jetway.ports import RegistryDatabase
from jetway.services.house import House, Outside
from jetway.services.index import follow_ledger
from jetway.services.issue import NewPackageRequest
from jetway.services.redeem import RedeemRequest
from jetway.settings import Settings
from support import REPOSITORY
from support.authorities import MemoryCertificates, MemoryNatsAccount, MemoryNatsAuthority, MemoryVault
from support.builders import AGENT, CHECKER, POLLER
from support.house import ALICE, EDGE, new_service
from support.nats_server import Gateway, NatsServer, gateway_on

MIGRATIONS = REPOSITORY / "migrations" / "sqlite"
_SECONDS = 30


@dataclass
class RealHouse:
    """A house, and where its data lies."""

    house: House
    nats_url: str
    database_path: Path

    async def activate_tree(self) -> None:
        """p1, a1 beneath it, c1 beneath that: all active, and everything that is derived written."""
        for key in (POLLER, AGENT, CHECKER):
            request = NewPackageRequest(service=new_service(key))
            issued = await self.house.issuer.create(ALICE, request, None, body_sha256="")
            await self.house.redeemer.redeem(RedeemRequest(token=issued.token), source_ip="192.0.2.1")
            heard = asyncio.Event()
            beat = Beat(issued.record.lineage, EMPTY)
            self.house.observer.observe(beat, SystemClock().now(), lambda _, heard=heard: heard.set())
            async with asyncio.timeout(_SECONDS):
                await heard.wait()
        await self.settle()

    async def create_agent(self, service_id: str) -> None:
        """Another agent beneath p1."""
        service = new_service(ServiceKey(ServiceType.AGENT, service_id), parent_id="p1")
        await self.house.issuer.create(ALICE, NewPackageRequest(service=service), None, body_sha256="")

    async def settle(self) -> None:
        """Until everything is derived, presence and the audit trail included."""
        settling = self.house.settling
        await settling.documents()
        await settling.rows()
        await self.house.row_writer.flush_presence()
        async with asyncio.timeout(_SECONDS):
            while True:
                view = (await self.house.settling.views.state())["events"]
                if view.behind == 0 and await self.house.projections.events.lag() == 0:
                    return
                await asyncio.sleep(0.02)

    async def reproject(self) -> None:
        """From beginning to end."""
        self.house.reprojector.start(ALICE)
        async with asyncio.timeout(_SECONDS):
            while True:
                if self.house.reprojector.state.state != "running":
                    return
                await asyncio.sleep(0.02)


@asynccontextmanager
async def real_house(
    folder: Path,
    wrap: Callable[[RegistryDatabase], RegistryDatabase] = lambda database: database,
    *,
    max_payload: str = "4MB",
) -> AsyncIterator[RealHouse]:
    """A house that runs; its server ends with the block. `wrap` puts something between it and its database."""
    server = NatsServer(folder / "nats-server", max_payload=max_payload)
    database = SqliteDatabase(folder / "registry.db", MIGRATIONS)
    await server.start()
    try:
        await database.open()
        await database.migrate()
        async with gateway_on(server) as gateway:
            house = House(_outside(gateway, wrap(database), folder), Settings(state_dir=folder), EDGE)
            tasks = await _start(house, gateway)
            try:
                yield RealHouse(house, server.url, database.path)
            finally:
                await house.reprojector.stop()
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks)
                await house.projections.release()
    finally:
        await database.close()
        await server.stop()


def _outside(gateway: Gateway, database: RegistryDatabase, folder: Path) -> Outside:
    jetstream, names = gateway.jetstream, gateway.names
    return Outside(
        clock=SystemClock(),
        identifiers=RandomIdentifiers(),
        ledger=gateway.ledger,
        documents=NatsDocuments(jetstream, names),
        database=database,
        authority=TokenAuthority(load_or_create_keys(folder / "keys", first_start=True)),
        audit=NatsAuditLog(jetstream, names),
        idempotency=NatsIdempotencyStore(jetstream, names),
        api_tokens=NatsApiTokenStore(jetstream, names),
        document_feed=RecordFeed(jetstream, names, "documents"),
        row_feed=RecordFeed(jetstream, names, "rows"),
        event_feed=EventFeed(jetstream, names),
        views=NatsViews(jetstream, names),
        jobs=NatsJobStore(jetstream, names),
        maintenance=NatsMaintenanceStore(jetstream, names),
        archive=FileArchive(folder / "archive"),
        certificates=MemoryCertificates(),
        nats_authority=MemoryNatsAuthority(),
        nats_account=MemoryNatsAccount(),
        vault=MemoryVault(),
    )


async def _start(house: House, gateway: Gateway) -> list[asyncio.Task[None]]:
    loop = asyncio.get_running_loop()
    tasks = [loop.create_task(follow_ledger(house.index, gateway.ledger), name="index")]
    await house.index.ready.wait()
    projections = house.projections
    for projector in (projections.documents, projections.rows, projections.events):
        tasks.append(loop.create_task(projector.run(), name=projector.name))
    tasks.append(loop.create_task(house.observer.run(), name="heartbeats"))
    house.presence.listening()
    return tasks
