"""The liveness of a service over the last hours, over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from jetway.core.heartbeat import EMPTY
from jetway.core.ids import ServiceKey, ServiceType
from support.http_world import World, http_world

P1 = ServiceKey(ServiceType.POLLER, "p1")
PATH = "/api/admin/services/pollers/p1/liveness"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with http_world(tmp_path) as made:
        made.presence.listening()
        await made.create("poller", "p1")
        yield made


def shape(answer: Any) -> list[tuple[str, str, str]]:
    return [(span["state"], span["since"], span["until"]) for span in answer["spans"]]


async def test_the_last_day_in_spans(world: World) -> None:
    began = world.clock.now()
    world.clock.advance(60)
    world.presence.note(P1, EMPTY, world.clock.now())
    world.clock.advance(60.5)
    await world.watched.verdicts.sweep()
    world.clock.advance(10)
    answer = (await world.call("GET", PATH, role="viewer")).json
    assert (answer["service_type"], answer["service_id"], answer["liveness"]) == ("poller", "p1", "late")
    assert [state for state, *_ in shape(answer)] == ["online", "late"], "its record knows no first heartbeat"
    assert answer["seconds"] == {"online": 120.5, "late": 10.0}
    assert answer["spans"][0]["since"] == began.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    assert answer["spans"][-1]["until"] == answer["until"]


async def test_a_service_that_was_never_heard_says_so(world: World) -> None:
    world.clock.advance(3600 * 30)
    day = (await world.call("GET", PATH, role="viewer")).json
    assert (day["liveness"], shape(day)) == ("never", [("never", day["since"], day["until"])])
    assert day["seconds"] == {"never": 86_400.0}
    week = (await world.call("GET", PATH + "?hours=168", role="viewer")).json
    assert week["seconds"] == {"never": 108_000.0}


@pytest.mark.parametrize("hours", ["0", "169", "x", "-1", "1.5", ""])
async def test_a_wrong_window_is_named(world: World, hours: str) -> None:
    answer = await world.call("GET", f"{PATH}?hours={hours}", role="viewer")
    assert (answer.status, answer.fields) == (422, ["hours"])


async def test_who_is_not_there_and_who_may_not(world: World) -> None:
    nobody = PATH.replace("p1", "p9")
    assert (await world.call("GET", nobody, role="viewer")).status == 404
    assert (await world.call("GET", PATH, role=None)).status == 401
