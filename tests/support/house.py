"""The whole house over ports in memory, with a clock that only tests move.

The ports and the clock outlive a `crash()`; everything else is built anew by `start()`, as after a restart.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from jetway.adapters.authority.checkpoints import CheckpointSigner
from jetway.adapters.authority.keys import TokenKeys
from jetway.adapters.authority.tokens import TokenAuthority
from jetway.core.documents import Document, decode_document
from jetway.core.heartbeat import EMPTY, Beat, Payload
from jetway.core.ids import Lineage, ServiceKey, ServiceType, document_key
from jetway.core.record import ServiceRecord, ServiceStatus
from jetway.core.rows import Event, ServiceRow
from jetway.ports import Change, Entry, FeedItem
from jetway.services.administer import Affected
from jetway.services.caller import Caller
from jetway.services.house import Checkpointing, Outside
from jetway.services.house import House as Services
from jetway.services.index import follow_ledger
from jetway.services.issue import Issued, NewPackageRequest, NewService
from jetway.services.observe import ImplicitMode, Verdict
from jetway.services.project import Projector
from jetway.services.redeem import EdgeSettings, RedeemAnswer, RedeemRequest
from jetway.settings import HttpSettings, LifecycleSettings, NatsSettings, Settings
from support.authorities import MemoryCertificates, MemoryNatsAccount, MemoryNatsAuthority, MemoryVault
from support.builders import AGENT, CHECKER, LINEAGES, POLLER, CountingIdentifiers, FakeClock
from support.memory import (
    MemoryApiTokenStore,
    MemoryArchive,
    MemoryAuditLog,
    MemoryDocuments,
    MemoryFeed,
    MemoryIdempotencyStore,
    MemoryJobStore,
    MemoryLedger,
    MemoryMaintenanceStore,
    MemoryViews,
)
from support.memory_database import MemoryDatabase
from support.memory_trail import MemoryShelf, MemoryTrail

ALICE = Caller("alice", "192.0.2.9", "req-1")
PROJECTORS = ("documents", "rows", "events")

EDGE = EdgeSettings(
    nats_urls=("nats://gw.example:4222",),
    subject_prefix="edge.heartbeat",
    default_interval=30,
    bucket="config",
    watch_bucket="config_watch",
    gateway_url="https://gw.example",
)

Hook = Callable[[ServiceRecord], Awaitable[None]]


class HouseLedger(MemoryLedger):
    """The ledger in memory, where reads and writes give the loop to others, as over a network.

    `before_write` and `after_write` are called around every write: a race happens where a test wants it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.before_write: Hook | None = None
        self.after_write: Hook | None = None

    @property
    def writes(self) -> int:
        """How many records were written."""
        return self.changes.last

    async def read(self, key: ServiceKey) -> Entry:
        """The key as it stands, a moment later."""
        await asyncio.sleep(0)
        return await super().read(key)

    async def write(self, record: ServiceRecord, expected: int) -> int:
        """Compare and swap, between the hooks."""
        await asyncio.sleep(0)
        if self.before_write:
            await self.before_write(record)
        sequence = await super().write(record, expected)
        if self.after_write:
            await self.after_write(record)
        return sequence


@cache
def _settings(
    implicit: ImplicitMode,
    implicit_limit: int,
    implicit_per_sender: int,
    implicit_per_minute: int,
    token_ttl: timedelta,
    proven: bool,
) -> Settings:
    lifecycle = LifecycleSettings(
        implicit_registration=implicit,
        implicit_limit=implicit_limit,
        implicit_per_sender=implicit_per_sender,
        implicit_per_minute=implicit_per_minute,
        token_ttl=token_ttl,
    )
    nats = NatsSettings(credentials="required" if proven else "auto")
    return Settings(http=HttpSettings(public_url="http://gw.example:8080"), lifecycle=lifecycle, nats=nats)


class House:
    """All services, their workers running, and what a test wants to do with them and see of them."""

    def __init__(
        self,
        *,
        implicit: ImplicitMode = "quarantine",
        implicit_limit: int = 1000,
        implicit_per_sender: int = 100,
        implicit_per_minute: int = 6000,
        token_ttl: timedelta = timedelta(days=1),
        proven: bool = False,
        checkpoints: bool = False,
    ) -> None:
        self.settings = _settings(
            implicit, implicit_limit, implicit_per_sender, implicit_per_minute, token_ttl, proven
        )
        self.clock = FakeClock()
        self.identifiers = CountingIdentifiers()
        self.authority = TokenAuthority(TokenKeys(Ed25519PrivateKey.from_private_bytes(bytes(32)), bytes(32)))
        self.ledger = HouseLedger()
        self.documents = MemoryDocuments()
        self.database = MemoryDatabase()
        self.idempotency = MemoryIdempotencyStore()
        self.audit = MemoryAuditLog(self.ledger)
        self.api_token_store = MemoryApiTokenStore()
        self.document_feed: MemoryFeed[Change] = MemoryFeed(self.ledger.changes)
        self.row_feed: MemoryFeed[Change] = MemoryFeed(self.ledger.changes)
        self.event_feed = MemoryFeed(self.ledger.events)
        self.views = MemoryViews(self.ledger)
        self.job_store = MemoryJobStore()
        self.maintenance_store = MemoryMaintenanceStore()
        self.archive = MemoryArchive()
        self.checkpoints = checkpoints
        self.signer = CheckpointSigner(Ed25519PrivateKey.from_private_bytes(bytes(32)))
        self.trail_reader = MemoryTrail(self.ledger, self.audit)
        self.shelf = MemoryShelf()
        self.certificates = MemoryCertificates()
        self.nats_authority = MemoryNatsAuthority()
        self.nats_account = MemoryNatsAccount()
        self.vault = MemoryVault()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._build()

    def _build(self) -> None:
        outside = Outside(
            clock=self.clock,
            identifiers=self.identifiers,
            ledger=self.ledger,
            documents=self.documents,
            database=self.database,
            authority=self.authority,
            audit=self.audit,
            idempotency=self.idempotency,
            api_tokens=self.api_token_store,
            document_feed=self.document_feed,
            row_feed=self.row_feed,
            event_feed=self.event_feed,
            views=self.views,
            jobs=self.job_store,
            maintenance=self.maintenance_store,
            archive=self.archive,
            certificates=self.certificates,
            nats_authority=self.nats_authority,
            nats_account=self.nats_account,
            vault=self.vault,
            checkpointing=self._checkpointing(),
        )
        services = Services(outside, self.settings, EDGE)
        self.metrics = services.metrics
        self.index = services.index
        self.recorder = services.recorder
        self.presence = services.presence
        self.document_writer = services.document_writer
        self.row_writer = services.row_writer
        self.event_writer = services.event_writer
        self.set_aside = services.set_aside
        self.documents_aside = services.documents_aside
        self.projections = services.projections
        self.api_tokens = services.api_tokens
        self.templates = services.templates
        self.issuer = services.issuer
        self.redeemer = services.redeemer
        self.identities = services.identities
        self.cascades = services.cascades
        self.administrator = services.administrator
        self.renewer = services.renewer
        self.revocations = services.revocations
        self.revocations.pause = 0
        self.floods = services.floods
        self.observer = services.observer
        self.sweeper = services.sweeper
        self.catalogue = services.catalogue
        self.settling = services.settling
        self.turn = services.turn
        self.reconciler = services.reconciler
        self.reprojector = services.reprojector
        self.jobs = services.jobs
        self.fence = services.fence
        self.liveness = services.liveness
        self.changes = services.changes
        self.past = services.past
        self.troubles = services.troubles
        self.maintenance = services.maintenance
        self.watch = services.watch
        self.purger = services.purger

    def _checkpointing(self) -> Checkpointing | None:
        """Only for those who ask: a checkpoint takes its time."""
        if not self.checkpoints:
            return None
        return Checkpointing(reader=self.trail_reader, signer=self.signer, shelf=self.shelf)

    # --- its life

    async def start(self) -> None:
        """Build everything over the ports as they stand, read the ledger, and run."""
        self._build()
        self._run("index", follow_ledger(self.index, self.ledger))
        await self.index.ready.wait()
        for feed in (self.document_feed, self.row_feed, self.event_feed):
            await feed.reopen()
        for name in PROJECTORS:
            self.resume(name)
        self._run("heartbeats", self.observer.run())
        self._run("revocations", self.revocations.run())
        self.presence.listening()

    async def crash(self) -> None:
        """Everything in memory is gone at once: nothing is flushed, nothing is finished."""
        for name in list(self._tasks):
            await self.stall(name)

    async def stall(self, name: str) -> None:
        """A projector (or the task `index`, `heartbeats`) stops where it is."""
        task = self._tasks.pop(name)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    def resume(self, name: str) -> None:
        """A stalled projector goes on."""
        projector: Projector[Any] = getattr(self.projections, name)
        self._run(name, projector.run())

    def resume_index(self) -> None:
        """The stalled task `index` goes on."""
        self._run("index", follow_ledger(self.index, self.ledger))

    def _run(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        self._tasks[name] = asyncio.get_running_loop().create_task(work, name=name)

    async def settle(self) -> None:
        """Let everything under way come to rest. Fails where it never does, or where a task has ended."""
        quiet = 0
        for _ in range(20_000):
            await asyncio.sleep(0)
            for name, task in self._tasks.items():
                assert not task.done(), f"{name} ended: {task!r}"
            quiet = quiet + 1 if await self._at_rest() else 0
            if quiet > 20:
                return
        raise AssertionError("the house does not come to rest")

    async def _at_rest(self) -> bool:
        if "heartbeats" in self._tasks and self.observer.waiting:
            return False
        if "revocations" in self._tasks and not self.revocations.idle:
            return False
        if "index" in self._tasks and self.index.progress.position < self.ledger.writes:
            return False
        feeds: dict[str, MemoryFeed[Any]] = {
            "documents": self.document_feed,
            "rows": self.row_feed,
            "events": self.event_feed,
        }
        return all([await feed.lag() == 0 for name, feed in feeds.items() if name in self._tasks])

    # --- what people and edge hosts do

    async def create(
        self, key: ServiceKey = POLLER, *, idempotency_key: str | None = None, **changes: Any
    ) -> Issued:
        """Create a package for p1, a1 beneath it or c1 beneath that, or as `changes` say."""
        terms = {name: changes.pop(name) for name in ("token_ttl", "notes", "watch") if name in changes}
        request = NewPackageRequest(service=new_service(key, **changes), **terms)
        return await self.issuer.create(ALICE, request, idempotency_key, body_sha256=repr(request))

    async def redeem(
        self, token: str, *, key: str = "", csr: str = "", hostname: str = "edge-1", ip: str = "192.0.2.1"
    ) -> RedeemAnswer:
        """The installer's call, with a NATS key and a certificate request, or without."""
        request = RedeemRequest(token=token, nats_public_key=key, csr_pem=csr, hostname=hostname)
        return await self.redeemer.redeem(request, source_ip=ip, request_id="req-2")

    async def beat(self, lineage: Lineage, payload: Payload = EMPTY) -> Verdict:
        """One heartbeat, received now; its verdict once everything it changes is written."""
        verdicts: list[Verdict] = []
        self.observer.observe(Beat(lineage, payload), self.clock.now(), verdicts.append)
        await self.settle()
        return verdicts[0]

    async def activate(self, key: ServiceKey = POLLER, **changes: Any) -> ServiceRecord:
        """Create, redeem, first heartbeat."""
        issued = await self.create(key, **changes)
        await self.redeem(issued.token)
        await self.beat(issued.record.lineage)
        return self.record(issued.record.key)

    async def activate_tree(self) -> None:
        """p1, a1 beneath it, c1 beneath that: all active."""
        for key in (POLLER, AGENT, CHECKER):
            await self.activate(key)

    async def revoke(self, key: ServiceKey, *, cascade: bool = True, dry_run: bool = False) -> Affected:
        """Revoke by override, whoever has a package or not."""
        return await self.administrator.override(
            ALICE, key, ServiceStatus.REVOKED, reason="stolen", cascade=cascade, dry_run=dry_run
        )

    # --- what can be seen from outside

    def record(self, key: ServiceKey) -> ServiceRecord:
        """The record in the ledger."""
        found = self.ledger.entries[key].record
        assert found is not None
        return found

    def status(self, key: ServiceKey) -> str:
        """Its status in the ledger, `-` where there is no record."""
        entry = self.ledger.entries.get(key)
        return entry.record.status.value if entry and entry.record else "-"

    def document(self, lineage: Lineage) -> Document | None:
        """Its config document, None where there is none."""
        stored = self.documents.documents.get(document_key(lineage))
        return decode_document(stored.data) if stored and stored.data is not None else None

    def row(self, key: ServiceKey) -> ServiceRow | None:
        """Its row in the registry database."""
        return self.database.services.get(key)

    def trail_of(self, key: ServiceKey) -> list[str]:
        """The event types in the database of one service, in the order in which they happened."""
        found = [e for e in self.database.events.values() if e.service_id == key.service_id]
        return [e.event_type for e in sorted(found, key=lambda e: (e.epoch, e.revision)) if e.revision]

    def events(self, event_type: str) -> list[Event]:
        """The events of that type in the database."""
        return [event for event in self.database.events.values() if event.event_type == event_type]

    def refused(self, reason: str) -> int:
        """How many heartbeats were refused for that reason."""
        return int(self.metrics.heartbeats_refused.labels(reason)._value.get())

    async def deliver_again(self) -> None:
        """All three feeds deliver everything from the beginning, as after lost acknowledgements."""
        await self.document_writer.write(_all(self.ledger.changes.values))
        await self.row_writer.write(_all(self.ledger.changes.values))
        await self.event_writer.write(_all(self.ledger.events.values))


def _all(values: list[Any]) -> list[FeedItem[Any]]:
    return [FeedItem(value, position) for position, value in enumerate(values, 1)]


def new_service(key: ServiceKey = POLLER, **changes: Any) -> NewService:
    """What a person asks for: p1, a1 beneath it or c1 beneath that."""
    kind = key.service_type
    values: dict[str, Any] = {
        "label": f"The {kind.value}",
        "service_id": key.service_id,
        "parent_id": LINEAGES[kind].parent_id,
        "checker_kind": "snmp" if kind is ServiceType.CHECKER else "",
    }
    return NewService(service_type=kind, **(values | changes))


@asynccontextmanager
async def running_house(**settings: Any) -> AsyncIterator[House]:
    """A house that is started, and whose tasks end with the block."""
    house = House(**settings)
    await house.start()
    try:
        yield house
    finally:
        await house.crash()
