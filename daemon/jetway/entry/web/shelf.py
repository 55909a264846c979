"""What a session has begun and is not done with: kept in memory, bounded, for an hour after its last use."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Generic, Protocol, TypeVar

from jetway.core.errors import Code, UnavailableError, refuse
from jetway.entry.web.sessions import Session

KEPT = timedelta(hours=1)
"""After its last use."""


class Kept(Protocol):
    """One thing on a shelf."""

    owner: Session
    used_at: datetime
    work: asyncio.Task[None] | None
    """What is being done with it, or was."""


K = TypeVar("K", bound=Kept)


class Shelf(Generic[K]):
    """All of one kind. With too many, those go first that nobody looked at for the longest time."""

    def __init__(self, has_room: Callable[[Sequence[K]], bool], *, full: str, gone: str) -> None:
        """`has_room`: whether so many may be kept; `full`, `gone`: what is said where they may not, or are not."""
        self._has_room = has_room
        self._full = full
        self._gone = gone
        self._by_id: OrderedDict[str, K] = OrderedDict()

    def keep(self, item_id: str, item: K) -> K:
        """Keep one; where a form was sent twice, what it began. Raises UnavailableError, RefusedError.

        There is no room (UnavailableError) while too many of them are being worked on.
        """
        if item_id in self._by_id:
            return self.find(item_id, item.owner, item.used_at)
        self._forget_old(item.used_at)
        for idle in [each for each, kept in self._by_id.items() if not is_busy(kept)]:
            if self._has_room([*self._by_id.values(), item]):
                break
            del self._by_id[idle]
        if not self._has_room([*self._by_id.values(), item]):
            raise UnavailableError(self._full)
        self._by_id[item_id] = item
        return item

    def find(self, item_id: str, owner: Session, now: datetime) -> K:
        """One of this session. Raises RefusedError (not_found)."""
        self._forget_old(now)
        item = self._by_id.get(item_id)
        if item is None or item.owner is not owner:
            raise refuse(Code.NOT_FOUND, self._gone)
        item.used_at = now
        self._by_id.move_to_end(item_id)
        return item

    def work(self) -> list[asyncio.Task[None]]:
        """What is under way or was."""
        return [item.work for item in self._by_id.values() if item.work is not None]

    def _forget_old(self, now: datetime) -> None:
        for item_id, item in list(self._by_id.items()):
            if now - item.used_at > KEPT and not is_busy(item):
                del self._by_id[item_id]


def is_busy(item: Kept) -> bool:
    """Whether something is being done with it now."""
    return item.work is not None and not item.work.done()
