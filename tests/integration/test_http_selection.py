"""Many services at once over HTTP: previews, bounds, results one by one; labels and sites to select by."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from jetway.core.errors import UnavailableError
from jetway.services import actions
from support.http_world import Answer, World, http_world

SERVICES = "/api/admin/services"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with http_world(tmp_path) as made:
        await made.create("poller", "p1", site="A", labels={"rack": "1", "env": "prod"})
        await made.create("poller", "p2", site="A", labels={"rack": "2"})
        await made.create("poller", "p3", site="B")
        await made.create("agent", "a1", "p1")
        await made.create("checker", "c1", "a1")
        yield made


async def act(world: World, action: str, role: str = "operator", /, **body: Any) -> Answer:
    selector = {"service_type": "poller"} | body.pop("selector", {})
    return await world.call(
        "POST", f"{SERVICES}/actions", {"action": action, "selector": selector} | body, role=role
    )


def outcomes(answer: Answer) -> list[tuple[str, str, int]]:
    assert answer.status == 200, answer.body
    return [(each["service_id"], each["outcome"], each["beneath"]) for each in answer.json["results"]]


async def statuses(world: World) -> list[str]:
    items = (await world.call("GET", f"{SERVICES}/pollers")).json["items"]
    return [item["status"] for item in items]


async def test_a_preview_says_whom_it_would_touch_and_touches_nobody(world: World) -> None:
    answer = await act(world, "revoke", dry_run=True, selector={"site": "A"})
    assert outcomes(answer) == [("p1", "planned", 2), ("p2", "planned", 0)]
    assert (answer.json["selected"], answer.json["planned"], answer.json["beneath"]) == (2, 2, 2)
    assert await statuses(world) == ["pending"] * 3
    alone = await act(world, "revoke", dry_run=True, cascade=False)
    assert [each["code"] for each in alone.json["results"]] == ["children_live", "", ""]
    done = await act(world, "revoke", selector={"site": "A"}, expected_count=2)
    assert outcomes(done) == [("p1", "done", 2), ("p2", "done", 0)]
    assert await statuses(world) == ["revoked", "revoked", "pending"]


async def test_another_number_than_expected_is_refused(world: World) -> None:
    answer = await act(world, "revoke", expected_count=2)
    assert (answer.status, answer.code, answer.fields) == (409, "count_differs", ["expected_count"])
    assert await statuses(world) == ["pending"] * 3


async def test_doing_it_again_changes_nothing(world: World) -> None:
    ids = {"selector": {"ids": ["p1", "p3", "nobody", "p3"]}}
    first = await act(world, "revoke", **ids)
    assert outcomes(first) == [("p1", "done", 2), ("p3", "done", 0), ("nobody", "refused", 0)]
    assert first.json["results"][2]["code"] == "not_found"
    again = await act(world, "revoke", **ids)
    assert [each[1] for each in outcomes(again)] == ["unchanged", "unchanged", "refused"]
    assert [each[1] for each in outcomes(await act(world, "revoke", dry_run=True, **ids))] == [
        "unchanged", "unchanged", "refused",
    ]  # fmt: skip


async def test_an_outage_in_the_middle_fails_one_and_not_the_others(world: World) -> None:
    world.ledger.next_error = UnavailableError("the ledger is away")
    ids = {"selector": {"ids": ["p2", "p3"]}}
    assert [each[1] for each in outcomes(await act(world, "revoke", **ids))] == ["failed", "done"]
    assert [each[1] for each in outcomes(await act(world, "revoke", **ids))] == ["done", "unchanged"]


async def test_every_action(world: World) -> None:
    ids = {"selector": {"ids": ["p2"]}}
    assert outcomes(await act(world, "approve", **ids)) == [("p2", "refused", 0)]
    assert outcomes(await act(world, "reject", **ids)) == [("p2", "refused", 0)]
    assert outcomes(await act(world, "delete", "admin", **ids)) == [("p2", "refused", 0)]
    assert outcomes(await act(world, "set-status", status="revoked", **ids)) == [("p2", "done", 0)]
    assert outcomes(await act(world, "delete", "admin", **ids)) == [("p2", "done", 0)]
    assert (await act(world, "delete", **ids)).status == 403
    assert (await act(world, "revoke", "viewer", **ids)).status == 403


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "expected_count"),
        ({"dry_run": True, "status": "active"}, "status"),
        ({"dry_run": True, "selector": {"ids": ["p1"], "site": "A"}}, "selector.ids"),
        ({"dry_run": True, "selector": {"label": ["a b"]}}, "selector.label.0"),
        ({"dry_run": True, "selector": {"colour": "red"}}, "selector.colour"),
    ],
)
async def test_what_cannot_be_asked_for(world: World, body: dict[str, Any], field: str) -> None:
    answer = await act(world, "revoke", **body)
    assert (answer.status, answer.fields) == (422, [field])


async def test_too_many_at_once_are_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actions, "MOST_SERVICES", 2)
    answer = await act(world, "revoke", dry_run=True)
    assert (answer.status, answer.fields) == (422, ["selector"])


@pytest.mark.parametrize(
    ("selectors", "found"),
    [
        (["rack"], ["p1", "p2"]),
        (["!rack"], ["p3"]),
        (["rack=1"], ["p1"]),
        (["rack!=1"], ["p2", "p3"]),
        (["rack", "!env"], ["p2"]),
        (["rack!="], ["p1", "p2", "p3"]),
    ],
)
async def test_label_selectors(world: World, selectors: list[str], found: list[str]) -> None:
    answer = await world.call("GET", f"{SERVICES}/pollers", params=[("label", each) for each in selectors])
    assert [item["service_id"] for item in answer.json["items"]] == found


async def test_labels_and_sites_in_use(world: World) -> None:
    labels = (await world.call("GET", f"{SERVICES}/labels")).json
    assert [(item["name"], item["count"]) for item in labels["items"]] == [("rack", 2), ("env", 1)]
    assert labels["items"][0]["values"] == [{"name": "1", "count": 1}, {"name": "2", "count": 1}]
    some = (await world.call("GET", f"{SERVICES}/labels?q=RA&limit=1")).json
    assert ([item["name"] for item in some["items"]], some["total"]) == (["rack"], 1)
    sites = (await world.call("GET", f"{SERVICES}/sites?limit=1")).json
    assert (sites["items"], sites["total"]) == ([{"name": "A", "count": 4}], 2)
