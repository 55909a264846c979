"""Projections: from the ledger's changes to config documents, rows and events.

Three workers, each with a durable feed of its own, so that a database that is away never holds back a *revoked*
document, and a stalled audit stream never holds back a creation. Each holds its place while its target is away
and goes on in order; what is delivered twice changes nothing. They render from the newest record, not from the
one delivered, so they can never write backwards.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Generic, TypeVar

import structlog

from jetway.core.errors import PortError
from jetway.core.ids import ServiceKey
from jetway.core.rows import Event
from jetway.ports import Change, Clock, Feed, FeedItem
from jetway.services.index import SequenceWaiters

log = structlog.get_logger()

T = TypeVar("T")

_BATCH = 500
_POLL_SECONDS = 5.0
_FIRST_BACKOFF, _LAST_BACKOFF = 0.1, 5.0


@dataclass(frozen=True, slots=True)
class Backlog:
    """How many changes wait, and how long ago the oldest of them was made."""

    records: int
    seconds: float


class Projector(Generic[T]):
    """A worker that brings what one feed delivers to one target, for ever and in order."""

    def __init__(
        self,
        name: str,
        feed: Feed[T],
        write: Callable[[Sequence[FeedItem[T]]], Awaitable[None]],
        clock: Clock,
    ) -> None:
        self.name = name
        self._feed = feed
        self._write = write
        self._clock = clock
        self.progress = SequenceWaiters()
        self.failing_since: float | None = None
        self.last_error = ""
        self.written = 0
        self.announce: Callable[[str, int], Awaitable[None]] | None = None
        """Tells other daemons how far this one is."""
        self._writing_since: float | None = None
        self._in_vain_at = -1
        """The position at which a caller waited its whole time and nothing moved."""

    async def run(self) -> None:
        """Fetch, write, acknowledge."""
        while True:
            items = await self._insist(self._fetch)
            if items:
                self._writing_since = self._clock.monotonic()
                await self._insist(partial(self._write, items))
                self._writing_since = None
                await self._insist(partial(self._feed.acknowledge, items[-1].position))
                self.written += len(items)
                self.progress.advance(items[-1].position)
                if self.announce:
                    await self.announce(self.name, items[-1].position)

    async def _fetch(self) -> Sequence[FeedItem[T]]:
        return await self._feed.fetch(_BATCH, _POLL_SECONDS)

    async def _insist(
        self, action: Callable[[], Awaitable[Sequence[FeedItem[T]] | None]]
    ) -> Sequence[FeedItem[T]]:
        """Do it until it succeeds: what is held back is a lag, never a loss."""
        backoff = _FIRST_BACKOFF
        while True:
            try:
                result = await action()
            except PortError as error:
                self._failed(error)
                await asyncio.sleep(backoff)
                backoff = min(backoff * 2, _LAST_BACKOFF)
            else:
                self._recovered()
                return result or ()

    def _failed(self, error: PortError) -> None:
        self.last_error = str(error)
        if self.failing_since is None:
            self.failing_since = self._clock.monotonic()
            log.warning(
                "a projection waits", action="projection_waits", projection=self.name, error=str(error)
            )

    def _recovered(self) -> None:
        if self.failing_since is not None:
            seconds = round(self._clock.monotonic() - self.failing_since, 1)
            log.info(
                "a projection goes on", action="projection_resumed", projection=self.name, seconds=seconds
            )
        self.failing_since = None
        self.last_error = ""

    async def reached(self, position: int, timeout: float) -> bool:
        """Whether the change at `position` was dealt with; waits up to `timeout` seconds for it."""
        if await self.progress.reached(position, timeout):
            return True
        if self.progress.position:
            return False
        # Nothing came since the start, so the position says nothing: old changes are done if none waits.
        try:
            async with asyncio.timeout(timeout):
                return await self.lag() == 0
        except (PortError, TimeoutError):
            return False

    async def settled(self, position: int, timeout: float) -> bool:
        """The same, but not waiting where the target is known to be away or slow: then it would be in vain.

        It is known once a batch has been tried for `timeout` seconds, or once somebody waited that long here or
        for the daemon that leads, until something moves again.
        """
        before = self.progress.position
        patience = 0.0 if self._in_vain_at == before else max(0.0, timeout - self._tried_for())
        done = await self.reached(position, patience)
        if not done and self.progress.position == before:
            self._in_vain_at = before
        return done

    def _tried_for(self) -> float:
        """Seconds that the batch in hand has been tried to be written for."""
        return 0.0 if self._writing_since is None else self._clock.monotonic() - self._writing_since

    async def release(self) -> None:
        """Let the feed go; `run` takes it up again."""
        self._writing_since = None
        self.failing_since = None
        await self._feed.close()

    async def lag(self) -> int:
        """How many deliveries wait. Raises PortError while NATS is away."""
        return await self._feed.lag()

    async def backlog(self) -> Backlog:
        """What waits, by the wall clocks of NATS and of this daemon. Raises PortError while NATS is away."""
        records = await self._feed.lag()
        oldest = await self._feed.oldest() if records else None
        seconds = (self._clock.now() - oldest).total_seconds() if oldest else 0.0
        return Backlog(records, max(0.0, seconds))


@dataclass(frozen=True, slots=True)
class Projections:
    """The three workers together."""

    documents: Projector[Change]
    rows: Projector[Change]
    events: Projector[Sequence[Event]]
    refused: Mapping[str, Callable[[Sequence[ServiceKey]], bool]] = field(default_factory=dict)
    """Whether a `document` or `row` of these services is set aside by this daemon: passed, and yet not written."""

    @property
    def all(self) -> tuple[Projector[Change], Projector[Change], Projector[Sequence[Event]]]:
        """The workers."""
        return (self.documents, self.rows, self.events)

    @property
    def names(self) -> tuple[str, ...]:
        """The workers' names."""
        return (self.documents.name, self.rows.name, self.events.name)

    def announce(self, say: Callable[[str, int], Awaitable[None]]) -> None:
        """Have the workers tell other daemons how far they are."""
        for projector in self.all:
            projector.announce = say

    async def release(self) -> None:
        """Let the feeds go, so that another daemon gets what they deliver."""
        for projector in self.all:
            await projector.release()

    def heard(self, projection: str, position: int) -> None:
        """Another daemon, which leads, is so far."""
        for projector in self.all:
            if projector.name == projection:
                projector.progress.advance(position)

    async def settled(self, sequence: int, timeout: float, keys: Sequence[ServiceKey]) -> dict[str, str]:
        """Wait until the write at `sequence` has reached its document and row, up to `timeout` seconds.

        At once where a target is known to be away. `keys` are the services that were written: what is set aside
        of one of them is `queued` as well.
        """
        document, row = await asyncio.gather(
            self.documents.settled(sequence, timeout), self.rows.settled(sequence, timeout)
        )
        done = {"document": document, "row": row}
        for what, is_refused in self.refused.items():
            done[what] = done[what] and not is_refused(keys)
        return {what: "written" if well else "queued" for what, well in done.items()}
