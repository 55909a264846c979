"""What the API shows: services, packages, events and lists of them, field by field as in the contract."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from jetway.core.ids import ServiceType
from jetway.core.liveness import Liveness
from jetway.core.record import Approval, PackageStatus, ServiceStatus, Source
from jetway.core.times import Timestamp


class Answer(BaseModel):
    """Base of all answers."""

    # Rendered from services' dataclasses, with names that are the same on both sides.
    model_config = ConfigDict(extra="forbid", from_attributes=True)


class Service(Answer):
    """A poller, an agent or a checker."""

    service_type: ServiceType
    service_id: str
    component_id: str
    label: str
    parent_id: str
    poller_id: str
    agent_id: str
    checker_kind: str
    site: str
    labels: dict[str, str]
    metadata: dict[str, JsonValue]
    status: ServiceStatus
    status_reason: str
    approval: Approval
    registration_source: Source
    spiffe_identity: str
    created_by: str
    first_registered: Timestamp
    first_seen: Timestamp | None
    last_seen: Timestamp | None
    liveness: Liveness
    flapping: bool = Field(description="Its liveness turns again and again.")
    clone_suspected: list[str] = Field(
        description="Two instances or addresses that seem to beat as this service at one time; mostly empty."
    )
    in_maintenance: bool = Field(description="A maintenance window silences alerts about it now.")
    healthy: bool | None
    version: str
    heartbeat_proof: Literal["jwt", "none"] = Field(
        description="What shows that a heartbeat is by this service: its NATS credentials, or nothing."
    )
    heartbeat_interval_seconds: int = Field(description="Its own, or the daemon's default.")
    package_id: str = Field(description="The current package; empty where there is none.")
    agent_count: int
    checker_count: int
    updated_at: Timestamp
    incarnation: int = Field(description="Grows when a package is created over a deleted service.")
    epoch: int
    revision: int = Field(description="(epoch, revision) orders the versions of a service anywhere.")


class Package(Answer):
    """One onboarding of one service. Never holds a secret."""

    package_id: str
    component_type: ServiceType
    component_id: str
    label: str
    parent_type: ServiceType | Literal[""]
    parent_id: str
    poller_id: str
    site: str
    status: PackageStatus
    generation: int = Field(description="1 for a service's first package, one more with every reissue.")
    checker_kind: str
    metadata: dict[str, JsonValue]
    created_by: str
    created_at: Timestamp
    token_expires_at: Timestamp
    delivered_at: Timestamp | None
    delivered_to: str | None
    activated_at: Timestamp | None
    activated_from: str | None
    revoked_at: Timestamp | None
    notes: str
    watch: bool = Field(description="Its NATS credentials allow a KV watch on the service's own documents.")
    server_made: bool = Field(description="The gateway made the NATS key, as the installer could not.")


class Event(Answer):
    """An entry of the audit trail."""

    event_id: str
    event_type: str
    service_type: str
    service_id: str
    parent_id: str
    package_id: str
    registration_source: str
    actor: str
    timestamp: Timestamp
    source_ip: str
    reason: str
    from_status: str
    to_status: str
    request_id: str
    epoch: int
    revision: int
    metadata: dict[str, JsonValue]


class ServiceList(Answer):
    """A page of services."""

    items: list[Service]
    next_cursor: str | None
    total: int


class PackageList(Answer):
    """A page of packages."""

    items: list[Package]
    next_cursor: str | None
    total: int


class EventList(Answer):
    """A page of the audit trail."""

    items: list[Event]
    next_cursor: str | None
    total: int


class TreeNode(Answer):
    """A service in the hierarchy, with what a tree shows of it."""

    service_type: ServiceType
    service_id: str
    label: str
    site: str
    status: ServiceStatus
    approval: Approval
    liveness: Liveness
    healthy: bool | None
    last_seen: Timestamp | None
    agent_count: int
    checker_count: int
    worst_beneath: Liveness | None = Field(
        description="Of all active and inactive services beneath, shown or not; null where there are none."
    )
    children: list[TreeNode] = Field(description="Empty on the last level that was asked for.")


class Tree(Answer):
    """The hierarchy: pollers with their agents with their checkers."""

    items: list[TreeNode]
    next_cursor: str | None
    total: int = Field(description="Services in this answer, on all its levels.")
    top_total: int = Field(description="Services on its first level, those of other pages included.")


class Stats(Answer):
    """Counts of services; deleted ones count by status alone."""

    total: int
    by_type: dict[str, int]
    by_status: dict[str, int]
    by_source: dict[str, int]
    by_liveness: dict[str, int]
    by_type_and_status: dict[str, dict[str, int]]
    awaiting_approval: int
