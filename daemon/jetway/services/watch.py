"""Watch: who wants to know of every change hears which services changed, and looks up what they are now.

A watcher holds a set of keys, not a queue of changes: a burst over one service is one entry, and what a slow
watcher costs is bounded by the number of services. Positions are the ledger's: a watcher that was away goes on
from the last position it was told, at this daemon or at another one. What is in no record, above all how a service
is heard, stands at the end that the ledger had then and is counted, by each daemon for itself: who goes on at
another one, or after a restart, may be told once more what turned at his position.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

from jetway.core.errors import Code, refuse
from jetway.core.ids import ServiceKey
from jetway.core.record import ServiceRecord
from jetway.services.index import Index

RECENT_CHANGES = 20_000
"""Changes that a watcher may have missed and still go on; a whole bulk creation with its activations fits."""
RECALLED = timedelta(hours=1)
"""How far back it is remembered over a restart how services are heard."""
MOST_WATCHERS = 1000
MOST_PENDING = 20_000
"""Services that may wait for one watcher; with more it is told to read everything again."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Services that changed, up to a position of the ledger; to be read all again where `reset` is set."""

    keys: Sequence[ServiceKey]
    position: int
    turn: int = 0
    """How many turns are told that are in no record, as this daemon counts them."""
    reset: bool = False


class Watcher:
    """One who watches."""

    def __init__(self, index: Index, turns: Callable[[], int] = lambda: 0) -> None:
        self._index = index
        self._turns = turns
        self._pending: dict[ServiceKey, None] = {}
        self._news = asyncio.Event()
        self._reset = False
        self.closed = False
        """Whether the daemon stops: there is nothing more to come."""

    def push(self, key: ServiceKey) -> None:
        """This service changed."""
        if len(self._pending) >= MOST_PENDING:
            self.start_over()
        elif not self._reset:
            self._pending[key] = None
        self._news.set()

    def start_over(self) -> None:
        """So much was missed that everything has to be read again."""
        self._pending.clear()
        self._reset = True
        self._news.set()

    def close(self) -> None:
        """Nothing more comes."""
        self.closed = True
        self._news.set()

    async def next(self, timeout: float) -> Batch | None:
        """What changed since the last call; None when nothing did in `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout):
                await self._news.wait()
        except TimeoutError:
            return None
        return self.take()

    def take(self) -> Batch:
        """What changed since the last call, be it nothing."""
        # The position first: whatever the ledger has up to it is among the keys, or was told before.
        position = self._index.progress.position
        batch = Batch(tuple(self._pending), position, self._turns(), self._reset)
        self._pending.clear()
        self._reset = False
        self._news.clear()
        return batch


class Watch:
    """Tells watchers of changes."""

    def __init__(self, index: Index, run: str = "0") -> None:
        """`run`: what no other daemon has, nor this one after a restart; letters and digits."""
        self._index = index
        self.run = run
        self._recent: deque[tuple[int, ServiceKey]] = deque()
        self._turned: OrderedDict[ServiceKey, tuple[int, int]] = OrderedDict()
        """What turned that is in no record: where the ledger ended then, and its number; the last is last."""
        self._turns = 0
        self._forgotten = 0
        self._watchers: set[Watcher] = set()
        self._closed = False
        index.on_change(self._changed)
        index.on_forget(lambda record: self._note(index.progress.position + 1, record.key))

    def __len__(self) -> int:
        return len(self._watchers)

    @contextmanager
    def watching(self, after: int | None = None, turn: int | None = None) -> Iterator[Watcher]:
        """Watch from now on, or from the position `after`, as far as that is remembered.

        `turn`: the last that was told, where that was in this run.
        Raises RefusedError (too_many_failures) where too many watch already.
        """
        if len(self._watchers) >= MOST_WATCHERS:
            raise refuse(Code.TOO_MANY_FAILURES, f"{MOST_WATCHERS} watch already: try again later")
        watcher = Watcher(self._index, lambda: self._turns)
        if self._closed:
            watcher.close()
        if after is not None:
            self._catch_up(watcher, after, turn)
        self._watchers.add(watcher)
        try:
            yield watcher
        finally:
            self._watchers.discard(watcher)

    def tell(self, key: ServiceKey) -> None:
        """Something about this service changed that is in no record: whether it is heard."""
        self._turns += 1
        self._turned[key] = (self._index.progress.position, self._turns)
        self._turned.move_to_end(key)
        if len(self._turned) > RECENT_CHANGES:
            _, (position, _) = self._turned.popitem(last=False)
            self._forgotten = max(self._forgotten, position + 1)
        self._push(key)

    def recall(self, keys: Iterable[ServiceKey]) -> None:
        """How these are heard turned in an earlier run of the daemon. To be called once the ledger is known."""
        for key in keys:
            self.tell(key)

    def _push(self, key: ServiceKey) -> None:
        for watcher in self._watchers:
            watcher.push(key)

    def close(self) -> None:
        """The daemon stops: let everybody go."""
        self._closed = True
        for watcher in self._watchers:
            watcher.close()

    def _catch_up(self, watcher: Watcher, after: int, turn: int | None) -> None:
        if after < self._forgotten or after > self._index.progress.position:
            watcher.start_over()
            return
        for sequence, key in self._recent:
            if sequence > after:
                watcher.push(key)
        for key, (position, number) in reversed(self._turned.items()):
            if position < after or (turn is not None and number <= turn):
                break
            watcher.push(key)

    def _changed(self, _before: ServiceRecord | None, after: ServiceRecord) -> None:
        self._note(self._index.entry(after.key).sequence, after.key)

    def _note(self, sequence: int, key: ServiceKey) -> None:
        self._recent.append((sequence, key))
        if len(self._recent) > RECENT_CHANGES:
            self._forgotten = max(self._forgotten, self._recent.popleft()[0])
        self._push(key)
