"""The log's level over HTTP."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from support.http_world import World, http_world

PATH = "/api/admin/log-level"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    before = logging.getLogger().level
    async with http_world(tmp_path) as world:
        yield world
        world.doors.log_levels.fall_back()
    logging.getLogger().setLevel(before)


async def test_an_admin_changes_it_for_a_while(world: World) -> None:
    shown = await world.call("GET", PATH, role="viewer")
    assert shown.json == {"level": "info", "configured": "info", "until": None}
    changed = await world.call("PUT", PATH, {"level": "debug", "seconds": 60})
    assert (changed.status, changed.json["level"], changed.json["configured"]) == (200, "debug", "info")
    assert changed.json["until"].endswith("Z")
    assert logging.getLogger().level == logging.DEBUG


async def test_nobody_else_does_and_nonsense_is_refused_by_name(world: World) -> None:
    assert (await world.call("PUT", PATH, {"level": "debug"}, role="operator")).status == 403
    for body, field in (({"level": "loud"}, "level"), ({"level": "info", "seconds": 90_000}, "seconds")):
        answer = await world.call("PUT", PATH, body)
        assert (answer.status, answer.fields) == (422, [field])
