"""All services, wired over whatever ports they are given: the real ones in the daemon, others in tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from jetway.core.alerts import AlertKind
from jetway.core.flapping import FlapRule
from jetway.core.ids import ServiceKey
from jetway.core.liveness import Liveness, Thresholds
from jetway.core.rows import Event
from jetway.ports import (
    AlertSender,
    ApiTokenStore,
    AuditLog,
    AuditReader,
    Authority,
    CertificateAuthority,
    Change,
    CheckpointShelf,
    CheckpointSigner,
    Clock,
    Documents,
    Feed,
    IdempotencyStore,
    Identifiers,
    JobStore,
    Lease,
    Ledger,
    MaintenanceStore,
    NatsAccount,
    NatsAuthority,
    PurgeArchive,
    RegistryDatabase,
    Vault,
    Views,
)
from jetway.services.administer import Administrator
from jetway.services.admit import Admission, IndexAge
from jetway.services.alert_lines import Target
from jetway.services.alerts import Alerts
from jetway.services.api_tokens import ApiTokens
from jetway.services.cascade import Cascades
from jetway.services.catalogue import Catalogue
from jetway.services.census import Census, CensusTerms
from jetway.services.changes import KEPT, ChangeBook
from jetway.services.checkpoints import Checkpoints
from jetway.services.compare_documents import DocumentComparison
from jetway.services.compare_rows import RowComparison
from jetway.services.compare_stream import StreamComparison
from jetway.services.compare_trail import TrailComparison
from jetway.services.count_history import CountHistory
from jetway.services.document_state import DocumentReader
from jetway.services.document_writer import DocumentWriter
from jetway.services.documents_aside import DocumentsAside
from jetway.services.due import DueReader
from jetway.services.fence import Fence
from jetway.services.floods import Floods
from jetway.services.identities import Identities, IdentityTerms
from jetway.services.index import Index
from jetway.services.issue import Issuer
from jetway.services.job_table import audit_jobs, retention_jobs, sample_job, sweep_jobs, upkeep_jobs
from jetway.services.jobs import JobBook, JobSpec
from jetway.services.key_owners import KeyOwners
from jetway.services.liveness import Verdicts
from jetway.services.maintenance import Maintenance
from jetway.services.metrics import Metrics
from jetway.services.observe import Observer
from jetway.services.past import PastReader
from jetway.services.presence import PresenceTable
from jetway.services.project import Projections, Projector
from jetway.services.purge import Kept, Purger
from jetway.services.reach import Reach
from jetway.services.reconcile import Reconciler
from jetway.services.recorder import Recorder
from jetway.services.redeem import EdgeSettings, Redeemer
from jetway.services.refusals import Refusals
from jetway.services.rendering import Rendering
from jetway.services.renew import Renewer
from jetway.services.reproject import Reprojector
from jetway.services.revocations import Revocations
from jetway.services.row_writer import EventWriter, RowWriter
from jetway.services.set_aside import SetAside
from jetway.services.settling import Settling
from jetway.services.sweep import Ages, Sweeper
from jetway.services.templates import Templates
from jetway.services.trail import Trail
from jetway.services.troubles import Troubles
from jetway.services.turn import Turn
from jetway.services.waiting_room import RoomTerms, WaitingRoom
from jetway.services.watch import Watch
from jetway.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Outside:
    """Everything that the services need from outside."""

    clock: Clock
    identifiers: Identifiers
    ledger: Ledger
    documents: Documents
    database: RegistryDatabase
    authority: Authority
    audit: AuditLog
    idempotency: IdempotencyStore
    api_tokens: ApiTokenStore
    document_feed: Feed[Change]
    row_feed: Feed[Change]
    event_feed: Feed[Sequence[Event]]
    views: Views
    jobs: JobStore
    maintenance: MaintenanceStore
    archive: PurgeArchive
    certificates: CertificateAuthority
    nats_authority: NatsAuthority
    nats_account: NatsAccount
    vault: Vault
    alert_senders: Sequence[AlertSender] = ()
    """In the order of `alerts.webhooks`."""
    checkpointing: Checkpointing | None = None
    """None: no checkpoints are made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpointing:
    """What checkpoints of the audit trail need."""

    reader: AuditReader
    signer: CheckpointSigner
    shelf: CheckpointShelf


class House:
    """The services. Nothing runs by itself: whoever builds the house starts its workers and jobs."""

    def __init__(self, outside: Outside, settings: Settings, edge: EdgeSettings) -> None:
        clock, interval = outside.clock, settings.interval_seconds
        self.metrics = Metrics()
        self.index = Index()
        self.index_age = IndexAge(self.index, outside.ledger, clock)
        self.metrics.index_age.set_function(lambda: self.index_age.seconds)
        self.admission = Admission(
            self.index,
            clock,
            self.metrics,
            mode=settings.admission.mode,
            known_pollers=settings.lifecycle.known_pollers,
        )
        self.recorder = Recorder(outside.ledger, self.index, clock, outside.identifiers)
        self.presence = PresenceTable(
            clock,
            default_interval=interval,
            thresholds=Thresholds(settings.heartbeat.late_after, settings.heartbeat.offline_after),
            shown=KEPT,
            longest_silence=settings.lifecycle.inactive_after,
        )
        self.liveness = Verdicts(self.index, self.presence, clock, self.metrics)
        rendering = Rendering(self.index, self.presence, default_interval=interval)
        self.metrics.registry.register(Census(self.index, self.presence, clock, _census_terms(settings)))
        self.due = DueReader(self.index, clock, _census_terms(settings))
        self.fence = Fence()
        self.set_aside = SetAside(self.metrics)
        self.document_reader = DocumentReader(outside.documents, rendering)
        self.documents_aside = DocumentsAside(self.metrics)
        self.document_writer = DocumentWriter(
            outside.documents, rendering, self.recorder.read, self.fence, self.documents_aside
        )
        self.row_writer = RowWriter(outside.database, rendering, self.presence, self.fence, self.set_aside)
        self.event_writer = EventWriter(outside.database, self.set_aside)
        self.projections = Projections(
            Projector("documents", outside.document_feed, self.document_writer.write, clock),
            Projector("rows", outside.row_feed, self.row_writer.write, clock),
            Projector("events", outside.event_feed, self.event_writer.write, clock),
            {"document": self.documents_aside.any_of, "row": self.set_aside.any_of},
        )
        self.trail = trail = Trail(outside.audit, clock, outside.identifiers)
        self.api_tokens = ApiTokens(outside.api_tokens, trail, clock)
        self.refusals = Refusals(trail, clock, self.metrics.count_api_refusal)
        self.templates = Templates(
            outside.documents,
            default_interval=interval,
            default_token_ttl=int(settings.lifecycle.token_ttl.total_seconds()),
        )
        self.issuer = Issuer(
            self.recorder,
            outside.authority,
            outside.idempotency,
            self.templates,
            self.projections,
            public_url=settings.public_url,
            token_ttl=settings.lifecycle.token_ttl,
            ca_pin=edge.ca_pin,
            why_no_watch=outside.nats_authority.why_no_watch,
        )
        self.identities = Identities(
            outside.certificates,
            outside.nats_authority,
            outside.vault,
            KeyOwners(self.index),
            _terms(settings),
        )
        self.redeemer = Redeemer(
            self.recorder, outside.authority, self.identities, trail, edge, self.metrics.count_redemption
        )
        self.renewer = Renewer(
            self.recorder, self.identities, outside.nats_authority, self.metrics.count_renewal
        )
        self.renewer.on_refused = self.refusals.note_renewal
        self.cascades = Cascades(self.recorder)
        self.revocations = Revocations(
            self.index, outside.nats_account, outside.certificates, clock, self.metrics
        )
        self.floods = Floods(self.index, self.revocations, trail, clock, self.metrics)
        reach = Reach(self.projections, self.revocations)
        self.administrator = Administrator(self.recorder, self.cascades, reach)
        self.observer = Observer(
            self.recorder,
            self.presence,
            self.metrics,
            implicit=settings.lifecycle.implicit_registration,
            room=WaitingRoom(_room_terms(settings)),
            implicit_per_minute=settings.lifecycle.implicit_per_minute,
        )
        self.sweeper = Sweeper(self.recorder, self.presence, _ages(settings))
        self.maintenance = Maintenance(outside.maintenance, self.index, trail, clock, outside.identifiers)
        self.changes = ChangeBook()
        self.past = PastReader(self.index, self.presence, self.liveness, self.changes, clock)
        self.counts = CountHistory(outside.database, clock, settings.lifecycle.audit_kept)
        self.troubles = Troubles(
            self.index, self.presence, self.changes, trail, clock, self.fence, _flap_rule(settings)
        )
        self.catalogue = Catalogue(
            self.index,
            self.presence,
            self.liveness,
            self.troubles,
            self.maintenance,
            outside.database,
            settings.heartbeat_proof,
        )
        self.metrics.heartbeat_proof.labels(settings.heartbeat_proof).set(1)
        self.turn = Turn()
        self.settling = Settling(outside.ledger, self.index, self.projections, outside.views)
        self.reconciler = self._reconciler(outside, settings, rendering, trail)
        self.reprojector = Reprojector(
            self.index, self.document_writer, self.row_writer, self.settling, trail, clock, self.turn
        )
        self.purger = Purger(
            self.recorder,
            self.cascades,
            self.projections,
            outside.documents,
            outside.archive,
            trail,
            _kept(settings),
            settings.lifecycle.known_pollers,
        )
        self.watch = Watch(self.index, run=f"{clock.now().timestamp() * 1000:.0f}")
        self.alerts = Alerts(
            _targets(settings, outside.alert_senders),
            self.index,
            clock,
            outside.identifiers,
            self.metrics,
            gateway=settings.public_url,
            repeat_after=settings.alerts.repeat_after,
            stuck_after=settings.alerts.stuck_pending_after,
        )
        self._tell_of_liveness()
        self._alert(trail)
        self.jobs = JobBook(
            (
                *sweep_jobs(self.sweeper),
                *retention_jobs(self.purger, outside.database, clock, settings),
                sample_job(self.index, outside.database, clock),
                *_checkpoint_jobs(outside.checkpointing, trail, clock),
                *upkeep_jobs(self.cascades, self.row_writer, self.reconciler, settings),
            ),
            outside.jobs,
            clock,
            self.metrics,
        )

    def _alert(self, trail: Trail) -> None:
        """Changes of records come in once the ledger has been read: see `app`."""
        self.alerts.leads = lambda: self.fence.leads()
        self.alerts.another_leads = lambda: self.fence.another_leads()
        self.alerts.silenced_since = self.maintenance.covered_since
        self.alerts.goes_on = self._goes_on
        self.alerts.offline_since = self._offline_since
        self.liveness.on_change(self.alerts.liveness_changed)
        self.troubles.on_change(self._alert_of_trouble)
        trail.on_redeem_refused = self.alerts.redeem_refused

    def _alert_of_trouble(self, key: ServiceKey) -> None:
        """Both begin and end come this way; what goes on besides is not told again."""
        if self.troubles.is_flapping(key):
            self.alerts.trouble(AlertKind.FLAPPING, key, "comes and goes")
        if suspects := self.troubles.clones(key):
            why = f"heartbeats come in turns from {' and '.join(suspects)}"
            self.alerts.trouble(AlertKind.CLONE, key, why)

    def _goes_on(self, kind: AlertKind, key: ServiceKey) -> bool:
        match kind:
            case AlertKind.FLAPPING:
                return self.troubles.is_flapping(key)
            case AlertKind.CLONE:
                return bool(self.troubles.clones(key))
        return self.liveness.of(key) is Liveness.OFFLINE

    def _offline_since(self, key: ServiceKey) -> datetime | None:
        """By the last of its changes that are kept."""
        moments = self.changes.moments(key)
        return datetime.fromtimestamp(moments[-1], UTC) if moments else None

    def _tell_of_liveness(self) -> None:
        self.liveness.on_change(self.changes.take)
        self.liveness.on_change(self.troubles.changed)
        self.liveness.on_change(lambda change: self.watch.tell(change.record.key))
        self.liveness.on_forget(self.changes.forget)
        self.liveness.on_forget(self.troubles.forget)
        self.troubles.on_change(self.watch.tell)

    def led_by(self, lease: Lease) -> None:
        """Write what is derived only while the lease is held."""
        self.fence.leads = lambda: lease.held
        self.fence.another_leads = lambda: lease.leader is not None

    def _reconciler(
        self, outside: Outside, settings: Settings, rendering: Rendering, trail: Trail
    ) -> Reconciler:
        ledger, database, settling = outside.ledger, outside.database, self.settling
        kept = settings.lifecycle.audit_kept
        return Reconciler(
            self.index,
            DocumentComparison(
                outside.documents,
                ledger,
                rendering,
                self.document_writer,
                settling,
                self.fence,
                self.documents_aside,
            ),
            RowComparison(database, ledger, rendering, self.row_writer, settling, self.set_aside),
            TrailComparison(
                database, ledger, self.index, trail, outside.clock, settling, kept, self.event_writer
            ),
            StreamComparison(outside.views, ledger, outside.audit, trail),
            settling,
            outside.clock,
            self.metrics,
            self.turn,
        )


def _targets(settings: Settings, senders: Sequence[AlertSender]) -> list[Target]:
    """The settings' webhooks, each with its sender."""
    pairs = zip(settings.alerts.webhooks, senders, strict=False)
    return [Target(webhook.host, sender, webhook.events) for webhook, sender in pairs]


def _room_terms(settings: Settings) -> RoomTerms:
    lifecycle = settings.lifecycle
    return RoomTerms(
        limit=lifecycle.implicit_limit,
        per_sender=lifecycle.implicit_per_sender,
        proven=settings.proves_senders,
    )


def _census_terms(settings: Settings) -> CensusTerms:
    return CensusTerms(
        per_service=settings.metrics.per_service,
        per_service_limit=settings.metrics.per_service_limit,
        stuck_after=settings.alerts.stuck_pending_after,
        certificate_lifetime=settings.identity.certificate_lifetime,
        credentials_lifetime=settings.identity.credentials_lifetime,
    )


def _checkpoint_jobs(needed: Checkpointing | None, trail: Trail, clock: Clock) -> Sequence[JobSpec]:
    if needed is None:
        return ()
    return audit_jobs(Checkpoints(needed.reader, needed.signer, needed.shelf, trail, clock))


def _kept(settings: Settings) -> Kept:
    return Kept(revoked=settings.lifecycle.revoked_kept, deleted=settings.lifecycle.deleted_kept)


def _flap_rule(settings: Settings) -> FlapRule:
    return FlapRule(settings.heartbeat.flap_changes, settings.heartbeat.flap_window)


def _ages(settings: Settings) -> Ages:
    lifecycle = settings.lifecycle
    return Ages(
        inactive_after=lifecycle.inactive_after,
        archive_after=lifecycle.archive_after,
        pending_expires_after=lifecycle.pending_expires_after,
    )


def _terms(settings: Settings) -> IdentityTerms:
    identity = settings.identity
    return IdentityTerms(
        trust_domain=identity.trust_domain,
        credentials_lifetime=identity.credentials_lifetime,
        certificate_lifetime=identity.certificate_lifetime,
    )
