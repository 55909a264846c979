"""The table of background jobs on APScheduler: thin, named. Missed runs coalesce into one."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime

import structlog
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.interval import IntervalTrigger

from jetway.core.errors import RefusedError
from jetway.ports import JobOutcome
from jetway.services.jobs import JobBook, JobSpec

log = structlog.get_logger()

_LOOK_SECONDS = 5.0
_JUMP_SECONDS = 5.0


class Jobs:
    """Runs the jobs of a book on the event loop until stopped. A job that fails does not stop another."""

    def __init__(self, book: JobBook) -> None:
        self._book = book
        self._scheduler = AsyncIOScheduler(timezone="UTC")
        self._running: set[asyncio.Task[object]] = set()
        self._stopping = False
        self._clocks: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin."""
        now = datetime.now(UTC)
        for spec in self._book.specs.values():
            self._scheduler.add_job(
                self._guarded,
                _trigger(spec),
                args=(spec,),
                id=spec.name,
                max_instances=1,
                coalesce=True,
                misfire_grace_time=None,
                next_run_time=now + self._book.due_in(spec.name),
            )
        self._scheduler.start()
        self._book.next_run = self._next_run
        self._clocks = asyncio.get_running_loop().create_task(self._watch_clocks(), name="jobs-clocks")

    def stop(self) -> None:
        """No further runs; one under way is cancelled."""
        self._stopping = True
        self._book.next_run = lambda _name: None
        if self._clocks:
            self._clocks.cancel()
        self._scheduler.shutdown(wait=False)
        for task in self._running:
            task.cancel()

    def _next_run(self, name: str) -> datetime | None:
        job = self._scheduler.get_job(name)
        return job.next_run_time if job else None

    async def _watch_clocks(self) -> None:
        """The scheduler goes by the wall clock: set back by an hour, it would let all jobs rest for an hour."""
        ahead = time.time() - time.monotonic()
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            before, ahead = ahead, time.time() - time.monotonic()
            if abs(ahead - before) > _JUMP_SECONDS:
                log.warning("the wall clock was set", action="clock_set", seconds=round(ahead - before))
                for spec in self._book.specs.values():
                    # A new trigger alone would put a weekly job off by a week, each time.
                    due = datetime.now(UTC) + self._book.due_again_in(spec.name)
                    self._scheduler.reschedule_job(spec.name, trigger=_trigger(spec))
                    self._scheduler.modify_job(spec.name, next_run_time=due)

    async def _guarded(self, spec: JobSpec) -> None:
        task = asyncio.current_task()
        if task:
            self._running.add(task)
        try:
            run = await self._book.run(spec.name)
            if run.outcome is JobOutcome.FAILED and not self._stopping:
                self._retry(spec.name)
        except RefusedError as error:
            # Somebody runs it by hand just now, or this daemon has stopped leading.
            log.info("a job was passed over", action="job_passed_over", job=spec.name, reason=str(error))
        except asyncio.CancelledError:
            # Ours, at the stop: the scheduler would report it as an error.
            if not self._stopping:
                raise
        finally:
            if task:
                self._running.discard(task)

    def _retry(self, name: str) -> None:
        """What failed is not put off until its next time, which may be a week ahead."""
        wait, next_run = self._book.retry_in(name), self._next_run(name)
        at = datetime.now(UTC) + wait if wait is not None else None
        if at is not None and next_run is not None and at < next_run:
            self._scheduler.modify_job(name, next_run_time=at)


def _trigger(spec: JobSpec) -> IntervalTrigger:
    return IntervalTrigger(seconds=max(1, round(spec.every.total_seconds())), timezone="UTC")
