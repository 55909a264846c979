"""Comparing with the ledger and writing anew, over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest

from jetway.core.errors import Code, refuse
from jetway.services.reproject import Reprojection
from support.http_world import FakeUpkeep, World, http_world

RECONCILE, REPROJECT = "/api/admin/reconcile", "/api/admin/reproject"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with http_world(tmp_path) as world:
        yield world


def upkeep(world: World) -> FakeUpkeep:
    return cast("FakeUpkeep", cast("Any", world.doors.reconciler))


async def test_a_reconcile_answers_what_it_found(world: World) -> None:
    answer = await world.call("POST", RECONCILE, role="operator")
    assert answer.status == 200
    assert answer.json == {
        "checked": 3,
        "documents_mended": 1,
        "rows_mended": 2,
        "orphans": 0,
        "gaps_found": 1,
        "gaps_mended": 1,
        "gaps_open": 0,
        "started_at": "2026-03-04T05:06:07.890Z",
        "finished_at": "2026-03-04T05:06:07.890Z",
        "findings": ["audit gap: agent.a1 revision 2"],
        "errors": [],
    }


async def test_a_reproject_is_begun_and_can_be_watched(world: World) -> None:
    assert (await world.call("GET", REPROJECT)).json["state"] == "idle"
    answer = await world.call("POST", REPROJECT)
    assert (answer.status, answer.json["state"], answer.json["total"]) == (202, "running", 3)
    upkeep(world).state = Reprojection("failed", 3, 1, 2, "the database is away", world.clock.now(), None)
    assert (await world.call("GET", REPROJECT)).json == {
        "state": "failed",
        "total": 3,
        "done": 1,
        "written": 2,
        "error": "the database is away",
        "started_at": "2026-03-04T05:06:07.890Z",
        "finished_at": None,
    }


@pytest.mark.parametrize("path", [RECONCILE, REPROJECT])
@pytest.mark.parametrize("code", [Code.ALREADY_RUNNING, Code.NOT_LEADING])
async def test_what_cannot_run_now_is_a_conflict(world: World, path: str, code: Code) -> None:
    upkeep(world).refused = refuse(code, "a reproject is running: try again when it is done")
    answer = await world.call("POST", path)
    assert (answer.status, answer.code) == (409, code.value)


@pytest.mark.parametrize(
    ("method", "path", "role"),
    [
        ("POST", RECONCILE, "viewer"),
        ("POST", REPROJECT, "operator"),
        ("GET", REPROJECT, "operator"),
    ],
)
async def test_each_needs_its_role(world: World, method: str, path: str, role: str) -> None:
    assert (await world.call(method, path, role=role)).status == 403
    assert (await world.call(method, path, role=None)).status == 401


async def test_both_are_described(world: World) -> None:
    paths = (await world.call("GET", "/openapi.json", role=None)).json["paths"]
    assert set(paths[REPROJECT]["post"]["responses"]) >= {"202", "401", "403", "409"}
    assert set(paths[RECONCILE]["post"]["responses"]) >= {"200", "401", "403", "409"}
    assert set(paths[REPROJECT]["get"]["responses"]) >= {"200", "401", "403"}
