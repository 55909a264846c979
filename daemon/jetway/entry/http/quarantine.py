"""Quarantine: who registered itself and waits, and adoption. Approval and rejection stand with the services."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from jetway.core.ids import ServiceId, ServiceKey, ServiceType
from jetway.core.record import Approval
from jetway.core.times import Timestamp
from jetway.entry.http import fields as f
from jetway.entry.http import models as m
from jetway.entry.http import render
from jetway.entry.http import requests as r
from jetway.entry.http.api import Call, route
from jetway.entry.http.auth import Role
from jetway.entry.http.doors import Doors
from jetway.entry.http.services import Plural
from jetway.services.catalogue import QuarantineFilter
from jetway.services.quarantine import Quarantine, Waiting

TAG = "quarantine"
_ONE = "/api/admin/quarantine/{plural:pollers|agents|checkers}/{service_id}"


class ListQuarantine(r.Paged):
    """Which of them."""

    service_type: list[ServiceType] = Field(default_factory=list, description="None: every type.")
    approval: Literal["required", "rejected"] = "required"


class Adopt(r.Taken):
    """The package that was meant for the service."""

    package_id: f.PackageId = Field(
        description="For the same type and parent, not redeemed; it is revoked with the service it was made for."
    )


class WaitingService(m.Answer):
    """A service that registered itself, with what is known of it."""

    service_type: ServiceType
    service_id: str
    parent_id: str
    poller_id: str
    approval: Approval
    subject: str = Field(description="Where it speaks; for a parent that was only named, where it would.")
    source_ip: str = Field(description="Its address, as it says itself.")
    instance_id: str
    version: str
    healthy: bool | None
    first_heartbeat: Timestamp | None = Field(description="Null for a parent that was only named by a child.")
    last_heartbeat: Timestamp | None
    heartbeats: int = Field(description="As many as this daemon has heard since it started.")
    registered_at: Timestamp
    epoch: int
    revision: int


class WaitingList(m.Answer):
    """A page of them, the oldest first."""

    items: list[WaitingService]
    next_cursor: str | None
    total: int


class QuarantineRoutes:
    """The routes under /api/admin/quarantine."""

    def __init__(self, doors: Doors, subject_prefix: str) -> None:
        self._catalogue = doors.catalogue
        self._quarantine = Quarantine(doors.catalogue, doors.administrator, doors.issuer)
        self._prefix = subject_prefix

    @route("GET", "/api/admin/quarantine", tag=TAG, role=Role.VIEWER)
    async def list_quarantine(self, query: ListQuarantine) -> WaitingList:
        """Services that registered themselves and wait for approval, or were rejected."""
        wanted = QuarantineFilter(
            approvals=(Approval(query.approval),),
            types=tuple(query.service_type or ServiceType),
            limit=query.limit,
            cursor=query.cursor,
        )
        page = await self._quarantine.page(wanted)
        items = [_shown(waiting, self._prefix) for waiting in page.items]
        return WaitingList(items=items, next_cursor=page.next_cursor, total=page.total)

    @route("POST", _ONE + "/adopt", tag=TAG, role=Role.OPERATOR, errors=(409, 410, 503))
    async def adopt_service(
        self, plural: Plural, service_id: ServiceId, body: Adopt, call: Call
    ) -> m.Service:
        """Take the service for the one that a package was made for under another id.

        It is approved, with the label, site, labels, metadata and configuration that the package stands for.
        """
        key = ServiceKey(plural.service_type, service_id)
        record = await self._quarantine.adopt(call.caller, key, body.package_id)
        return render.service(self._catalogue.view(record))


def _shown(waiting: Waiting, prefix: str) -> WaitingService:
    record, seen = waiting.record, waiting.seen
    return WaitingService(
        service_type=record.service_type,
        service_id=record.service_id,
        parent_id=record.parent_id,
        poller_id=record.poller_id,
        approval=record.approval,
        subject=record.lineage.subject(prefix),
        source_ip=seen.source_ip if seen else "",
        instance_id=seen.instance_id if seen else "",
        version=seen.version if seen else "",
        healthy=seen.healthy if seen else None,
        first_heartbeat=record.first_seen,
        last_heartbeat=seen.last_seen if seen else None,
        heartbeats=seen.beats if seen else 0,
        registered_at=record.first_registered,
        epoch=record.epoch,
        revision=record.revision,
    )
