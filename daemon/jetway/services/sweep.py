"""Sweep: what happens because time passed. Each sweep finds what is due in the index and asks the core.

A sweep over many thousand records gives the loop back now and then, and writes a few records at a time. With
`dry_run` it says what is due and writes nothing. Every sweep can be cut off anywhere and run again: what it did
stays done, and what it did not is found again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from jetway.core import commands as c
from jetway.core.ids import ServiceKey
from jetway.core.record import PackageStatus, ServiceRecord, ServiceStatus
from jetway.services.caller import SYSTEM
from jetway.services.presence import PresenceTable
from jetway.services.recorder import Applied, Recorder

log = structlog.get_logger()

NAMES_SHOWN = 20
_LOOKED_AT_ONCE = 2000
"""Records between two breaths of the event loop: about a millisecond's work."""
_WRITES_AT_ONCE = 32

Due = Callable[[ServiceRecord], c.Command | None]


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
    """Services that it concerned."""
    changed: int
    """Services that it changed; none in a dry run."""
    names: tuple[str, ...] = ()
    """The first of those that were due, as `type.id`."""


class Sweeper:
    """Moves records on that nobody asks about. Every sweep raises PortError while the ledger is away."""

    def __init__(self, recorder: Recorder, presence: PresenceTable, ages: Ages) -> None:
        self._recorder = recorder
        self._presence = presence
        self._ages = ages

    async def expire_packages(self, dry_run: bool = False) -> Swept:
        """Mark packages expired whose token was not redeemed in time."""
        now = self._recorder.clock.now()

        def due(record: ServiceRecord) -> c.Command | None:
            package = record.package
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

        A token that is still good keeps its service waiting, and so does whoever knocks in quarantine.
        """
        now = self._recorder.clock.now()
        limit = now - self._ages.pending_expires_after

        def due(record: ServiceRecord) -> c.Command | None:
            if record.status is not ServiceStatus.PENDING or self._pending_since(record) > limit:
                return None
            package = record.package
            if package and package.status is PackageStatus.ISSUED and package.token_expires_at > now:
                return None
            return c.ExpirePending()

        return await self._sweep("pending_expired", due, dry_run)

    async def archive(self, dry_run: bool = False) -> Swept:
        """End the rights of services that have been inactive for longer than `archive_after`."""
        limit = self._recorder.clock.now() - self._ages.archive_after

        def due(record: ServiceRecord) -> c.Command | None:
            if record.status is not ServiceStatus.INACTIVE:
                return None
            last = self._presence.presence(record.key).last_seen
            # What was done to it since it became inactive is a sign that somebody still wants it.
            return c.Archive() if max(record.updated_at, last or record.updated_at) <= limit else None

        return await self._sweep("services_archived", due, dry_run)

    def _pending_since(self, record: ServiceRecord) -> datetime:
        """When it last gave a reason to wait for it: its package, or a knock at the door."""
        heard, package = self._presence.presence(record.key).last_seen, record.package
        issued = package.created_at if package else None
        return max(moment for moment in (record.first_registered, issued, heard) if moment)

    async def _sweep(self, action: str, due: Due, dry_run: bool) -> Swept:
        found = await self._find(due)
        changed = 0 if dry_run else await self._apply(due, found)
        if changed:
            log.info("swept", action=action, count=changed)
        return Swept(len(found), changed, tuple(map(str, found[:NAMES_SHOWN])))

    async def _find(self, due: Due) -> Sequence[ServiceKey]:
        found = []
        for number, record in enumerate(list(self._recorder.index.records.values()), 1):
            if due(record):
                found.append(record.key)
            if number % _LOOKED_AT_ONCE == 0:
                await asyncio.sleep(0)
        return sorted(found)

    async def _apply(self, due: Due, keys: Sequence[ServiceKey]) -> int:
        gate = asyncio.Semaphore(_WRITES_AT_ONCE)

        async def one(key: ServiceKey) -> bool:
            async with gate:
                # Asked again: between the look and the write somebody may have been heard.
                record = self._recorder.index.get(key)
                command = due(record) if record else None
                if command is None:
                    return False
                outcome = await self._recorder.attempt(key, command, SYSTEM)
                return isinstance(outcome, Applied) and outcome.changed

        changed = 0
        for start in range(0, len(keys), _LOOKED_AT_ONCE):
            results = await asyncio.gather(
                *map(one, keys[start : start + _LOOKED_AT_ONCE]), return_exceptions=True
            )
            for result in results:
                if isinstance(result, BaseException):
                    raise result
                changed += result
        return changed
