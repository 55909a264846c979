"""The record: one service with its current package and the transition that made this revision.

A record is one value under one key of the ledger. Everything else (config document, rows, events, index) is
derived from it. Records are frozen: a change is a new record.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from pydantic import JsonValue, TypeAdapter

from jetway.core.identity import Identity, RevokedIdentity
from jetway.core.ids import Lineage, ServiceKey, ServiceType
from jetway.core.times import Timestamp

EARLIER_PACKAGES_KEPT = 16
"""Superseded packages a record carries; older ones stay in the table `edge_packages` and the audit trail."""

SUPERSEDED_PACKAGE = "superseded_package_id"
"""In a reissue's metadata: the package that it left behind, to whose history the event `reissued` belongs."""


class ServiceStatus(StrEnum):
    """Where a service stands in its life."""

    PENDING = "pending"
    ACTIVE = "active"
    INACTIVE = "inactive"
    REVOKED = "revoked"
    DELETED = "deleted"


LIVE = frozenset({ServiceStatus.PENDING, ServiceStatus.ACTIVE, ServiceStatus.INACTIVE})
"""Statuses of a service that has not been taken out: it may still (or again) come alive by itself."""


class PackageStatus(StrEnum):
    """Where a package stands: from its token's issue to the service's first heartbeat."""

    ISSUED = "issued"
    DELIVERED = "delivered"
    ACTIVATED = "activated"
    EXPIRED = "expired"
    REVOKED = "revoked"
    SUPERSEDED = "superseded"


LIVE_PACKAGE = frozenset({PackageStatus.ISSUED, PackageStatus.DELIVERED, PackageStatus.ACTIVATED})


class Approval(StrEnum):
    """Whether a person must agree to a service that registered itself."""

    NONE = "none"
    REQUIRED = "required"
    GRANTED = "granted"
    REJECTED = "rejected"


class Source(StrEnum):
    """How a service came in."""

    EDGE_ONBOARDING = "edge_onboarding"
    K8S_SPIFFE = "k8s_spiffe"
    CONFIG = "config"
    IMPLICIT = "implicit"


class Cascade(StrEnum):
    """Whether children still have to be revoked after their parent was.

    CLOSING is a live service's: somebody takes it out on condition that nobody lives beneath, and looks. Who is
    written beneath it meanwhile waits for what comes of that.
    """

    NONE = "none"
    RUNNING = "running"
    CLOSING = "closing"


class EventType(StrEnum):
    """What the audit trail calls a change."""

    REGISTERED = "registered"
    ISSUED = "issued"
    DELIVERED = "delivered"
    ACTIVATED = "activated"
    FIRST_HEARD = "first_heard"
    DEACTIVATED = "deactivated"
    REACTIVATED = "reactivated"
    REVOKED = "revoked"
    EXPIRED = "expired"
    PENDING_EXPIRED = "pending_expired"
    REISSUED = "reissued"
    ARCHIVED = "archived"
    DELETED = "deleted"
    STATUS_OVERRIDE = "status_override"
    APPROVED = "approved"
    REJECTED = "rejected"
    RENEWED = "renewed"
    RESEALED = "resealed"
    ANSWER_ERASED = "answer_erased"
    ADOPTED = "adopted"
    WITHDRAWN = "withdrawn"
    CASCADE_COMPLETED = "cascade_completed"
    CLOSED_TO_CHILDREN = "closed_to_children"
    OPENED_TO_CHILDREN = "opened_to_children"
    PACKAGE_DELETED = "package_deleted"
    RESTORED = "restored"
    # outside a record
    REDEEM_REFUSED = "redeem_refused"
    API_TOKEN_CREATED = "api_token_created"  # noqa: S105 - an event's name
    API_TOKEN_REVOKED = "api_token_revoked"  # noqa: S105
    API_REFUSED = "api_refused"
    AUDIT_GAP = "audit_gap"
    REPROJECTED = "reprojected"
    PURGED = "purged"
    CHECKPOINT = "checkpoint"
    EXPORTED = "exported"
    FLAPPING = "flapping"
    FLAPPING_ENDED = "flapping_ended"
    CLONE_SUSPECTED = "clone_suspected"
    FLOODED = "flooded"
    MAINTENANCE_BEGUN = "maintenance_begun"
    MAINTENANCE_ENDED = "maintenance_ended"


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """The change that made a revision: who, when, why, from where, and between which statuses."""

    transition_id: str
    """Random; tells, after a write of unknown outcome, whether the revision found is one's own."""
    events: tuple[EventType, ...]
    actor: str
    at: Timestamp
    reason: str = ""
    source_ip: str = ""
    request_id: str = ""
    from_status: ServiceStatus | None = None
    to_status: ServiceStatus
    package_id: str = ""
    metadata: dict[str, JsonValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """One onboarding: a one-time token's terms and what became of it. Holds no secret."""

    package_id: str
    generation: int
    status: PackageStatus
    token_expires_at: Timestamp
    created_by: str
    created_at: Timestamp
    delivered_at: Timestamp | None = None
    delivered_to: str | None = None
    """The redeemer as it showed itself: `hostname (address)`, or its address alone."""
    bound_keys: str = ""
    """SHA-256 over the keys that the installer sent; empty when it sent none. The same keys may ask again."""
    activated_at: Timestamp | None = None
    activated_from: str | None = None
    revoked_at: Timestamp | None = None
    deleted_at: Timestamp | None = None
    notes: str = ""
    watch: bool = False
    """Whether its credentials allow a standard KV watch on the service's own documents."""
    server_made: bool = False
    """The gateway made the NATS key that was delivered, because the installer could not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceRecord:
    """A service. `revision` counts its changes; (epoch, revision) orders versions of it anywhere."""

    service_type: ServiceType
    service_id: str
    epoch: int
    revision: int
    incarnation: int = 1
    """Grows when a package is created over a deleted service."""
    label: str
    parent_id: str = ""
    poller_id: str
    site: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    metadata: dict[str, JsonValue] = field(default_factory=dict)
    checker_kind: str = ""
    checker_config: dict[str, JsonValue] | None = None
    spiffe_identity: str = ""
    heartbeat_interval_seconds: int | None = None
    """None: the daemon's default interval."""
    status: ServiceStatus
    status_reason: str = ""
    approval: Approval = Approval.NONE
    registration_source: Source
    created_by: str
    first_registered: Timestamp
    first_seen: Timestamp | None = None
    package: Package | None = None
    earlier_packages: tuple[Package, ...] = ()
    cascade: Cascade = Cascade.NONE
    identity: Identity | None = None
    revoked_identities: tuple[RevokedIdentity, ...] = ()
    """Newest first; each until everything of it has expired by itself."""
    former_keys: tuple[str, ...] = ()
    """See `core.identity.former_keys`: none of them is taken again."""
    previous_sha256: str = ""
    """Of the revision before this one, of its bytes as the ledger held them, hex; empty for the first."""
    transition: Transition

    @property
    def key(self) -> ServiceKey:
        """The key in the ledger."""
        return ServiceKey(self.service_type, self.service_id)

    @property
    def agent_id(self) -> str:
        """The agent's id: its own for an agent, the parent's for a checker, empty for a poller."""
        if self.service_type is ServiceType.AGENT:
            return self.service_id
        return self.parent_id if self.service_type is ServiceType.CHECKER else ""

    @property
    def lineage(self) -> Lineage:
        """The service with its parents' ids."""
        checker_id = self.service_id if self.service_type is ServiceType.CHECKER else ""
        return Lineage(self.service_type, self.poller_id, self.agent_id, checker_id)

    @property
    def parent(self) -> ServiceKey | None:
        """The direct parent's key, None for a poller."""
        return self.lineage.parent

    @property
    def version(self) -> tuple[int, int]:
        """(epoch, revision): what orders versions of this record."""
        return (self.epoch, self.revision)

    @property
    def live(self) -> bool:
        """Pending, active or inactive."""
        return self.status in LIVE

    @property
    def updated_at(self) -> datetime:
        """When this revision was made."""
        return self.transition.at

    def find_package(self, package_id: str) -> Package | None:
        """The current or an earlier package of that id."""
        for package in (self.package, *self.earlier_packages):
            if package and package.package_id == package_id:
                return package
        return None


_ADAPTER: TypeAdapter[ServiceRecord] = TypeAdapter(ServiceRecord)


def encode_record(record: ServiceRecord) -> bytes:
    """The record as JSON, the form it has in the ledger."""
    return _ADAPTER.dump_json(record)


def decode_record(data: bytes) -> ServiceRecord:
    """The inverse of `encode_record`. Raises pydantic's ValidationError (a ValueError) on anything else."""
    return _ADAPTER.validate_json(data)
