"""The ports of NATS in memory: real logic, and errors on demand.

`fail_next(method, error)` lets the next call of that method raise before it does anything; with
`after_effect` it does its work first, as when the answer to a write is lost.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Generic, TypeVar

from jetway.core.chain import digest_of
from jetway.core.errors import ConflictError, OutcomeUnknownError, PortError, RejectedError
from jetway.core.ids import ServiceKey
from jetway.core.maintenance import MaintenanceWindow
from jetway.core.record import EventType, ServiceRecord, encode_record
from jetway.core.rows import Event, events_of
from jetway.ports import (
    ApiToken,
    Change,
    ChangeBatch,
    Claim,
    Entry,
    FeedItem,
    JobRun,
    PassedOver,
    StoredDocument,
    ViewState,
)

T = TypeVar("T")

ABSENT = StoredDocument(None, 0)


class Failing:
    """Errors on demand."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self._failures: dict[str, deque[tuple[Exception, bool]]] = defaultdict(deque)

    def fail_next(self, method: str, error: Exception, after_effect: bool = False) -> None:
        """Let the next call of `method` raise `error`. Several calls of this queue up several failures."""
        if not callable(getattr(type(self), method, None)):
            raise AttributeError(f"there is no method {method}")
        self._failures[method].append((error, after_effect))

    @contextmanager
    def _call(self, method: str) -> Iterator[None]:
        self.calls.append(method)
        error, after_effect = self._failures[method].popleft() if self._failures[method] else (None, False)
        if error and not after_effect:
            raise error
        yield
        if error:
            raise error


class MemoryStream(Generic[T]):
    """Values in order, each with a sequence from 1 on."""

    def __init__(self) -> None:
        self.values: list[T] = []
        self._grown = asyncio.Event()

    @property
    def last(self) -> int:
        """The newest sequence."""
        return len(self.values)

    def append(self, value: T) -> int:
        """Store it; its sequence."""
        self.values.append(value)
        grown, self._grown = self._grown, asyncio.Event()
        grown.set()
        return len(self.values)

    async def beyond(self, sequence: int) -> None:
        """Wait until there is something after that sequence."""
        while self.last <= sequence:
            await self._grown.wait()


class MemoryLedger(Failing):
    """Implements `ports.Ledger`. `changes` and `events` are what feeds read."""

    def __init__(self, epoch: int = 1) -> None:
        super().__init__()
        self.epoch = epoch
        self.entries: dict[ServiceKey, Entry] = {}
        self.changes: MemoryStream[Change] = MemoryStream()
        self.events: MemoryStream[Sequence[Event]] = MemoryStream()
        self.forgotten: set[tuple[ServiceKey, int]] = set()
        """Revisions that the history no longer has."""

    async def read(self, key: ServiceKey) -> Entry:
        """The key as it stands."""
        with self._call("read"):
            return self.entries.get(key, Entry(None, 0))

    async def write(self, record: ServiceRecord, expected: int) -> int:
        """Compare and swap. An unknown outcome is looked up, as the real one does."""
        try:
            with self._call("write"):
                return self._swap(record.key, record, expected)
        except OutcomeUnknownError:
            entry = self.entries.get(record.key, Entry(None, 0))
            if entry.record and entry.record.transition.transition_id == record.transition.transition_id:
                return entry.sequence
            raise

    async def purge(self, key: ServiceKey, expected: int | None = None) -> int:
        """The key has no value any more; without `expected` as an operator's tool would do it."""
        with self._call("purge"):
            current = self.entries.get(key, Entry(None, 0)).sequence
            return self._swap(key, None, current if expected is None else expected)

    async def follow(self, after: int = 0) -> AsyncIterator[ChangeBatch]:
        """Newest per key, then live."""
        with self._call("follow"):
            pass
        while True:
            newest = {change.key: change for change in self.changes.values[after:]}
            changes = sorted(newest.values(), key=lambda change: change.sequence)
            after = self.changes.last
            yield ChangeBatch(changes, caught_up=True)
            await self.changes.beyond(after)

    async def last_sequence(self) -> int:
        """The newest."""
        with self._call("last_sequence"):
            return self.changes.last

    async def history(self, key: ServiceKey) -> Sequence[ServiceRecord]:
        """All since the key was purged last, but for those that a test has let be forgotten."""
        with self._call("history"):
            kept: list[ServiceRecord] = []
            for change in self.changes.values:
                if change.key == key:
                    kept = [*kept, change.record] if change.record else []
            return [record for record in kept if (record.key, record.revision) not in self.forgotten]

    def _swap(self, key: ServiceKey, record: ServiceRecord | None, expected: int) -> int:
        if self.entries.get(key, Entry(None, 0)).sequence != expected:
            raise ConflictError(f"{key} is not at {expected}")
        sequence = self.changes.last + 1
        digest = digest_of(encode_record(record)) if record else b""
        self.entries[key] = Entry(record, sequence, digest)
        self.events.append(events_of(record) if record else ())
        return self.changes.append(Change(key, record, sequence, digest))


class MemoryViews(Failing):
    """Implements `ports.Views`: views that are never behind, unless a test says so."""

    def __init__(self, ledger: MemoryLedger) -> None:
        super().__init__()
        self._ledger = ledger
        self.told: dict[str, ViewState] = {}
        self.lost: list[tuple[int, int]] = []
        """What the stream of events passed over, by the ledger's sequences."""
        self.overwritten: set[int] = set()
        """Of it what the ledger does not keep any more."""

    async def state(self) -> Mapping[str, ViewState]:
        """As the ledger is, or as it was told."""
        with self._call("state"):
            events = ViewState(
                behind=0, ahead=0, taken=self._ledger.changes.last, last=self._ledger.events.last
            )
            return {"events": events, "config_watch": ViewState(0, 0, 0, 0)} | self.told

    async def passed_over(self) -> PassedOver:
        """As a test says."""
        with self._call("passed_over"):
            told = [event for events in self._ledger.events.values for event in events]
            ids = frozenset(event.event_id for event in told if event.event_type == EventType.AUDIT_GAP)
            return PassedOver(tuple(self.lost), ids)

    async def origin(self, sequence: int) -> Change | None:
        """At that place in the ledger, unless a test has let it be overwritten."""
        with self._call("origin"):
            return None if sequence in self.overwritten else self._ledger.changes.values[sequence - 1]


class MemoryFeed(Failing, Generic[T]):
    """Implements `ports.Feed` over a stream. `reopen` is what a restart of the daemon does."""

    def __init__(self, stream: MemoryStream[T]) -> None:
        super().__init__()
        self._stream = stream
        self._acknowledged: set[int] = set()
        self._in_hand: set[int] = set()
        self._next = 1

    async def fetch(self, limit: int, timeout: float) -> Sequence[FeedItem[T]]:
        """What is next."""
        with self._call("fetch"):
            try:
                async with asyncio.timeout(timeout):
                    await self._stream.beyond(self._next - 1)
            except TimeoutError:
                return []
            found = [n for n in range(self._next, self._stream.last + 1) if n not in self._acknowledged]
            taken = found[:limit]
            self._next = (taken[-1] if len(found) > limit else self._stream.last) + 1
            self._in_hand.update(taken)
            return [FeedItem(self._stream.values[n - 1], n) for n in taken]

    async def acknowledge(self, position: int) -> None:
        """Fetched ones, up to that position."""
        with self._call("acknowledge"):
            done = {n for n in self._in_hand if n <= position}
            self._in_hand -= done
            self._acknowledged |= done

    async def lag(self) -> int:
        """Not acknowledged."""
        with self._call("lag"):
            return self._stream.last - len(self._acknowledged)

    async def oldest(self) -> datetime | None:
        """When the oldest that is not acknowledged was made: what carries no time was made long ago."""
        with self._call("oldest"):
            waiting = (n for n in range(1, self._stream.last + 1) if n not in self._acknowledged)
            first = next(waiting, None)
            return None if first is None else _made_at(self._stream.values[first - 1])

    async def close(self) -> None:
        """Nothing to let go."""
        await self.reopen()

    async def reopen(self) -> None:
        """What was not acknowledged comes again."""
        self._in_hand.clear()
        self._next = 1


def _made_at(value: object) -> datetime:
    if isinstance(value, Change) and value.record is not None:
        return value.record.transition.at
    event = value[0] if isinstance(value, tuple) and value else None
    return event.timestamp if isinstance(event, Event) else datetime(1970, 1, 1, tzinfo=UTC)


class MemoryDocuments(Failing):
    """Implements `ports.Documents`. `documents` has the markers of deleted keys too."""

    def __init__(self) -> None:
        super().__init__()
        self.documents: dict[str, StoredDocument] = {}
        self.earlier: dict[str, list[bytes | None]] = {}
        """The versions of each that are kept beside the newest."""
        self.largest = 4 * 1024 * 1024
        """Bytes of a document that is still taken."""
        self._sequence = 0

    async def read(self, key: str) -> StoredDocument:
        """The key as it stands."""
        with self._call("read"):
            return self.documents.get(key, ABSENT)

    async def write(self, key: str, data: bytes, expected: int) -> int:
        """Compare and swap."""
        with self._call("write"):
            if len(data) > self.largest:
                raise RejectedError(f"{len(data)} bytes are more than is taken")
            return self._swap(key, data, expected)

    async def delete(self, key: str, expected: int) -> None:
        """Leave a marker."""
        with self._call("delete"):
            self._swap(key, None, expected)

    async def forget_earlier(self, key: str) -> None:
        """All but the newest."""
        with self._call("forget_earlier"):
            self.earlier.pop(key, None)

    async def keys(self, prefix: str) -> Sequence[str]:
        """Existing ones."""
        with self._call("keys"):
            return sorted(k for k, d in self.documents.items() if d.data is not None and k.startswith(prefix))

    async def scan(self, prefix: str) -> AsyncGenerator[Sequence[tuple[str, StoredDocument]], None]:
        """Existing ones, two at a time."""
        with self._call("scan"):
            pass
        found = [(k, d) for k, d in self.documents.items() if d.data is not None and k.startswith(prefix)]
        for start in range(0, len(found), 2):
            yield found[start : start + 2]
            await asyncio.sleep(0)

    def _swap(self, key: str, data: bytes | None, expected: int) -> int:
        if " " in key or not key:
            raise PortError(f"{key!r} cannot be a key")
        if self.documents.get(key, ABSENT).sequence != expected:
            raise ConflictError(f"{key} is not at {expected}")
        self._sequence += 1
        if key in self.documents:
            self.earlier.setdefault(key, []).append(self.documents[key].data)
        self.documents[key] = StoredDocument(data, self._sequence)
        return self._sequence


class MemoryAuditLog(Failing):
    """Implements `ports.AuditLog`; with a ledger its trail gets the events too."""

    def __init__(self, ledger: MemoryLedger | None = None) -> None:
        super().__init__()
        self.events: list[Event] = []
        self._trail = ledger.events if ledger else None

    async def append(self, event: Event) -> None:
        """Once per event_id."""
        with self._call("append"):
            if event.event_id in {known.event_id for known in self.events}:
                return
            self.events.append(event)
            if self._trail is not None:
                self._trail.append((event,))


class MemoryIdempotencyStore(Failing):
    """Implements `ports.IdempotencyStore`."""

    def __init__(self) -> None:
        super().__init__()
        self.claims: dict[str, Claim] = {}

    async def claim(self, key_sha256: str, claim: Claim) -> Claim:
        """The first one stands."""
        with self._call("claim"):
            return self.claims.setdefault(key_sha256, claim)


class MemoryApiTokenStore(Failing):
    """Implements `ports.ApiTokenStore`."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens: dict[str, ApiToken] = {}
        self._changes: MemoryStream[str] = MemoryStream()

    async def put(self, token: ApiToken) -> None:
        """Create."""
        with self._call("put"):
            if token.name in self.tokens:
                raise ConflictError(f"there is a token {token.name}")
            self.tokens[token.name] = token
            self._changes.append(token.name)

    async def remove(self, name: str) -> bool:
        """Forget it."""
        with self._call("remove"):
            if self.tokens.pop(name, None) is None:
                return False
            self._changes.append(name)
            return True

    async def note_use(self, token: ApiToken, at: datetime) -> None:
        """Remember, unless it is gone or was used later."""
        with self._call("note_use"):
            known = self.tokens.get(token.name)
            if known and known.sha256 == token.sha256 and (known.last_used_at or at) <= at:
                self.tokens[token.name] = replace(known, last_used_at=at)
                self._changes.append(token.name)

    async def load(self) -> Sequence[ApiToken]:
        """By name."""
        with self._call("load"):
            return self._sorted()

    async def follow(self) -> AsyncIterator[Sequence[ApiToken]]:
        """Now, and after every change."""
        with self._call("follow"):
            pass
        while True:
            seen = self._changes.last
            yield self._sorted()
            await self._changes.beyond(seen)

    def _sorted(self) -> Sequence[ApiToken]:
        return [self.tokens[name] for name in sorted(self.tokens)]


class MemoryArchive(Failing):
    """Implements `ports.PurgeArchive`."""

    def __init__(self) -> None:
        super().__init__()
        self.files: dict[str, Sequence[ServiceRecord]] = {}

    async def store(self, name: str, records: Sequence[ServiceRecord]) -> str:
        """Keep them."""
        with self._call("store"):
            self.files[name] = tuple(records)
            return name


class MemoryMaintenanceStore:
    """Implements `ports.MaintenanceStore`."""

    def __init__(self) -> None:
        self.windows: dict[str, MaintenanceWindow] = {}

    async def load(self) -> Sequence[MaintenanceWindow]:
        """All of them."""
        return list(self.windows.values())

    async def put(self, window: MaintenanceWindow) -> None:
        """Keep it."""
        self.windows[window.window_id] = window

    async def remove(self, window_id: str) -> None:
        """Forget it."""
        self.windows.pop(window_id, None)


class MemoryJobStore(Failing):
    """Implements `ports.JobStore`."""

    def __init__(self) -> None:
        super().__init__()
        self.runs: dict[str, Sequence[JobRun]] = {}

    async def load(self) -> Mapping[str, Sequence[JobRun]]:
        """By job."""
        with self._call("load"):
            return dict(self.runs)

    async def save(self, job: str, runs: Sequence[JobRun]) -> None:
        """Keep these."""
        with self._call("save"):
            self.runs[job] = tuple(runs)
