"""How the background jobs are, in one line: the last run, and which of them fail or are overdue."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from jetway.ports import JobOutcome, JobRun
from jetway.services.jobs import JobState, is_regular

_GRACE = timedelta(minutes=1)
"""Beyond two of its intervals: a run takes its time, and so does a restart."""


@dataclass(frozen=True, slots=True)
class JobHealth:
    """All jobs at a glance."""

    state: str
    last: datetime | None
    """When one of them ran last."""
    failing: Sequence[str]
    overdue: Sequence[str]


def job_health(jobs: Sequence[JobState], now: datetime) -> JobHealth:
    """What the jobs' last runs say."""
    failing = [job.spec.name for job in jobs if is_failing(job)]
    overdue = [job.spec.name for job in jobs if _is_overdue(job, now)]
    starts = [run.started_at for job in jobs for run in job.runs[:1]]
    return JobHealth("degraded" if failing or overdue else "ok", max(starts, default=None), failing, overdue)


def is_failing(job: JobState) -> bool:
    """Whether its last run that was no rehearsal failed."""
    last = _last(job)
    return last is not None and last.outcome is JobOutcome.FAILED


def _is_overdue(job: JobState, now: datetime) -> bool:
    last = _last(job)
    if last is None or job.running:
        return False
    return now - last.started_at > 2 * job.spec.every + _GRACE


def _last(job: JobState) -> JobRun | None:
    return next(filter(is_regular, job.runs), None)
