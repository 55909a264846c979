"""record → registry rows and events. People query these tables directly, so their columns are a contract.

Rows are complete: a write replaces the whole row, never a part of it, which is what Proton does anyway.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from pydantic import JsonValue

from jetway.core.ids import ServiceKey, ServiceType
from jetway.core.record import (
    SUPERSEDED_PACKAGE,
    EventType,
    Package,
    PackageStatus,
    ServiceRecord,
    Transition,
)
from jetway.core.times import Timestamp

_EVENT_NAMESPACE = uuid.UUID("5e0f0a46-6c7c-5f5f-8a2e-6c2f1b7f7d10")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceRow:
    """A row of `pollers`, `agents` or `checkers`; each table has the columns that fit its type."""

    service_type: ServiceType
    service_id: str
    poller_id: str
    agent_id: str
    component_id: str
    label: str
    site: str
    labels: dict[str, str]
    metadata: dict[str, JsonValue]
    checker_kind: str
    registration_source: str
    status: str
    status_reason: str
    approval: str
    spiffe_identity: str
    heartbeat_interval_seconds: int
    first_registered: datetime
    first_seen: datetime | None
    last_seen: datetime | None
    is_healthy: bool | None
    version: str
    agent_count: int
    checker_count: int
    package_id: str
    created_by: str
    updated_at: datetime
    incarnation: int
    epoch: int
    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageRow:
    """A row of `edge_packages`."""

    package_id: str
    component_type: str
    component_id: str
    label: str
    parent_type: str
    parent_id: str
    poller_id: str
    site: str
    status: str
    generation: int
    checker_kind: str
    metadata: dict[str, JsonValue]
    created_by: str
    created_at: datetime
    token_expires_at: datetime
    delivered_at: datetime | None
    delivered_to: str | None
    activated_at: datetime | None
    activated_from: str | None
    revoked_at: datetime | None
    deleted_at: datetime | None
    notes: str
    updated_at: datetime
    epoch: int
    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A row of `service_registration_events`, and an entry of the audit trail."""

    event_id: str
    event_type: str
    service_type: str = ""
    service_id: str = ""
    parent_id: str = ""
    package_id: str = ""
    registration_source: str = ""
    actor: str
    timestamp: Timestamp
    source_ip: str = ""
    reason: str = ""
    request_id: str = ""
    from_status: str = ""
    to_status: str = ""
    epoch: int = 0
    revision: int = 0
    metadata: dict[str, JsonValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Presence:
    """What heartbeats told of a service since the record was made; never stored in the ledger."""

    last_seen: datetime | None = None
    healthy: bool | None = None
    version: str = ""


@dataclass(frozen=True, slots=True)
class Counts:
    """Children that are not deleted: agents and checkers beneath a poller, checkers beneath an agent."""

    agents: int = 0
    checkers: int = 0


def service_row(
    record: ServiceRecord, presence: Presence, counts: Counts, *, default_interval: int
) -> ServiceRow:
    """The current row of a service. `default_interval` in seconds stands in where the service names none."""
    return ServiceRow(
        service_type=record.service_type,
        service_id=record.service_id,
        poller_id=record.poller_id,
        agent_id=record.agent_id,
        component_id=record.service_id,
        label=record.label,
        site=record.site,
        labels=record.labels,
        metadata=record.metadata,
        checker_kind=record.checker_kind,
        registration_source=record.registration_source.value,
        status=record.status.value,
        status_reason=record.status_reason,
        approval=record.approval.value,
        spiffe_identity=record.spiffe_identity,
        heartbeat_interval_seconds=record.heartbeat_interval_seconds or default_interval,
        first_registered=record.first_registered,
        first_seen=record.first_seen,
        last_seen=presence.last_seen,
        is_healthy=presence.healthy,
        version=presence.version,
        agent_count=counts.agents,
        checker_count=counts.checkers,
        package_id=record.package.package_id if record.package else "",
        created_by=record.created_by,
        updated_at=record.updated_at,
        incarnation=record.incarnation,
        epoch=record.epoch,
        revision=record.revision,
    )


def package_rows(record: ServiceRecord) -> list[PackageRow]:
    """The rows of a record's packages, the current one first."""
    packages = [p for p in (record.package, *record.earlier_packages) if p]
    return [_package_row(record, package) for package in packages]


def package_of(row: PackageRow) -> Package:
    """The package that a row was made of, as far as it tells."""
    return Package(
        package_id=row.package_id,
        generation=row.generation,
        status=PackageStatus(row.status),
        token_expires_at=row.token_expires_at,
        created_by=row.created_by,
        created_at=row.created_at,
        delivered_at=row.delivered_at,
        delivered_to=row.delivered_to,
        activated_at=row.activated_at,
        activated_from=row.activated_from,
        revoked_at=row.revoked_at,
        notes=row.notes,
    )


def service_of(row: PackageRow) -> ServiceKey:
    """Whose package it is."""
    return ServiceKey(ServiceType(row.component_type), row.component_id)


def _package_row(record: ServiceRecord, package: Package) -> PackageRow:
    parent_type = record.service_type.parent_type
    return PackageRow(
        package_id=package.package_id,
        component_type=record.service_type.value,
        component_id=record.service_id,
        label=record.label,
        parent_type=parent_type.value if parent_type else "",
        parent_id=record.parent_id,
        poller_id=record.poller_id,
        site=record.site,
        status=package.status.value,
        generation=package.generation,
        checker_kind=record.checker_kind,
        metadata=record.metadata,
        created_by=package.created_by,
        created_at=package.created_at,
        token_expires_at=package.token_expires_at,
        delivered_at=package.delivered_at,
        delivered_to=package.delivered_to,
        activated_at=package.activated_at,
        activated_from=package.activated_from,
        revoked_at=package.revoked_at,
        deleted_at=package.deleted_at,
        notes=package.notes,
        updated_at=record.updated_at,
        epoch=record.epoch,
        revision=record.revision,
    )


def events_of(record: ServiceRecord) -> Sequence[Event]:
    """The audit entries of the transition that a revision carries: the same ids on every delivery."""
    transition = record.transition
    source = record.registration_source.value
    return [
        Event(
            event_id=_event_id(record, ordinal),
            event_type=event_type.value,
            service_type=record.service_type.value,
            service_id=record.service_id,
            parent_id=record.parent_id,
            package_id=_package_of(transition, event_type),
            registration_source=source,
            actor=transition.actor,
            timestamp=transition.at,
            source_ip=transition.source_ip,
            reason=transition.reason,
            request_id=transition.request_id,
            from_status=transition.from_status.value if transition.from_status else "",
            to_status=transition.to_status.value,
            epoch=record.epoch,
            revision=record.revision,
            metadata=transition.metadata,
        )
        for ordinal, event_type in enumerate(transition.events)
    ]


def _package_of(transition: Transition, event_type: EventType) -> str:
    """Whose history the event belongs to: `reissued` ends the old package's, `issued` begins the new one's."""
    left = transition.metadata.get(SUPERSEDED_PACKAGE)
    if event_type is EventType.REISSUED and isinstance(left, str):
        return left
    return transition.package_id


def _event_id(record: ServiceRecord, ordinal: int) -> str:
    """Ids of one transition differ in their last byte alone, so that sorting by id keeps their order."""
    name = f"{record.epoch}/{record.key}/{record.revision}/{record.transition.transition_id}"
    shared = uuid.uuid5(_EVENT_NAMESPACE, name).int & ~0xFF
    return str(uuid.UUID(int=shared | ordinal))


@dataclass(frozen=True, slots=True)
class CountSample:
    """A row of `service_count_samples`: how many services of a type had a status at that time."""

    sampled_at: datetime
    service_type: str
    status: str
    service_count: int
