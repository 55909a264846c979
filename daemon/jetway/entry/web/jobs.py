"""Background jobs: what they did, and running one now."""

from __future__ import annotations

import asyncio

from aiohttp import web

from jetway.entry.http.auth import Role
from jetway.entry.http.doors import Doors
from jetway.entry.web.pages import page
from jetway.entry.web.visit import Visit
from jetway.ports import JobOutcome, JobRun
from jetway.services.caller import Caller

_GRAVE = frozenset({"archive", "expire-pending", "purge", "trim-audit"})
"""Jobs whose work nothing undoes: before one is run by hand, a page says what it would do."""
_WAIT_SECONDS = 3.0
"""How long the answer waits for the end of a run; a longer one goes on without it."""


class JobPages:
    """The page /ui/jobs."""

    def __init__(self, doors: Doors) -> None:
        self._jobs = doors.jobs
        self._running: set[asyncio.Task[JobRun]] = set()

    async def close(self) -> None:
        """Cut off what was begun here: it stays on the books as interrupted."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    @page("GET", "/ui/jobs")
    async def table(self, visit: Visit) -> web.StreamResponse:
        """All jobs with their last runs."""
        return visit.show("jobs.html", jobs=await self._jobs.states(), leads=self._jobs.leads(), grave=_GRAVE)

    @page("POST", "/ui/jobs/{name:[a-z][a-z-]*}/runs", Role.ADMIN)
    async def run(self, visit: Visit) -> web.StreamResponse:
        """Run one now, or rehearse it."""
        name, rehearse = visit.part("name"), visit.form.get("dry_run") == "true"
        if name in _GRAVE and not rehearse and visit.form.get("confirmed") != "yes":
            return await self._ask(visit, name)
        back = f"/ui/jobs#job-{name}"
        task = asyncio.create_task(self._begin(name, visit.caller, rehearse), name=f"web-job-{name}")
        self._running.add(task)
        task.add_done_callback(self._ended)
        await asyncio.wait([task], timeout=_WAIT_SECONDS)
        if not task.done():
            return visit.go(back, f"The job {name} is running.")
        return visit.go(back, _said(task.result(), rehearse))

    async def _ask(self, visit: Visit, name: str) -> web.StreamResponse:
        """What it would do, from a rehearsal, before it does what nothing undoes."""
        state = await self._jobs.state(name)
        run = await self._begin(name, visit.caller, True) if state.spec.rehearses else None
        return visit.show("job_confirm.html", job=state, run=run, back=f"/ui/jobs#job-{name}")

    async def _begin(self, name: str, caller: Caller, rehearse: bool) -> JobRun:
        return await self._jobs.run(name, caller, dry_run=rehearse)

    def _ended(self, task: asyncio.Task[JobRun]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # a refusal that nobody waited for is told by the books


def _said(run: JobRun, rehearse: bool) -> str:
    if run.outcome is not JobOutcome.DONE:
        return f"The job {run.job} failed: {run.error}"
    counts = ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in run.counts.items())
    did = "would do" if rehearse else "did"
    return f"The job {run.job} {did}: {counts or 'nothing'}."
