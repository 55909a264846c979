"""The composition root: the only file that knows every adapter. Builds in order, stops in reverse."""

from __future__ import annotations

import asyncio
import json
import math
import os
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import structlog

from jetway import __version__
from jetway.adapters.archive import FileArchive
from jetway.adapters.authority.keys import TokenKeys, load_or_create_keys
from jetway.adapters.authority.server_certificate import https_certificate
from jetway.adapters.authority.tokens import TokenAuthority
from jetway.adapters.checkpoint_files import CheckpointFiles
from jetway.adapters.clock import RandomIdentifiers, SystemClock
from jetway.adapters.holder import lease_holder
from jetway.adapters.nats.bucket import Bucket
from jetway.adapters.nats.certificate import CertificateKeeper
from jetway.adapters.nats.documents import NatsDocuments
from jetway.adapters.nats.feeds import EventFeed, RecordFeed
from jetway.adapters.nats.heartbeats import NatsHeartbeats
from jetway.adapters.nats.jobs import NatsJobStore
from jetway.adapters.nats.lease import NatsLease
from jetway.adapters.nats.ledger import NatsLedger
from jetway.adapters.nats.maintenance import NatsMaintenanceStore
from jetway.adapters.nats.meta import LedgerMeta
from jetway.adapters.nats.progress import NatsProgress
from jetway.adapters.nats.renewals import NatsRenewals
from jetway.adapters.nats.server import EmbeddedServer
from jetway.adapters.nats.stores import NatsApiTokenStore, NatsAuditLog, NatsIdempotencyStore
from jetway.adapters.nats.trail import NatsTrail
from jetway.adapters.nats.views import NatsViews
from jetway.adapters.presence_file import SNAPSHOT_FILE, PresenceFile
from jetway.adapters.statedir import LedgerIdentity, StateDir, atomic_write
from jetway.adapters.webhooks import open_webhooks
from jetway.authorities import Authorities, open_authorities
from jetway.collector import Collector
from jetway.core.errors import PortError, RefusedError, StartupError, UnavailableError
from jetway.core.grants import RENEW_PREFIX
from jetway.databases import Database, migrate_at_start, open_database, schema_version
from jetway.entry.heartbeats import HeartbeatDoor
from jetway.entry.http.doors import Doors
from jetway.entry.http.server import HttpServer
from jetway.entry.http.tls import Tls
from jetway.entry.renewals import RenewalDoor
from jetway.entry.shares import sender_shares
from jetway.entry.workers import Workers
from jetway.logs import LogLevels
from jetway.nats_api import NatsApi
from jetway.nats_link import (
    NatsLink,
    NatsWay,
    external_nats,
    nats_certificate,
    open_nats,
    start_embedded_nats,
)
from jetway.ports import ServerCertificate
from jetway.resources import resource_dir
from jetway.services.allowance import Allowance
from jetway.services.api_tokens import ApiTokens
from jetway.services.caller import Caller
from jetway.services.health import Component, Health
from jetway.services.hearing import HearingWatch
from jetway.services.house import Checkpointing, House, Outside
from jetway.services.index import follow_ledger
from jetway.services.keeping import PresenceKeeper
from jetway.services.redeem import EdgeSettings
from jetway.services.templates import shipped_templates
from jetway.services.watch import RECALLED, RECENT_CHANGES
from jetway.setting_types import split_address
from jetway.settings import Settings
from jetway.tasks import EternalTasks, Releases

log = structlog.get_logger()

ADMIN_TOKEN_FILE = "admin.token"  # noqa: S105 - a file's name
DAEMON_FILE = "daemon.json"
_ANSWER_SECONDS = 2.0
_HYDRATION_SECONDS = 120.0
_GAUGE_SECONDS = 10.0
_SAMPLE_SECONDS = 0.05
_WORKERS_STOP_SECONDS = 10.0


class Daemon:
    """Everything wired. `start()`, then `stop()`, also after a failed start."""

    def __init__(self, settings: Settings) -> None:
        self.settings = _with_known_port(settings)
        self.url = ""
        self.ended = asyncio.Event()
        """Set when an eternal task ended: the daemon should be restarted."""
        self._releases = Releases()
        self._tasks = EternalTasks(self._incident)
        self._collector = Collector()
        self._health: Health | None = None
        self._hearing: HearingWatch | None = None
        self._server: EmbeddedServer | None = None
        self._nats_certificate: CertificateKeeper | None = None
        self._https: ServerCertificate | None = None
        self._tls: Tls | None = None
        self._lease: NatsLease | None = None
        self._versions: Callable[[], Awaitable[Mapping[str, str]]] | None = None

    async def start(self) -> None:
        """Build in order. Raises StartupError with a sentence that names what to change."""
        settings, clock = self.settings, SystemClock()
        self._collector.begin()
        state = StateDir(settings.state_dir)
        state.prepare()
        self._releases.add("state lock", state.lock().release)
        self._releases.add("tasks", self._tasks.stop)
        remembered = state.read_ledger()
        keys = load_or_create_keys(settings.state_dir / "keys", first_start=remembered is None)

        link = await open_nats(settings, await self._way_to_nats(settings), self._releases)
        _recognise(state, remembered, link.meta)
        await _agree_on_keys(link, keys)
        database = open_database(settings)
        self._releases.add("database", database.close)
        await database.open()
        await migrate_at_start(database)
        self._versions = partial(_versions, link, database)

        authorities = await open_authorities(settings, link.store, clock)
        self._https = https_certificate(settings, authorities.certificates, clock)
        outside = _outside(
            link,
            database,
            FileArchive(settings.archive_dir),
            TokenAuthority(keys),
            authorities,
            clock,
            settings.state_dir / "checkpoints",
        )
        outside = replace(outside, alert_senders=open_webhooks(settings.alerts, clock))
        house = House(outside, settings, _edge(settings, link, authorities.certificates.pin))
        await self._read_the_ledger(house, outside)
        await self._remember_presence(house, link.meta, clock)
        await self._lead(house, link, outside)
        await self._prepare_content(house)
        shares = sender_shares(clock, house.floods.begin)
        heartbeats = await self._start_heartbeats(house, link, clock, shares)
        await self._start_renewals(house, link, shares)
        api = NatsApi(link.connection, link.names, house.metrics, self._releases)
        await api.open(house.admission, house.catalogue, clock, outside.identifiers)
        self._tasks.start("gauges", _measure(house, link, heartbeats))
        self._tasks.start("loop-monitor", _watch_loop(house, self._collector))
        await self._open_http(house, outside, link, clock)
        # What was built so far lives as long as the process: the collector need not look at it again.
        self._collector.settle()
        count = len(house.index.records)
        log.info("ready", action="ready", url=self.url, nats=link.urls, services=count, version=__version__)

    async def stop(self) -> None:
        """Stop in reverse order, each step bounded. Safe to call again."""
        await self._releases.all()

    async def reload(self) -> None:
        """Take over certificates that were exchanged; whatever is open goes on."""
        if self._tls is not None:
            await self._tls.reload()
        if self._server is not None and self._nats_certificate is not None:
            await self._nats_certificate.reload(self._server)

    async def _way_to_nats(self, settings: Settings) -> NatsWay:
        """Where to connect and as whom; in embedded mode to the server that is started here."""
        if settings.nats.mode == "external":
            return external_nats(settings)
        certificate = nats_certificate(settings, SystemClock())
        way = await start_embedded_nats(settings, self._releases, certificate)
        self._server, self._nats_certificate = way.server, way.certificate
        if way.server and way.certificate:
            self._tasks.start("nats-certificate", way.certificate.run(way.server))
        return way

    async def _read_the_ledger(self, house: House, outside: Outside) -> None:
        self._tasks.start("index", follow_ledger(house.index, outside.ledger))
        try:
            async with asyncio.timeout(_HYDRATION_SECONDS):
                await house.index.ready.wait()
        except TimeoutError:
            raise StartupError("the ledger could not be read in time: see the log") from None
        house.index.on_change(house.metrics.count_change)
        house.index.on_change(house.alerts.record_changed)
        self._tasks.start("alerts", house.alerts.run())
        self._tasks.start("revocations", house.revocations.run())

    async def _remember_presence(self, house: House, meta: LedgerMeta, clock: SystemClock) -> None:
        """What was heard before, ahead of what the database knows of it."""
        file = PresenceFile(self.settings.state_dir / SNAPSHOT_FILE, meta.ledger_id, meta.epoch)
        keeper = PresenceKeeper(house.presence, house.index, house.changes, file)
        await keeper.restore()
        house.watch.recall(house.changes.turned_since(clock.now() - RECALLED, RECENT_CHANGES))
        await house.troubles.recall()
        # Kept in the end as well: after the last heartbeat, as what is built later is taken down before.
        self._releases.add("presence snapshot", keeper.save)
        self._tasks.start("presence-snapshot", keeper.run())

    async def _lead(self, house: House, link: NatsLink, outside: Outside) -> None:
        """Run projections and jobs: always where the NATS server is our own, by lease where others may be."""
        await _try(partial(_soon, house.row_writer.remember))
        workers = Workers(house, self._tasks)
        house.turn.leads = house.jobs.leads = lambda: workers.running
        if self.settings.nats.mode == "embedded":
            self._releases.add("workers", workers.stop)
            await workers.start()
            return
        progress = NatsProgress(link.connection, link.names)
        await progress.hear(house.projections.heard)
        house.projections.announce(progress.say)
        bucket = Bucket(link.jetstream, link.names.meta_bucket)
        holder = lease_holder(self.settings.state_dir, outside.identifiers)
        self._lease = lease = NatsLease(
            bucket, outside.clock, outside.identifiers, holder=holder, host=socket.gethostname()
        )
        house.led_by(lease)
        # Let go in reverse: another daemon leads once nothing here works for the lease any more.
        self._releases.add("lease", lease.release)
        self._releases.add("workers", workers.stop, _WORKERS_STOP_SECONDS)
        self._releases.add("leading", lambda: self._tasks.stop("leading"))
        self._tasks.start("lease", lease.run())
        self._tasks.start("leading", workers.follow(lease))

    async def _prepare_content(self, house: House) -> None:
        """What must be there before anybody calls: templates, pollers from the settings, API tokens."""
        templates = resource_dir("config") / "templates" / "checkers"
        files = {path.name: path.read_bytes() for path in sorted(templates.glob("*.json"))}
        await house.templates.seed(shipped_templates(files))
        for poller in self.settings.lifecycle.known_pollers:
            await house.issuer.register_known(poller)
        await house.api_tokens.load()
        self._tasks.start("api-tokens", house.api_tokens.run())
        self._releases.add("uses of API tokens", house.api_tokens.store_uses)
        self._tasks.start("uses of API tokens", house.api_tokens.keep_uses())
        self._releases.add("refused calls", partial(house.refusals.tell, all_of_it=True))
        self._tasks.start("refused calls", house.refusals.run())
        await _first_admin_token(house.api_tokens, self.settings.state_dir / ADMIN_TOKEN_FILE)

    async def _start_heartbeats(
        self, house: House, link: NatsLink, clock: SystemClock, shares: Allowance
    ) -> NatsHeartbeats:
        prefix = self.settings.heartbeat.subject_prefix
        heartbeats = NatsHeartbeats(link.edge, prefix)
        door = HeartbeatDoor(house.observer, heartbeats, clock, prefix, shares)
        self._releases.add("heartbeat writers", lambda: self._tasks.stop("heartbeats"))
        self._tasks.start("heartbeats", house.observer.run())
        self._releases.add("answers", door.drain)
        self._releases.add("heartbeats", heartbeats.close)
        link.edge.on_disconnect.append(house.presence.deaf)
        link.edge.on_reconnect.append(house.presence.listening)
        await heartbeats.open(door.take)
        house.presence.listening()
        self._hearing = hearing = HearingWatch(heartbeats, house.presence, clock)
        house.metrics.hearing_age.set_function(lambda: hearing.age_seconds)
        self._tasks.start("hearing", self._hearing.run())
        self._tasks.start("liveness", house.liveness.run())
        self._tasks.start("troubles", house.troubles.run())
        self._tasks.start("floods", house.floods.run())
        self._tasks.start("maintenance", house.maintenance.run())
        return heartbeats

    async def _start_renewals(self, house: House, link: NatsLink, shares: Allowance) -> None:
        renewals = NatsRenewals(link.edge, RENEW_PREFIX)
        door = RenewalDoor(house.renewer, renewals, shares)
        self._releases.add("renewal answers", door.drain)
        self._releases.add("renewals", renewals.close)
        await renewals.open(door.take)

    async def _open_http(self, house: House, outside: Outside, link: NatsLink, clock: SystemClock) -> None:
        self._health = Health(
            house.index,
            house.projections,
            outside.database,
            lambda: _nats_health(link, self._server),
            clock,
            house.reconciler,
            outside.views,
            outside.ledger,
            self._hearing,
            house.set_aside,
            partial(_leader, self._lease) if self._lease else None,
            house.revocations,
            house.documents_aside,
            lambda: house.index_age.seconds,
            house.recorder.writes,
            self.settings.heartbeat_proof,
        )
        self._tasks.start("database-watch", self._health.database.run())
        levels = LogLevels(self.settings.log.level)
        self._releases.add("log level", levels.fall_back)
        doors = Doors(
            issuer=house.issuer,
            redeemer=house.redeemer,
            renewer=house.renewer,
            administrator=house.administrator,
            catalogue=house.catalogue,
            api_tokens=house.api_tokens,
            refusals=house.refusals,
            health=self._health,
            templates=house.templates,
            reconciler=house.reconciler,
            reprojector=house.reprojector,
            jobs=house.jobs,
            trail=house.trail,
            maintenance=house.maintenance,
            past=house.past,
            counts=house.counts,
            due=house.due,
            documents=house.document_reader,
            purger=house.purger,
            watch=house.watch,
            admission=house.admission,
            log_levels=levels,
            epoch=lambda: outside.ledger.epoch,
            authority=outside.authority,
            certificates=outside.certificates,
            crl=house.revocations.revocation_list,
            versions=self._versions,
        )
        self._releases.add("reproject", house.reprojector.stop)
        self._tls = await self._open_tls(house)
        server = HttpServer(doors, self.settings, house.metrics.registry, clock, self._tls)
        self._releases.add("HTTP", server.stop, 8.0)
        await server.start()
        self.url = server.url
        file = self.settings.state_dir / DAEMON_FILE
        self._tell_where(file, link.urls)
        if self._tls is not None:
            self._tls.on_change.append(lambda: self._tell_where(file, link.urls))
        self._releases.add("daemon.json", lambda: file.unlink(missing_ok=True))

    async def _open_tls(self, house: House) -> Tls | None:
        if self._https is None:
            return None
        tls = Tls(self._https, house.metrics.registry)
        await tls.open()
        self._tasks.start("https-certificate", tls.run())
        return tls

    def _tell_where(self, file: Path, nats_urls: Sequence[str]) -> None:
        """For the commands on this machine: where the daemon is, and by which certificate they know it."""
        told = {"url": self.url, "nats_urls": nats_urls, "pid": os.getpid()}
        if self._tls is not None:
            told["certificate_pem"] = self._tls.certificate_pem
        atomic_write(file, json.dumps(told).encode())

    def _incident(self, name: str) -> None:
        if self._health:
            self._health.failed_task = name
        self.ended.set()


def _with_known_port(settings: Settings) -> Settings:
    """Port 0 settled before anything is built: the address goes into tokens."""
    host, port = split_address(settings.http.listen)
    if port:
        return settings
    with socket.socket() as probe:
        probe.bind((host, 0))
        listen = f"{host}:{probe.getsockname()[1]}"
    return settings.model_copy(update={"http": settings.http.model_copy(update={"listen": listen})})


def _recognise(state: StateDir, remembered: LedgerIdentity | None, meta: LedgerMeta) -> None:
    """Refuse a ledger that is not the one this state belongs to: a silent new world loses the old one."""
    if remembered is not None and remembered.ledger_id != meta.ledger_id:
        raise StartupError(
            f"the ledger in NATS is {meta.ledger_id}, this state directory belongs to {remembered.ledger_id}: "
            f"restore NATS from a backup, or move {state.path} away to begin anew"
        )
    if remembered is not None and meta.epoch < remembered.epoch:
        raise StartupError(
            f"the ledger in NATS is of epoch {meta.epoch}, this state directory has seen {remembered.epoch}: "
            f"these are NATS servers of before a restore; point the daemon at the restored ones, or move "
            f"{state.path} away to go back to them"
        )
    if remembered is None or remembered.epoch != meta.epoch:
        state.write_ledger(LedgerIdentity(meta.ledger_id, meta.epoch))


async def _agree_on_keys(link: NatsLink, keys: TokenKeys) -> None:
    """Refuse keys that are not the ledger's: tokens made with others would be worth nothing here."""
    copy = "copy the directory keys/ from the daemon that made the ledger"
    standing = await link.store.agree("token_key", keys.key_id)
    if standing != keys.key_id:
        raise StartupError(
            f"keys: the token key is {keys.key_id}, this ledger's tokens are signed with {standing}: {copy}"
        )
    standing = await link.store.agree("token_secret", keys.secret_id)
    if standing != keys.secret_id:
        raise StartupError(
            f"keys: the token secret is {keys.secret_id}, this ledger's tokens have theirs from {standing}: {copy}"
        )


def _outside(
    link: NatsLink,
    database: Database,
    archive: FileArchive,
    authority: TokenAuthority,
    authorities: Authorities,
    clock: SystemClock,
    checkpoints: Path,
) -> Outside:
    jetstream, names = link.jetstream, link.names
    return Outside(
        clock=clock,
        identifiers=RandomIdentifiers(),
        ledger=NatsLedger(jetstream, names, link.meta),
        documents=NatsDocuments(jetstream, names),
        database=database,
        authority=authority,
        audit=NatsAuditLog(jetstream, names),
        idempotency=NatsIdempotencyStore(jetstream, names),
        api_tokens=NatsApiTokenStore(jetstream, names),
        document_feed=RecordFeed(jetstream, names, "documents"),
        row_feed=RecordFeed(jetstream, names, "rows"),
        event_feed=EventFeed(jetstream, names),
        views=NatsViews(jetstream, names),
        certificates=authorities.certificates,
        nats_authority=link.way.authority,
        nats_account=link.way.account,
        vault=authorities.vault,
        checkpointing=Checkpointing(
            reader=NatsTrail(jetstream, names, link.meta),
            signer=authorities.checkpoints,
            shelf=CheckpointFiles(checkpoints),
        ),
        jobs=NatsJobStore(jetstream, names),
        maintenance=NatsMaintenanceStore(jetstream, names),
        archive=archive,
    )


def _edge(settings: Settings, link: NatsLink, pin: str) -> EdgeSettings:
    return EdgeSettings(
        nats_urls=settings.nats.public_urls or link.urls,
        subject_prefix=settings.heartbeat.subject_prefix,
        default_interval=settings.interval_seconds,
        bucket=link.names.config_bucket,
        watch_bucket=link.names.watch_bucket,
        live_prefix=link.names.live_prefix.removesuffix(".config"),
        nats_ca_pem=link.way.ca_pem,
        ca_pin=pin if settings.pins_own_authority else "",
        gateway_url=settings.public_url,
        js_api=link.names.grants(settings.heartbeat.subject_prefix, settings.nats).js_api,
    )


def _nats_health(link: NatsLink, server: EmbeddedServer | None) -> Component:
    trouble = link.trouble or (server.trouble if server else "")
    # Where hosts get no credentials that is told, but nothing is ill.
    return Component("down", trouble) if trouble else Component("ok", link.way.authority.why_not)


async def _versions(link: NatsLink, database: Database) -> dict[str, str]:
    server = ".".join(map(str, link.connection.server_version))
    return {"NATS server": server, "Database schema": await schema_version(database)}


def _leader(lease: NatsLease) -> Component:
    """Which daemon projects and runs the jobs."""
    if lease.held:
        return Component("ok", "this daemon leads")
    if lease.leader is None:
        return Component("degraded", "no daemon leads: nothing is projected until one takes the lease")
    return Component("ok", f"another daemon leads, on {lease.leader or 'a host without a name'}")


async def _try(action: Callable[[], Awaitable[object]]) -> None:
    """Do it now if it can be done; a job or a worker does it later otherwise."""
    try:
        await action()
    except PortError as error:
        log.warning("put off", action="put_off", error=str(error))


async def _soon(action: Callable[[], Awaitable[object]]) -> None:
    """Raise UnavailableError where it takes longer than a start may wait."""
    try:
        async with asyncio.timeout(_ANSWER_SECONDS):
            await action()
    except TimeoutError as error:
        raise UnavailableError(f"no answer within {_ANSWER_SECONDS:g} s") from error


async def _first_admin_token(tokens: ApiTokens, file: Path) -> None:
    """At the first start, write a token that lets the operator in. Nothing is open because something is unset."""
    known: bool = await asyncio.to_thread(file.exists)
    if known or tokens.list():
        return
    try:
        text, _ = await tokens.create(Caller("jetway"), "admin", "admin")
    except RefusedError as error:
        log.info("no first API token", action="admin_token_elsewhere", why=error.refused.why)
        return
    atomic_write(file, text.encode() + b"\n", 0o600)


async def _measure(house: House, link: NatsLink, heartbeats: NatsHeartbeats) -> None:
    """Keep the gauges near the truth without counting at every scrape."""
    metrics, projections = house.metrics, house.projections
    while True:
        metrics.set_services(house.index.tally)
        metrics.nats_connected.set(link.connected)
        metrics.nats_reconnects.set(link.reconnects)
        metrics.heartbeats_dropped.set(heartbeats.dropped)
        await house.index_age.prove()
        for projector in projections.all:
            try:
                backlog = await projector.backlog()
                metrics.set_lag(projector.name, backlog.records, backlog.seconds)
            except PortError:
                metrics.set_lag(projector.name, math.nan, math.nan)
        await asyncio.sleep(_GAUGE_SECONDS)


async def _watch_loop(house: House, collector: Collector) -> None:
    """Measure how late the loop wakes, and have the collector do its work in small parts."""
    house.index.on_change(collector.count)
    loop = asyncio.get_running_loop()
    while True:
        before = loop.time()
        await asyncio.sleep(_SAMPLE_SECONDS)
        house.metrics.loop_stall.observe(max(0.0, loop.time() - before - _SAMPLE_SECONDS))
        collector.settle_if_due()
