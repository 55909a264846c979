"""What only the leading daemon runs: projections and jobs."""

from __future__ import annotations

import asyncio

import structlog

from jetway.core.errors import PortError
from jetway.entry.jobs import Jobs
from jetway.ports import Lease
from jetway.services.house import House
from jetway.tasks import EternalTasks

log = structlog.get_logger()

_CATCH_UP_SECONDS = 10.0
_FLUSH_SECONDS = 3.0
"""How long the end may wait for a database that does not answer: heartbeats bring again what it would hold."""


class Workers:
    """Starts and stops projections and jobs together."""

    def __init__(self, house: House, tasks: EternalTasks) -> None:
        self._house = house
        self._tasks = tasks
        self._jobs: Jobs | None = None
        self._running = False
        self._stopping = asyncio.Lock()

    @property
    def running(self) -> bool:
        """Whether this daemon is the one that projects."""
        return self._running

    async def start(self) -> None:
        """Begin."""
        await self._recall()
        self._running = True
        self._house.document_writer.forget()
        projections = self._house.projections
        for projector in (projections.documents, projections.rows, projections.events):
            self._tasks.start(projector.name, projector.run())
        self._jobs = Jobs(self._house.jobs)
        self._jobs.start()

    async def stop(self) -> None:
        """End, and write what is only in memory. Safe to call again, also when it was cancelled midway."""
        async with self._stopping:
            if not self._running:
                return
            if self._jobs:
                self._jobs.stop()
                self._jobs = None
            await self._tasks.stop(*self._house.projections.names)
            await self._house.projections.release()
            try:
                async with asyncio.timeout(_FLUSH_SECONDS):
                    await self._house.row_writer.flush_presence()
            except (PortError, TimeoutError) as error:
                reason = str(error) or f"the database did not take it within {_FLUSH_SECONDS:g} s"
                log.warning("last_seen was not written", action="flush_failed", error=reason)
            self._running = False

    async def follow(self, lease: Lease) -> None:
        """Run while this daemon holds the lease, for ever."""
        while True:
            await lease.wait(True)
            await self._catch_up()
            if not lease.held:
                await lease.wait(False)
                continue
            await self.start()
            await lease.wait(False)
            await self.stop()

    async def _recall(self) -> None:
        """When rare jobs ran last. Not known, they come as after a first start: no run is lost, only late."""
        try:
            await self._house.jobs.load()
        except PortError as error:
            log.warning("the last runs of jobs are not known", action="jobs_not_recalled", error=str(error))

    async def _catch_up(self) -> None:
        """Know what the last leader knew: what it wrote and acknowledged is delivered to nobody again.

        Documents and rows count and list children, so one that is rendered from less would be written backwards.
        """
        recorder = self._house.recorder
        try:
            sequence = await recorder.ledger.last_sequence()
            if await recorder.index.progress.reached(sequence, _CATCH_UP_SECONDS):
                return
            error = f"the index has not read the ledger up to {sequence}"
        except PortError as failure:
            error = str(failure)
        log.warning("leading with an index that may be behind", action="lead_behind", error=error)
