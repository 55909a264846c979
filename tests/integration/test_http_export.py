"""The audit trail as JSON lines."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from jetway.core.errors import UnavailableError
from jetway.entry.http import admin
from support.http_world import World, http_world

EXPORT = "/api/admin/events/export"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with http_world(tmp_path) as world:
        yield world


async def exported(world: World, query: str = "") -> list[dict[str, Any]]:
    headers = {"Authorization": f"Bearer {world.tokens['viewer']}"}
    async with world.session.get(world.server.url + EXPORT + query, headers=headers) as response:
        assert (response.status, response.content_type) == (200, "application/x-ndjson")
        return [json.loads(line) for line in (await response.read()).splitlines()]


async def test_every_event_comes_once_over_many_pages(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin, "_EXPORTED_AT_ONCE", 3)
    for number in range(5):
        await world.create("poller", f"p{number}")
    lines = await exported(world, "?service_type=poller")
    listed = await world.call("GET", "/api/admin/events?service_type=poller&limit=500")
    assert lines == listed.json["items"]
    assert len(lines) >= 5


async def test_the_export_is_in_the_trail_with_who_asked_and_for_what(world: World) -> None:
    await exported(world, "?type=issued&since=2026-01-01T00:00:00Z")
    (event,) = (await world.call("GET", "/api/admin/events?type=exported")).json["items"]
    assert event["actor"] == "viewer"
    assert event["metadata"]["filters"]["type"] == ["issued"]


async def test_a_database_that_is_away_is_a_503_and_no_empty_export(world: World) -> None:
    world.database.fail_next("find_events", UnavailableError("away"))
    assert (await world.call("GET", EXPORT)).status == 503
