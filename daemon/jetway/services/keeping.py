"""Keeping: what was heard, over a restart. A snapshot in the state directory now and then, read before all else.

Without it a restart would begin with what the database knows, which is up to a minute older, and with no knowledge
of when anybody could be heard: a gateway that is restarted every day would never find a day's silence.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from datetime import datetime

import structlog

from jetway.core.errors import PortError
from jetway.core.heard import Interval
from jetway.core.ids import ServiceKey
from jetway.core.liveness import BEFORE, Liveness
from jetway.core.record import Approval
from jetway.core.turns import TURN_BYTES, seconds
from jetway.ports import PresenceSnapshot, PresenceStore, RememberedService
from jetway.services.changes import ChangeBook
from jetway.services.index import Index
from jetway.services.pace import in_slices
from jetway.services.presence import PresenceTable, Seen

log = structlog.get_logger()

EVERY_SECONDS = 10.0
_SHARE = 0.05
"""Of one processor: with very many services a snapshot comes less often."""
_SLICE = 1000
_BREATH_SECONDS = 0.004
"""Between slices: whoever else wants the interpreter gets it at once."""


class PresenceKeeper:
    """Saves and restores the presence table, and the last changes of everybody's verdict."""

    def __init__(self, presence: PresenceTable, index: Index, book: ChangeBook, store: PresenceStore) -> None:
        self._presence = presence
        self._index = index
        self._book = book
        self._store = store
        self._failing = False
        self._saving = asyncio.Lock()

    async def restore(self) -> int:
        """Take in what the last run heard; how many services. Before the database is asked."""
        snapshot = await asyncio.to_thread(self._store.load)
        if snapshot is None:
            return 0
        for interval in snapshot.heard:
            self._presence.heard.add(interval.since, interval.until)
        adopted: list[RememberedService] = []
        async for some in in_slices(list(snapshot.services)):
            adopted += filter(self._adopt, some)
        await self._restore_turns(adopted, snapshot)
        log.info("what was heard before is known", action="presence_restored", services=len(adopted))
        return len(adopted)

    def _adopt(self, one: RememberedService) -> bool:
        record = self._index.get(one.key)
        if record is None or record.incarnation != one.incarnation:
            return False  # gone, or another service of the same id
        seen = Seen(
            one.last_seen,
            BEFORE,
            interval_seconds=one.interval_seconds,
            beats=one.beats,
            instance_id=one.instance_id,
            source_ip=one.source_ip,
        )
        self._presence.adopt(one.key, seen, one.verdict)
        return True

    async def _restore_turns(self, adopted: list[RememberedService], snapshot: PresenceSnapshot) -> None:
        ended = snapshot.heard[-1].until if snapshot.heard else None
        complete = snapshot.turns_since or ended
        if complete is not None:
            self._book.incomplete_until(complete)
        turned = await asyncio.to_thread(sorted, [one for one in adopted if one.turns], key=_last_turn)
        async for some in in_slices(turned):
            for one in some:
                self._book.restore(one.key, one.turns, one.verdict, ended)

    async def run(self) -> None:
        """Save, for ever."""
        pause = EVERY_SECONDS
        while True:
            await asyncio.sleep(pause)
            pause = max(EVERY_SECONDS, await self.save() / _SHARE)

    async def save(self) -> float:
        """Save now; how many seconds of a processor that took. What fails is told once, and tried again."""
        async with self._saving:
            self._presence.remember_hearing()
            keys, seen = self._presence.everybody()
            heard, since = self._presence.heard.intervals, self._book.complete_since
            try:
                taken = await asyncio.to_thread(self._save, heard, keys, seen, since)
            except PortError as error:
                if not self._failing:
                    log.warning("what is heard is not kept", action="presence_unsaved", error=str(error))
                self._failing = True
                return 0.0
            self._failing = False
            return taken

    def _save(
        self,
        heard: tuple[Interval, ...],
        keys: tuple[ServiceKey, ...],
        seen: tuple[Seen, ...],
        since: datetime,
    ) -> float:
        began = time.thread_time()
        self._store.save(PresenceSnapshot(heard, self._services(keys, seen), since))
        return time.thread_time() - began

    def _services(self, keys: tuple[ServiceKey, ...], seen: tuple[Seen, ...]) -> Iterator[RememberedService]:
        for number, (key, one) in enumerate(zip(keys, seen, strict=True), 1):
            if number % _SLICE == 0:
                time.sleep(_BREATH_SECONDS)
            record = self._index.get(key)
            if record is not None and one.verdict is not Liveness.NEVER:
                turns = self._book.packed(key)
                waits = record.approval is Approval.REQUIRED
                told = (one.beats, one.instance_id, one.source_ip) if waits else ()
                yield RememberedService(
                    key, one.last_seen, one.verdict, one.interval_seconds, record.incarnation, turns, *told
                )


def _last_turn(one: RememberedService) -> float:
    return seconds(one.turns[-TURN_BYTES:])[0]
