"""Catalogue: what people look at. Lists, single services and packages, the tree, counts and the audit trail.

Everything but the trail comes from the index, so it works while the database is away. Filters apply before the
limit, and a cursor names the last item seen rather than a position, so a list that changes skips nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from operator import attrgetter
from typing import Any

from jetway.core.errors import Code, RefusedError, refuse
from jetway.core.ids import ServiceKey, ServiceType
from jetway.core.liveness import Liveness
from jetway.core.policy import unknown_service
from jetway.core.record import LIVE, Approval, Package, ServiceRecord, ServiceStatus, Source
from jetway.core.rows import Event, package_of, service_of
from jetway.core.times import parse_rfc3339, rfc3339
from jetway.ports import EventQuery, RegistryDatabase
from jetway.services.index import Index
from jetway.services.liveness import Verdicts
from jetway.services.maintenance import Maintenance
from jetway.services.pace import in_slices
from jetway.services.presence import PresenceTable, Seen
from jetway.services.selection import Frequency, LabelUse, has_label, labels_in_use, sites_in_use
from jetway.services.tree import Branches, TreeNode, TreeQuery
from jetway.services.troubles import Troubles
from jetway.services.views import Proof
from jetway.services.views import ServiceView as ServiceView
from jetway.services.window import (
    NEVER,
    Order,
    Page,
    Window,
    decode_cursor,
    encode_cursor,
    foreign_cursor,
)

Keep = Callable[[ServiceRecord], bool]


@dataclass(frozen=True, slots=True)
class PackageView:
    """A package with the service it belongs to."""

    record: ServiceRecord
    package: Package


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceFilter:
    """Which services are asked for; an empty field does not filter. A leading `-` in `sort` turns it round."""

    service_type: ServiceType
    statuses: Sequence[str] = ()
    sources: Sequence[str] = ()
    liveness: Sequence[str] = ()
    approvals: Sequence[str] = ()
    site: str | None = None
    labels: Sequence[str] = ()
    """`key=value`, `key`, `key!=value`, `!key`; all must match."""
    parent_id: str | None = None
    q: str = ""
    """Part of the id, label or site, in any case."""
    sort: str = "service_id"
    limit: int = 50
    cursor: str | None = None
    with_deleted: bool = False
    """Deleted services show only here, or where `statuses` names them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageFilter:
    """Which packages are asked for, newest first."""

    statuses: Sequence[str] = ()
    component_type: str | None = None
    parent_id: str | None = None
    site: str | None = None
    q: str = ""
    limit: int = 50
    cursor: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFilter:
    """Which events are asked for, newest first."""

    types: Sequence[str] = ()
    service_type: str = ""
    service_id: str = ""
    package_id: str = ""
    actor: str = ""
    since: datetime | None = None
    until: datetime | None = None
    limit: int = 50
    cursor: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class QuarantineFilter:
    """Which of the services that registered themselves are asked for."""

    approvals: Sequence[Approval] = (Approval.REQUIRED,)
    types: Sequence[ServiceType] = tuple(ServiceType)
    limit: int = 50
    cursor: str | None = None


@dataclass(frozen=True, slots=True)
class Stats:
    """Counts of services that are not deleted, and of the deleted ones by status alone."""

    total: int = 0
    by_type: dict[str, int] = field(default_factory=dict)
    by_status: dict[str, int] = field(default_factory=dict)
    by_source: dict[str, int] = field(default_factory=dict)
    by_liveness: dict[str, int] = field(default_factory=dict)
    by_type_and_status: dict[str, dict[str, int]] = field(default_factory=dict)
    awaiting_approval: int = 0
    missed_by_type: dict[str, int] = field(default_factory=dict)
    """Active and inactive services that are offline."""


SORTS = ("service_id", "label", "status", "site", "first_registered", "last_seen", "liveness")
"""What lists of services can be sorted by."""


class Catalogue:
    """Reads."""

    def __init__(
        self,
        index: Index,
        presence: PresenceTable,
        verdicts: Verdicts,
        troubles: Troubles,
        maintenance: Maintenance,
        database: RegistryDatabase,
        heartbeat_proof: Proof = "none",
    ) -> None:
        self._heartbeat_proof = heartbeat_proof
        self._index = index
        self._presence = presence
        self._verdicts = verdicts
        self._troubles = troubles
        self._maintenance = maintenance
        self._database = database

    def get(self, key: ServiceKey) -> ServiceView:
        """One service. Raises RefusedError (not_found)."""
        record = self._index.get(key)
        if record is None:
            raise RefusedError(unknown_service(key))
        return self.view(record)

    def view(self, record: ServiceRecord) -> ServiceView:
        """A record as people see it."""
        return ServiceView(
            record,
            self._presence.presence(record.key),
            self._verdicts.of(record.key),
            self._index.counts(record.key),
            self._presence.interval_seconds(record),
            self._troubles.is_flapping(record.key),
            self._troubles.clones(record.key),
            self._maintenance.covers(record),
            self._heartbeat_proof,
        )

    def package(self, package_id: str) -> PackageView:
        """One package, current or earlier. Raises RefusedError (not_found)."""
        record = self._index.by_package(package_id)
        package = record.find_package(package_id) if record else None
        if record is None or package is None or package.deleted_at is not None:
            raise refuse(Code.NOT_FOUND, f"there is no package {package_id}")
        return PackageView(record, package)

    async def find_package(self, package_id: str) -> PackageView:
        """One package, also one so old that its record carries it no longer: the database has all.

        Raises RefusedError (not_found), UnavailableError where only the database could tell.
        """
        known = self._index.by_package(package_id)
        if known is None or known.find_package(package_id) is None:
            row = (await self._database.load_packages([package_id])).get(package_id)
            record = self._index.get(service_of(row)) if row else None
            if row is not None and record is not None and row.deleted_at is None:
                return PackageView(record, package_of(row))
        return self.package(package_id)

    async def services(self, query: ServiceFilter) -> Page[ServiceView]:
        """A page of services. Raises RefusedError (invalid) for an unknown sort or a foreign cursor.

        Filters and sorting look at the records; only what is shown is made into views.
        """
        window = Window(self._order(query), query.limit, query.cursor)
        async for records in self._matching(query):
            window.take(records)
        page = window.page()
        return Page([self.view(record) for record in page.items], page.next_cursor, page.total)

    async def matching(self, query: ServiceFilter) -> list[ServiceRecord]:
        """All records that pass the filters, sorted by id; `sort`, `limit` and `cursor` do not matter."""
        found: list[ServiceRecord] = []
        async for records in self._matching(query):
            found += records
        return sorted(found, key=lambda record: record.service_id)

    def record(self, key: ServiceKey) -> ServiceRecord | None:
        """The newest record known here."""
        return self._index.get(key)

    def beneath(self, key: ServiceKey) -> Iterator[ServiceRecord]:
        """All that stand beneath a service and are not deleted, in no order."""
        for child in self._index.children(key):
            yield child
            yield from self.beneath(child.key)

    async def labels(self, q: str, limit: int) -> tuple[list[LabelUse], int]:
        """Which labels are in use, the most frequent first, and how many keys in all."""
        return await labels_in_use(list(self._index.records.values()), q, limit)

    async def sites(self, q: str, limit: int) -> tuple[list[Frequency], int]:
        """Which sites are in use, the most frequent first, and how many in all."""
        return await sites_in_use(list(self._index.records.values()), q, limit)

    async def packages(self, query: PackageFilter) -> Page[PackageView]:
        """A page of packages, newest first. Raises RefusedError (invalid) for a foreign cursor."""
        order: Order[PackageView] = Order(
            lambda view: view.package.created_at,
            lambda view: view.package.package_id,
            descending=True,
            of_times=True,
        )
        window = Window(order, query.limit, query.cursor)
        matches = _package_filter(query)
        async for records in in_slices(list(self._index.records.values())):
            window.take([view for record in records for view in _packages(record) if matches(view)])
        return window.page()

    async def tree(self, query: TreeQuery | None = None) -> Page[TreeNode]:
        """Services with those beneath them, deleted ones left out, sorted by id. Raises RefusedError."""
        asked = query or TreeQuery()
        if asked.root is None:
            pollers = ServiceFilter(service_type=ServiceType.POLLER, q=asked.q)
            top = [record async for records in self._matching(pollers) for record in records]
        else:
            top = list(self._index.children(self.get(asked.root).record.key))
        return await Branches(self._index, self.view, self._verdict).page(top, asked)

    async def quarantine(self, query: QuarantineFilter) -> Page[ServiceRecord]:
        """A page of services that registered themselves, the oldest first. Raises RefusedError (invalid)."""
        order: Order[ServiceRecord] = Order(
            lambda record: record.first_registered, lambda record: str(record.key), of_times=True
        )
        window, kinds = Window(order, query.limit, query.cursor), frozenset(query.types)
        async for records in in_slices(list(self._index.records.values())):
            window.take([r for r in records if _waits(r, query.approvals) and r.service_type in kinds])
        return window.page()

    def seen(self, key: ServiceKey) -> Seen | None:
        """What its heartbeats said of it; None where none was heard."""
        return self._presence.seen(key)

    def cloned(self) -> list[ServiceKey]:
        """Services as which two hosts seem to speak."""
        return self._troubles.cloned()

    async def stats(self) -> Stats:
        """Counts by type, status, source and liveness."""
        by_type_and_status: dict[str, dict[str, int]] = {
            kind.value: {status.value: 0 for status in ServiceStatus} for kind in ServiceType
        }
        by_status: Counter[str] = Counter()
        by_type: Counter[str] = Counter()
        by_source: Counter[str] = Counter()
        awaiting = 0
        for (kind, status, source, approval), count in self._index.tally.items():
            by_type_and_status[kind.value][status.value] += count
            by_status[status.value] += count
            if status is not ServiceStatus.DELETED:
                by_type[kind.value] += count
                by_source[source.value] += count
            if status in LIVE and approval is Approval.REQUIRED:
                awaiting += count
        return Stats(
            total=by_type.total(),
            by_type={kind.value: by_type[kind.value] for kind in ServiceType},
            by_status={status.value: by_status[status.value] for status in ServiceStatus},
            by_source=dict(by_source),
            by_liveness=self._by_liveness(),
            by_type_and_status=by_type_and_status,
            awaiting_approval=awaiting,
            missed_by_type={kind.value: self._verdicts.missed[kind] for kind in ServiceType},
        )

    async def events(self, query: EventFilter) -> Page[Event]:
        """A page of the audit trail. Raises RefusedError (invalid), UnavailableError."""
        page = await self._database.find_events(
            EventQuery(
                types=query.types,
                service_type=query.service_type,
                service_id=query.service_id,
                package_id=query.package_id,
                actor=query.actor,
                since=query.since,
                until=query.until,
                limit=query.limit,
                before=_event_cursor(query.cursor),
            )
        )
        last = page.events[-1] if page.events and page.more else None
        cursor = encode_cursor([rfc3339(last.timestamp), last.event_id]) if last else None
        return Page(page.events, cursor, page.total)

    def _by_liveness(self) -> dict[str, int]:
        counts = self._verdicts.counts
        return {one.value: sum(counts[kind, one] for kind in ServiceType) for one in Liveness}

    def _verdict(self, record: ServiceRecord) -> Liveness:
        return self._verdicts.of(record.key)

    async def _matching(self, query: ServiceFilter) -> AsyncIterator[Sequence[ServiceRecord]]:
        filters = _filters(query)
        if query.liveness:
            wanted = frozenset(query.liveness)
            verdict = self._verdicts_of(query.service_type)
            filters.append(lambda record: verdict(record) in wanted)
        async for records in in_slices(self._candidates(query)):
            for keep in filters:
                records = [record for record in records if keep(record)]
            yield records

    def _candidates(self, query: ServiceFilter) -> list[ServiceRecord]:
        parent = query.service_type.parent_type
        if query.parent_id is not None and parent and not _wants_deleted(query):
            return list(self._index.children(ServiceKey(parent, query.parent_id)))
        return self._index.of_type(query.service_type)

    def _verdicts_of(self, kind: ServiceType) -> Callable[[ServiceRecord], Liveness]:
        """Gives the verdict on records of this type: for many at once."""
        seen_of, never = self._presence.of_type(kind), Liveness.NEVER
        return lambda record: seen.verdict if (seen := seen_of(record.service_id)) else never

    def _last_seen_of(self, kind: ServiceType) -> Callable[[ServiceRecord], datetime]:
        seen_of = self._presence.of_type(kind)
        return lambda record: seen.last_seen if (seen := seen_of(record.service_id)) else NEVER

    def _order(self, query: ServiceFilter) -> Order[ServiceRecord]:
        sort, kind = query.sort, query.service_type
        name = sort.removeprefix("-")
        by: dict[str, Callable[[ServiceRecord], Any]] = {
            "service_id": attrgetter("service_id"),
            "label": lambda record: record.label.casefold(),
            "status": attrgetter("status"),
            "site": attrgetter("site"),
            "first_registered": attrgetter("first_registered"),
            "last_seen": self._last_seen_of(kind),
            "liveness": self._verdicts_of(kind),
        }
        if name not in by:
            raise refuse(
                Code.INVALID, f"sort is one of {', '.join(SORTS)}, with - before it to turn it round", "sort"
            )
        return Order(
            by[name],
            attrgetter("service_id"),
            descending=sort.startswith("-"),
            of_times=name in {"first_registered", "last_seen"},
        )


def _waits(record: ServiceRecord, approvals: Sequence[Approval]) -> bool:
    return (
        record.approval in approvals
        and record.registration_source is Source.IMPLICIT
        and record.status is ServiceStatus.PENDING
    )


def _wants_deleted(query: ServiceFilter) -> bool:
    return query.with_deleted or ServiceStatus.DELETED.value in query.statuses


def _filters(query: ServiceFilter) -> list[Keep]:
    """What a record must pass, the cheapest first; what is not asked for costs nothing."""
    found: list[Keep] = []
    if query.statuses:
        statuses = tuple(status for status in ServiceStatus if status.value in query.statuses)
        found.append(lambda record: record.status in statuses)
    elif not query.with_deleted:
        deleted = ServiceStatus.DELETED
        found.append(lambda record: record.status is not deleted)
    if query.sources:
        sources = tuple(source for source in Source if source.value in query.sources)
        found.append(lambda record: record.registration_source in sources)
    if query.approvals:
        approvals = tuple(approval for approval in Approval if approval.value in query.approvals)
        found.append(lambda record: record.approval in approvals)
    if query.site is not None:
        found.append(lambda record: record.site == query.site)
    if query.parent_id is not None:
        found.append(lambda record: record.parent_id == query.parent_id)
    if query.labels:
        found += [has_label(selector) for selector in query.labels]
    if query.q:
        wanted = query.q.casefold()
        found.append(lambda record: _says(record, wanted))
    return found


def _says(record: ServiceRecord, wanted: str) -> bool:
    """Whether the words of the record contain `wanted`, which is casefolded as every id is."""
    return (
        wanted in record.service_id or wanted in record.label.casefold() or wanted in record.site.casefold()
    )


def _packages(record: ServiceRecord) -> Iterator[PackageView]:
    for package in (record.package, *record.earlier_packages):
        if package and package.deleted_at is None:
            yield PackageView(record, package)


def _package_filter(query: PackageFilter) -> Callable[[PackageView], bool]:
    wanted = query.q.casefold()

    def matches(view: PackageView) -> bool:
        record, package = view.record, view.package
        return (
            (not query.statuses or package.status.value in query.statuses)
            and (query.component_type is None or record.service_type.value == query.component_type)
            and (query.parent_id is None or record.parent_id == query.parent_id)
            and (query.site is None or record.site == query.site)
            and (not wanted or _says(record, wanted) or wanted in package.notes.casefold())
        )

    return matches


def _event_cursor(cursor: str | None) -> tuple[datetime, str] | None:
    if cursor is None:
        return None
    at, event_id = decode_cursor(cursor)
    try:
        return parse_rfc3339(at), event_id
    except ValueError:
        raise foreign_cursor() from None
