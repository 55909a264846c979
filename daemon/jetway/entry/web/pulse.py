"""That something changed, for open pages: one watcher for all of them, and no word of what it was.

A page that is told reads itself again, which is what costs. So each is told at most once a second, and all of them
together at most so often that the gateway has time for other things: with many open, they take turns.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice

from jetway.core.errors import Code, refuse
from jetway.services.catalogue import Catalogue
from jetway.services.pace import in_slices
from jetway.services.watch import Batch, Watch, Watcher

COALESCE_SECONDS = 1.0
TOLD_A_TURN = 10
"""Pages that are told in that time, one after the other: a table of 100,000 services takes some 20 to 50 ms of a
processor, and twenty of them at once would keep the event loop from others for half a second."""
MOST_LISTENERS = 1000
_IDLE_SECONDS = 60.0


class Listener:
    """One page. `about` is a service as `type.id`, a type as `type.*`, or empty for all."""

    def __init__(self, about: str) -> None:
        self.about = about
        self.closed = False
        """Whether the daemon stops: there is nothing more to come."""
        self._news = asyncio.Event()

    def tell(self) -> None:
        """Something changed."""
        self._news.set()

    async def next(self, timeout: float) -> bool:
        """Whether something changed within `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout):
                await self._news.wait()
        except TimeoutError:
            return False
        self._news.clear()
        return True


class Pulse:
    """Tells listeners. It watches only while somebody listens."""

    def __init__(self, watch: Watch, catalogue: Catalogue) -> None:
        self._watch = watch
        self._catalogue = catalogue
        self._listeners: dict[Listener, None] = {}
        self._due: dict[Listener, None] = {}
        """Those to be told, who waits the longest first."""
        self._watching = ExitStack()
        self._work: asyncio.Task[None] | None = None

    @contextmanager
    def listening(self, about: str) -> Iterator[Listener]:
        """Listen. Raises RefusedError (too_many_failures) where too many pages are open already."""
        if len(self._listeners) >= MOST_LISTENERS:
            why = f"{MOST_LISTENERS} pages are open already: try again later"
            raise refuse(Code.TOO_MANY_FAILURES, why)
        if self._work is None or self._work.done():
            self._begin()
        listener = Listener(about)
        self._listeners[listener] = None
        try:
            yield listener
        finally:
            del self._listeners[listener]
            self._due.pop(listener, None)
            if not self._listeners:
                self._end()

    def _begin(self) -> None:
        self._watching.close()
        watcher = self._watching.enter_context(self._watch.watching())
        self._work = asyncio.get_running_loop().create_task(self._run(watcher), name="web-pulse")

    def _end(self) -> None:
        if self._work is not None:
            self._work.cancel()
            self._work = None
        self._watching.close()

    async def _run(self, watcher: Watcher) -> None:
        while not watcher.closed:
            batch = await watcher.next(0 if self._due else _IDLE_SECONDS)
            if batch is not None:
                await self._take(batch)
            turn = list(islice(self._due, TOLD_A_TURN))
            for listener in turn:
                self._due.pop(listener, None)
                listener.tell()
                await asyncio.sleep(COALESCE_SECONDS / TOLD_A_TURN)
            await asyncio.sleep(COALESCE_SECONDS * (1 - len(turn) / TOLD_A_TURN))
        for listener in self._listeners:
            listener.closed = True
            listener.tell()

    async def _take(self, batch: Batch) -> None:
        if not batch.keys and not batch.reset:
            return
        named = await self._named(batch) if any(each.about for each in self._listeners) else set()
        for listener in self._listeners:
            if batch.reset or not listener.about or listener.about in named:
                self._due.setdefault(listener)

    async def _named(self, batch: Batch) -> set[str]:
        """What is concerned: each service, its parent, which shows it, and its type."""
        named: set[str] = set()
        async for keys in in_slices(batch.keys):
            for key in keys:
                record = self._catalogue.record(key)
                named |= {str(key), f"{key.service_type.value}.*"}
                if record is not None and record.parent is not None:
                    named.add(str(record.parent))
        return named
