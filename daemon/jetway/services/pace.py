"""Long work on the event loop, cut into turns: whoever waits is served in between."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import AsyncIterator, Sequence
from typing import TypeVar

from jetway.core.ids import ServiceKey

T = TypeVar("T")

_TURN_SECONDS = 0.005
_SLICE = 500


class Pace:
    """Gives the loop to others whenever this task has had it for 5 ms."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._ends = self._loop.time() + _TURN_SECONDS

    async def breathe(self) -> None:
        """Let others go first if it is their turn. To be called every fraction of a millisecond or so."""
        if self._loop.time() >= self._ends:
            await asyncio.sleep(0)
            self._ends = self._loop.time() + _TURN_SECONDS


async def in_slices(items: Sequence[T]) -> AsyncIterator[Sequence[T]]:
    """All of them, some hundreds at a time, with a pause in between where it is due."""
    pace = Pace()
    for start in range(0, len(items), _SLICE):
        yield items[start : start + _SLICE]
        await pace.breathe()


async def in_order(keys: Sequence[ServiceKey]) -> list[ServiceKey]:
    """All of them, sorted, in turns as well."""
    parts = [sorted(part) async for part in in_slices(keys)]
    pace, merged = Pace(), []
    for number, key in enumerate(heapq.merge(*parts)):
        merged.append(key)
        if number % _SLICE == 0:
            await pace.breathe()
    return merged
