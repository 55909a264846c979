"""Background jobs: what they did, and running one by hand."""

from __future__ import annotations

from datetime import timedelta

from jetway.core.errors import PortError
from jetway.entry.http import answers as a
from jetway.entry.http import requests as r
from jetway.entry.http.api import Call, route
from jetway.entry.http.auth import Role
from jetway.entry.http.doors import Doors
from jetway.services.jobs import JobReport, JobState
from jetway.services.sweep import Swept

_TAG = "jobs"
_JOBS = "/api/admin/jobs"
_ONE = _JOBS + "/{name:[a-z][a-z-]*}"


class JobRoutes:
    """The routes of /api/admin/jobs."""

    def __init__(self, doors: Doors) -> None:
        self._jobs = doors.jobs

    @route("GET", _JOBS, tag=_TAG, role=Role.VIEWER, errors=(503,))
    async def list_jobs(self) -> a.JobList:
        """The background jobs with their last runs, the newest first."""
        items = [_render(state) for state in await self._jobs.states()]
        return a.JobList(items=items, next_cursor=None, total=len(items))

    @route("GET", _ONE, tag=_TAG, role=Role.VIEWER, errors=(503,))
    async def get_job(self, name: str) -> a.Job:
        """One job with its last runs."""
        return _render(await self._jobs.state(name))

    @route("POST", _ONE + "/runs", tag=_TAG, role=Role.ADMIN, errors=(409,), seconds=600)
    async def run_job(self, name: str, body: r.RunJob, call: Call) -> a.JobRun:
        """Run a job now and wait for it; with `dry_run` only say what it would do.

        409 while it is running, or where another daemon leads. What it failed at is in `error`.
        """
        run = await self._jobs.run(name, call.caller, dry_run=body.dry_run)
        return a.JobRun.model_validate(run)


class PurgeRoutes:
    """The route /api/admin/services/purge."""

    def __init__(self, doors: Doors) -> None:
        self._jobs = doors.jobs
        self._purger = doors.purger

    @route("POST", "/api/admin/services/purge", tag=_TAG, role=Role.ADMIN, errors=(409, 503), seconds=600)
    async def purge_services(self, body: r.Purge, call: Call) -> a.Purged:
        """Archive and forget services that were deleted or revoked more than `retention_days` ago.

        Without `retention_days` as the daily job does it, of whose runs this is one then: 409 while it is running,
        or where another daemon leads. Services with live children stay, those whose revoked credentials have not
        expired yet, and pollers that the settings name as known.
        """
        older_than = None if body.retention_days is None else timedelta(days=body.retention_days)
        done: list[Swept] = []
        failed: list[Exception] = []

        async def purge(dry_run: bool) -> JobReport:
            try:
                swept = await self._purger.run(older_than=older_than, dry_run=dry_run, caller=call.caller)
            except Exception as error:
                failed.append(error)
                raise
            done.append(swept)
            return JobReport(counts={"due": swept.due, "purged": swept.changed}, names=swept.names)

        apart = older_than is not None
        await self._jobs.run("purge", call.caller, dry_run=body.dry_run, work=purge, apart=apart)
        for error in failed:
            if isinstance(error, PortError):
                # Some may be purged already: of what is away it would be said that nothing was changed.
                raise PortError(str(error)) from error
            raise error
        (swept,) = done
        return a.Purged(dry_run=body.dry_run, due=swept.due, purged=swept.changed, services=list(swept.names))


def _render(state: JobState) -> a.Job:
    return a.Job(
        name=state.spec.name,
        description=state.spec.description,
        every_seconds=int(state.spec.every.total_seconds()),
        rehearses=state.spec.rehearses,
        running=state.running,
        next_run=state.next_run,
        runs=[a.JobRun.model_validate(run) for run in state.runs],
    )
