"""Services' values → the API's answers."""

from __future__ import annotations

from jetway.core.rows import Event
from jetway.entry.http import answers as a
from jetway.entry.http import models as m
from jetway.services.administer import Affected
from jetway.services.catalogue import Catalogue, PackageView
from jetway.services.tree import TreeNode
from jetway.services.views import ServiceView
from jetway.services.window import Page


def service(view: ServiceView) -> m.Service:
    """A service as the API shows it."""
    record, presence, counts = view.record, view.presence, view.counts
    return m.Service(
        service_type=record.service_type,
        service_id=record.service_id,
        component_id=record.service_id,
        label=record.label,
        parent_id=record.parent_id,
        poller_id=record.poller_id,
        agent_id=record.agent_id,
        checker_kind=record.checker_kind,
        site=record.site,
        labels=record.labels,
        metadata=record.metadata,
        status=record.status,
        status_reason=record.status_reason,
        approval=record.approval,
        registration_source=record.registration_source,
        spiffe_identity=record.spiffe_identity,
        created_by=record.created_by,
        first_registered=record.first_registered,
        first_seen=record.first_seen,
        last_seen=presence.last_seen,
        liveness=view.liveness,
        flapping=view.flapping,
        clone_suspected=list(view.clones),
        in_maintenance=view.in_maintenance,
        healthy=presence.healthy,
        version=presence.version,
        heartbeat_proof=view.heartbeat_proof,
        heartbeat_interval_seconds=view.interval_seconds,
        package_id=record.package.package_id if record.package else "",
        agent_count=counts.agents,
        checker_count=counts.checkers,
        updated_at=record.updated_at,
        incarnation=record.incarnation,
        epoch=record.epoch,
        revision=record.revision,
    )


def package(view: PackageView) -> m.Package:
    """A package as the API shows it."""
    record, own = view.record, view.package
    return m.Package(
        package_id=own.package_id,
        component_type=record.service_type,
        component_id=record.service_id,
        label=record.label,
        parent_type=record.service_type.parent_type or "",
        parent_id=record.parent_id,
        poller_id=record.poller_id,
        site=record.site,
        status=own.status,
        generation=own.generation,
        checker_kind=record.checker_kind,
        metadata=record.metadata,
        created_by=own.created_by,
        created_at=own.created_at,
        token_expires_at=own.token_expires_at,
        delivered_at=own.delivered_at,
        delivered_to=own.delivered_to,
        activated_at=own.activated_at,
        activated_from=own.activated_from,
        revoked_at=own.revoked_at,
        notes=own.notes,
        watch=own.watch,
        server_made=own.server_made,
    )


def services(page: Page[ServiceView]) -> m.ServiceList:
    """A page of services."""
    return m.ServiceList(
        items=[service(view) for view in page.items], next_cursor=page.next_cursor, total=page.total
    )


def packages(page: Page[PackageView]) -> m.PackageList:
    """A page of packages."""
    return m.PackageList(
        items=[package(view) for view in page.items], next_cursor=page.next_cursor, total=page.total
    )


def events(page: Page[Event]) -> m.EventList:
    """A page of the audit trail."""
    items = [m.Event.model_validate(event) for event in page.items]
    return m.EventList(items=items, next_cursor=page.next_cursor, total=page.total)


def affected(change: Affected, catalogue: Catalogue) -> a.Affected:
    """What a change did, or would do."""
    record = change.record
    return a.Affected(
        dry_run=change.dry_run,
        complete=change.complete,
        service=service(catalogue.view(record)),
        package=package(PackageView(record, record.package)) if record.package else None,
        services=[a.AffectedService.model_validate(item) for item in change.services],
        reached=change.reached,
        left=[a.Left.model_validate(item) for item in change.left],
    )


def tree(page: Page[TreeNode]) -> m.Tree:
    """The hierarchy. It can be large: to be called off the event loop."""
    return m.Tree(
        items=[_node(node) for node in page.items],
        next_cursor=page.next_cursor,
        total=sum(map(_size, page.items)),
        top_total=page.total,
    )


def _node(node: TreeNode) -> m.TreeNode:
    record = node.view.record
    return m.TreeNode(
        service_type=record.service_type,
        service_id=record.service_id,
        label=record.label,
        site=record.site,
        status=record.status,
        approval=record.approval,
        liveness=node.view.liveness,
        healthy=node.view.presence.healthy,
        last_seen=node.view.presence.last_seen,
        agent_count=node.view.counts.agents,
        checker_count=node.view.counts.checkers,
        worst_beneath=node.worst_beneath,
        children=[_node(child) for child in node.children],
    )


def _size(node: TreeNode) -> int:
    return 1 + sum(map(_size, node.children))
