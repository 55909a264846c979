"""Cascades: everything beneath a service that was taken out is revoked, over crashes and races.

Three things together leave no live child under a parent that is gone:

- the parent's record says that its cascade is running until a pass has found and revoked every live child;
- the pass begins once the index has seen the write that took the parent out, so whoever was written before it
  is found; whoever is written later looks at the parent after its own write and takes itself back;
- whoever crashed between those two is noticed here, as a live child of a parent that is gone, and revoked.
"""

from __future__ import annotations

import asyncio

import structlog

from jetway.core import commands as c
from jetway.core.errors import PortError, Refused
from jetway.core.ids import ServiceKey
from jetway.core.policy import GONE, follow_parent, parent_went_away
from jetway.core.record import Cascade, ServiceRecord
from jetway.services.caller import SYSTEM, Caller
from jetway.services.index import Index
from jetway.services.recorder import Recorder

log = structlog.get_logger()

_CATCH_UP_SECONDS = 10.0
_WRITES_AT_ONCE = 64
_ORPHAN_SECONDS = 10.0
"""For so long a child under a parent that is gone may still be about to take itself back."""
_CLOSING_SECONDS = 30.0
"""For so long somebody may be looking whether there are children."""


class Cascades:
    """Takes out everything beneath a revoked or deleted service."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._gate = asyncio.Semaphore(_WRITES_AT_ONCE)
        self._running: set[ServiceKey] = set()
        self._orphans: dict[ServiceKey, float] = {}
        self._closing: dict[ServiceKey, float] = {}
        recorder.index.on_change(self._follow)
        recorder.index.on_forget(self._forget)

    @property
    def _index(self) -> Index:
        return self._recorder.index

    async def finish(self, key: ServiceKey, sequence: int, caller: Caller) -> list[ServiceRecord]:
        """Revoke all live children of `key`, and theirs, until none is left; those that were revoked.

        `sequence` is that of the write that took `key` out. Raises PortError where the pass cannot be completed;
        the record then still says that its cascade is running, and what was revoked stays revoked.
        """
        if not await self._index.progress.reached(sequence, _CATCH_UP_SECONDS):
            raise PortError("the index is behind the ledger: the cascade goes on later")
        passes = await asyncio.gather(
            *(self._take_out(child, key, caller) for child in self._index.children(key)),
            return_exceptions=True,
        )
        revoked: list[ServiceRecord] = []
        for taken in passes:
            if isinstance(taken, BaseException):
                raise taken
            revoked += taken
        await self._recorder.attempt(key, c.FinishCascade(revoked=len(revoked)), SYSTEM)
        return revoked

    async def _take_out(
        self, child: ServiceRecord, parent: ServiceKey, caller: Caller
    ) -> list[ServiceRecord]:
        async with self._gate:
            above = self._index.get(parent)
            if above is not None and above.live:
                return []  # it is back: somebody else finished this cascade, and these are its new children
            outcome = await self._recorder.attempt(child.key, follow_parent(parent, above), caller)
        if isinstance(outcome, Refused):  # deleted meanwhile
            return []
        mine = [outcome.after] if outcome.changed else []
        if outcome.after.cascade is Cascade.RUNNING:
            mine += await self.finish(child.key, outcome.sequence, caller)
        return mine

    def unfinished(self) -> list[ServiceKey]:
        """What `resume` would look at."""
        return sorted(self._running | set(self._due_orphans()))

    async def resume(self) -> int:
        """Finish what a crash or an outage interrupted; how many services were dealt with.

        Raises PortError where that failed for one, once the others were dealt with.
        """
        done, failed = 0, None
        steps = (
            (self._due_orphans, self._revoke_orphan),
            (self._due_to_reopen, self._reopen),
            (self._still_running, self._go_on),
        )
        for due, step in steps:
            for key in due():
                try:
                    done += await step(key)
                except PortError as error:
                    failed = failed or error
        if failed:
            raise failed
        return done

    def _still_running(self) -> list[ServiceKey]:
        return list(self._running)

    async def _go_on(self, key: ServiceKey) -> bool:
        entry = await self._recorder.ledger.read(key)
        if not entry.record or entry.record.cascade is not Cascade.RUNNING:
            return False
        await self.finish(key, entry.sequence, SYSTEM)
        log.info("cascade finished", action="cascade_resumed", service=str(key))
        return True

    async def _revoke_orphan(self, key: ServiceKey) -> bool:
        record, revoked = await self._recorder.read(key), False
        parent = record.parent if record and record.live else None
        above = await self._recorder.read(parent) if parent else None
        if parent and parent_went_away(above):
            command = follow_parent(parent, above)
            revoked = not isinstance(await self._recorder.attempt(key, command, SYSTEM), Refused)
            log.warning("a child had outlived its parent", action="orphan_revoked", service=str(key))
        self._orphans.pop(key, None)
        return revoked

    async def _reopen(self, key: ServiceKey) -> bool:
        """One closed to children by somebody who crashed. Who is only slow finds out, and begins anew."""
        await self._recorder.attempt(key, c.Reopen(), SYSTEM)
        return True

    def _due_to_reopen(self) -> list[ServiceKey]:
        now = self._recorder.clock.monotonic()
        return [key for key, since in self._closing.items() if now - since >= _CLOSING_SECONDS]

    def _due_orphans(self) -> list[ServiceKey]:
        now = self._recorder.clock.monotonic()
        return [key for key, since in self._orphans.items() if now - since >= _ORPHAN_SECONDS]

    def _follow(self, _before: ServiceRecord | None, after: ServiceRecord) -> None:
        """Remember whose cascade runs, and who lives under a parent that is gone, in whichever order they come."""
        if after.cascade is Cascade.RUNNING:
            self._running.add(after.key)
        else:
            self._running.discard(after.key)
        if after.cascade is Cascade.CLOSING:
            self._closing.setdefault(after.key, self._recorder.clock.monotonic())
        else:
            self._closing.pop(after.key, None)
        if not after.live:
            self._orphans.pop(after.key, None)
        elif after.parent and self._is_gone(self._index.get(after.parent)):
            self._orphans.setdefault(after.key, self._recorder.clock.monotonic())
        if self._is_gone(after):
            for child in self._index.children(after.key):
                if child.live:
                    self._orphans.setdefault(child.key, self._recorder.clock.monotonic())

    def _forget(self, record: ServiceRecord) -> None:
        self._running.discard(record.key)
        self._orphans.pop(record.key, None)
        self._closing.pop(record.key, None)

    @staticmethod
    def _is_gone(record: ServiceRecord | None) -> bool:
        """Out, with no cascade that would still come by. A parent not known here may only not be read yet."""
        return record is not None and record.status in GONE and record.cascade is Cascade.NONE
