"""Background jobs over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from support.http_world import World, http_world

JOBS = "/api/admin/jobs"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with http_world(tmp_path) as world:
        yield world


async def test_a_job_is_run_by_hand_and_stands_on_the_books(world: World) -> None:
    run = await world.call("POST", f"{JOBS}/count/runs", {"dry_run": False})
    assert (run.status, run.json["outcome"], run.json["counts"]) == (200, "done", {"services": 0})
    assert run.json["actor"] == "admin"
    listed = await world.call("GET", JOBS, role="viewer")
    assert [job["name"] for job in listed.json["items"]] == ["count"]
    shown = await world.call("GET", f"{JOBS}/count", role="viewer")
    assert (shown.json["runs"], shown.json["every_seconds"]) == ([run.json], 3600)


@pytest.mark.parametrize("role", ["viewer", "operator"])
async def test_only_an_admin_runs_jobs(world: World, role: str) -> None:
    assert (await world.call("POST", f"{JOBS}/count/runs", {"dry_run": True}, role=role)).status == 403


async def test_a_job_that_does_not_exist_is_a_404_that_names_those_that_do(world: World) -> None:
    answer = await world.call("POST", f"{JOBS}/nap/runs", {})
    assert (answer.status, answer.json["detail"]) == (404, "there is no job 'nap': there are count")
