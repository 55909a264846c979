"""What can be asked of a record. Each command is a value; `lifecycle.step` decides it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from pydantic import JsonValue

from jetway.core.identity import CertificateFacts, Identity
from jetway.core.ids import Lineage, ServiceType
from jetway.core.record import EventType, ServiceStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """Who asks, when, and from where. What a pure decision may not fetch itself is handed to it here."""

    now: datetime
    actor: str
    transition_id: str
    epoch: int
    source_ip: str = ""
    request_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSpec:
    """What a person said about a service to be."""

    service_type: ServiceType
    service_id: str
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


@dataclass(frozen=True, slots=True, kw_only=True)
class NewPackage:
    """A package to be issued."""

    package_id: str
    token_expires_at: datetime
    notes: str = ""
    watch: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Issue:
    """Create a package for a new service, a deleted one, or one that waits in quarantine."""

    spec: ServiceSpec
    package: NewPackage


@dataclass(frozen=True, slots=True, kw_only=True)
class Register:
    """Register without a package, source `config`."""

    spec: ServiceSpec
    revive: bool = True
    """Whether a deleted service may come back as a new incarnation; never for `known_pollers`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Admit:
    """Register a service that was heard, or named as a parent, but is unknown. Source `implicit`."""

    lineage: Lineage
    approval_required: bool
    heard: bool
    """Whether the service itself spoke; a parent that was only named in a subject has not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Redeem:
    """The installer shows a valid token of this package."""

    package_id: str
    bound_keys: str = ""
    """SHA-256 over the installer's public keys, empty when it has none."""
    hostname: str = ""
    identity: Identity | None = None
    """Made for this installer before the token is spent; stored with what spends it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Renew:
    """The service renews its credentials; whoever applies this has checked that the key signed for it."""

    nats_public_key: str
    nats_expires_at: datetime | None = None
    """None: no NATS credentials are issued now."""
    certificate: CertificateFacts | None = None
    spiffe_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reseal:
    """What is kept encrypted was encrypted again, with another key."""

    sealed_before: str
    sealed_after: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """The service said that it lives."""

    lineage: Lineage


@dataclass(frozen=True, slots=True, kw_only=True)
class Deactivate:
    """The service has been silent for too long."""

    silent_since: datetime | None = None


@dataclass(frozen=True, slots=True)
class ExpirePackage:
    """The token's time is up and nobody redeemed it."""


@dataclass(frozen=True, slots=True)
class ExpirePending:
    """The service was never activated in the time given for it."""


@dataclass(frozen=True, slots=True)
class Archive:
    """The service has been inactive for so long that its rights end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Revoke:
    """Take the service's rights away."""

    reason: str = ""
    cascade: bool = True
    live_children: int = 0
    """How many children are alive; without cascade they forbid it."""
    because_of: str = ""
    """The key of the parent whose revocation this follows; a service that has another by now is left alone."""
    package_id: str = ""
    """The package that is meant: refused where it is not the service's current one. Empty: whichever it has."""
    event: EventType = EventType.REVOKED
    """What the trail calls it: with a parent that time took out, the same as of the parent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishCascade:
    """No child is left alive beneath a revoked or deleted service."""

    revoked: int = 0


@dataclass(frozen=True, slots=True)
class Close:
    """Let no child be acknowledged any more: the service is to be taken out if it has none."""


@dataclass(frozen=True, slots=True)
class Reopen:
    """It stays, and may have children again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reissue:
    """A new package for the same service; the old token is dead at once."""

    package: NewPackage
    reason: str = ""
    revoke_now: bool = False
    """Whether the old identity ends at once rather than when the new token is redeemed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Approve:
    """Let a service in that registered itself."""

    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reject:
    """Keep a service out that registered itself."""

    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Override:
    """An administrator sets the status by hand."""

    status: ServiceStatus
    reason: str = ""
    cascade: bool = True
    live_children: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Delete:
    """Take a revoked or inactive service out of the registry. The record stays, as deleted, until the purge."""

    reason: str = ""
    cascade: bool = True
    live_children: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DeletePackage:
    """Take a revoked or expired package out of the listings."""

    package_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Withdraw:
    """Take back a registration whose parent went away while it was being written."""

    reason: str


Command = (
    Issue
    | Register
    | Admit
    | Redeem
    | Renew
    | Reseal
    | Heartbeat
    | Deactivate
    | ExpirePackage
    | ExpirePending
    | Archive
    | Revoke
    | FinishCascade
    | Close
    | Reopen
    | Reissue
    | Approve
    | Reject
    | Override
    | Delete
    | DeletePackage
    | Withdraw
)
