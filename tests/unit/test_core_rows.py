"""record → rows and events: what people query, and ids that are the same on every delivery."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from jetway.core import commands as c
from jetway.core.ids import ServiceType
from jetway.core.record import PackageStatus, ServiceStatus
from jetway.core.rows import (
    Counts,
    Presence,
    events_of,
    package_rows,
    service_row,
)
from support.builders import (
    DAY,
    EPOCH,
    NOW,
    PACKAGE_ID,
    after,
    context,
    new_package,
    package,
    record,
    spec,
    uid,
)


def test_a_row_holds_what_the_record_the_heartbeats_and_the_tree_say() -> None:
    made = record(ServiceType.POLLER, ServiceStatus.ACTIVE, package=package(), heartbeat_interval_seconds=5)
    row = service_row(made, Presence(NOW, False, "1.2"), Counts(2, 3), default_interval=30)
    assert (row.service_id, row.component_id, row.poller_id, row.agent_id) == ("p1", "p1", "p1", "")
    assert (row.status, row.registration_source, row.approval) == ("active", "edge_onboarding", "none")
    assert (row.last_seen, row.is_healthy, row.version) == (NOW, False, "1.2")
    assert (row.agent_count, row.checker_count, row.package_id) == (2, 3, PACKAGE_ID)
    assert (row.epoch, row.revision, row.incarnation) == (EPOCH, 3, 1)
    assert (row.heartbeat_interval_seconds, row.updated_at) == (5, NOW - DAY)


def test_a_row_names_all_parents() -> None:
    row = service_row(record(ServiceType.CHECKER), Presence(), Counts(), default_interval=30)
    assert (row.poller_id, row.agent_id, row.service_id, row.checker_kind) == ("p1", "a1", "c1", "snmp")
    assert (row.heartbeat_interval_seconds, row.package_id) == (30, "")


def test_packages_come_with_the_current_one_first() -> None:
    made = record(
        package=package(generation=2, package_id=uid(2)),
        earlier_packages=(package(PackageStatus.SUPERSEDED, package_id=uid(1)),),
    )
    rows = package_rows(made)
    assert [(row.package_id, row.status, row.generation) for row in rows] == [
        (uid(2), "issued", 2),
        (uid(1), "superseded", 1),
    ]
    assert (rows[0].parent_type, rows[0].parent_id, rows[0].component_type) == ("poller", "p1", "agent")
    assert package_rows(record()) == []


def test_one_change_gives_one_event_for_each_thing_that_happened() -> None:
    created = after(None, c.Issue(spec=spec(), package=new_package()))
    registered, issued = events_of(created)
    assert (registered.event_type, issued.event_type) == ("registered", "issued")
    assert registered.event_id != issued.event_id
    assert replace(issued, event_id="", event_type="") == replace(registered, event_id="", event_type="")
    assert (issued.actor, issued.source_ip, issued.request_id) == ("alice", "192.0.2.9", "req-1")
    assert (issued.from_status, issued.to_status, issued.parent_id) == ("", "pending", "p1")
    assert (issued.epoch, issued.revision, issued.timestamp) == (EPOCH, 1, NOW)


def test_an_events_id_is_the_same_on_every_delivery_and_on_every_machine() -> None:
    created = after(None, c.Issue(spec=spec(), package=new_package()))
    assert [event.event_id for event in events_of(created)] == [
        event.event_id for event in events_of(created)
    ]
    assert events_of(created)[0].event_id == "7c836c38-71cb-5438-b22a-193d890a8a00"


def test_another_change_gives_other_event_ids() -> None:
    created = after(None, c.Register(spec=spec()))
    seen = {events_of(created)[0].event_id}
    for changes in (
        {"epoch": EPOCH + 1},
        {"revision": 2},
        {"service_id": "a2"},
        {"transition": replace(created.transition, transition_id=uid(5))},
    ):
        seen.add(events_of(replace(created, **changes))[0].event_id)  # type: ignore[arg-type]
    assert len(seen) == 5


def test_an_event_says_why_and_between_which_statuses() -> None:
    later = context(NOW + timedelta(hours=1), actor="bob")
    (event,) = events_of(after(record(status=ServiceStatus.ACTIVE), c.Revoke(reason="stolen"), later))
    assert (event.event_type, event.actor, event.reason) == ("revoked", "bob", "stolen")
    assert (event.from_status, event.to_status) == ("active", "revoked")


def test_ids_of_one_transition_sort_in_its_order() -> None:
    made = after(None, c.Issue(spec=spec(), package=new_package()), context())
    ids = [event.event_id for event in events_of(made)]
    assert len(set(ids)) == 2
    assert ids == sorted(ids)


def test_a_reissue_ends_the_old_packages_history_and_begins_the_new_ones() -> None:
    old = record(package=package(), status=ServiceStatus.PENDING)
    reissued, issued = events_of(after(old, c.Reissue(package=new_package())))
    assert old.package is not None
    assert (reissued.event_type, reissued.package_id) == ("reissued", old.package.package_id)
    assert (issued.event_type, issued.package_id) == ("issued", new_package().package_id)
