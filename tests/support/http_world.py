"""The HTTP door over the real services, with everything outside in memory."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, cast

from aiohttp import ClientResponse, ClientSession
from prometheus_client import CollectorRegistry

from jetway.adapters.authority.keys import load_or_create_keys
from jetway.adapters.authority.tokens import TokenAuthority
from jetway.core.chain import digest_of
from jetway.core.errors import ConflictError, RefusedError
from jetway.core.ids import ServiceKey
from jetway.core.liveness import Thresholds
from jetway.core.record import ServiceRecord, encode_record
from jetway.core.rows import Event, events_of
from jetway.entry.http.server import Doors, HttpServer
from jetway.logs import LogLevels
from jetway.ports import ApiToken, Change, ChangeBatch, Claim, Entry, StoredDocument
from jetway.services.administer import Administrator
from jetway.services.admit import Admission
from jetway.services.api_tokens import ApiTokens
from jetway.services.caller import Caller
from jetway.services.cascade import Cascades
from jetway.services.census import CensusTerms
from jetway.services.count_history import CountHistory
from jetway.services.document_state import DocumentReader
from jetway.services.due import DueReader
from jetway.services.findings import ReconcileReport
from jetway.services.health import Component, Health, HealthReport
from jetway.services.identities import Identities
from jetway.services.index import Index
from jetway.services.issue import Issuer
from jetway.services.jobs import JobBook, JobReport, JobSpec
from jetway.services.key_owners import KeyOwners
from jetway.services.metrics import Metrics
from jetway.services.past import PastReader
from jetway.services.presence import PresenceTable
from jetway.services.project import Projections
from jetway.services.purge import Purger
from jetway.services.reach import Reach
from jetway.services.reconcile import Reconciler
from jetway.services.recorder import Recorder
from jetway.services.redeem import EdgeSettings, Redeemer
from jetway.services.refusals import Refusals
from jetway.services.rendering import Rendering
from jetway.services.renew import Renewer
from jetway.services.reproject import Reprojection, Reprojector
from jetway.services.revocations import Revocations
from jetway.services.templates import Templates
from jetway.services.trail import Trail
from jetway.services.watch import Watch
from jetway.settings import Settings, load_settings
from support.authorities import TERMS, MemoryCertificates, MemoryNatsAccount, MemoryNatsAuthority, MemoryVault
from support.builders import CountingIdentifiers, FakeClock
from support.liveness import Watched
from support.memory import MemoryJobStore
from support.memory_database import MemoryDatabase


class HttpLedger:
    """A ledger whose index and trail follow at once."""

    def __init__(self, database: MemoryDatabase) -> None:
        self.epoch = 1
        self.index = Index()
        self.next_error: Exception | None = None
        self._database = database
        self._entries: dict[ServiceKey, Entry] = {}
        self._sequence = 0

    async def read(self, key: ServiceKey) -> Entry:
        self._fail()
        return self._entries.get(key, Entry(None, 0))

    async def write(self, record: ServiceRecord, expected: int) -> int:
        self._fail()
        if self._entries.get(record.key, Entry(None, 0)).sequence != expected:
            raise ConflictError
        self._sequence += 1
        digest = digest_of(encode_record(record))
        self._entries[record.key] = Entry(record, self._sequence, digest)
        self.index.apply(record, self._sequence, digest)
        self.index.progress.advance(self._sequence)
        await self._database.append_events(events_of(record))
        return self._sequence

    async def follow(self, after: int = 0) -> AsyncIterator[ChangeBatch]:
        empty: Sequence[Change] = ()
        yield ChangeBatch(empty, True)

    async def last_sequence(self) -> int:
        return self._sequence

    def _fail(self) -> None:
        error, self.next_error = self.next_error, None
        if error:
            raise error


class HttpDocuments:
    """Templates, and what a test puts there."""

    def __init__(self, contents: Mapping[str, bytes]) -> None:
        self.contents = dict(contents)
        self.next_error: Exception | None = None

    async def read(self, key: str) -> StoredDocument:
        if self.next_error:
            raise self.next_error
        data = self.contents.get(key)
        return StoredDocument(data, 1 if data else 0)

    async def write(self, key: str, data: bytes, expected: int) -> int:
        raise NotImplementedError

    async def delete(self, key: str, expected: int) -> None:
        raise NotImplementedError

    async def forget_earlier(self, key: str) -> None:
        """Nothing is kept here."""

    async def keys(self, prefix: str) -> Sequence[str]:
        return sorted(key for key in self.contents if key.startswith(prefix))


class HttpClaims:
    def __init__(self) -> None:
        self._claims: dict[str, Claim] = {}

    async def claim(self, key_sha256: str, claim: Claim) -> Claim:
        return self._claims.setdefault(key_sha256, claim)


class HttpTokens:
    def __init__(self) -> None:
        self._tokens: dict[str, ApiToken] = {}

    async def put(self, token: ApiToken) -> None:
        if token.name in self._tokens:
            raise ConflictError
        self._tokens[token.name] = token

    async def remove(self, name: str) -> bool:
        return self._tokens.pop(name, None) is not None

    async def note_use(self, token: ApiToken, at: datetime) -> None:
        self._tokens[token.name] = dataclasses.replace(token, last_used_at=at)

    async def load(self) -> Sequence[ApiToken]:
        return list(self._tokens.values())

    async def follow(self) -> AsyncIterator[Sequence[ApiToken]]:
        yield list(self._tokens.values())


class HttpTrail:
    def __init__(self, database: MemoryDatabase) -> None:
        self._database = database

    async def append(self, event: Event) -> None:
        await self._database.append_events([event])


class Settled:
    """Projections that are never behind, unless told so."""

    row = "written"

    async def settled(self, sequence: int, timeout: float, keys: Sequence[ServiceKey]) -> dict[str, str]:
        return {"document": "written", "row": self.row}


@dataclass
class FakeHealth:
    ready: bool = True
    alive: bool = True
    components: dict[str, Component] = field(default_factory=lambda: {"nats": Component("ok")})

    def live(self) -> bool:
        return self.alive

    async def report(self) -> HealthReport:
        return HealthReport(self.ready, "ok" if self.ready else "unavailable", self.components)


def count_job(index: Index) -> JobSpec:
    """A job that counts the services."""

    async def run(_dry_run: bool) -> JobReport:
        return JobReport(counts={"services": len(index.records)})

    return JobSpec(name="count", description="Counts the services.", every=timedelta(hours=1), run=run)


@dataclass
class FakeUpkeep:
    """A reconciler and a reprojector that say what they are told to say."""

    clock: FakeClock
    refused: RefusedError | None = None
    state: Reprojection = field(default_factory=Reprojection)

    async def run(self) -> ReconcileReport:
        self._refuse()
        now = self.clock.now()
        return ReconcileReport(
            checked=3,
            documents_mended=1,
            rows_mended=2,
            orphans=0,
            gaps_found=1,
            gaps_mended=1,
            gaps_open=0,
            started_at=now,
            finished_at=now,
            findings=("audit gap: agent.a1 revision 2",),
            errors=(),
        )

    def start(self, caller: Caller) -> Reprojection:
        self._refuse()
        self.state = Reprojection("running", total=3, started_at=self.clock.now())
        return self.state

    def _refuse(self) -> None:
        if self.refused:
            raise self.refused


@dataclass
class World:
    """Everything a test looks at."""

    server: HttpServer
    doors: Doors
    ledger: HttpLedger
    clock: FakeClock
    database: MemoryDatabase
    health: FakeHealth
    projections: Settled
    registry: CollectorRegistry
    session: ClientSession
    tokens: dict[str, str]
    nats_authority: MemoryNatsAuthority
    documents: HttpDocuments
    watched: Watched
    presence: PresenceTable

    async def call(
        self, method: str, path: str, body: Any = None, *, role: str | None = "admin", **more: Any
    ) -> Answer:
        headers = {
            **({"Authorization": f"Bearer {self.tokens[role]}"} if role else {}),
            **more.pop("headers", {}),
        }
        if body is not None:
            more |= {"data": body if isinstance(body, bytes) else json.dumps(body)}
            headers.setdefault("Content-Type", "application/json")
        async with self.session.request(method, self.server.url + path, headers=headers, **more) as response:
            return await Answer.of(response)

    async def create(self, kind: str, service_id: str, parent_id: str = "", **more: Any) -> dict[str, Any]:
        body = {
            "component_type": kind,
            "label": service_id,
            "component_id": service_id,
            "parent_id": parent_id,
        }
        if kind == "checker":
            body["checker_kind"] = "ping"
        answer = await self.call("POST", "/api/admin/edge-packages", body | more)
        assert answer.status == 201, answer.json
        return cast("dict[str, Any]", answer.json)

    async def redeem(self, token: str, *, headers: dict[str, str] | None = None, **more: Any) -> Answer:
        body = {"token": token} | more
        return await self.call("POST", "/api/edge/redeem", body, role=None, headers=headers or {})


@dataclass
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @classmethod
    async def of(cls, response: ClientResponse) -> Answer:
        return cls(response.status, response.headers.copy(), await response.read())

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        assert self.headers["Content-Type"].startswith("application/problem+json"), self.headers
        return str(self.json["code"])

    @property
    def fields(self) -> list[str]:
        return [error["field"] for error in self.json["errors"]]


def http_settings(folder: Path, **http: Any) -> Settings:
    return load_settings(overrides={"state_dir": folder, "http": {"listen": "127.0.0.1:0"} | http})


@asynccontextmanager
async def http_world(folder: Path, **http: Any) -> AsyncIterator[World]:
    """A served world; keyword arguments are settings of `http`."""
    settings = http_settings(folder, **http)
    clock, identifiers, database, registry = (
        FakeClock(),
        CountingIdentifiers(),
        MemoryDatabase(),
        CollectorRegistry(),
    )
    ledger = HttpLedger(database)
    recorder = Recorder(ledger, ledger.index, clock, identifiers)
    presence = PresenceTable(clock, default_interval=30, thresholds=Thresholds())
    watched = Watched(ledger.index, presence, clock)
    template = json.dumps({"host": "{{agent_address}}"}).encode()
    documents = HttpDocuments({"templates/checkers/tcp.json": template})
    templates = Templates(documents, default_interval=30, default_token_ttl=86400)
    authority = TokenAuthority(load_or_create_keys(folder / "keys", first_start=True))
    trail = Trail(HttpTrail(database), clock, identifiers)
    projections, health = Settled(), FakeHealth()
    api_tokens = ApiTokens(HttpTokens(), trail, clock)
    refusals = Refusals(trail, clock, Metrics().count_api_refusal)
    edge = EdgeSettings(
        nats_urls=["nats://127.0.0.1:4222"],
        subject_prefix="edge.heartbeat",
        default_interval=30,
        bucket="config",
        watch_bucket="config_watch",
    )
    nats_authority = MemoryNatsAuthority()
    nats_authority.issues = False  # as on loopback, where the server asks for no credentials
    identities = Identities(
        MemoryCertificates(), nats_authority, MemoryVault(), KeyOwners(ledger.index), TERMS
    )
    revocations = Revocations(ledger.index, MemoryNatsAccount(), MemoryCertificates(), clock, Metrics())
    revocations.pause = 0
    ledger.index.ready.set()
    telling = asyncio.get_running_loop().create_task(revocations.run(), name="revocations")
    reach = Reach(cast("Projections", projections), revocations)
    upkeep = FakeUpkeep(clock)
    renewer = Renewer(recorder, identities, nats_authority, lambda outcome: None)
    renewer.on_refused = refusals.note_renewal
    doors = Doors(
        issuer=Issuer(
            recorder,
            authority,
            HttpClaims(),
            templates,
            cast("Projections", projections),
            public_url="http://gateway.example",
            token_ttl=timedelta(days=1),
        ),
        redeemer=Redeemer(recorder, authority, identities, trail, edge, lambda outcome: None),
        renewer=renewer,
        administrator=Administrator(recorder, Cascades(recorder), reach),
        catalogue=watched.catalogue(database),
        maintenance=watched.maintenance,
        past=PastReader(ledger.index, presence, watched.verdicts, watched.changes, clock),
        due=DueReader(ledger.index, clock, CensusTerms()),
        counts=CountHistory(database, clock, settings.lifecycle.audit_kept),
        documents=DocumentReader(documents, Rendering(ledger.index, presence, default_interval=30)),
        api_tokens=api_tokens,
        refusals=refusals,
        health=cast("Health", health),
        templates=templates,
        reconciler=cast("Reconciler", upkeep),
        reprojector=cast("Reprojector", upkeep),
        jobs=JobBook([count_job(ledger.index)], MemoryJobStore(), clock, Metrics()),
        purger=cast("Purger", None),
        trail=trail,
        watch=Watch(ledger.index),
        log_levels=LogLevels("info"),
        admission=Admission(ledger.index, clock, Metrics(), mode="enforce", known_pollers=("static",)),
        epoch=lambda: ledger.epoch,
        authority=authority,
    )
    tokens = {}
    for role in ("viewer", "operator", "admin"):
        tokens[role], _ = await api_tokens.create(Caller("test"), role, role)
    server = HttpServer(doors, settings, registry, clock)
    await server.start()
    try:
        async with ClientSession() as session:
            yield World(
                server,
                doors,
                ledger,
                clock,
                database,
                health,
                projections,
                registry,
                session,
                tokens,
                nats_authority,
                documents,
                watched,
                presence,
            )
    finally:
        await server.stop()
        telling.cancel()
        await asyncio.wait([telling])
