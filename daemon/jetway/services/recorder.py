"""Read, decide, compare-and-swap: how every change of a record is made."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

from jetway.core import lifecycle
from jetway.core.chain import digest_of
from jetway.core.commands import Command, Context
from jetway.core.errors import (
    Code,
    ConflictError,
    PortError,
    Refused,
    RefusedError,
    UnavailableError,
    refuse,
)
from jetway.core.ids import ServiceKey
from jetway.core.policy import unknown_service
from jetway.core.record import Cascade, ServiceRecord, encode_record
from jetway.ports import Clock, Entry, Identifiers, Ledger
from jetway.services.caller import Caller
from jetway.services.index import Index
from jetway.services.write_watch import WriteWatch

Check = Callable[[ServiceRecord], object]
Make = Callable[[ServiceRecord | None], Command]
"""Makes the command for the record as it was read, each time that it is read."""
Versions = Collection[tuple[int, int]]
"""Versions of a record, as (epoch, revision): any of them will do."""
_CATCH_UP_SECONDS = 2.0
_LOOKS, _LOOK_SECONDS = 100, 0.05
_ATTEMPTS = 50
"""A lost swap means that somebody else made progress, so this many losses in a row is a fault, not a race."""


@dataclass(frozen=True, slots=True)
class Applied:
    """What a command did. `sequence` is the ledger's, of the write or of the unchanged record."""

    before: ServiceRecord | None
    after: ServiceRecord
    sequence: int

    @property
    def changed(self) -> bool:
        """Whether a new revision was written."""
        return self.after is not self.before


class Recorder:
    """Applies commands to records. Nothing else writes the ledger."""

    def __init__(self, ledger: Ledger, index: Index, clock: Clock, identifiers: Identifiers) -> None:
        self.ledger = ledger
        self.index = index
        self.clock = clock
        self.identifiers = identifiers
        self.writes = WriteWatch(clock)

    async def read(self, key: ServiceKey) -> ServiceRecord | None:
        """The record as the ledger has it now; the index learns of it as well."""
        return (await self._entry(key)).record

    async def read_settled(self, key: ServiceKey) -> ServiceRecord | None:
        """The same, once nobody is about to take it out. Raises PortError where that does not end."""
        for _ in range(_LOOKS):
            record = await self.read(key)
            if record is None or record.cascade is not Cascade.CLOSING:
                return record
            await asyncio.sleep(_LOOK_SECONDS)
        raise UnavailableError(f"{key} is about to be taken out, or not: try again shortly")

    async def catch_up(self, seconds: float = _CATCH_UP_SECONDS) -> bool:
        """Wait until the index has seen all that the ledger holds now, by whomever written; whether it has."""
        try:
            return await self.index.progress.reached(await self.ledger.last_sequence(), seconds)
        except PortError:
            return False

    async def of_package(self, package_id: str, *, deleted_current: bool = False) -> ServiceRecord:
        """The record that carries this package. Raises RefusedError where there is none, or none to be shown.

        `deleted_current`: the package that the service has now leads to it though it was deleted.
        """
        record = self.index.by_package(package_id)
        if record is None and await self.catch_up():  # perhaps another daemon made it a moment ago
            record = self.index.by_package(package_id)
        package = record.find_package(package_id) if record else None
        hidden = package is not None and package.deleted_at is not None
        if record and hidden and deleted_current:
            hidden = package is not record.package
        if record is None or package is None or hidden:
            raise refuse(Code.NOT_FOUND, f"there is no package {package_id}")
        return record

    async def apply(
        self,
        key: ServiceKey,
        command: Command | Make,
        caller: Caller,
        before_write: Check | None = None,
        *,
        expected: Versions | None = None,
    ) -> Applied:
        """Apply `command`. Raises RefusedError, and PortErrors where the ledger is away."""
        outcome = await self.attempt(key, command, caller, before_write, expected=expected)
        if isinstance(outcome, Refused):
            raise RefusedError(outcome)
        return outcome

    async def attempt(
        self,
        key: ServiceKey,
        command: Command | Make,
        caller: Caller,
        before_write: Check | None = None,
        *,
        expected: Versions | None = None,
    ) -> Applied | Refused:
        """Apply `command`, with a refusal as a value.

        `before_write` sees the record to be written; what it raises, nothing is written. With `expected` only one
        of these versions is changed: the swap itself sees to it. The first try builds on the index, which saves a
        read: where the index is behind, the swap fails and the ledger is read. A refusal never rests on the index
        alone.
        """
        entry = self.index.entry(key)
        fresh = False
        for _ in range(_ATTEMPTS):
            asked = command(entry.record) if callable(command) else command
            outcome = version_refused(entry.record, expected) or lifecycle.step(
                entry.record, asked, self._context(caller)
            )
            decided = isinstance(outcome, Refused) or outcome is entry.record
            if decided and fresh:
                return _concluded(outcome, entry, key)
            if not decided and isinstance(outcome, ServiceRecord) and _can_follow(entry):
                if before_write:
                    before_write(outcome)
                with contextlib.suppress(ConflictError):
                    return await self._write(entry, outcome)
            entry, fresh = await self._entry(key), True
        raise UnavailableError(f"{key} changes too fast: try again")

    async def _entry(self, key: ServiceKey) -> Entry:
        entry = await self.ledger.read(key)
        if entry.record:
            self.index.apply(entry.record, entry.sequence, entry.digest)
        return entry

    async def _write(self, entry: Entry, record: ServiceRecord) -> Applied:
        chained = replace(record, previous_sha256=entry.digest.hex())
        with self.writes.watching():
            sequence = await self.ledger.write(chained, entry.sequence)
        self.index.apply(chained, sequence, digest_of(encode_record(chained)))
        return Applied(entry.record, chained, sequence)

    def _context(self, caller: Caller) -> Context:
        return Context(
            now=self.clock.now(),
            actor=caller.actor,
            transition_id=self.identifiers.new_id(),
            epoch=self.ledger.epoch,
            source_ip=caller.source_ip,
            request_id=caller.request_id,
        )


def _can_follow(entry: Entry) -> bool:
    """A revision names the digest of the one before it, so that has to be known."""
    return entry.record is None or bool(entry.digest)


def version_refused(record: ServiceRecord | None, expected: Versions | None) -> Refused | None:
    """Why a record that has changed meanwhile is not touched; None where it is as `expected`, or is not there."""
    if record is None or expected is None or record.version in expected:
        return None
    why = f"{record.key} is at revision {record.revision} of epoch {record.epoch} by now: look at it again"
    return Refused(Code.VERSION_DIFFERS, why, "If-Match")


def _concluded(outcome: ServiceRecord | Refused, entry: Entry, key: ServiceKey) -> Applied | Refused:
    if isinstance(outcome, Refused):
        return _named(outcome, key)
    return Applied(entry.record, outcome, entry.sequence)


def _named(refused: Refused, key: ServiceKey) -> Refused:
    if refused.code is not Code.NOT_FOUND or refused.why != "there is no such service":
        return refused
    return unknown_service(key)
