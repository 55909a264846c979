"""What people look at: filters before the limit, cursors that skip nothing, totals, the tree, counts."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from datetime import timedelta

import pytest

from jetway.core.errors import Code, RefusedError, UnavailableError
from jetway.core.heartbeat import EMPTY
from jetway.core.ids import ServiceKey, ServiceType
from jetway.core.liveness import Thresholds
from jetway.core.record import Approval, PackageStatus, ServiceRecord, ServiceStatus, Source
from jetway.core.rows import Event
from jetway.services.catalogue import SORTS, EventFilter, PackageFilter, ServiceFilter
from jetway.services.index import Index
from jetway.services.presence import PresenceTable
from jetway.services.tree import TreeNode
from support.builders import AGENT, DAY, NOW, PACKAGE_ID, FakeClock, package, record, uid
from support.liveness import Watched
from support.memory_database import MemoryDatabase

S, P = ServiceStatus, PackageStatus
POLLERS = ServiceType.POLLER


class World:
    def __init__(self) -> None:
        self.index = Index()
        self.clock = FakeClock()
        self.presence = PresenceTable(self.clock, default_interval=30, thresholds=Thresholds())
        self.presence.listening()
        self.database = MemoryDatabase()
        self.watched = Watched(self.index, self.presence, self.clock)
        self.catalogue = self.watched.catalogue(self.database)

    def put(
        self, kind: ServiceType, service_id: str, status: S = S.ACTIVE, **changes: object
    ) -> ServiceRecord:
        made = replace(record(kind, status), service_id=service_id, **changes)  # type: ignore[arg-type]
        if kind is POLLERS:
            made = replace(made, poller_id=service_id)
        self.index.apply(made)
        return made

    async def ids(self, **query: object) -> list[str]:
        query = {"service_type": POLLERS} | query
        page = await self.catalogue.services(ServiceFilter(**query))  # type: ignore[arg-type]
        return [view.record.service_id for view in page.items]

    async def walk(self, between: object = None, **query: object) -> list[str]:
        """Page by page; `between` is called after each page."""
        found: list[str] = []
        cursor = None
        for _ in range(100):
            query = {"service_type": POLLERS} | query | {"cursor": cursor}
            page = await self.catalogue.services(ServiceFilter(**query))  # type: ignore[arg-type]
            found += [view.record.service_id for view in page.items]
            cursor = page.next_cursor
            if cursor is None:
                return found
            if callable(between):
                between()
        raise AssertionError("the pages do not end")


@pytest.fixture
def world() -> World:
    return World()


async def test_the_status_filter_comes_before_the_limit(world: World) -> None:
    """A list does not apply its limit before its filter."""
    for number in range(10):
        world.put(POLLERS, f"p{number}", S.PENDING if number < 8 else S.ACTIVE)
    page = await world.catalogue.services(ServiceFilter(service_type=POLLERS, statuses=["active"], limit=2))
    assert [view.record.service_id for view in page.items] == ["p8", "p9"]
    assert (page.total, page.next_cursor) == (2, None)


async def test_the_total_counts_all_that_match_on_every_page(world: World) -> None:
    for number in range(5):
        world.put(POLLERS, f"p{number}")
    first = await world.catalogue.services(ServiceFilter(service_type=POLLERS, limit=2))
    second = await world.catalogue.services(
        ServiceFilter(service_type=POLLERS, limit=2, cursor=first.next_cursor)
    )
    assert (first.total, second.total) == (5, 5)
    assert [view.record.service_id for view in second.items] == ["p2", "p3"]


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 50])
@pytest.mark.parametrize("sort", [*SORTS, *(f"-{name}" for name in SORTS)])
async def test_pages_together_are_the_whole_list_in_order(world: World, sort: str, limit: int) -> None:
    for number in range(7):
        world.put(
            POLLERS,
            f"p{number}",
            label="BbAa"[number % 4],
            site="xy"[number % 2],
            first_registered=NOW - DAY * (number % 3),
            status=[S.ACTIVE, S.PENDING][number % 2],
        )
        if number % 3:
            world.presence.note(
                ServiceKey(POLLERS, f"p{number}"), EMPTY, NOW - timedelta(seconds=40 * (number % 3))
            )
    whole = await world.ids(sort=sort)
    assert await world.walk(sort=sort, limit=limit) == whole
    assert sorted(whole) == [f"p{number}" for number in range(7)]


async def test_ties_are_broken_by_the_id_in_both_directions(world: World) -> None:
    for name in "cab":
        world.put(POLLERS, name, site="same")
    assert await world.ids(sort="site") == ["a", "b", "c"]
    assert await world.ids(sort="-site") == ["c", "b", "a"]


async def test_a_cursor_skips_and_repeats_nothing_while_the_list_changes(world: World) -> None:
    for name in "bdfhj":
        world.put(POLLERS, name)
    changes = iter(
        [
            lambda: (
                world.put(POLLERS, "a"),
                world.put(POLLERS, "e"),
                world.index.forget(ServiceKey(POLLERS, "b")),
            ),
            lambda: world.index.forget(ServiceKey(POLLERS, "f")),
        ]
    )
    seen = await world.walk(between=lambda: next(changes, lambda: None)(), limit=2)
    assert seen == ["b", "d", "e", "f", "h", "j"]


async def test_the_last_page_has_no_cursor_even_when_it_is_full(world: World) -> None:
    for name in "ab":
        world.put(POLLERS, name)
    page = await world.catalogue.services(ServiceFilter(service_type=POLLERS, limit=2))
    assert page.next_cursor is None


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "x",
        "!!!",
        "é",
        "A" * 5000,
        "\ud800",
        *(
            base64.urlsafe_b64encode(data).decode()
            for data in (b"[]", b"[1,2]", b'["a"]', b'["a","b","c"]', b"null", b"\xff", b"[" * 9000)
        ),
        *(base64.urlsafe_b64encode(data).decode() for data in (b'{"a":1,"b":2}', b'"ab"')),
        base64.urlsafe_b64encode(b'["2026-03-04T05:06:07Z","\\ud800"]').decode(),
    ],
    ids=lambda text: ascii(text[:12]),
)
async def test_a_foreign_cursor_is_refused(world: World, cursor: str) -> None:
    queries = [
        *(
            world.catalogue.services(ServiceFilter(service_type=POLLERS, sort=sort, cursor=cursor))
            for sort in ("service_id", "last_seen")
        ),
        world.catalogue.packages(PackageFilter(cursor=cursor)),
    ]
    for query in queries:
        with pytest.raises(RefusedError) as caught:
            await query
        assert (caught.value.refused.code, caught.value.refused.field) == (Code.INVALID, "cursor")
    with pytest.raises(RefusedError):
        await world.catalogue.events(EventFilter(cursor=cursor))


@pytest.mark.parametrize("sort", ["last_seen", "-first_registered"])
async def test_a_cursor_of_another_sort_is_refused_where_a_time_is_needed(world: World, sort: str) -> None:
    for name in "ab":
        world.put(POLLERS, name, label="Label")
    by_label = await world.catalogue.services(ServiceFilter(service_type=POLLERS, sort="label", limit=1))
    with pytest.raises(RefusedError) as caught:
        await world.ids(sort=sort, cursor=by_label.next_cursor)
    assert caught.value.refused.field == "cursor"


async def test_a_page_of_thousands_is_the_best_of_all_of_them(world: World) -> None:
    for number in range(3000):
        world.put(POLLERS, f"p{number}", label=f"Poller {number}")
    page = await world.catalogue.services(
        ServiceFilter(service_type=POLLERS, q="POLLER 29", limit=2, sort="-label")
    )
    assert [view.record.service_id for view in page.items] == ["p2999", "p2998"]
    assert page.total == 111


@pytest.mark.parametrize("at", ["", "x", "2026-01-01T00:00:00", "0001-01-01T00:00:00+23:59"])
async def test_a_cursor_into_the_trail_names_a_time(world: World, at: str) -> None:
    cursor = base64.urlsafe_b64encode(json.dumps([at, "id"]).encode()).decode()
    with pytest.raises(RefusedError) as caught:
        await world.catalogue.events(EventFilter(cursor=cursor))
    assert caught.value.refused.field == "cursor"


async def test_an_unknown_sort_is_refused_with_those_that_there_are(world: World) -> None:
    with pytest.raises(RefusedError) as caught:
        await world.ids(sort="colour")
    assert caught.value.refused.field == "sort"
    assert "last_seen" in caught.value.refused.why


async def test_each_filter_filters(world: World) -> None:
    world.put(POLLERS, "a", site="North", labels={"rack": "12", "gpu": ""}, label="Alpha")
    world.put(
        POLLERS, "b", S.PENDING, registration_source=Source.IMPLICIT, labels={"rack": "13"}, label="Beta"
    )
    world.put(POLLERS, "c", S.REVOKED, site="", label="Gamma")
    world.presence.note(ServiceKey(POLLERS, "a"), EMPTY, NOW)
    assert await world.ids(statuses=["pending", "revoked"]) == ["b", "c"]
    assert await world.ids(sources=["implicit"]) == ["b"]
    assert await world.ids(site="North") == ["a"]
    assert await world.ids(site="") == ["c"]
    assert await world.ids(labels=["rack"]) == ["a", "b"]
    assert await world.ids(labels=["rack=12"]) == ["a"]
    assert await world.ids(labels=["rack=12", "gpu="]) == ["a"]
    assert await world.ids(labels=["rack=12", "no"]) == []
    assert await world.ids(liveness=["online"]) == ["a"]
    assert await world.ids(liveness=["never", "offline"]) == ["b", "c"]
    assert await world.ids(q="NORTH") == ["a"]
    assert await world.ids(q="amm") == ["c"]
    assert await world.ids(q="nothing") == []


async def test_deleted_services_show_only_where_they_are_asked_for(world: World) -> None:
    world.put(POLLERS, "a")
    world.put(POLLERS, "b", S.DELETED)
    assert await world.ids() == ["a"]
    assert await world.ids(statuses=["deleted"]) == ["b"]
    assert await world.ids(with_deleted=True) == ["a", "b"]
    assert world.catalogue.get(ServiceKey(POLLERS, "b")).record.status is S.DELETED


async def test_children_are_those_of_one_parent(world: World) -> None:
    for kind, name, parent in (("agent", "a1", "p1"), ("agent", "a2", "p2"), ("agent", "a3", "p1")):
        world.put(ServiceType(kind), name, parent_id=parent, poller_id=parent)
    world.put(ServiceType.AGENT, "a4", S.DELETED)
    assert await world.ids(service_type=ServiceType.AGENT, parent_id="p1") == ["a1", "a3"]
    assert await world.ids(service_type=ServiceType.AGENT, parent_id="p1", with_deleted=True) == [
        "a1",
        "a3",
        "a4",
    ]
    assert await world.ids(service_type=ServiceType.AGENT, parent_id="nobody") == []


def test_what_is_not_there_is_not_found(world: World) -> None:
    for query in (lambda: world.catalogue.get(AGENT), lambda: world.catalogue.package(uid(1))):
        with pytest.raises(RefusedError) as caught:
            query()
        assert caught.value.refused.code is Code.NOT_FOUND


async def test_the_tree_is_sorted_and_leaves_deleted_services_out(world: World) -> None:
    world.put(POLLERS, "p2")
    world.put(POLLERS, "p1")
    world.put(POLLERS, "p3", S.DELETED)
    world.put(ServiceType.AGENT, "a2")
    world.put(ServiceType.AGENT, "a1", S.REVOKED)
    world.put(ServiceType.AGENT, "a3", S.DELETED)
    world.put(ServiceType.CHECKER, "c1", parent_id="a2")

    def shape(node: TreeNode) -> object:
        return {node.view.record.service_id: [shape(child) for child in node.children]}

    assert [shape(node) for node in (await world.catalogue.tree()).items] == [
        {"p1": [{"a1": []}, {"a2": [{"c1": []}]}]},
        {"p2": []},
    ]


async def test_counts_are_by_type_status_source_and_liveness(world: World) -> None:
    world.put(POLLERS, "p1")
    world.put(POLLERS, "p2", S.DELETED)
    world.put(
        ServiceType.AGENT, "a1", S.PENDING, registration_source=Source.IMPLICIT, approval=Approval.REQUIRED
    )
    world.put(
        ServiceType.AGENT, "a2", S.REVOKED, registration_source=Source.IMPLICIT, approval=Approval.REQUIRED
    )
    world.presence.note(ServiceKey(POLLERS, "p1"), EMPTY, NOW)
    stats = await world.catalogue.stats()
    assert stats.total == 3
    assert stats.by_type == {"poller": 1, "agent": 2, "checker": 0}
    assert stats.by_status == {"pending": 1, "active": 1, "inactive": 0, "revoked": 1, "deleted": 1}
    assert stats.by_source == {"edge_onboarding": 1, "implicit": 2}
    assert stats.by_liveness == {"never": 2, "online": 1, "late": 0, "offline": 0}
    assert stats.by_type_and_status["poller"] == {
        "pending": 0,
        "active": 1,
        "inactive": 0,
        "revoked": 0,
        "deleted": 1,
    }
    assert stats.awaiting_approval == 1


async def test_packages_come_newest_first_with_earlier_ones_and_without_deleted_ones(world: World) -> None:
    world.put(POLLERS, "p1", package=package(package_id=uid(1), created_at=NOW - DAY))
    world.put(
        ServiceType.AGENT,
        "a1",
        package=package(package_id=uid(2), created_at=NOW, notes="for the Roof"),
        earlier_packages=(
            package(P.SUPERSEDED, package_id=uid(3), created_at=NOW - 2 * DAY),
            package(P.EXPIRED, package_id=uid(4), deleted_at=NOW),
        ),
    )

    async def found(**query: object) -> list[str]:
        page = await world.catalogue.packages(PackageFilter(**query))  # type: ignore[arg-type]
        return [view.package.package_id for view in page.items]

    assert await found() == [uid(2), uid(1), uid(3)]
    assert await found(statuses=["superseded"]) == [uid(3)]
    assert await found(component_type="poller") == [uid(1)]
    assert await found(parent_id="p1") == [uid(2), uid(3)]
    assert await found(q="roof") == [uid(2)]
    assert await found(site="B") == []
    assert world.catalogue.package(uid(3)).record.service_id == "a1"
    with pytest.raises(RefusedError):
        world.catalogue.package(uid(4))


async def test_packages_are_paged(world: World) -> None:
    for number in range(5):
        world.put(POLLERS, f"p{number}", package=package(package_id=uid(number), created_at=NOW))
    found: list[str] = []
    cursor = None
    for _ in range(9):
        page = await world.catalogue.packages(PackageFilter(limit=2, cursor=cursor))
        found += [view.package.package_id for view in page.items]
        assert page.total == 5
        cursor = page.next_cursor
        if cursor is None:
            break
    assert cursor is None
    assert found == [uid(number) for number in (4, 3, 2, 1, 0)]


async def test_the_trail_is_paged_newest_first(world: World) -> None:
    await world.database.append_events(
        [
            Event(event_id=f"e{n}", event_type="issued", actor="a", timestamp=NOW + timedelta(seconds=n // 2))
            for n in range(5)
        ]
    )
    first = await world.catalogue.events(EventFilter(limit=2))
    second = await world.catalogue.events(EventFilter(limit=2, cursor=first.next_cursor))
    third = await world.catalogue.events(EventFilter(limit=2, cursor=second.next_cursor))
    pages = [[event.event_id for event in page.items] for page in (first, second, third)]
    assert pages == [["e4", "e3"], ["e2", "e1"], ["e0"]]
    assert (third.next_cursor, third.total) == (None, 5)


async def test_lists_work_while_the_database_is_away(world: World) -> None:
    world.put(POLLERS, "p1", package=package())
    await world.database.close()
    assert await world.ids() == ["p1"]
    assert (await world.catalogue.stats()).total == 1
    assert world.catalogue.package(PACKAGE_ID).record.service_id == "p1"
    with pytest.raises(UnavailableError):
        await world.catalogue.events(EventFilter())
