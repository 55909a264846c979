"""Long work in turns: everything comes, in order, and others come in between."""

from __future__ import annotations

import asyncio

import pytest

from jetway.services.pace import Pace, in_slices


@pytest.mark.parametrize("count", [0, 1, 499, 500, 501, 2000])
async def test_slices_together_are_the_whole(count: int) -> None:
    found = [item async for part in in_slices(range(count)) for item in part]
    assert found == list(range(count))


async def test_others_get_their_turn_when_it_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    now, turns = loop.time(), 0

    def another() -> None:
        nonlocal turns
        turns += 1

    monkeypatch.setattr(loop, "time", lambda: now)
    pace = Pace()
    loop.call_soon(another)
    await pace.breathe()
    assert turns == 0, "its time is not over yet"
    monkeypatch.setattr(loop, "time", lambda: now + 60)
    await pace.breathe()
    assert turns == 1
