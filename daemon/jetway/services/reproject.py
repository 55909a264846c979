"""Reproject: write every document and every row anew from the ledger, whatever they look like."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

import structlog

from jetway.core.errors import PortError
from jetway.core.ids import ServiceKey
from jetway.core.record import EventType
from jetway.ports import Clock
from jetway.services.caller import Caller
from jetway.services.document_writer import DocumentWriter
from jetway.services.findings import batches, for_each
from jetway.services.index import Index
from jetway.services.row_writer import RowWriter
from jetway.services.settling import Settling
from jetway.services.trail import Trail
from jetway.services.turn import Turn

log = structlog.get_logger()

NAME = "reproject"


@dataclass(frozen=True, slots=True)
class Reprojection:
    """How far it is. `written`: documents that were not as they should be, and all rows."""

    state: Literal["idle", "running", "done", "failed"] = "idle"
    total: int = 0
    done: int = 0
    written: int = 0
    error: str = ""
    started_at: datetime | None = None
    finished_at: datetime | None = None


class Reprojector:
    """Runs in the background, once at a time."""

    def __init__(
        self,
        index: Index,
        documents: DocumentWriter,
        rows: RowWriter,
        settling: Settling,
        trail: Trail,
        clock: Clock,
        turn: Turn,
    ) -> None:
        self._index = index
        self._documents = documents
        self._rows = rows
        self._settling = settling
        self._trail = trail
        self._clock = clock
        self._turn = turn
        self._task: asyncio.Task[None] | None = None
        self.state = Reprojection()
        """Of the last run, or of the one that is under way."""

    def start(self, caller: Caller) -> Reprojection:
        """Begin. Raises RefusedError where a run is under way, or another daemon leads."""
        self._turn.claim(NAME)
        total = len(self._index.records)
        self.state = Reprojection("running", total=total, started_at=self._clock.now())
        self._task = asyncio.get_running_loop().create_task(self._run(caller), name=NAME)
        # In a callback, as a task that is cancelled before its first step runs nothing of its own.
        self._task.add_done_callback(self._ended)
        return self.state

    async def stop(self) -> None:
        """Break off a run. What it has written stands, and all of it is right. Safe to call again."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def _run(self, caller: Caller) -> None:
        await self._settling.index()
        keys = list(self._index.records)
        self.state = replace(self.state, total=len(keys))
        for some in batches(keys):
            await self._rewrite(some)
        facts = {"services": self.state.done, "written": self.state.written}
        await self._trail.note(EventType.REPROJECTED, caller, metadata=facts)

    def _ended(self, task: asyncio.Task[None]) -> None:
        error = _error_of(task)
        outcome: Literal["done", "failed"] = "failed" if error else "done"
        self._turn.holder = ""
        self.state = replace(self.state, state=outcome, error=error, finished_at=self._clock.now())
        state = self.state
        log.info("reprojected", action="reprojected", done=state.done, written=state.written, error=error)

    async def _rewrite(self, keys: Sequence[ServiceKey]) -> None:
        refused = await self._rows.rewrite(keys)
        # A document that is right to the byte is left: edge hosts would be told of a change that is none.
        written = await for_each(keys, self._documents.mend)
        count = len(keys) - len(refused) + sum(written)
        state = self.state
        self.state = replace(state, done=state.done + len(keys), written=state.written + count)


def _error_of(task: asyncio.Task[None]) -> str:
    if task.cancelled():
        return "it was interrupted"
    error = task.exception()
    if error is None or isinstance(error, PortError):
        return str(error or "")
    log.error("a reproject failed", action="reproject_failed", exc_info=error)
    return f"a mistake of the daemon ({type(error).__name__}): see its log"
