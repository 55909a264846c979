"""Making the next revision of a record, and the first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from pydantic import JsonValue

from jetway.core import commands as c
from jetway.core.errors import Refused
from jetway.core.record import (
    Approval,
    EventType,
    Package,
    ServiceRecord,
    ServiceStatus,
    Source,
    Transition,
)
from jetway.core.times import to_milliseconds
from jetway.core.transitions.identities import settle_identity
from jetway.core.transitions.packages import last_generation, packages_before

Outcome = ServiceRecord | Refused
"""What a decision is: the next record, the same one, or a refusal."""
Decide = Callable[[Any, Any, c.Context], Outcome]

PENDING, ACTIVE, INACTIVE, REVOKED, DELETED = (
    ServiceStatus.PENDING,
    ServiceStatus.ACTIVE,
    ServiceStatus.INACTIVE,
    ServiceStatus.REVOKED,
    ServiceStatus.DELETED,
)


def next_revision(
    record: ServiceRecord,
    context: c.Context,
    *events: EventType,
    reason: str = "",
    metadata: dict[str, JsonValue] | None = None,
    **changes: Any,
) -> ServiceRecord:
    """The next revision of `record` with `changes`, carrying the transition that made it."""
    now = to_milliseconds(context.now)
    after = settle_identity(replace(record, **changes), now)
    transition = Transition(
        transition_id=context.transition_id,
        events=events,
        actor=context.actor,
        at=now,
        reason=reason,
        source_ip=context.source_ip,
        request_id=context.request_id,
        from_status=record.status,
        to_status=after.status,
        package_id=after.package.package_id if after.package else "",
        metadata=metadata or {},
    )
    return replace(after, revision=record.revision + 1, epoch=context.epoch, transition=transition)


def first_revision(
    spec: c.ServiceSpec,
    context: c.Context,
    *events: EventType,
    status: ServiceStatus = PENDING,
    source: Source,
    package: Package | None = None,
    approval: Approval = Approval.NONE,
    heard: bool = False,
) -> ServiceRecord:
    """The first revision of a new service."""
    now = to_milliseconds(context.now)
    return ServiceRecord(
        service_type=spec.service_type,
        service_id=spec.service_id,
        epoch=context.epoch,
        revision=1,
        label=spec.label,
        parent_id=spec.parent_id,
        poller_id=spec.poller_id,
        site=spec.site,
        labels=spec.labels,
        metadata=spec.metadata,
        checker_kind=spec.checker_kind,
        checker_config=spec.checker_config,
        spiffe_identity=spec.spiffe_identity,
        heartbeat_interval_seconds=spec.heartbeat_interval_seconds,
        status=status,
        approval=approval,
        registration_source=source,
        created_by=context.actor,
        first_registered=now,
        first_seen=now if heard else None,
        package=package,
        transition=Transition(
            transition_id=context.transition_id,
            events=events,
            actor=context.actor,
            at=now,
            source_ip=context.source_ip,
            request_id=context.request_id,
            to_status=status,
            package_id=package.package_id if package else "",
        ),
    )


def next_incarnation(old: ServiceRecord, new: ServiceRecord) -> ServiceRecord:
    """`new` as the next incarnation of the deleted `old`: revisions go on, earlier packages stay readable.

    What was revoked stays revoked.
    """
    package = new.package
    if package:
        package = replace(package, generation=last_generation(old) + 1)
    carried = replace(new, revoked_identities=old.revoked_identities, former_keys=old.former_keys)
    return replace(
        settle_identity(carried, new.transition.at),
        revision=old.revision + 1,
        incarnation=old.incarnation + 1,
        package=package,
        earlier_packages=packages_before(old),
        transition=replace(new.transition, from_status=old.status),
    )
