"""Jobs: what the daemon does by itself from time to time; also by hand, and as a rehearsal that changes nothing.

A job runs once at a time. Its last runs are kept, those of rare jobs beyond a restart, so that a weekly job comes
once a week and not a week after every restart. A run is on the books before it begins: one that was cut off
shows as such.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import structlog

from jetway.core.errors import Code, PortError, RefusedError, refuse
from jetway.core.times import to_milliseconds
from jetway.ports import Clock, JobOutcome, JobRun, JobStore
from jetway.services.caller import SYSTEM, Caller
from jetway.services.metrics import Metrics

log = structlog.get_logger()

RUNS_KEPT = 20
"""Of each job; dry runs and runs by hand included, which go first."""
REMEMBERED_FROM = timedelta(minutes=5)
"""Jobs that come at least this seldom are remembered beyond a restart."""
RETRY_AFTER = timedelta(minutes=2)
"""When a run that failed is tried again; each further time after twice as long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobReport:
    """What a run did, or would do: counts by name, and the first of the services concerned."""

    counts: Mapping[str, int] = field(default_factory=dict)
    names: Sequence[str] = ()
    error: str = ""
    """Why not all of it was done: then the run has failed, with what it did nevertheless."""


Work = Callable[[bool], Awaitable[JobReport]]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec:
    """A job: what it does, how often, and how."""

    name: str
    description: str
    """One sentence for an operator."""
    every: timedelta
    run: Work
    """Called with whether nothing may be changed. Raises PortError while something it needs is away."""
    rehearses: bool = True
    """Whether it can say what it would do without doing it."""
    at_once: bool = False
    """Whether it runs at the start and not only after one interval."""
    first_after: timedelta | None = None
    """When the first run comes at the earliest, where that is neither of the two."""

    @property
    def remembered(self) -> bool:
        """Whether its runs outlive a restart."""
        return self.every >= REMEMBERED_FROM


@dataclass(frozen=True, slots=True)
class JobState:
    """A job with its last runs, the newest first."""

    spec: JobSpec
    running: bool
    runs: Sequence[JobRun]
    next_run: datetime | None


class JobBook:
    """Runs jobs and keeps the books."""

    def __init__(self, specs: Sequence[JobSpec], store: JobStore, clock: Clock, metrics: Metrics) -> None:
        self.specs = {spec.name: spec for spec in specs}
        self._store = store
        self._clock = clock
        self._metrics = metrics
        self._runs: dict[str, deque[JobRun]] = {name: deque(maxlen=RUNS_KEPT) for name in self.specs}
        self._running: set[str] = set()
        self.leads: Callable[[], bool] = lambda: True
        """Whether this daemon is the one that runs jobs."""
        self.next_run: Callable[[str], datetime | None] = lambda _name: None
        """When the scheduler will run a job, where it knows."""

    async def load(self) -> None:
        """Read what was remembered. Raises PortError."""
        for name, runs in (await self._store.load()).items():
            if name in self._runs:
                self._runs[name] = deque(runs[:RUNS_KEPT], maxlen=RUNS_KEPT)

    async def states(self) -> Sequence[JobState]:
        """All jobs, in the order of the table; as another daemon left them where that one leads."""
        if not self.leads():
            await self.load()
        return [self._state(spec) for spec in self.specs.values()]

    async def state(self, name: str) -> JobState:
        """One job. Raises RefusedError (not_found)."""
        self._spec(name)
        return next(state for state in await self.states() if state.spec.name == name)

    def due_in(self, name: str) -> timedelta:
        """How long until the job should run for the first time after a start."""
        spec, last = self._spec(name), self._last_done(name)
        if spec.at_once:
            return timedelta()
        wait = spec.every
        if last is not None and spec.remembered:
            wait = min(spec.every, last.started_at + spec.every - self._clock.now())
        if spec.first_after is not None:
            # Not sooner, however long ago the last run was, and not later where there was none.
            wait = spec.first_after if last is None else max(wait, spec.first_after)
        return max(wait, timedelta(seconds=1))

    def _last_done(self, name: str) -> JobRun | None:
        done = (run for run in self._runs[name] if is_regular(run) and run.outcome is JobOutcome.DONE)
        return next(done, None)

    def due_again_in(self, name: str) -> timedelta:
        """How long until the job's next run where the wall clock was set: what is left of its interval."""
        spec, last, retry = self._spec(name), self._last_done(name), self.retry_in(name)
        wait = last.started_at + spec.every - self._clock.now() if last else spec.first_after or spec.every
        return max(min(wait, retry or spec.every, spec.every), timedelta(seconds=1))

    def retry_in(self, name: str) -> timedelta | None:
        """How long until a job is tried again whose last run failed; None where its next time comes as soon."""
        spec = self._spec(name)
        failed = 0
        for run in self._runs[name]:
            if not is_regular(run):
                continue
            if run.outcome is not JobOutcome.FAILED:
                break
            failed += 1
        wait = RETRY_AFTER * 2 ** (failed - 1) if failed else spec.every
        return wait if wait < spec.every else None

    async def run(
        self,
        name: str,
        caller: Caller = SYSTEM,
        *,
        dry_run: bool = False,
        work: Work | None = None,
        apart: bool = False,
    ) -> JobRun:
        """Run a job now, and wait for it. What it fails at is in the answer and raises nothing.

        `work`: what to do in the job's place, on the same terms or, with `apart`, on terms of its own.

        Raises RefusedError: not_found, already_running, not_leading, or invalid where it cannot be rehearsed.
        """
        spec = self._spec(name)
        if dry_run and not spec.rehearses:
            raise refuse(Code.INVALID, f"the job {name} cannot be rehearsed", "dry_run")
        if not self.leads():
            raise refuse(Code.NOT_LEADING, f"another daemon leads: ask that one to run {name}")
        if name in self._running:
            raise refuse(Code.ALREADY_RUNNING, f"the job {name} is running: try again when it is done")
        self._running.add(name)
        try:
            begun = JobRun(
                job=spec.name,
                actor=caller.actor,
                dry_run=dry_run,
                started_at=to_milliseconds(self._clock.now()),
                outcome=JobOutcome.INTERRUPTED,
                apart=apart,
            )
            return await self._run(replace(spec, run=work) if work else spec, caller, begun)
        finally:
            self._running.discard(name)

    async def _run(self, spec: JobSpec, caller: Caller, begun: JobRun) -> JobRun:
        began, runs = time.perf_counter(), self._runs[spec.name]
        if len(runs) >= RUNS_KEPT:
            # Rehearsals do not push out what says when the job is due.
            runs.remove(next((run for run in reversed(runs) if not is_regular(run)), runs[-1]))
        runs.appendleft(begun)
        if spec.remembered:
            await self._remember(spec.name)  # so that one that a crash cuts off is on the books after it
        ended = begun
        try:
            ended = await self._attempt(spec, begun, began)
        finally:
            # Cancelled at the daemon's stop: it stays on the books as interrupted.
            runs[runs.index(begun)] = ended
            self._count(ended)
        if spec.remembered or caller is not SYSTEM:
            await self._remember(spec.name)
        return ended

    async def _attempt(self, spec: JobSpec, begun: JobRun, began: float) -> JobRun:
        error = ""
        report = JobReport()
        try:
            report = await spec.run(begun.dry_run)
            error = report.error
            if error:
                log.warning("a job did not do all of it", action="job_failed", job=spec.name, error=error)
        except (PortError, RefusedError) as failure:
            error = str(failure)
            log.warning("a job could not run", action="job_failed", job=spec.name, error=error)
        except Exception as failure:
            error = f"a mistake of the daemon ({type(failure).__name__}): see its log"
            log.exception("a job failed", action="job_failed", job=spec.name)
        return replace(
            begun,
            outcome=JobOutcome.FAILED if error else JobOutcome.DONE,
            seconds=round(time.perf_counter() - began, 3),
            counts=dict(report.counts),
            names=tuple(report.names),
            error=error,
        )

    def _count(self, run: JobRun) -> None:
        if not is_regular(run):
            return
        self._metrics.job_runs.labels(run.job, run.outcome.value).inc()
        if run.outcome is JobOutcome.DONE:
            self._metrics.job_seconds.labels(run.job).set(run.seconds)
            self._metrics.job_success.labels(run.job).set(run.started_at.timestamp())

    async def _remember(self, name: str) -> None:
        try:
            await self._store.save(name, tuple(self._runs[name]))
        except (PortError, TimeoutError) as error:
            log.warning("a job's runs are not kept", action="job_not_kept", job=name, error=str(error))

    def _state(self, spec: JobSpec) -> JobState:
        return JobState(
            spec, spec.name in self._running, tuple(self._runs[spec.name]), self.next_run(spec.name)
        )

    def _spec(self, name: str) -> JobSpec:
        spec = self.specs.get(name)
        if spec is None:
            raise refuse(Code.NOT_FOUND, f"there is no job {name!r}: there are {', '.join(self.specs)}")
        return spec


def is_regular(run: JobRun) -> bool:
    """Whether it did what the schedule would have done."""
    return not run.dry_run and not run.apart
