"""Coming in: issued, registered by hand, or heard without having been announced."""

from __future__ import annotations

from dataclasses import replace

from jetway.core import commands as c
from jetway.core.errors import Code, Refused
from jetway.core.record import (
    Approval,
    Cascade,
    EventType,
    ServiceRecord,
    Source,
)
from jetway.core.transitions.leaving import still_cascading
from jetway.core.transitions.packages import last_generation, new_package, packages_before
from jetway.core.transitions.revision import (
    ACTIVE,
    INACTIVE,
    PENDING,
    REVOKED,
    Outcome,
    first_revision,
    next_incarnation,
    next_revision,
)


def issue_new(_: None, command: c.Issue, context: c.Context) -> Outcome:
    """A service nobody knows: pending, with an issued package."""
    package = new_package(command.package, 1, context)
    events = (EventType.REGISTERED, EventType.ISSUED)
    return first_revision(command.spec, context, *events, source=Source.EDGE_ONBOARDING, package=package)


def issue_over_deleted(record: ServiceRecord, command: c.Issue, context: c.Context) -> Outcome:
    """A new incarnation under a deleted id."""
    if record.cascade is Cascade.RUNNING:
        return still_cascading(record)
    new = issue_new(None, command, context)
    return new if isinstance(new, Refused) else next_incarnation(record, new)


def issue_over_live(record: ServiceRecord, command: c.Issue, context: c.Context) -> Outcome:
    """A service in quarantine is adopted; any other id is taken."""
    if record.registration_source is not Source.IMPLICIT or record.status is not PENDING:
        return taken(record)
    if _moved(record, command.spec):
        return _moved_refusal(record)
    return next_revision(
        _described(record, command.spec),
        context,
        EventType.ADOPTED,
        EventType.ISSUED,
        package=new_package(command.package, last_generation(record) + 1, context),
        earlier_packages=packages_before(record),
        registration_source=Source.EDGE_ONBOARDING,
        approval=Approval.GRANTED,
    )


def register_new(_: None, command: c.Register, context: c.Context) -> Outcome:
    """A service nobody knows, without a package: pending until it is heard."""
    return first_revision(command.spec, context, EventType.REGISTERED, source=Source.CONFIG)


def register_over_deleted(record: ServiceRecord, command: c.Register, context: c.Context) -> Outcome:
    """A new incarnation, unless only the settings ask for it."""
    if not command.revive:
        return taken(record)
    if record.cascade is Cascade.RUNNING:
        return still_cascading(record)
    new = register_new(None, command, context)
    return new if isinstance(new, Refused) else next_incarnation(record, new)


def register_over_live(record: ServiceRecord, command: c.Register, context: c.Context) -> Outcome:
    """Explicit registration improves the provenance of a service that only registered itself."""
    if record.registration_source is not Source.IMPLICIT:
        return taken(record)
    if _moved(record, command.spec):
        return _moved_refusal(record)
    return next_revision(
        _described(record, command.spec),
        context,
        EventType.ADOPTED,
        registration_source=Source.CONFIG,
        approval=Approval.GRANTED,
    )


def admit_new(_: None, command: c.Admit, context: c.Context) -> Outcome:
    """A service that spoke, or was named as a parent, without having been announced."""
    lineage = command.lineage
    spec = c.ServiceSpec(
        service_type=lineage.service_type,
        service_id=lineage.service_id,
        label=lineage.service_id,
        parent_id=lineage.parent_id,
        poller_id=lineage.poller_id,
    )
    if command.approval_required:
        return first_revision(
            spec,
            context,
            EventType.REGISTERED,
            source=Source.IMPLICIT,
            approval=Approval.REQUIRED,
            heard=command.heard,
        )
    if not command.heard:
        return first_revision(spec, context, EventType.REGISTERED, source=Source.IMPLICIT)
    events = (EventType.REGISTERED, EventType.ACTIVATED)
    return first_revision(spec, context, *events, status=ACTIVE, source=Source.IMPLICIT, heard=True)


def admit_known(record: ServiceRecord, command: c.Admit, context: c.Context) -> Outcome:
    """Somebody registered it meanwhile, or a person took it out: an admission changes neither."""
    return record


def _described(record: ServiceRecord, spec: c.ServiceSpec) -> ServiceRecord:
    """A service that had registered itself, as a person describes it."""
    return replace(
        record,
        label=spec.label,
        site=spec.site,
        labels=spec.labels,
        metadata=spec.metadata,
        checker_kind=spec.checker_kind,
        checker_config=spec.checker_config,
        spiffe_identity=spec.spiffe_identity,
        heartbeat_interval_seconds=spec.heartbeat_interval_seconds,
    )


def _moved(record: ServiceRecord, spec: c.ServiceSpec) -> bool:
    return (record.parent_id, record.poller_id) != (spec.parent_id, spec.poller_id)


def _moved_refusal(record: ServiceRecord) -> Refused:
    why = f"{record.service_type.value} {record.service_id!r} registered itself under {record.parent_id!r}"
    return Refused(Code.TAKEN, f"{why}: name that parent, or revoke and delete it first", "parent_id")


def taken(record: ServiceRecord) -> Refused:
    """The refusal that names who has the id."""
    why = f"the {record.service_type.value} id {record.service_id!r} is taken ({record.status.value})"
    hint = ""
    if record.status in (PENDING, INACTIVE, REVOKED):
        hint = "; reissue its package" if record.package else "; it has no package: reissue it for its first"
    return Refused(Code.TAKEN, why + hint, "component_id")
