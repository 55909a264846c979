"""Whole daemons but for their doors, several in one process on one real NATS: for races by the thousand."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from jetway import app
from jetway.adapters.archive import FileArchive
from jetway.adapters.authority.keys import TokenKeys
from jetway.adapters.authority.tokens import TokenAuthority
from jetway.adapters.clock import SystemClock
from jetway.adapters.nats.progress import NatsProgress
from jetway.authorities import Authorities
from jetway.core.errors import Refused, RefusedError
from jetway.core.heartbeat import EMPTY, Beat
from jetway.core.ids import Lineage, ServiceKey, ServiceType
from jetway.core.record import ServiceRecord, ServiceStatus
from jetway.entry.workers import Workers
from jetway.services.administer import Affected
from jetway.services.caller import Caller
from jetway.services.house import House, Outside
from jetway.services.index import follow_ledger
from jetway.services.issue import Issued, NewPackageRequest, NewService
from jetway.services.observe import Verdict
from jetway.services.redeem import RedeemAnswer, RedeemRequest
from jetway.settings import Settings
from jetway.tasks import EternalTasks, Releases
from support.authorities import MemoryCertificates, MemoryNatsAuthority, MemoryVault
from support.nats_server import NatsServer

BOB = Caller("bob", "192.0.2.10", "req-9")


@dataclass(frozen=True)
class FakeAuthorities:
    """The same for all daemons of one ledger, as the key files would be."""

    certificates: MemoryCertificates = field(default_factory=MemoryCertificates)
    vault: MemoryVault = field(default_factory=MemoryVault)
    checkpoints: Any = None
    """Nothing here signs any."""


class Stack:
    """One daemon's services on a connection of its own."""

    def __init__(self, server: NatsServer, folder: Path, name: str, **lifecycle: Any) -> None:
        self.settings = Settings.model_validate(
            {
                "state_dir": folder / name,
                "http": {"public_url": "http://gw.example"},
                "nats": {"mode": "external", "urls": [server.url]},
                "database": {"url": f"sqlite:///{folder / 'registry.db'}"},
                "lifecycle": lifecycle,
            }
        )
        self._releases = Releases()
        self._ended: list[str] = []
        self._tasks = EternalTasks(self._ended.append)

    async def start(self, *, leads: bool) -> None:
        settings, clock = self.settings, SystemClock()
        self._releases.add("tasks", self._tasks.stop)
        link = await app.open_nats(settings, app.external_nats(settings), self._releases)
        database = app.open_database(settings)
        self._releases.add("database", database.close)
        await database.open()
        await database.migrate()
        keys = TokenKeys(Ed25519PrivateKey.from_private_bytes(bytes(32)), bytes(32))
        archive = FileArchive(settings.archive_dir)
        authorities = cast("Authorities", FakeAuthorities())
        made = app._outside(
            link,
            database,
            archive,
            TokenAuthority(keys),
            authorities,
            clock,
            settings.state_dir / "checkpoints",
        )
        self.outside: Outside = replace(made, nats_authority=MemoryNatsAuthority())
        self.house = House(self.outside, settings, app._edge(settings, link, ""))
        self._tasks.start("index", follow_ledger(self.house.index, self.outside.ledger))
        await self.house.index.ready.wait()
        progress = NatsProgress(link.connection, link.names)
        await progress.hear(self.house.projections.heard)
        self.house.projections.announce(progress.say)
        self._tasks.start("heartbeats", self.house.observer.run())
        workers = Workers(self.house, self._tasks)
        self._releases.add("workers", workers.stop)
        if leads:
            await workers.start()

    async def stop(self) -> None:
        await self._releases.all()
        assert not self._ended, f"tasks ended: {self._ended}"

    # --- what people and edge hosts do

    async def create(
        self, key: ServiceKey, parent: ServiceKey | None = None, *, idempotency_key: str | None = None
    ) -> Issued:
        service = NewService(
            service_type=key.service_type,
            service_id=key.service_id,
            label=key.service_id,
            parent_id=parent.service_id if parent else "",
            checker_kind="icmp" if key.service_type is ServiceType.CHECKER else "",
        )
        request = NewPackageRequest(service=service)
        return await self.house.issuer.create(BOB, request, idempotency_key, body_sha256=repr(request))

    async def redeem(self, token: str, host: str = "edge") -> RedeemAnswer:
        key = f"U-{host}-{hashlib.sha256(token.encode()).hexdigest()[:16]}"
        request = RedeemRequest(token=token, nats_public_key=key, hostname=host)
        return await self.house.redeemer.redeem(request, source_ip="192.0.2.1")

    async def beat(self, lineage: Lineage) -> Verdict:
        verdict: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        self.house.observer.observe(Beat(lineage, EMPTY), self.outside.clock.now(), verdict.set_result)
        async with asyncio.timeout(120):
            return await verdict

    async def revoke(self, key: ServiceKey) -> Affected:
        return await self.house.administrator.override(BOB, key, ServiceStatus.REVOKED, reason="race")

    async def revoke_package(self, package_id: str) -> Affected:
        return await self.house.administrator.revoke_package(
            BOB, package_id, reason="race", cascade=True, dry_run=False
        )

    async def delete(self, key: ServiceKey) -> Affected:
        return await self.house.administrator.delete(BOB, key, reason="race")

    async def reissue(self, package_id: str) -> Issued:
        return await self.house.issuer.reissue(BOB, package_id, reason="race")

    async def deactivate(self, key: ServiceKey) -> Affected:
        return await self.house.administrator.override(BOB, key, ServiceStatus.INACTIVE, reason="race")

    async def approve(self, key: ServiceKey) -> ServiceRecord:
        return await self.house.administrator.approve(BOB, key, "race")

    # --- what stands in the ledger

    async def record(self, key: ServiceKey) -> ServiceRecord | None:
        return (await self.outside.ledger.read(key)).record

    async def story(self, key: ServiceKey) -> list[str]:
        """All events of a record in order; its revisions must follow each other without a gap."""
        revisions = await self.outside.ledger.history(key)
        assert [record.revision for record in revisions] == list(range(1, len(revisions) + 1))
        return [event.value for record in revisions for event in record.transition.events]

    async def caught_up(self) -> None:
        """The index knows all that is in the ledger."""
        sequence = await self.outside.ledger.last_sequence()
        assert await self.house.index.progress.reached(sequence, 60)


@asynccontextmanager
async def two_stacks(folder: Path, **lifecycle: Any) -> AsyncIterator[tuple[Stack, Stack]]:
    """Two on one server: the first leads."""
    server = NatsServer(folder / "nats-server")
    await server.start()
    stacks = Stack(server, folder, "a", **lifecycle), Stack(server, folder, "b", **lifecycle)
    try:
        await stacks[0].start(leads=True)
        await stacks[1].start(leads=False)
        yield stacks
    finally:
        for stack in reversed(stacks):
            await stack.stop()
        await server.stop()


def code(outcome: object) -> str:
    """Why it was refused; `done` for what was not. Anything but a refusal is an error of the test."""
    if isinstance(outcome, RefusedError):
        return outcome.refused.code.value
    if isinstance(outcome, Refused):
        return outcome.code.value
    if isinstance(outcome, BaseException):
        raise outcome
    return "done"
