"""Maintenance windows over HTTP."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from jetway.core.times import rfc3339
from support.builders import NOW
from support.http_world import World, http_world

PATH = "/api/admin/maintenance"
LATER = rfc3339(NOW + timedelta(hours=1))


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with http_world(tmp_path) as world:
        yield world


async def test_a_window_is_begun_listed_and_ended(world: World) -> None:
    body = {"site": "north", "until": LATER, "reason": "new switch"}
    made = await world.call("POST", PATH, body, role="operator")
    assert (made.status, made.json["site"], made.json["created_by"]) == (201, "north", "operator")
    assert (made.json["since"], made.json["until"]) == (rfc3339(NOW), LATER)
    listed = await world.call("GET", PATH, role="viewer")
    assert (listed.json["items"], listed.json["total"]) == ([made.json], 1)
    one = f"{PATH}/{made.json['window_id']}"
    assert (await world.call("DELETE", one, role="operator")).status == 204
    assert (await world.call("DELETE", one, role="operator")).status == 404
    assert (await world.call("GET", PATH, role="viewer")).json["items"] == []


async def test_a_viewer_only_looks(world: World) -> None:
    body = {"site": "north", "until": LATER}
    assert (await world.call("POST", PATH, body, role="viewer")).status == 403
    assert (await world.call("DELETE", f"{PATH}/{uuid.uuid4()}", role="viewer")).status == 403


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"until": LATER}, "service"),
        ({"site": "x"}, "until"),
        ({"site": "x", "until": "2026-11-24T09:00:00"}, "until"),
        ({"site": "x", "until": "2020-01-01T00:00:00Z"}, "until"),
        ({"service": "switch", "until": LATER}, "service"),
        ({"label": "rack", "until": LATER}, "label"),
    ],
)
async def test_what_makes_no_sense_is_refused_with_its_field(
    world: World, body: dict[str, Any], field: str
) -> None:
    answer = await world.call("POST", PATH, body, role="operator")
    assert answer.status in (400, 422), answer.json
    assert field in str(answer.json)


async def test_an_unknown_service_is_a_404(world: World) -> None:
    body = {"service": "poller.nobody", "until": LATER}
    assert (await world.call("POST", PATH, body, role="operator")).status == 404
