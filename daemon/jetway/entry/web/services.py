"""Services: the table with its filters in the address, and the page of one."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

from aiohttp import web
from multidict import MultiMapping
from pydantic import ValidationError

from jetway.core.errors import PortError
from jetway.core.ids import ServiceKey, ServiceType, document_key
from jetway.core.liveness import Liveness
from jetway.core.record import LIVE, Approval, ServiceRecord, ServiceStatus, Source
from jetway.core.rows import Event
from jetway.entry.http import requests as r
from jetway.entry.http.doors import Doors
from jetway.entry.http.problems import invalid_fields, wrong_filter
from jetway.entry.web import suggestions
from jetway.entry.web.choices import choices_for
from jetway.entry.web.decided import decided
from jetway.entry.web.document import show_document
from jetway.entry.web.maintenance import TERMS, windows_of
from jetway.entry.web.pages import page
from jetway.entry.web.strip import strip_of
from jetway.entry.web.visit import Visit
from jetway.services.catalogue import EventFilter, QuarantineFilter, ServiceFilter, ServiceView
from jetway.services.window import Page

SERVICE = "/ui/services/{kind:poller|agent|checker}/{service_id}"
_ONE_VALUE = ("site", "q", "sort", "cursor", "parent_id")
_LISTS = ("status", "liveness", "source", "approval", "label")
_EVENTS_SHOWN = 30
_CHILDREN_SHOWN = 10
EXPECTED = (ServiceStatus.ACTIVE.value, ServiceStatus.INACTIVE.value)
"""Statuses of services that are missed when they are silent."""
_LET_IN = (Approval.NONE, Approval.GRANTED)
_REISSUED_FROM = (ServiceStatus.PENDING, ServiceStatus.INACTIVE, ServiceStatus.REVOKED)


@dataclass(frozen=True, slots=True)
class Action:
    """What can be done to a service now."""

    name: str
    title: str
    role: str
    grave: bool = False


def key_of(visit: Visit) -> ServiceKey:
    """The service that the path names."""
    return ServiceKey(ServiceType(visit.part("kind")), visit.part("service_id"))


def path_of(key: ServiceKey) -> str:
    """The page of a service."""
    return f"/ui/services/{key.service_type.value}/{key.service_id}"


class ServicePages:
    """The pages under /ui/services, and /ui/quarantine."""

    def __init__(self, doors: Doors) -> None:
        self._catalogue = doors.catalogue
        self._documents = doors.documents
        self._maintenance = doors.maintenance
        self._past = doors.past

    @page("GET", "/ui/services")
    async def table(self, visit: Visit) -> web.StreamResponse:
        """A page of the table."""
        query = visit.request.query
        wanted = service_filter(query, kind_of(query.get("type") or "poller"))
        return visit.show(
            "services.html",
            wanted=wanted,
            page=await self._catalogue.services(wanted),
            kinds=list(ServiceType),
            statuses=list(ServiceStatus),
            sources=list(Source),
            sites=[] if visit.is_live else await suggestions.sites(self._catalogue),
            livenesses=list(Liveness),
            approvals=list(Approval),
            choices=choices_for(visit),
            filter_pairs=[("type", wanted.service_type.value), *_pairs(query)],
            filtered=any(query.get(name) for name in (*_LISTS, "site", "q", "parent_id")),
        )

    @page("GET", SERVICE)
    async def service(self, visit: Visit) -> web.StreamResponse:
        """One service."""
        key = key_of(visit)
        view = self._catalogue.get(key)
        record = view.record
        children, events, document = await asyncio.gather(
            self._children(record),
            self._history(key),
            show_document(self._documents, key, with_config=visit.may("operator")),
        )
        return visit.show(
            "service.html",
            view=view,
            record=record,
            strip=strip_of(self._past.read(key)),
            document=document,
            document_key=document_key(record.lineage),
            actions=[action for action in actions(record) if visit.may(action.role)],
            takes_children=takes_children(record),
            children=children,
            events=events,
            decided=await decided(self._catalogue, record, events),
            windows=windows_of(self._maintenance, record),
            terms=TERMS,
        )

    @page("GET", "/ui/quarantine")
    async def quarantine(self, visit: Visit) -> web.StreamResponse:
        """Services that registered themselves and wait, the oldest first."""
        query = visit.request.query
        kinds = [kind_of(query["type"])] if query.get("type") else list(ServiceType)
        wanted = QuarantineFilter(types=kinds, cursor=query.get("cursor") or None)
        found = await self._catalogue.quarantine(wanted)
        views = [self._catalogue.view(record) for record in found.items]
        return visit.show(
            "quarantine.html",
            page=Page(views, found.next_cursor, found.total),
            heard={record.key: self._catalogue.seen(record.key) for record in found.items},
            chosen=kinds,
            types=[("type", kind.value) for kind in kinds],
            kinds=list(ServiceType),
            choices=choices_for(visit, "approve", "reject"),
        )

    async def _children(self, record: ServiceRecord) -> Page[ServiceView] | None:
        """The first ten, those that are missed before all others."""
        kind = record.service_type.child_type
        if kind is None:
            return None
        wanted = ServiceFilter(service_type=kind, parent_id=record.service_id, limit=_CHILDREN_SHOWN)
        page = await self._catalogue.services(wanted)
        found = list(page.items)
        if page.next_cursor:
            for verdict in (Liveness.LATE, Liveness.OFFLINE):
                worse = replace(wanted, statuses=EXPECTED, liveness=(verdict.value,))
                found = [*(await self._catalogue.services(worse)).items, *found]
        once = {view.record.key: view for view in sorted(found, key=_calmness)}
        return Page(list(once.values())[:_CHILDREN_SHOWN], page.next_cursor, page.total)

    async def _history(self, key: ServiceKey) -> list[Event] | None:
        """None while the database is away."""
        wanted = EventFilter(
            service_type=key.service_type.value, service_id=key.service_id, limit=_EVENTS_SHOWN
        )
        try:
            return list((await self._catalogue.events(wanted)).items)
        except PortError:
            return None


def _calmness(view: ServiceView) -> int:
    if view.record.status.value not in EXPECTED:
        return 2
    return {Liveness.OFFLINE: 0, Liveness.LATE: 1}.get(view.liveness, 2)


def actions(record: ServiceRecord) -> list[Action]:
    """What the service's state allows, as the state tables have it."""
    found: list[Action] = []
    if record.status in LIVE and record.approval is Approval.REQUIRED:
        found += [
            Action("approve", "Approve", "operator"),
            Action("reject", "Reject", "operator", grave=True),
        ]
    if record.status is ServiceStatus.PENDING and record.approval is Approval.REJECTED:
        found.append(Action("approve", "Approve after all", "operator"))
    if record.status is ServiceStatus.ACTIVE:
        found.append(Action("deactivate", "Set inactive", "operator"))
    if record.status is ServiceStatus.INACTIVE:
        found.append(Action("activate", "Set active", "operator"))
    if record.status in _REISSUED_FROM and (record.package or record.approval in _LET_IN):
        found.append(Action("reissue", "Reissue" if record.package else "Make a package", "operator"))
    if record.status in LIVE:
        found.append(Action("revoke", "Revoke", "operator", grave=True))
    if record.status in (ServiceStatus.REVOKED, ServiceStatus.INACTIVE):
        found.append(Action("delete", "Delete", "admin", grave=True))
    return found


def takes_children(record: ServiceRecord) -> bool:
    """Whether something can be onboarded beneath it: not beneath a stranger that nobody let in."""
    return (
        record.service_type.child_type is not None
        and record.status in (ServiceStatus.PENDING, ServiceStatus.ACTIVE)
        and record.approval in _LET_IN
    )


def kind_of(text: str) -> ServiceType:
    """A type in an address. Raises ProblemError."""
    try:
        return ServiceType(text)
    except ValueError:
        raise invalid_fields(422, "type is one of poller, agent, checker", []) from None


def _pairs(query: MultiMapping[str]) -> list[tuple[str, str]]:
    """What filters the table, for a form that is about all of it."""
    names = (*_LISTS, "site", "q", "parent_id")
    return [(name, value) for name, value in query.items() if name in names and value]


def service_filter(query: MultiMapping[str], kind: ServiceType) -> ServiceFilter:
    """What the address asks for. Raises ProblemError that names what is wrong in it."""
    values: dict[str, object] = {name: query[name] for name in _ONE_VALUE if query.get(name)}
    values |= {name: [each for each in query.getall(name, []) if each] for name in _LISTS}
    try:
        asked = r.ListServices.model_validate(values)
    except ValidationError as error:
        raise wrong_filter(error) from None
    return ServiceFilter(
        service_type=kind,
        statuses=[status.value for status in asked.status],
        sources=[source.value for source in asked.source],
        liveness=[verdict.value for verdict in asked.liveness],
        approvals=[approval.value for approval in asked.approval],
        site=asked.site,
        labels=asked.label,
        parent_id=asked.parent_id,
        q=asked.q,
        sort=asked.sort,
        cursor=asked.cursor,
    )
