"""Sweep: what happens because time passed. Each sweep finds what is due in the index and asks the core.

A sweep over many thousand records gives the loop back now and then, and writes a few records at a time. With
`dry_run` it says what is due and writes nothing. Every sweep can be cut off anywhere and run again: what it did
stays done, and what it did not is found again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from jetway.core import commands as c
from jetway.core.ids import ServiceKey
from jetway.core.policy import keeps_answer_too_long
from jetway.core.record import PackageStatus, ServiceRecord, ServiceStatus
from jetway.services.caller import SYSTEM
from jetway.services.pace import Pace, in_order
from jetway.services.presence import PresenceTable
from jetway.services.recorder import Applied, Recorder

log = structlog.get_logger()

NAMES_SHOWN = 20
_AT_ONCE = 2000
_WRITES_AT_ONCE = 32

Due = Callable[[ServiceRecord], c.Command | None]
Wanted = Callable[[ServiceRecord], bool]
"""Whether a live service may still be waited for, so that nothing above it may be taken out."""


@dataclass(frozen=True, slots=True)
class Ages:
    """After how long what happens, as the settings say."""

    inactive_after: timedelta
    archive_after: timedelta
    pending_expires_after: timedelta


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep did, or would do."""

    due: int
    """Services that it concerned, with those that go because they stand beneath one of them."""
    changed: int
    """Services that it changed itself; none in a dry run. What stands beneath follows by the cascade."""
    names: tuple[str, ...] = ()
    """The first of those that were due, as `type.id`."""


class Sweeper:
    """Moves records on that nobody asks about. Every sweep raises PortError while the ledger is away."""

    def __init__(self, recorder: Recorder, presence: PresenceTable, ages: Ages) -> None:
        self._recorder = recorder
        self._presence = presence
        self._ages = ages

    async def expire_packages(self, dry_run: bool = False) -> Swept:
        """Mark packages expired whose token was not redeemed in time; what was kept for a retry goes too."""
        now = self._recorder.clock.now()

        def due(record: ServiceRecord) -> c.Command | None:
            package = record.package
            if keeps_answer_too_long(record, now):
                return c.ExpirePackage()
            if package is None or package.status is not PackageStatus.ISSUED:
                return None
            return c.ExpirePackage() if package.token_expires_at <= now else None

        return await self._sweep("packages_expired", due, dry_run)

    async def mark_inactive(self, dry_run: bool = False) -> Swept:
        """Make active services inactive that have been silent for longer than `inactive_after`.

        Only silence that was listened to counts, so a daemon that was down makes nobody inactive.
        """
        limit = self._ages.inactive_after.total_seconds()

        def due(record: ServiceRecord) -> c.Command | None:
            if record.status is not ServiceStatus.ACTIVE:
                return None
            last = self._presence.presence(record.key).last_seen
            # Active without a heartbeat: by hand, or heard by a daemon whose database has lost it.
            silent = self._presence.silence_seconds(last or record.updated_at)
            return c.Deactivate(silent_since=last) if silent > limit else None

        return await self._sweep("services_inactive", due, dry_run)

    async def expire_pending(self, dry_run: bool = False) -> Swept:
        """End pending services that were never activated in `pending_expires_after`.

        A token that is still good keeps its service waiting, and so do whoever knocks in quarantine, and whoever
        lives beneath it.
        """
        wanted = self._wanted_since(self._recorder.clock.now() - self._ages.pending_expires_after)

        def due(record: ServiceRecord) -> c.Command | None:
            if record.status is not ServiceStatus.PENDING or wanted(record):
                return None
            return c.ExpirePending()

        return await self._sweep("pending_expired", due, dry_run, wanted)

    async def archive(self, dry_run: bool = False) -> Swept:
        """End the rights of services that have been inactive for longer than `archive_after`.

        Whoever lives beneath it keeps a service: its end would be theirs.
        """
        wanted = self._wanted_since(self._recorder.clock.now() - self._ages.archive_after)

        def due(record: ServiceRecord) -> c.Command | None:
            if record.status is not ServiceStatus.INACTIVE or wanted(record):
                return None
            return c.Archive()

        return await self._sweep("services_archived", due, dry_run, wanted)

    def _wanted_since(self, limit: datetime) -> Wanted:
        """Whether there is a reason to wait for a live service that is younger than `limit`."""
        now = self._recorder.clock.now()

        def wanted(record: ServiceRecord) -> bool:
            if record.status is ServiceStatus.ACTIVE:
                return True
            package = record.package
            if record.status is ServiceStatus.PENDING:
                if package and package.status is PackageStatus.ISSUED and package.token_expires_at > now:
                    return True
                return self._pending_since(record) > limit
            last = self._presence.presence(record.key).last_seen
            # What was done to it since it became inactive is a sign that somebody still wants it.
            return max(record.updated_at, last or record.updated_at) > limit

        return wanted

    def _pending_since(self, record: ServiceRecord) -> datetime:
        """When it last gave a reason to wait for it: its package, or a knock at the door."""
        heard, package = self._presence.presence(record.key).last_seen, record.package
        issued = package.created_at if package else None
        return max(moment for moment in (record.first_registered, issued, heard) if moment)

    async def _sweep(self, action: str, due: Due, dry_run: bool, wanted: Wanted | None = None) -> Swept:
        found = await self._find(due, wanted)
        concerned = found if wanted is None else await self._with_what_is_beneath(found)
        changed = 0 if dry_run else await self._apply(due, found, wanted)
        if changed:
            log.info("swept", action=action, count=changed)
        return Swept(len(concerned), changed, tuple(map(str, concerned[:NAMES_SHOWN])))

    async def _find(self, due: Due, wanted: Wanted | None) -> Sequence[ServiceKey]:
        found, pace = [], Pace()
        for record in list(self._recorder.index.records.values()):
            if due(record) and not (wanted and await self._keeps(record.key, wanted)):
                found.append(record.key)
            await pace.breathe()
        return await in_order(found)

    async def _keeps(self, key: ServiceKey, wanted: Wanted) -> bool:
        """Whether anybody alive beneath the service is a reason to keep it."""
        pace = Pace()
        for record in self._beneath(key):
            if record.live and wanted(record):
                return True
            await pace.breathe()
        return False

    def _beneath(self, key: ServiceKey) -> Iterator[ServiceRecord]:
        for child in self._recorder.index.children(key):
            yield child
            yield from self._beneath(child.key)

    async def _with_what_is_beneath(self, found: Sequence[ServiceKey]) -> Sequence[ServiceKey]:
        concerned, pace = set(found), Pace()
        for key in found:
            for record in self._beneath(key):
                if record.live:
                    concerned.add(record.key)
                await pace.breathe()
        return await in_order(list(concerned))

    async def _apply(self, due: Due, keys: Sequence[ServiceKey], wanted: Wanted | None) -> int:
        gate = asyncio.Semaphore(_WRITES_AT_ONCE)

        async def one(key: ServiceKey) -> bool:
            async with gate:
                return await self._change(key, due, wanted)

        changed = 0
        for start in range(0, len(keys), _AT_ONCE):
            results = await asyncio.gather(*map(one, keys[start : start + _AT_ONCE]), return_exceptions=True)
            for result in results:
                if isinstance(result, BaseException):
                    raise result
                changed += result
        return changed

    async def _change(self, key: ServiceKey, due: Due, wanted: Wanted | None) -> bool:
        """Judge it again, as it is now, and change what was judged and nothing else.

        Whatever is done to it meanwhile (a reissue above all) is not undone: the next sweep sees.
        """
        if wanted and await self._keeps(key, wanted):
            return False
        record = self._recorder.index.get(key)
        if record is None:
            return False

        def judged(newest: ServiceRecord | None) -> c.Command:
            command = due(newest) if newest else None
            if command is None:
                raise _NotDueError
            return command

        try:
            outcome = await self._recorder.attempt(key, judged, SYSTEM, expected=(record.version,))
        except _NotDueError:
            return False
        return isinstance(outcome, Applied) and outcome.changed


class _NotDueError(Exception):
    """Between the look and the write somebody was heard, or brought back."""
