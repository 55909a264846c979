"""The audit trail as JSON lines."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from jetway.core.errors import UnavailableError
from jetway.entry.http import admin
from jetway.ports import EventPage, EventQuery
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


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_an_export_that_breaks_off_does_not_look_whole(
    world: World, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    monkeypatch.setattr(admin, "_EXPORTED_AT_ONCE", 3)
    for number in range(5):
        await world.create("poller", f"p{number}")
    find, asked = world.database.find_events, []

    async def once(query: EventQuery) -> EventPage:
        asked.append(query)
        if len(asked) > 1:
            raise UnavailableError("away")
        return await find(query)

    monkeypatch.setattr(world.database, "find_events", once)
    address = urlsplit(world.server.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    head = f"GET {EXPORT} HTTP/{version}\r\nHost: x\r\nAuthorization: Bearer {world.tokens['viewer']}\r\n\r\n"
    writer.write(head.encode())
    received = b""
    with pytest.raises(ConnectionResetError):
        while piece := await reader.read(65_536):
            received += piece
    writer.transport.abort()
    assert len(asked) == 2
    assert received.count(b"HTTP/") <= 1
    assert not received.endswith(b"0\r\n\r\n")


async def test_a_database_that_is_away_is_a_503_and_no_empty_export(world: World) -> None:
    world.database.fail_next("find_events", UnavailableError("away"))
    assert (await world.call("GET", EXPORT)).status == 503
