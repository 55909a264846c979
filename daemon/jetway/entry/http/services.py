"""Services: lists, single ones, the tree, and what a person decides over them."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from enum import StrEnum

from aiohttp import web

from jetway.core.ids import ServiceId, ServiceKey, ServiceType
from jetway.core.record import ServiceRecord
from jetway.entry.http import answers as a
from jetway.entry.http import etags, imports, render
from jetway.entry.http import models as m
from jetway.entry.http import requests as r
from jetway.entry.http.api import Call, Reply, route
from jetway.entry.http.auth import Role
from jetway.entry.http.doors import Doors
from jetway.services.catalogue import EventFilter, ServiceFilter
from jetway.services.importing import Importer
from jetway.services.tree import MOST_NODES, TreeQuery

TAG = "services"
_ALL = "/api/admin/services/{plural:pollers|agents|checkers}"
ONE = _ALL + "/{service_id}"
"""The path of one service."""


class Plural(StrEnum):
    """A service type as a path spells it."""

    POLLERS = "pollers"
    AGENTS = "agents"
    CHECKERS = "checkers"

    @property
    def service_type(self) -> ServiceType:
        """The type that is meant."""
        return ServiceType(self.value.removesuffix("s"))


class ServiceRoutes:
    """The routes under /api/admin/services."""

    def __init__(self, doors: Doors) -> None:
        self._catalogue = doors.catalogue
        self._administrator = doors.administrator
        self._issuer = doors.issuer
        self._importer = Importer(doors.issuer)

    @route("GET", "/api/admin/services/tree", tag=TAG, role=Role.VIEWER, errors=(404,), heavy=True)
    async def get_tree(self, query: r.GetTree) -> m.Tree:
        """The hierarchy, or with `root` what stands beneath one service; level by level with `depth`.

        Where it has more than 20,000 services, it is to be had in parts only.
        """
        wanted = TreeQuery(
            depth=int(query.depth),
            root=ServiceKey.parse(query.root) if query.root else None,
            limit=query.limit or MOST_NODES,
            cursor=query.cursor,
        )
        return await asyncio.to_thread(render.tree, await self._catalogue.tree(wanted))

    @route("GET", "/api/admin/services/stats", tag=TAG, role=Role.VIEWER)
    async def get_stats(self) -> m.Stats:
        """Counts by type, status, source and liveness."""
        return m.Stats.model_validate(await self._catalogue.stats())

    @route("GET", _ALL, tag=TAG, role=Role.VIEWER)
    async def list_services(self, plural: Plural, query: r.ListServices) -> m.ServiceList:
        """List services of one type."""
        wanted = replace(_filter(plural.service_type, query), parent_id=query.parent_id)
        return render.services(await self._catalogue.services(wanted))

    @route("POST", "/api/admin/services/import", tag=TAG, role=Role.OPERATOR, errors=(503,), seconds=300)
    async def import_services(self, body: imports.Import, call: Call) -> imports.ImportReport:
        """Register services that report elsewhere so far, source `config`.

        What is known here already stays as it is; what a person took out is not brought back.
        """
        rows = [imports.new_service(row.service_type, row) for row in body.rows]
        planned = {ServiceKey.parse(text) for text in body.planned}
        verdicts = await self._importer.run(call.caller, rows, dry_run=body.dry_run, planned=planned)
        results = [imports.result(row, verdict) for row, verdict in zip(body.rows, verdicts, strict=True)]
        return imports.ImportReport(dry_run=body.dry_run, results=results)

    @route(
        "POST",
        _ALL,
        tag=TAG,
        role=Role.OPERATOR,
        status=201,
        errors=(409, 503),
        headers={"Location": "Its path."},
    )
    async def register_service(self, plural: Plural, body: r.RegisterService, call: Call) -> Reply[m.Service]:
        """Register a service without a package.

        Its source is `config`; it is active at its first heartbeat.
        """
        record = await self._issuer.register(call.caller, imports.new_service(plural.service_type, body))
        location = f"/api/admin/services/{plural.value}/{record.service_id}"
        return Reply(self._show(record), {"Location": location})

    @route("GET", ONE, tag=TAG, role=Role.VIEWER, headers=etags.HEADERS)
    async def get_service(
        self, plural: Plural, service_id: ServiceId, if_none_match: etags.IfNoneMatch = None
    ) -> Reply[m.Service] | web.Response:
        """One service, a deleted one included until it is purged."""
        shown = render.service(self._catalogue.get(_key(plural, service_id)))
        return etags.answer(shown, etags.of_service(shown), if_none_match)

    @route("DELETE", ONE, tag=TAG, role=Role.ADMIN, errors=(409, 503))
    async def delete_service(
        self,
        plural: Plural,
        service_id: ServiceId,
        query: r.DeleteService,
        call: Call,
        if_match: etags.IfMatch = None,
    ) -> a.Affected | None:
        """Delete a revoked or inactive service.

        With `dry_run` 200 and what would be deleted or revoked beneath it, else 204.
        """
        change = await self._administrator.delete(
            call.caller,
            _key(plural, service_id),
            reason=query.reason,
            cascade=query.cascade,
            dry_run=query.dry_run,
            expected=etags.versions(if_match),
        )
        return render.affected(change, self._catalogue) if query.dry_run else None

    @route("GET", ONE + "/events", tag=TAG, role=Role.VIEWER, errors=(503,))
    async def list_service_events(
        self, plural: Plural, service_id: ServiceId, query: r.ListHistory
    ) -> m.EventList:
        """A service's history, newest first; it outlives the service."""
        key = _key(plural, service_id)
        wanted = EventFilter(
            types=[event_type.value for event_type in query.type],
            service_type=key.service_type,
            service_id=key.service_id,
            since=query.since,
            until=query.until,
            limit=query.limit,
            cursor=query.cursor,
        )
        page = await self._catalogue.events(wanted)
        if not page.total:
            self._catalogue.get(key)
        return render.events(page)

    @route("GET", "/api/admin/services/pollers/{service_id}/agents", tag=TAG, role=Role.VIEWER)
    async def list_agents_of_poller(self, service_id: ServiceId, query: r.ListChildren) -> m.ServiceList:
        """The agents of a poller."""
        return await self._children(ServiceKey(ServiceType.POLLER, service_id), ServiceType.AGENT, query)

    @route("GET", "/api/admin/services/agents/{service_id}/checkers", tag=TAG, role=Role.VIEWER)
    async def list_checkers_of_agent(self, service_id: ServiceId, query: r.ListChildren) -> m.ServiceList:
        """The checkers of an agent."""
        return await self._children(ServiceKey(ServiceType.AGENT, service_id), ServiceType.CHECKER, query)

    @route("POST", ONE + "/status", tag=TAG, role=Role.OPERATOR, errors=(409, 503))
    async def set_status(
        self,
        plural: Plural,
        service_id: ServiceId,
        body: r.SetStatus,
        call: Call,
        if_match: etags.IfMatch = None,
    ) -> a.Affected:
        """Set a status by hand; 409 where the lifecycle forbids it."""
        change = await self._administrator.override(
            call.caller,
            _key(plural, service_id),
            body.status,
            reason=body.reason,
            cascade=body.cascade,
            dry_run=body.dry_run,
            expected=etags.versions(if_match),
        )
        return render.affected(change, self._catalogue)

    @route("POST", ONE + "/approve", tag=TAG, role=Role.OPERATOR, errors=(409, 503))
    async def approve_service(
        self,
        plural: Plural,
        service_id: ServiceId,
        body: r.Verdict,
        call: Call,
        if_match: etags.IfMatch = None,
    ) -> m.Service:
        """Let a service in that registered itself."""
        key, expected = _key(plural, service_id), etags.versions(if_match)
        return self._show(await self._administrator.approve(call.caller, key, body.reason, expected))

    @route("POST", ONE + "/reject", tag=TAG, role=Role.OPERATOR, errors=(409, 503))
    async def reject_service(
        self,
        plural: Plural,
        service_id: ServiceId,
        body: r.Verdict,
        call: Call,
        if_match: etags.IfMatch = None,
    ) -> m.Service:
        """Keep a service out that registered itself."""
        key, expected = _key(plural, service_id), etags.versions(if_match)
        return self._show(await self._administrator.reject(call.caller, key, body.reason, expected))

    def _show(self, record: ServiceRecord) -> m.Service:
        return render.service(self._catalogue.view(record))

    async def _children(self, parent: ServiceKey, kind: ServiceType, query: r.ListChildren) -> m.ServiceList:
        self._catalogue.get(parent)
        wanted = replace(_filter(kind, query), parent_id=parent.service_id)
        return render.services(await self._catalogue.services(wanted))


def _key(plural: Plural, service_id: str) -> ServiceKey:
    return ServiceKey(plural.service_type, service_id)


def _filter(kind: ServiceType, query: r.ListChildren) -> ServiceFilter:
    return ServiceFilter(
        service_type=kind,
        statuses=[status.value for status in query.status],
        sources=[source.value for source in query.source],
        liveness=[verdict.value for verdict in query.liveness],
        approvals=[approval.value for approval in query.approval],
        site=query.site,
        labels=query.label,
        q=query.q,
        sort=query.sort,
        limit=query.limit,
        cursor=query.cursor,
        with_deleted=query.with_deleted,
    )
