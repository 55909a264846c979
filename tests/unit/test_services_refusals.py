"""Refused calls: every one counted, few of them written."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from jetway.core.errors import UnavailableError
from jetway.core.rows import Event
from jetway.services.caller import Caller
from jetway.services.refusals import MOST_CALLERS, STRANGER, Reason, Refusal, Refusals
from jetway.services.trail import Trail
from support.builders import CountingIdentifiers, FakeClock


class Written:
    """An audit log that remembers."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.away = False

    async def append(self, event: Event) -> None:
        if self.away:
            raise UnavailableError("away")
        self.events.append(event)

    def told(self) -> list[tuple[str, str, object]]:
        return [(event.actor, str(event.metadata["code"]), event.metadata["count"]) for event in self.events]


class World:
    def __init__(self) -> None:
        self.clock, self.written, self.counted = FakeClock(), Written(), Counter[str]()
        trail = Trail(self.written, self.clock, CountingIdentifiers())
        self.refusals = Refusals(trail, self.clock, lambda reason: self.counted.update([reason]))

    def refuse(
        self, times: int = 1, *, reason: Reason = Reason.NO_TOKEN, actor: str = STRANGER, address: str = "a"
    ) -> None:
        for _ in range(times):
            self.refusals.note(
                Refusal(reason, Caller(actor, "192.0.2.1", "r-1"), address, "GET /api/admin/events")
            )


@pytest.fixture
def world() -> World:
    return World()


async def test_the_first_is_told_at_once_and_says_who_what_and_why(world: World) -> None:
    world.refuse(reason=Reason.ROLE_TOO_SMALL, actor="ci")
    await world.refusals.tell()
    (event,) = world.written.events
    assert (event.event_type, event.actor, event.source_ip, event.request_id) == (
        "api_refused",
        "ci",
        "192.0.2.1",
        "r-1",
    )
    assert event.metadata == {"code": "role_too_small", "call": "GET /api/admin/events", "count": 1}
    assert event.reason == "an API token whose role is too small"


async def test_the_others_of_a_minute_are_told_together_at_its_end(world: World) -> None:
    world.refuse(1000)
    await world.refusals.tell()
    world.clock.advance(59)
    world.refuse(500)
    await world.refusals.tell()
    assert world.written.told() == [(STRANGER, "no_token", 1)]
    world.clock.advance(1)
    await world.refusals.tell()
    assert world.written.told()[1:] == [(STRANGER, "no_token", 1499)]
    assert world.counted == {"no_token": 1500}
    world.refuse()
    await world.refusals.tell()
    assert world.written.told()[2:] == [(STRANGER, "no_token", 1)], "a new minute"


async def test_callers_and_reasons_are_told_apart(world: World) -> None:
    world.refuse(2)
    world.refuse(2, address="b")
    world.refuse(2, reason=Reason.UNKNOWN_TOKEN)
    world.refuse(2, reason=Reason.EXPIRED_TOKEN, actor="ci")
    await world.refusals.tell()
    assert len(world.written.events) == 4


async def test_who_comes_while_others_are_told_is_not_forgotten(world: World) -> None:
    world.refuse(address="first")
    append = world.written.append

    async def slowly(event: Event) -> None:
        if not world.written.events:
            world.refuse(2, address="second")
        await append(event)

    world.written.append = slowly  # type: ignore[method-assign]
    world.clock.advance(61)
    await world.refusals.tell()
    await world.refusals.tell(all_of_it=True)
    assert sum(int(str(count)) for _, _, count in world.written.told()) == 3


async def test_made_up_callers_share_an_entry(world: World) -> None:
    for number in range(MOST_CALLERS * 50):
        world.refuse(2, address=f"made-up-{number}")
    await world.refusals.tell(all_of_it=True)
    told = world.written.told()
    assert len(told) == 2 * MOST_CALLERS + 1
    assert told[-1] == (STRANGER, "others", MOST_CALLERS * 49 * 2)
    assert sum(int(str(count)) for _, _, count in told) == world.counted["no_token"] == MOST_CALLERS * 100


async def test_a_trail_that_is_away_stops_nothing(world: World) -> None:
    world.written.away = True
    world.refuse(2)
    await world.refusals.tell(all_of_it=True)
    world.written.away = False
    world.refuse()
    await world.refusals.tell()
    assert world.written.told() == [(STRANGER, "no_token", 1)]


@pytest.fixture
async def running(world: World) -> AsyncIterator[World]:
    task = asyncio.ensure_future(world.refusals.run())
    yield world
    task.cancel()
    await asyncio.wait([task])


async def test_it_tells_by_itself(running: World) -> None:
    await _breathe()
    running.refuse(3)
    await _breathe()
    assert running.written.told() == [(STRANGER, "no_token", 1)]
    running.clock.advance(60)
    running.refuse()
    await _breathe()
    assert running.written.told()[1:] == [(STRANGER, "no_token", 3)]


async def _breathe() -> None:
    for _ in range(10):
        await asyncio.sleep(0)
