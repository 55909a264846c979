"""Waiting until what is under way has arrived, so that what is merely late is not taken for a fault."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from jetway.core.errors import UnavailableError
from jetway.ports import Ledger, Views
from jetway.services.index import Index
from jetway.services.project import Projections, Projector

K = TypeVar("K")
S = TypeVar("S")

_SLICE_SECONDS = 1.0
_VIEW_SECONDS = 0.05
_LOOKS = 5


class Settling:
    """Waits for everything that was in the ledger when it was asked. `patience` in seconds.

    Every method raises UnavailableError, with a sentence, for what does not arrive.
    """

    def __init__(
        self, ledger: Ledger, index: Index, projections: Projections, views: Views, patience: float = 30.0
    ) -> None:
        self._ledger = ledger
        self._index = index
        self._projections = projections
        self.views = views
        self.patience = patience

    async def index(self) -> int:
        """Until the index knows it; the ledger's sequence then."""
        sequence = await self._ledger.last_sequence()
        if not await self._index.progress.reached(sequence, self.patience):
            raise UnavailableError(f"the index has not read the ledger up to {sequence}")
        return sequence

    async def documents(self) -> None:
        """Until its config documents are written."""
        await self._projected(self._projections.documents, await self.index())

    async def rows(self) -> None:
        """Until its rows are written."""
        await self._projected(self._projections.rows, await self.index())

    async def events(self) -> None:
        """Until its events are in the table: by way of the view that the server keeps."""
        sequence = await self.index()
        deadline = asyncio.get_running_loop().time() + self.patience
        view = (await self.views.state())["events"]
        while view.taken < sequence:
            if asyncio.get_running_loop().time() > deadline:
                raise UnavailableError(f"the audit trail has not taken the ledger up to {sequence}")
            await asyncio.sleep(_VIEW_SECONDS)
            view = (await self.views.state())["events"]
        await self._projected(self._projections.events, view.last)

    async def _projected(self, projector: Projector[Any], position: int) -> None:
        """The position tells where nothing was delivered again; an empty feed tells always."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.patience
        while (left := deadline - loop.time()) > 0:
            if await projector.reached(position, min(left, _SLICE_SECONDS)) or await projector.lag() == 0:
                return
        waiting = await projector.lag()
        raise UnavailableError(f"{waiting} changes wait for the projection {projector.name}")


async def confirm(
    suspects: dict[K, S],
    settle: Callable[[], Awaitable[object]],
    look: Callable[[Sequence[K]], Awaitable[dict[K, S]]],
) -> dict[K, S]:
    """Those that look the same once everything under way has arrived: late ones look well by then.

    What changed while it was being compared is looked at again; what never holds still is left for another day.
    """
    confirmed: dict[K, S] = {}
    for _ in range(_LOOKS):
        if not suspects:
            break
        await settle()
        again = await look(list(suspects))
        confirmed |= {key: seen for key, seen in again.items() if seen == suspects[key]}
        suspects = {key: seen for key, seen in again.items() if seen != suspects[key]}
    return confirmed
