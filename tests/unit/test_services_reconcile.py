"""Reconcile over ports in memory: every kind of drift of documents and rows, and what is none."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from jetway.core.documents import encode_document
from jetway.core.ids import ServiceKey, ServiceType
from jetway.ports import StoredDocument
from support.builders import AGENT, CHECKER, LINEAGES, POLLER
from support.drift import PATHS, assert_whole, drifts, edit, put, reconcile
from support.house import ALICE, House, running_house


@pytest.fixture
async def house() -> AsyncIterator[House]:
    """p1, a1, c1, all active; everything that is derived stands."""
    async with running_house() as house:
        house.settling.patience = 10.0
        await house.activate_tree()
        await house.settle()
        yield house


# --- nothing to do


async def test_a_house_in_order_is_left_alone(house: House) -> None:
    before = len(house.documents.calls), dict(house.database.services)
    await assert_whole(house)
    assert drifts(house) == {}
    assert "write" not in house.documents.calls[before[0] :]
    assert house.database.services == before[1]


async def test_an_empty_house_is_in_order() -> None:
    async with running_house() as house:
        await assert_whole(house)


async def test_every_step_of_a_life_leaves_a_house_in_order(house: House) -> None:
    await house.revoke(AGENT)
    await house.settle()
    await assert_whole(house)
    await house.administrator.delete(ALICE, CHECKER, reason="")
    await house.administrator.delete(ALICE, AGENT, reason="")
    await house.settle()
    await assert_whole(house)
    await house.create(AGENT)
    await house.settle()
    await assert_whole(house)


async def test_last_seen_is_no_drift(house: House) -> None:
    house.clock.advance(30)
    await house.beat(LINEAGES[ServiceType.AGENT])
    await assert_whole(house)


# --- documents


@pytest.mark.parametrize("key", [POLLER, AGENT, CHECKER], ids=str)
async def test_a_missing_document_is_written_again(house: House, key: ServiceKey) -> None:
    before = house.documents.documents[PATHS[key]].data
    put(house, PATHS[key], None)
    report = await reconcile(house)
    assert (report.documents_mended, drifts(house)) == (1, {"document_missing": 1})
    assert house.documents.documents[PATHS[key]].data == before
    await assert_whole(house)


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"status": "revoked"}, "document_changed"),
        ({"children": []}, "document_changed"),
        ({"revision": 999}, "document_changed"),
        ({"epoch": 999}, "document_changed"),
        ({"revision": 1, "status": "pending"}, "document_stale"),
        ({"incarnation": 0}, "document_changed"),
        ({"more": "of it"}, "document_changed"),
    ],
    ids=str,
)
async def test_a_document_changed_by_hand_is_mended(house: House, changes: dict[str, Any], kind: str) -> None:
    before = house.document(LINEAGES[ServiceType.AGENT])
    edit(house, AGENT, **changes)
    report = await reconcile(house)
    assert (report.documents_mended, drifts(house)) == (1, {kind: 1})
    assert house.document(LINEAGES[ServiceType.AGENT]) == before
    await assert_whole(house)


async def test_what_is_no_document_any_more_is_written_over(house: House) -> None:
    put(house, PATHS[POLLER], b"\xff not JSON")
    assert (await reconcile(house)).documents_mended == 1
    await assert_whole(house)


async def test_a_checker_config_changed_by_hand_is_kept(house: House) -> None:
    edit(house, CHECKER, checker_config={"by": "hand"})
    await assert_whole(house)
    edit(house, CHECKER, status="revoked")
    assert (await reconcile(house)).documents_mended == 1
    document = house.document(LINEAGES[ServiceType.CHECKER])
    assert document is not None
    assert (document["checker_config"], document["status"]) == ({"by": "hand"}, "active")
    await assert_whole(house)


async def test_documents_that_no_record_wants_are_removed(house: House) -> None:
    document = house.document(LINEAGES[ServiceType.AGENT])
    assert document is not None
    stray = encode_document({**document, "component_id": "gone"})
    put(house, "config/pollers/p1/agents/gone.json", stray)
    put(house, "config/pollers/other/agents/a1.json", encode_document(document))
    report = await reconcile(house)
    assert (report.documents_mended, drifts(house)) == (2, {"document_orphaned": 2})
    assert await house.documents.keys("config/") == sorted(PATHS.values())
    await assert_whole(house)


async def test_who_does_not_lead_removes_nothing(house: House) -> None:
    document = house.document(LINEAGES[ServiceType.AGENT])
    assert document is not None
    stray = encode_document({**document, "component_id": "gone"})
    put(house, "config/pollers/p1/agents/gone.json", stray)
    house.fence.leads = lambda: False  # lost while the comparison was under way
    report = await reconcile(house)
    assert report.documents_mended == 0
    assert house.documents.documents["config/pollers/p1/agents/gone.json"].data == stray


async def test_a_deleted_services_document_is_removed(house: House) -> None:
    left = house.documents.documents[PATHS[CHECKER]].data
    await house.revoke(CHECKER)
    await house.administrator.delete(ALICE, CHECKER, reason="")
    await house.settle()
    put(house, PATHS[CHECKER], left)
    assert (await reconcile(house)).documents_mended == 1
    assert house.document(LINEAGES[ServiceType.CHECKER]) is None


@pytest.mark.parametrize(
    ("path", "data"),
    [
        ("config/pollers/stranger.json", b'{"hello": 1}'),
        ("config/pollers/stranger.json", b"text"),
        ("config/else/stranger.json", b"{}"),
        ("config/pollers/p1/agents/UPPER.json", b"{}"),
    ],
)
async def test_what_others_put_into_the_bucket_is_left_alone(house: House, path: str, data: bytes) -> None:
    put(house, path, data)
    await assert_whole(house)
    assert house.documents.documents[path].data == data


async def test_a_record_that_the_index_could_not_read_keeps_its_document(house: House) -> None:
    house.index.forget(CHECKER)
    house.database.services.pop(CHECKER)
    report = await reconcile(house)
    assert PATHS[CHECKER] in house.documents.documents
    assert house.document(LINEAGES[ServiceType.CHECKER]) is not None
    assert drifts(house).get("document_orphaned") is None
    assert report.orphans == 0


# --- rows


async def test_missing_rows_are_written_again(house: House) -> None:
    before, packages = dict(house.database.services), dict(house.database.packages)
    house.database.services.clear()
    house.database.packages.clear()
    report = await reconcile(house)
    assert (report.rows_mended, drifts(house)) == (3, {"row_missing": 3})
    assert (house.database.services, house.database.packages) == (before, packages)
    await assert_whole(house)


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"status": "revoked"}, "row_changed"),
        ({"label": "by hand"}, "row_changed"),
        ({"checker_count": 0}, "row_changed"),
        ({"revision": 999}, "row_changed"),
        ({"revision": 1, "status": "pending"}, "row_stale"),
    ],
    ids=str,
)
async def test_a_changed_row_is_mended_and_keeps_its_presence(
    house: House, changes: dict[str, Any], kind: str
) -> None:
    before = house.database.services[AGENT]
    house.database.services[AGENT] = replace(before, **changes)
    report = await reconcile(house)
    assert (report.rows_mended, drifts(house)) == (1, {kind: 1})
    assert house.database.services[AGENT] == replace(
        before, last_seen=house.presence.presence(AGENT).last_seen
    )
    await assert_whole(house)


async def test_a_packages_row_is_mended(house: House) -> None:
    (package_id, before), *_ = house.database.packages.items()
    house.database.packages[package_id] = replace(before, status="issued", revision=999)
    report = await reconcile(house)
    assert (report.rows_mended, drifts(house)) == (1, {"package_row": 1})
    assert house.database.packages[package_id] == before


async def test_a_row_that_the_ledger_does_not_know_is_named_and_left(house: House) -> None:
    stranger = ServiceKey(ServiceType.AGENT, "stranger")
    row = replace(house.database.services[AGENT], service_id="stranger", agent_id="stranger")
    house.database.services[stranger] = row
    for _ in range(2):
        report = await reconcile(house)
        assert (report.orphans, report.rows_mended) == (1, 0)
        assert report.findings == ("row unknown: agent.stranger",)
    assert house.database.services[stranger] == row
    assert drifts(house) == {"row_unknown": 1}, "it was counted once"


async def test_the_row_that_a_purge_leaves_behind_is_not_unknown(house: House) -> None:
    await house.revoke(CHECKER)
    await house.administrator.delete(ALICE, CHECKER, reason="")
    await house.settle()
    await house.ledger.purge(CHECKER)
    await house.settle()
    assert (await reconcile(house)).orphans == 0


async def test_documents_mended_at_one_time_are_all_counted(house: House) -> None:
    for path in PATHS.values():
        put(house, path, None)
    read = house.documents.read

    async def read_slowly(key: str) -> StoredDocument:
        await asyncio.sleep(0)
        return await read(key)

    house.documents.read = read_slowly  # type: ignore[method-assign]
    assert (await reconcile(house)).documents_mended == 3
