"""Maintenance: whoever expects silence says so before, and no alert is sent for it. Facts go on being told."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from pydantic import JsonValue

from jetway.core.errors import Code, ConflictError, PortError, RefusedError, refuse
from jetway.core.ids import ServiceKey
from jetway.core.maintenance import MaintenanceWindow, WindowMap
from jetway.core.policy import unknown_service
from jetway.core.record import EventType, ServiceRecord
from jetway.core.times import rfc3339, to_milliseconds
from jetway.ports import Clock, Identifiers, MaintenanceStore
from jetway.services.caller import Caller
from jetway.services.index import Index
from jetway.services.trail import Trail

log = structlog.get_logger()

MOST_WINDOWS = 1000
LONGEST = timedelta(days=366)
_RELOAD_SECONDS = 10.0
_RETRY_SECONDS = 2.0
_FORGOTTEN_AFTER = timedelta(days=1)
"""When one that is over goes from the store: not at once, for this daemon's clock may be ahead."""
_MOST_FORGOTTEN = 100
"""At one time."""
_MOST_OVER = 1000
"""Windows that are over and kept; with more the first of them go sooner."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewWindow:
    """What a person asks for. Exactly one of `service`, `site` and `label`."""

    service: str = ""
    site: str = ""
    label: str = ""
    since: datetime | None = None
    """None: from now on."""
    until: datetime
    reason: str = ""


class Maintenance:
    """The windows that are open or to come. Another daemon's are known within ten seconds."""

    def __init__(
        self, store: MaintenanceStore, index: Index, trail: Trail, clock: Clock, identifiers: Identifiers
    ) -> None:
        self._store = store
        self._index = index
        self._trail = trail
        self._clock = clock
        self._identifiers = identifiers
        self._windows: dict[str, MaintenanceWindow] = {}
        self._map = WindowMap()
        self._changing = asyncio.Lock()

    async def run(self) -> None:
        """Know what other daemons were told, for ever."""
        while True:
            try:
                await self.load()
                pause = _RELOAD_SECONDS
            except PortError as error:
                log.debug("maintenance windows were not read", action="maintenance_unread", error=str(error))
                pause = _RETRY_SECONDS
            await asyncio.sleep(pause)

    async def load(self) -> None:
        """Read all windows, and forget those that have long been over. Raises PortError."""
        async with self._changing:
            now = self._clock.now()
            found = await self._store.load()
            windows = {window.window_id: window for window in found if window.until > now}
            if windows != self._windows:
                self._know(windows)
            for window in _to_forget(found, now):
                await self._remove(window.window_id)

    async def _remove(self, window_id: str) -> None:
        with suppress(ConflictError):  # another daemon is at it as well
            await self._store.remove(window_id)

    def _know(self, windows: dict[str, MaintenanceWindow]) -> None:
        self._windows, self._map = windows, WindowMap(windows.values())

    def windows(self) -> Sequence[MaintenanceWindow]:
        """Those that are open or to come, by their beginning."""
        now = self._clock.now()
        left = [window for window in self._windows.values() if window.until > now]
        return sorted(left, key=lambda window: (window.since, window.window_id))

    def covers(self, record: ServiceRecord) -> bool:
        """Whether this service is in maintenance now."""
        if not self._windows:
            return False
        return self.covered_since(record) is not None

    def covered_since(self, record: ServiceRecord) -> datetime | None:
        """Since when this service has been in maintenance; None where it is not now."""
        now = self._clock.now()
        return min((window.since for window in self._map.of(record) if window.is_open(now)), default=None)

    async def begin(self, caller: Caller, asked: NewWindow) -> MaintenanceWindow:
        """Keep a window. Raises RefusedError (invalid, not_found, too_many_failures), PortError."""
        now = to_milliseconds(self._clock.now())
        self._check(asked, now)
        window = MaintenanceWindow(
            window_id=self._identifiers.new_id(),
            service=asked.service,
            site=asked.site,
            label=asked.label,
            since=to_milliseconds(asked.since or now),
            until=to_milliseconds(asked.until),
            reason=asked.reason,
            created_by=caller.actor,
            created_at=now,
        )
        async with self._changing:
            await self._store.put(window)
            left = {each.window_id: each for each in self._windows.values() if each.until > now}
            self._know({**left, window.window_id: window})
        await self._tell(EventType.MAINTENANCE_BEGUN, caller, window)
        return window

    async def end(self, caller: Caller, window_id: str) -> None:
        """End a window now, or call it off. Raises RefusedError (not_found), PortError."""
        async with self._changing:
            found = {window.window_id: window for window in await self._store.load()}
            window = found.get(window_id)
            if window is None or window.until <= self._clock.now():
                raise refuse(Code.NOT_FOUND, f"there is no maintenance window {window_id} that has not ended")
            await self._store.remove(window_id)
            self._know({each: kept for each, kept in self._windows.items() if each != window_id})
        await self._tell(EventType.MAINTENANCE_ENDED, caller, window)

    def _check(self, asked: NewWindow, now: datetime) -> None:
        if sum(map(bool, (asked.service, asked.site, asked.label))) != 1:
            raise refuse(Code.INVALID, "give one of service, site and label", "service")
        if asked.service:
            self._check_service(asked.service)
        name, equals, _ = asked.label.partition("=")
        if asked.label and not (name and equals):
            raise refuse(Code.INVALID, "a label is given as key=value", "label")
        since = asked.since or now
        if asked.until <= max(since, now):
            raise refuse(Code.INVALID, "a window ends after it has begun, and not before now", "until")
        if asked.until - since > LONGEST:
            raise refuse(Code.INVALID, f"a window is no longer than {LONGEST.days} days", "until")
        if len(self.windows()) >= MOST_WINDOWS:
            raise refuse(Code.TOO_MANY_FAILURES, f"there are {MOST_WINDOWS} windows already: end some first")

    def _check_service(self, text: str) -> None:
        try:
            key = ServiceKey.parse(text)
        except ValueError:
            raise refuse(Code.INVALID, "a service is given as <type>.<id>", "service") from None
        if self._index.get(key) is None:
            raise RefusedError(unknown_service(key))

    async def _tell(self, event: EventType, caller: Caller, window: MaintenanceWindow) -> None:
        record = self._index.get(ServiceKey.parse(window.service)) if window.service else None
        concerned = {"service": window.service, "site": window.site, "label": window.label}
        metadata: dict[str, JsonValue] = {name: value for name, value in concerned.items() if value}
        times: dict[str, JsonValue] = {"since": rfc3339(window.since), "until": rfc3339(window.until)}
        await self._trail.try_note(
            event, caller, record=record, reason=window.reason, metadata={**metadata, **times}
        )


def _to_forget(found: Sequence[MaintenanceWindow], now: datetime) -> Sequence[MaintenanceWindow]:
    """Those that have long been over, and the first of very many that are over, a few at a time."""
    over = sorted((window for window in found if window.until <= now), key=lambda window: window.until)
    surplus = max(0, len(over) - _MOST_OVER)
    long_over = sum(window.until <= now - _FORGOTTEN_AFTER for window in over)
    return over[: max(surplus, long_over)][:_MOST_FORGOTTEN]
