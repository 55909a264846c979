"""Many packages in one call: each row its own result, the whole repeatable, JSON and CSV alike."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from jetway.core.errors import UnavailableError
from jetway.core.ids import ServiceKey, ServiceType
from jetway.core.record import ServiceRecord
from jetway.ports import Claim
from support.http_world import Answer, World, http_world

BULK = "/api/admin/edge-packages/bulk"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with http_world(tmp_path) as world:
        yield world


def poller(number: int, **more: Any) -> dict[str, Any]:
    return {"component_type": "poller", "label": f"Site {number}", "component_id": f"p{number}", **more}


async def bulk(
    world: World, rows: list[Any], key: str = "k-1", query: str = "", role: str = "operator"
) -> Answer:
    return await world.call("POST", BULK + query, {"rows": rows}, role=role, headers={"Idempotency-Key": key})


async def send_csv(world: World, text: str | bytes) -> Answer:
    data = text.encode() if isinstance(text, str) else text
    headers = {"Idempotency-Key": "k-1", "Content-Type": "text/csv"}
    return await world.call("POST", BULK, data=data, role="operator", headers=headers)


async def test_every_row_has_its_own_result(world: World) -> None:
    rows = [
        {"component_type": "agent", "label": "A1", "component_id": "a1", "parent_id": "p1"},
        poller(1),
        poller(2, component_id="no/id"),
        poller(1),
        {"component_type": "agent", "label": "A2", "parent_id": "nobody"},
        {"component_type": "poller", "label": "X", "colour": "red"},
    ]
    answer = await bulk(world, rows)
    assert answer.status == 200
    assert [row["outcome"] for row in answer.json["rows"]] == [
        "created", "created", "refused", "refused", "refused", "refused",
    ]  # fmt: skip
    assert [row["field"] for row in answer.json["rows"][2:]] == [
        "component_id", "component_id", "parent_id", "colour",
    ]  # fmt: skip
    assert (answer.json["created"], answer.json["refused"]) == (2, 4)
    assert answer.json["rows"][0]["token"].startswith("jw1.")
    assert answer.json["rows"][3]["detail"] == "row 2 is for the same service"


async def test_the_same_call_again_gets_the_same_packages_and_tokens(world: World) -> None:
    rows = [poller(number) for number in range(20)]
    first, second = await bulk(world, rows), await bulk(world, rows)
    assert first.json == second.json
    other = await bulk(world, rows, key="k-2")
    assert other.json["refused"] == 20
    assert {row["code"] for row in other.json["rows"]} == {"taken"}


async def test_what_was_cut_off_is_finished_by_the_same_call(world: World) -> None:
    """As after a kill: some rows are written, one of them without its answer; exactly all are there afterwards."""
    rows = [poller(number) for number in range(50)]
    task = asyncio.create_task(bulk(world, rows))
    while len(world.ledger.index.records) < 10:  # noqa: ASYNC110 - it has no event to wait for
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    answer = await bulk(world, rows)
    assert answer.json["created"] == 50
    assert len(world.ledger.index.records) == 50
    assert len({row["package_id"] for row in answer.json["rows"]}) == 50


async def test_a_row_that_cannot_be_written_now_says_so_and_the_others_go_on(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = world.ledger.write

    async def broken(record: ServiceRecord, expected: int) -> int:
        if record.service_id == "p1":
            raise UnavailableError("NATS is away")
        return await write(record, expected)

    monkeypatch.setattr(world.ledger, "write", broken)
    answer = await bulk(world, [poller(0), poller(1), poller(2)])
    assert [row["outcome"] for row in answer.json["rows"]] == ["created", "failed", "created"]
    assert answer.json["rows"][1]["detail"] == "NATS is away"
    monkeypatch.setattr(world.ledger, "write", write)
    assert (await bulk(world, [poller(0), poller(1), poller(2)])).json["created"] == 3


async def test_of_a_call_that_was_repeated_with_a_changed_row_only_that_row_is_refused(world: World) -> None:
    first = await bulk(world, [poller(0), poller(1)])
    again = await bulk(world, [poller(0), poller(1, notes="another"), poller(2)])
    assert [row["outcome"] for row in again.json["rows"]] == ["created", "refused", "created"]
    assert again.json["rows"][1]["code"] == "taken"
    assert again.json["rows"][0] == first.json["rows"][0]


async def test_nothing_is_created_before_the_call_is_known_to_be_repeatable(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(name: str, claim: Claim) -> Claim:
        raise UnavailableError("NATS is away")

    with monkeypatch.context() as patched:
        patched.setattr(world.doors.issuer._idempotency, "claim", away)
        answer = await bulk(world, [poller(0), poller(1), {"component_type": "poller"}])
    assert [row["outcome"] for row in answer.json["rows"]] == ["failed", "failed", "refused"]
    assert not world.ledger.index.records
    assert (await bulk(world, [poller(0), poller(1)])).json["created"] == 2


async def test_the_same_call_twice_at_once_gets_the_same_packages(world: World) -> None:
    rows = [poller(number) for number in range(30)]
    first, second = await asyncio.gather(bulk(world, rows), bulk(world, rows))
    assert first.json["created"] == 30
    assert first.json == second.json


async def test_another_caller_s_call_with_the_same_key_is_another_call(world: World) -> None:
    await bulk(world, [poller(0)])
    other = await bulk(world, [poller(0)], role="admin")
    assert other.json["rows"][0]["code"] == "taken"


async def test_a_rehearsal_writes_nothing_and_knows_the_parents_among_the_rows(world: World) -> None:
    rows = [
        poller(1),
        {"component_type": "agent", "label": "A1", "parent_id": "p1"},
        {"component_type": "agent", "label": "A2", "parent_id": "p9"},
    ]
    answer = await bulk(world, rows, query="?dry_run=true")
    assert [row["outcome"] for row in answer.json["rows"]] == ["planned", "planned", "refused"]
    assert not world.ledger.index.records
    await bulk(world, rows[:1])
    again = await bulk(world, rows[:1], query="?dry_run=true")
    assert again.json["rows"][0]["code"] == "taken"


async def test_csv_is_the_same_in_another_form(world: World) -> None:
    text = (
        "\ufeffcomponent_type,label,component_id,parent_id,labels,metadata,token_ttl_seconds\r\n"
        'poller,"Site A, north",site-a,,rack=12;row=b,"{""owner"": ""netops""}",3600\r\n'
        "agent,Core,core,site-a,,,\r\n"
        "poller,Site B,site-b,,,,soon\r\n"
    )
    answer = await send_csv(world, text)
    assert [row["outcome"] for row in answer.json["rows"]] == ["created", "created", "refused"]
    assert answer.json["rows"][2]["field"] == "token_ttl_seconds"
    record = world.ledger.index.get(ServiceKey(ServiceType.POLLER, "site-a"))
    assert record is not None
    assert (record.label, record.labels, record.metadata) == (
        "Site A, north", {"rack": "12", "row": "b"}, {"owner": "netops"},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "status", "said"),
    [
        ("label\nSite A\n", 422, "component_type: this column is required"),
        ("component_type,label,colour\n", 422, "colour: there is no such column"),
        ("component_type,label,label\n", 422, "label: stands there twice"),
        ("component_type,label\npoller\n", 400, "line 2 has 1 cells, the first line has 2"),
        ('component_type,label\npoller,"open\n', 400, "line 2 is not CSV"),
        (b"component_type,label\npoller,\xff\n", 400, "not UTF-8: byte 29"),
        ("", 422, "component_type: this column is required"),
        ("component_type,label\n", 422, "rows"),
    ],
)
async def test_bad_csv_is_refused_with_what_is_wrong(
    world: World, text: str | bytes, status: int, said: str
) -> None:
    answer = await send_csv(world, text)
    assert (answer.status, said in answer.json["detail"]) == (status, True), answer.json


async def test_it_needs_a_key_so_that_it_can_be_repeated(world: World) -> None:
    answer = await world.call("POST", BULK, {"rows": [poller(1)]}, role="operator")
    assert (answer.status, answer.json["detail"]) == (
        422,
        "wrong headers: Idempotency-Key: this header is required",
    )


@pytest.mark.parametrize("rows", [[], [poller(1)] * 10_001])
async def test_the_number_of_rows_is_bounded(world: World, rows: list[Any]) -> None:
    assert (await bulk(world, rows)).status == 422


async def test_a_viewer_may_not(world: World) -> None:
    assert (await bulk(world, [poller(1)], role="viewer")).status == 403
