"""The ledger, and what the NATS server and its consumers derive from it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Generic, Protocol, TypeVar

from jetway.core.ids import ServiceKey
from jetway.core.record import ServiceRecord

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Entry:
    """A key of the ledger: its record, if it has one, and the sequence that a write must expect."""

    record: ServiceRecord | None
    sequence: int
    digest: bytes = field(default=b"", compare=False)
    """SHA-256 of the record's bytes as they are stored; empty where there is none, or it is not known."""


@dataclass(frozen=True, slots=True)
class Change:
    """One change as the ledger tells it. `record` is None when the key was purged."""

    key: ServiceKey
    record: ServiceRecord | None
    sequence: int
    digest: bytes = field(default=b"", compare=False)
    """As in `Entry`."""


@dataclass(frozen=True, slots=True)
class ChangeBatch:
    """Changes in order. `caught_up`: nothing newer was waiting when the last of them was read."""

    changes: Sequence[Change]
    caught_up: bool
    position: int = 0
    """The sequence up to which the ledger was read, also where what stood there is no change; 0: as before."""


class Ledger(Protocol):
    """The only truth: one record per key, written by compare-and-swap."""

    @property
    def epoch(self) -> int:
        """The epoch that new revisions carry; known once the ledger is open."""
        ...

    async def read(self, key: ServiceKey) -> Entry:
        """The key as the ledger has it now, not as the index remembers it."""
        ...

    async def write(self, record: ServiceRecord, expected: int) -> int:
        """Write if the key is still at sequence `expected` (0: it was never written); the new sequence."""
        ...

    async def purge(self, key: ServiceKey, expected: int) -> int:
        """Forget the key and its history if it is still at sequence `expected`; the new sequence."""
        ...

    def follow(self, after: int = 0) -> AsyncIterator[ChangeBatch]:
        """All changes after that sequence, newest per key at first, then live, for ever, over reconnects.

        The first batch that is caught up ends the reading of what was there. It may be empty.
        """
        ...

    async def last_sequence(self) -> int:
        """The sequence of the newest write."""
        ...

    async def history(self, key: ServiceKey) -> Sequence[ServiceRecord]:
        """The revisions that are still kept, oldest first; none from before the key was purged."""
        ...


@dataclass(frozen=True, slots=True)
class ViewState:
    """How a view that the server keeps stands to the stream that it is made of."""

    behind: int
    """How far its source is from the newest of what it takes from there."""
    ahead: int
    """How far it is beyond the end of its source, which is a fault: new writes would be passed over."""
    taken: int
    """The sequence in the (first) source up to which it has followed."""
    last: int
    """Its own newest sequence."""


@dataclass(frozen=True, slots=True)
class PassedOver:
    """Writes of the ledger that the stream of events lacks for good."""

    gaps: Sequence[tuple[int, int]] = ()
    """Of each the first and the last of the ledger's sequences."""
    told: Collection[str] = frozenset()
    """The ids of the entries that the stream has about gaps."""


class Views(Protocol):
    """The views that the server itself keeps: of the ledger, of the config bucket."""

    async def state(self) -> Mapping[str, ViewState]:
        """By name: `events` (of the ledger) and `config_watch` (of the config bucket)."""
        ...

    async def passed_over(self) -> PassedOver:
        """What the view `events` passed over. Raises PortError while NATS is away."""
        ...

    async def origin(self, sequence: int) -> Change | None:
        """What the ledger still has at that sequence, to make a passed over entry again. Raises PortError."""
        ...


@dataclass(frozen=True, slots=True)
class FeedItem(Generic[T]):
    """One delivered item, and the position to acknowledge once it is dealt with."""

    value: T
    position: int


class Feed(Protocol[T]):
    """A durable, ordered delivery to one projection. What is not acknowledged comes again."""

    async def fetch(self, limit: int, timeout: float) -> Sequence[FeedItem[T]]:
        """Up to `limit` items, waiting up to `timeout` seconds for the first; empty when none came."""
        ...

    async def acknowledge(self, position: int) -> None:
        """All up to and including this position are dealt with."""
        ...

    async def lag(self) -> int:
        """How many items have not been acknowledged."""
        ...

    async def oldest(self) -> datetime | None:
        """When the oldest of them was written; None where nothing waits."""
        ...

    async def close(self) -> None:
        """Stop receiving; what was not acknowledged comes again to whoever fetches next."""
        ...
