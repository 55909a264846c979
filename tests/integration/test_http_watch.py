"""The stream of changes: what a client hears, where it goes on, and when it ends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientResponse

from jetway.core.ids import ServiceKey, ServiceType
from jetway.entry.http import middleware
from jetway.entry.http import stream as module
from jetway.services import watch as watching
from jetway.services.caller import Caller
from support import REPOSITORY
from support.builders import POLLER
from support.http_world import World, http_world

WATCH = "/api/admin/services/watch"


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(module, "COALESCE_SECONDS", 0.01)
    async with http_world(tmp_path) as world:
        yield world


class Events:
    """The stream, read."""

    def __init__(self, response: ClientResponse) -> None:
        self.response = response

    async def next(self) -> tuple[str, str, Any]:
        """The next event: its name, its id and its data."""
        name, number, data = "", "", None
        async with asyncio.timeout(30):
            while line := (await self.response.content.readline()).decode():
                field, _, value = line.rstrip("\n").partition(": ")
                if field == "event":
                    name = value
                elif field == "id":
                    number = value
                elif field == "data":
                    data = json.loads(value)
                elif not field and name:
                    return name, number, data
        raise EOFError

    async def until_position(self) -> tuple[list[tuple[str, Any]], str]:
        """The events up to the next position, and its id."""
        events = []
        while (event := await self.next())[0] != "position":
            events.append((event[0], event[2]))
        return events, event[1]


@asynccontextmanager
async def listening(world: World, *, query: str = "", **headers: str) -> AsyncIterator[Events]:
    headers = {"Authorization": f"Bearer {world.tokens['viewer']}"} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    async with world.session.get(world.server.url + WATCH + query, headers=headers) as response:
        assert (response.status, response.content_type) == (200, "text/event-stream")
        events = Events(response)
        if "Last-Event-ID" not in headers:
            assert (await events.next())[0] == "position", "where it begins"
        yield events


async def register(world: World, name: str) -> None:
    key = ServiceKey(ServiceType.POLLER, name)
    body = {"label": name, "service_id": name}
    answer = await world.call("POST", "/api/admin/services/pollers", body)
    assert answer.status == 201, answer.json
    assert world.ledger.index.get(key)


async def test_a_change_is_heard_with_the_service_as_it_is(world: World) -> None:
    async with listening(world) as events:
        await register(world, "p1")
        (heard, *_), _ = await events.until_position()
        name, service = heard
        assert (name, service["service_id"], service["status"]) == ("service", "p1", "pending")
        shown = await world.call("GET", "/api/admin/services/pollers/p1")
        assert service == shown.json


async def test_a_client_that_was_away_goes_on_where_it_was(world: World) -> None:
    await register(world, "p1")
    async with listening(world, Last_Event_ID="1-0") as events:
        told, position = await events.until_position()
        assert [service["service_id"] for _, service in told] == ["p1"]
    await register(world, "p2")
    async with listening(world, Last_Event_ID=position) as events:
        told, _ = await events.until_position()
        assert [service["service_id"] for _, service in told] == ["p2"]


@pytest.mark.parametrize("position", ["2-1", "1-99", "nonsense", "1-٣"])
async def test_a_client_from_another_world_reads_everything_again(world: World, position: str) -> None:
    await register(world, "p1")
    async with listening(world, Last_Event_ID=position.encode().decode("latin-1")) as events:
        assert (await events.next())[0] == "reset"


async def test_a_client_that_missed_too_much_reads_everything_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "RECENT_CHANGES", 1)
    await register(world, "p1")
    await register(world, "p2")
    async with listening(world, Last_Event_ID="1-0") as events:
        assert (await events.next())[0] == "reset"


async def test_many_changes_of_one_service_are_told_once(world: World) -> None:
    async with listening(world) as events:
        await register(world, "p1")
        await events.until_position()
        with world.doors.watch.watching() as watcher:
            for _ in range(10):
                world.doors.watch.tell(POLLER)
            batch = await watcher.next(1)
        assert batch is not None
        assert batch.keys == (POLLER,)


async def test_only_the_types_that_are_wanted(world: World) -> None:
    async with listening(world, query="?service_type=agent") as events:
        await register(world, "p1")
        told, _ = await events.until_position()
        assert told == []


async def test_a_purged_service_is_gone(world: World) -> None:
    await register(world, "p1")
    async with listening(world) as events:
        world.ledger.index.forget(POLLER)
        told, _ = await events.until_position()
        assert told == [("gone", {"service_type": "poller", "service_id": "p1"})]


async def test_the_stream_ends_with_the_token(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEEP_ALIVE_SECONDS", 0.05)
    async with listening(world) as events:
        await world.doors.api_tokens.revoke(Caller("test"), "viewer")
        async with asyncio.timeout(30):
            rest = await events.response.content.read()
        assert b"event: service" not in rest


async def test_the_stream_ends_with_the_daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By itself, and not because the time for what is under way is over."""
    monkeypatch.setattr("jetway.entry.http.server._IN_FLIGHT_SECONDS", 600.0)
    async with http_world(tmp_path) as world, listening(world) as events:
        async with asyncio.timeout(30):
            await world.server.stop()
        with pytest.raises(EOFError):
            await events.next()


async def test_no_more_than_so_many_watch(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "MOST_WATCHERS", 1)
    async with listening(world):
        assert (await world.call("GET", WATCH, role="viewer")).status == 429


async def test_who_was_cut_off_before_any_change_has_a_position_to_go_on_from(world: World) -> None:
    headers = {"Authorization": f"Bearer {world.tokens['viewer']}"}
    async with world.session.get(world.server.url + WATCH, headers=headers) as response:
        name, position, _ = await Events(response).next()
    assert (name, position) == ("position", "1-0-0-0")
    await register(world, "p1")
    async with listening(world, Last_Event_ID=position) as events:
        told, _ = await events.until_position()
        assert [service["service_id"] for _, service in told] == ["p1"]


async def test_a_service_that_turned_while_the_client_was_away_is_told(world: World) -> None:
    """What nothing is written of: that it is not heard any more."""
    await register(world, "p1")
    async with listening(world, Last_Event_ID="1-0") as events:
        _, position = await events.until_position()
    world.doors.watch.tell(POLLER)
    async with listening(world, Last_Event_ID=position) as events:
        told, later = await events.until_position()
        assert [service["service_id"] for _, service in told] == ["p1"]
    async with listening(world, Last_Event_ID=later) as events:
        assert (await events.until_position())[0] == [], "once"
    elsewhere = later.replace("-0-", "-other-")
    async with listening(world, Last_Event_ID=elsewhere) as events:
        told, _ = await events.until_position()
        assert [service["service_id"] for _, service in told] == ["p1"], "another daemon's count says nothing"


async def metrics_of(world: World) -> list[str]:
    async with world.session.get(world.server.url + "/metrics") as response:
        return (await response.text()).splitlines()


async def test_how_long_somebody_listened_is_no_measure_of_the_gateway(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KEEP_ALIVE_SECONDS", 0.05)
    async with listening(world) as events:
        await register(world, "p1")
        await events.until_position()
    lines: list[str] = []
    async with asyncio.timeout(30):
        while not [line for line in lines if line.startswith("jetway_http_requests_total") and WATCH in line]:
            await asyncio.sleep(0.05)
            lines = await metrics_of(world)
    durations = [line for line in lines if "duration_seconds_count" in line]
    assert any('route="/metrics"' in line for line in durations)
    assert not [line for line in durations if WATCH in line]


def test_every_stream_is_known_to_the_metrics() -> None:
    folder = REPOSITORY / "daemon" / "jetway" / "entry"
    streams = [file for file in folder.rglob("*.py") if "text/event-stream" in file.read_text("utf-8")]
    made = [file for file in streams if "StreamResponse(headers=_HEADERS)" in file.read_text("utf-8")]
    assert len(made) == len(middleware._STREAMS)
