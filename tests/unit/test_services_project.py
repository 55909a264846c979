"""Projections: derived from the newest record, as often as it takes; and a restart forgets nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest

from jetway.core import commands as c
from jetway.core.errors import ConflictError, PortError, UnavailableError
from jetway.core.heartbeat import EMPTY, Payload
from jetway.core.ids import document_key
from jetway.core.record import ServiceStatus
from jetway.ports import Change, FeedItem
from jetway.services import project
from jetway.services.caller import SYSTEM
from jetway.services.health import Component, Health
from support.builders import AGENT, CHECKER, LINEAGES, NOW, POLLER
from support.house import ALICE, House, running_house

POLLER_LINEAGE, AGENT_LINEAGE, CHECKER_LINEAGE = LINEAGES.values()
PATH = document_key(POLLER_LINEAGE)


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(project, "_FIRST_BACKOFF", 0.0001)
    monkeypatch.setattr("jetway.services.issue.PROJECTION_SECONDS", 0.01)


@pytest.fixture
async def house() -> AsyncIterator[House]:
    async with running_house() as running:
        yield running


async def write_by_hand(house: House, **changes: object) -> None:
    stored = await house.documents.read(PATH)
    document = json.loads(stored.data or b"{}") | changes
    await house.documents.write(PATH, json.dumps(document).encode(), stored.sequence)


# --- documents


async def test_documents_follow_every_status_change(house: House) -> None:
    """Documents are updated after creation, and go with the service."""
    statuses = []

    async def look() -> None:
        await house.settle()
        document = house.document(POLLER_LINEAGE)
        statuses.append(document["status"] if document else None)

    issued = await house.create()
    await look()
    await house.redeem(issued.token)
    await house.beat(POLLER_LINEAGE)
    await look()
    await house.recorder.apply(POLLER, c.Deactivate(), SYSTEM)
    await look()
    await house.revoke(POLLER)
    await look()
    await house.administrator.delete(ALICE, POLLER, reason="")
    await look()
    assert statuses == ["pending", "active", "inactive", "revoked", None]


async def test_a_deleted_child_leaves_its_parents_document(house: House) -> None:
    await house.activate_tree()
    await house.revoke(CHECKER)
    await house.administrator.delete(ALICE, CHECKER, reason="")
    await house.settle()
    document, poller_row = house.document(AGENT_LINEAGE), house.row(POLLER)
    assert document is not None
    assert poller_row is not None
    assert document["children"] == []
    assert poller_row.checker_count == 0


async def test_what_is_delivered_twice_changes_nothing(house: House) -> None:
    await house.activate_tree()
    await house.revoke(AGENT)
    await house.settle()
    before = dict(house.documents.documents), dict(house.database.services), dict(house.database.events)
    await house.deliver_again()
    assert (
        dict(house.documents.documents),
        dict(house.database.services),
        dict(house.database.events),
    ) == before


async def test_an_edited_checker_config_survives_every_change(house: House) -> None:
    await house.create(label="First")
    await house.settle()
    await write_by_hand(house, checker_config={"by": "hand"}, status="active", label="Mine")
    await house.revoke(POLLER)
    await house.settle()
    document = house.document(POLLER_LINEAGE)
    assert document is not None
    assert document["checker_config"] == {"by": "hand"}
    assert (document["status"], document["label"]) == ("revoked", "First")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"garbage",
        b"[]",
        b'{"checker_config": "\\ud800", "checker_config_generated_sha256": "x"}',
        b'{"checker_config": ' + b"[" * 3000 + b"]" * 3000 + b', "checker_config_generated_sha256": "x"}',
        b'{"checker_config": NaN, "checker_config_generated_sha256": "x"}',
    ],
    ids=lambda data: repr(data[:40]),
)
async def test_garbage_in_the_bucket_is_mended_and_stops_nobody(house: House, data: bytes) -> None:
    await house.create()
    await house.settle()
    await house.documents.write(PATH, data, (await house.documents.read(PATH)).sequence)
    await house.revoke(POLLER)
    await house.settle()
    document = house.document(POLLER_LINEAGE)
    assert document is not None
    assert document["status"] == "revoked"


async def test_a_swap_that_somebody_else_wins_is_tried_again(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jetway.services.issue.PROJECTION_SECONDS", 30.0)
    for _ in range(3):
        house.documents.fail_next("write", ConflictError("lost"))
    issued = await house.create()
    assert issued.projection["document"] == "written"


async def test_a_document_that_cannot_be_written_holds_its_place_and_keeps_nobody_else_back(
    house: House,
) -> None:
    await house.create()
    await house.create(AGENT)
    await house.settle()
    house.documents.fail_next("read", UnavailableError("away"))
    await house.revoke(POLLER)
    await house.settle()
    for lineage in (POLLER_LINEAGE, AGENT_LINEAGE):
        document = house.document(lineage)
        assert document is not None
        assert document["status"] == "revoked"


async def test_a_database_that_is_away_does_not_hold_back_a_revoked_document(house: House) -> None:
    await house.activate()
    await house.stall("rows")
    await house.stall("events")
    await house.revoke(POLLER)
    await house.settle()
    document, row = house.document(POLLER_LINEAGE), house.row(POLLER)
    assert document is not None
    assert row is not None
    assert (document["status"], row.status) == ("revoked", "active")
    house.resume("rows")
    house.resume("events")
    await house.settle()
    row = house.row(POLLER)
    assert row is not None
    assert row.status == "revoked"
    assert "revoked" in house.trail_of(POLLER)


@pytest.mark.parametrize(
    ("feed", "method"), [("row_feed", "fetch"), ("row_feed", "acknowledge"), ("document_feed", "fetch")]
)
async def test_a_feed_that_fails_is_asked_again(house: House, feed: str, method: str) -> None:
    for _ in range(3):
        getattr(house, feed).fail_next(method, UnavailableError("away"))
    await house.create()
    await house.create(POLLER, service_id="p2")
    await house.settle()
    assert house.row(POLLER) is not None
    assert house.document(POLLER_LINEAGE) is not None


async def test_an_error_that_is_nobodys_outage_is_not_swallowed(house: House) -> None:
    """A batch is not a loop that swallows errors: a fault ends the task, and that is an incident."""
    house.database.fail_next("write_rows", RuntimeError("a fault"))
    await house.create()
    with pytest.raises(AssertionError, match="rows ended"):
        await house.settle()


# --- rows and presence


async def test_last_seen_is_flushed_for_those_that_were_heard(house: House) -> None:
    await house.activate_tree()
    await house.row_writer.flush_presence()
    house.clock.advance(30)
    await house.beat(AGENT_LINEAGE, Payload(healthy=False, version="2"))
    assert await house.row_writer.flush_presence() == 1
    row = house.row(AGENT)
    assert row is not None
    assert (row.last_seen, row.is_healthy, row.version) == (NOW + timedelta(seconds=30), False, "2")
    assert await house.row_writer.flush_presence() == 0


async def test_a_flush_never_brings_back_an_older_status(house: House) -> None:
    """last_seen is written from the newest record, never over it."""
    await house.activate()
    await house.stall("rows")
    await house.revoke(POLLER)
    house.presence.note(POLLER, EMPTY, house.clock.now())
    assert await house.row_writer.flush_presence() == 1
    row = house.row(POLLER)
    assert row is not None
    assert row.status == "revoked"
    house.resume("rows")
    await house.settle()
    row = house.row(POLLER)
    assert row is not None
    assert row.status == "revoked"


async def test_a_flush_that_fails_is_made_up_for(house: House) -> None:
    await house.activate()
    house.presence.note(POLLER, EMPTY, house.clock.advance(5))
    house.database.fail_next("write_rows", UnavailableError("away"))
    with pytest.raises(UnavailableError):
        await house.row_writer.flush_presence()
    assert await house.row_writer.flush_presence() == 1
    row = house.row(POLLER)
    assert row is not None
    assert row.last_seen == house.clock.now()


async def test_a_large_flush_goes_in_parts(house: House) -> None:
    await house.activate_tree()
    await house.row_writer.flush_presence()
    for key in (POLLER, AGENT, CHECKER):
        house.presence.note(key, EMPTY, house.clock.now())
    assert [await house.row_writer.flush_presence(limit=2) for _ in range(3)] == [2, 1, 0]


async def test_presence_is_kept_over_a_restart(house: House) -> None:
    await house.activate()
    await house.beat(POLLER_LINEAGE, Payload(healthy=True, version="1.2"))
    await house.row_writer.flush_presence()
    await house.crash()
    house.clock.advance(timedelta(hours=3))
    await house.start()
    await house.row_writer.remember()
    view = house.catalogue.get(POLLER)
    assert (view.presence.last_seen, view.presence.version, view.liveness.value) == (NOW, "1.2", "online")
    house.clock.advance(91)
    await house.liveness.sweep()
    assert house.catalogue.get(POLLER).liveness.value == "offline"


async def test_the_first_row_after_a_restart_does_not_forget_last_seen(house: House) -> None:
    await house.activate()
    await house.row_writer.flush_presence()
    await house.crash()
    await house.start()
    await house.revoke(POLLER)
    await house.settle()
    row = house.row(POLLER)
    assert row is not None
    assert (row.status, row.last_seen) == ("revoked", NOW)


async def test_a_new_service_was_not_heard_when_its_predecessor_was(house: House) -> None:
    """Made over a deleted id while the rows waited: after a restart the old row is all that is there."""
    await house.activate()
    await house.revoke(POLLER)
    await house.administrator.delete(ALICE, POLLER, reason="")
    await house.settle()
    await house.stall("rows")
    await house.create()
    await house.crash()
    await house.start()
    await house.settle()
    row = house.row(POLLER)
    assert row is not None
    assert (row.incarnation, row.last_seen) == (2, None)


async def test_rows_wait_until_the_database_has_said_what_it_remembers(house: House) -> None:
    await house.activate()
    await house.row_writer.flush_presence()
    await house.crash()
    house.database.fail_next("load_presence", UnavailableError("away"))
    await house.start()
    await house.revoke(POLLER)
    await house.settle()
    row = house.row(POLLER)
    assert row is not None
    assert (row.status, row.last_seen) == ("revoked", NOW)


# --- over restarts


async def test_what_was_not_projected_before_a_crash_is_projected_after_it(house: House) -> None:
    for name in ("documents", "rows", "events"):
        await house.stall(name)
    await house.create()
    await house.create(AGENT)
    await house.crash()
    await house.start()
    await house.settle()
    assert house.row(AGENT) is not None
    assert house.document(AGENT_LINEAGE) is not None
    assert house.trail_of(AGENT) == ["registered", "issued"]
    assert house.index.counts(POLLER).agents == 1


async def test_the_index_is_rebuilt_from_the_ledger_alone(house: House) -> None:
    await house.activate_tree()
    await house.revoke(AGENT)
    await house.settle()
    before = dict(house.index.records)
    await house.crash()
    await house.database.close()
    await house.start()
    assert house.index.records == before
    assert [
        view.record.service_id for view in (node.view for node in (await house.catalogue.tree()).items)
    ] == ["p1"]


async def test_an_index_that_loses_its_feed_goes_on(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jetway.services.index._RETRY_SECONDS", 0)
    await house.crash()
    house.ledger.fail_next("follow", UnavailableError("away"))
    await asyncio.wait_for(house.start(), 5)
    await house.create()
    assert house.index.get(POLLER) is not None


async def test_a_purged_record_is_forgotten(house: House) -> None:
    await house.create()
    await house.settle()
    await house.ledger.purge(POLLER)
    await house.settle()
    assert house.index.get(POLLER) is None
    assert (await house.create()).record.revision == 1


# --- health


def health_of(house: House, nats: Component | None = None) -> Health:
    return Health(
        house.index, house.projections, house.database, lambda: nats or Component("ok"), house.clock
    )


async def test_a_house_that_is_well_says_so(house: House) -> None:
    report = await health_of(house).report()
    assert (report.ready, report.status) == (True, "ok")
    assert {component.state for component in report.components.values()} == {"ok"}


async def test_a_database_that_is_away_is_a_lag_and_told(house: House) -> None:
    await house.stall("rows")
    await house.database.close()
    report = await health_of(house).report()
    assert (report.ready, report.status, report.components["database"].state) == (
        True,
        "degraded",
        "degraded",
    )


async def test_nats_being_away_is_the_outage(house: House) -> None:
    report = await health_of(house, Component("down", "not connected")).report()
    assert (report.ready, report.status) == (False, "unavailable")


async def test_a_projection_that_waits_is_told_with_its_reason_and_time(house: House) -> None:
    projector = house.projections.rows
    projector._failed(PortError("disk full"))
    house.clock.advance(12)
    component = (await health_of(house).report()).components["projection_rows"]
    assert component.state == "degraded"
    assert "12 s" in component.detail
    assert "disk full" in component.detail


async def test_an_ended_task_makes_the_house_unfit(house: House) -> None:
    health = health_of(house)
    assert health.live()
    health.failed_task = "rows"
    report = await health.report()
    assert (health.live(), report.ready, report.components["tasks"].state) == (False, False, "down")


async def test_before_the_ledger_is_read_the_house_is_not_ready() -> None:
    report = await health_of(House()).report()
    assert (report.ready, report.components["index"].state) == (False, "down")


async def test_a_predecessors_edits_do_not_carry_over_to_a_new_incarnation(house: House) -> None:
    """Even where the projector sees the deletion and the new creation in one go."""
    await house.create()
    await house.settle()
    await write_by_hand(house, checker_config={"by": "hand"})
    await house.stall("documents")
    await house.revoke(POLLER)
    await house.administrator.delete(ALICE, POLLER, reason="")
    await house.create()
    house.resume("documents")
    await house.settle()
    document = house.document(POLLER_LINEAGE)
    assert document is not None
    assert (document["incarnation"], document["checker_config"]) == (2, None)


async def test_a_revision_raised_by_hand_does_not_keep_a_revocation_out(house: House) -> None:
    """The document claims to be newer than the ledger: the ledger decides."""
    await house.create()
    await house.settle()
    await write_by_hand(house, revision=99)
    await house.revoke(POLLER)
    await house.settle()
    document = house.document(POLLER_LINEAGE)
    assert document is not None
    assert (document["status"], document["revision"]) == ("revoked", house.record(POLLER).revision)


async def test_a_service_that_moves_while_its_document_is_deleted_leaves_none_behind(house: House) -> None:
    """Made anew beneath another agent between the deletion's delivery and its writing."""
    await house.activate_tree()
    await house.activate(AGENT, service_id="a2")
    await house.revoke(CHECKER)
    await house.settle()
    await house.stall("documents")
    await house.administrator.delete(ALICE, CHECKER, reason="")
    deleted = house.record(CHECKER)
    anew = replace(
        deleted, status=ServiceStatus.PENDING, parent_id="a2", incarnation=2, revision=deleted.revision + 1
    )
    asyncio.get_running_loop().call_soon(house.index.apply, anew)
    await house.document_writer.write([FeedItem(Change(CHECKER, deleted, 90), 90)])
    await house.document_writer.write([FeedItem(Change(CHECKER, anew, 91), 91)])
    assert house.document(deleted.lineage) is None
    document = house.document(anew.lineage)
    assert document is not None
    assert (document["parent_id"], document["incarnation"]) == ("a2", 2)
