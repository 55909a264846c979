"""The hierarchy over HTTP, level by level."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from jetway.services import tree
from support.http_world import Answer, World, http_world

TREE = "/api/admin/services/tree"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with http_world(tmp_path) as made:
        for number in (1, 2, 3):
            await made.create("poller", f"p{number}")
        for number in (1, 2):
            await made.create("agent", f"a{number}", "p1")
        await made.create("checker", "c1", "a1")
        yield made


async def ask(world: World, query: str = "") -> Answer:
    return await world.call("GET", TREE + query, role="viewer")


def shape(nodes: list[Any]) -> list[Any]:
    return [(node["service_id"], shape(node["children"])) for node in nodes]


async def test_the_whole(world: World) -> None:
    answer = (await ask(world)).json
    assert shape(answer["items"]) == [("p1", [("a1", [("c1", [])]), ("a2", [])]), ("p2", []), ("p3", [])]
    assert (answer["total"], answer["top_total"], answer["next_cursor"]) == (6, 3, None)


async def test_level_by_level(world: World) -> None:
    first = (await ask(world, "?depth=1&limit=2")).json
    assert (shape(first["items"]), first["top_total"]) == ([("p1", []), ("p2", [])], 3)
    assert (first["items"][0]["agent_count"], first["items"][0]["checker_count"]) == (2, 1)
    rest = (await ask(world, f"?depth=1&limit=2&cursor={first['next_cursor']}")).json
    assert (shape(rest["items"]), rest["next_cursor"]) == ([("p3", [])], None)
    beneath = (await ask(world, "?depth=1&root=poller.p1")).json
    assert (shape(beneath["items"]), beneath["total"]) == ([("a1", []), ("a2", [])], 2)
    assert shape((await ask(world, "?root=poller.p1")).json["items"]) == [("a1", [("c1", [])]), ("a2", [])]
    assert shape((await ask(world, "?root=checker.c1")).json["items"]) == []


@pytest.mark.parametrize("depth", [1, 2, 3])
async def test_the_worst_beneath_shows_at_every_level(world: World, depth: int) -> None:
    """Whether it is shown or not; what is pending is not expected to be heard."""
    assert (await ask(world, f"?depth={depth}")).json["items"][0]["worst_beneath"] is None
    checker = {"service_id": "c2", "parent_id": "a1", "checker_kind": "icmp"}
    assert (await world.call("POST", "/api/admin/services/checkers", checker)).status == 201
    done = await world.call("POST", "/api/admin/services/checkers/c2/status", {"status": "active"})
    assert done.status == 200, done.json
    nodes = (await ask(world, f"?depth={depth}")).json["items"]
    assert [node["worst_beneath"] for node in nodes] == ["never", None, None]


@pytest.mark.parametrize(
    ("query", "status", "field"),
    [
        ("?depth=4", 422, "depth"),
        ("?root=p1", 422, "root"),
        ("?limit=0", 422, "limit"),
        ("?cursor=nonsense", 422, "cursor"),
    ],
)
async def test_what_cannot_be_asked_for(world: World, query: str, status: int, field: str) -> None:
    answer = await ask(world, query)
    assert (answer.status, answer.fields) == (status, [field])


async def test_beneath_nobody_is_not_found(world: World) -> None:
    assert (await ask(world, "?root=poller.nobody")).status == 404


async def test_a_large_one_is_to_be_had_in_parts_only(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "MOST_NODES", 3)
    answer = await ask(world)
    assert (answer.status, answer.fields) == (422, ["depth"])
    assert (await ask(world, "?depth=1")).status == 200
