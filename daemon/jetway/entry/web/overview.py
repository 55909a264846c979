"""The first page: what needs a person, how many there are, what happened, and how the gateway is."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import urlencode

from aiohttp import web

from jetway.core.errors import PortError
from jetway.core.ids import ServiceType
from jetway.core.liveness import Liveness
from jetway.core.rows import Event
from jetway.entry.http.doors import Doors
from jetway.entry.web.charts import ChartPages
from jetway.entry.web.due import DUE
from jetway.entry.web.job_health import is_failing, job_health
from jetway.entry.web.pages import page
from jetway.entry.web.services import EXPECTED, path_of
from jetway.entry.web.visit import Visit
from jetway.services.catalogue import EventFilter, ServiceFilter, Stats
from jetway.services.due import DueReport, Matter
from jetway.services.health import HealthReport
from jetway.services.jobs import JobState

_EVENTS_SHOWN = 10
_CLONES_NAMED = 10
_EXPIRES_SOON = timedelta(days=7)
SAMPLE_JOB = "sample-counts"


@dataclass(frozen=True, slots=True)
class Need:
    """Something that needs a person, and where it is seen to."""

    grave: bool
    what: str
    path: str


class OverviewPages:
    """The page /ui/."""

    def __init__(self, doors: Doors, charts: ChartPages) -> None:
        self._charts = charts
        self._catalogue = doors.catalogue
        self._health = doors.health
        self._jobs = doors.jobs
        self._api_tokens = doors.api_tokens
        self._due = doors.due
        self._maintenance = doors.maintenance

    @page("GET", "/ui/")
    async def overview(self, visit: Visit) -> web.StreamResponse:
        """The whole at a glance."""
        stats, health = await self._catalogue.stats(), await self._health.report()
        jobs = await self._job_states()
        matters = [*_silent(stats, await self._expected(stats)), *_waiting(stats)]
        matters += [*self._cloned(), *_unwell(health), *_failing(jobs)]
        matters += _due(await self._due.report())
        if visit.may("admin"):
            matters += self._expiring(visit)
        events, charted = await asyncio.gather(self._recent(), self._charts.charted(visit))
        return visit.show(
            "overview.html",
            stats=stats,
            health=health,
            jobs=job_health(jobs, visit.now) if jobs else None,
            offline=sum(stats.missed_by_type.values()),
            matters=sorted(matters, key=lambda matter: not matter.grave),
            events=events,
            charted=charted,
            first_point=_first_point(jobs),
        )

    async def _expected(self, stats: Stats) -> dict[str, int]:
        """How many of those that are missed are in maintenance, by type. Looked for where a window is open."""
        found: dict[str, int] = {}
        if not self._maintenance.windows():
            return found
        for kind in ServiceType:
            if stats.missed_by_type.get(kind.value):
                wanted = ServiceFilter(
                    service_type=kind, statuses=EXPECTED, liveness=(Liveness.OFFLINE.value,)
                )
                missed = await self._catalogue.matching(wanted)
                found[kind.value] = sum(1 for record in missed if self._maintenance.covers(record))
        return found

    def _cloned(self) -> list[Need]:
        """Services as which two hosts seem to speak: each is one to look at."""
        cloned = self._catalogue.cloned()
        found = [
            Need(True, f"{key.service_type.value} {key.service_id} seems to be cloned", path_of(key))
            for key in cloned[:_CLONES_NAMED]
        ]
        if len(cloned) > len(found):
            more = f"{_count(len(cloned) - len(found), 'further service')} seem to be cloned"
            found.append(Need(True, more, "/ui/audit?type=clone_suspected"))
        return found

    async def _job_states(self) -> list[JobState]:
        try:
            return list(await self._jobs.states())
        except PortError:
            return []  # the health report says what is away

    async def _recent(self) -> list[Event] | None:
        """None while the database is away."""
        try:
            return list((await self._catalogue.events(EventFilter(limit=_EVENTS_SHOWN))).items)
        except PortError:
            return None

    def _expiring(self, visit: Visit) -> list[Need]:
        found = []
        for token in self._api_tokens.list():
            if token.expires_at is not None and token.expires_at - visit.now < _EXPIRES_SOON:
                over = token.expires_at <= visit.now
                what = f"API token {token.name} {'has expired' if over else 'expires soon'}"
                found.append(Need(False, what, "/ui/tokens"))
        return found


def _silent(stats: Stats, expected: Mapping[str, int]) -> list[Need]:
    """Whom the link finds; that some are in maintenance is said, and where all are, nobody is needed."""
    found = []
    for kind, number in stats.missed_by_type.items():
        silenced = min(number, expected.get(kind, 0))
        if number > silenced:
            what = f"{_count(number, kind)} offline"
            what += f", {silenced} of them in maintenance" if silenced else ""
            pairs = [("type", kind), ("liveness", "offline"), *(("status", status) for status in EXPECTED)]
            found.append(Need(True, what, f"/ui/services?{urlencode(pairs)}"))
    return found


def _waiting(stats: Stats) -> list[Need]:
    if not stats.awaiting_approval:
        return []
    waits = "waits" if stats.awaiting_approval == 1 else "wait"
    what = f"{_count(stats.awaiting_approval, 'service')} {waits} for approval"
    return [Need(False, what, "/ui/quarantine")]


def _due(report: DueReport) -> list[Need]:
    """What is due, each with a way to it: the service where it is one, else the page that names all."""
    counts, ended = report.counts, report.ended
    soon, tokens, stuck = counts[Matter.CREDENTIALS] - ended, counts[Matter.TOKENS], counts[Matter.STUCK]
    found = []
    if ended:
        what = f"{_count(ended, 'credential')} of services {'has' if ended == 1 else 'have'} ended"
        found.append(Need(True, what, _way(report, Matter.CREDENTIALS)))
    if soon:
        what = f"{_count(soon, 'credential')} of services {'ends' if soon == 1 else 'end'} soon"
        found.append(Need(False, what, _way(report, Matter.CREDENTIALS)))
    if tokens:
        what = f"{_count(tokens, 'package token')} {'ends' if tokens == 1 else 'end'} soon, not redeemed yet"
        found.append(Need(False, what, _way(report, Matter.TOKENS)))
    if stuck:
        what = f"{_count(stuck, 'service')} {'has' if stuck == 1 else 'have'} been pending for long"
        found.append(Need(False, what, _way(report, Matter.STUCK)))
    return found


def _way(report: DueReport, matter: Matter) -> str:
    if report.counts[matter] == 1:
        return path_of(report.named[matter][0].record.key)
    return f"{DUE}#{matter.value}"


def _unwell(health: HealthReport) -> list[Need]:
    return [
        Need(part.state == "down", f"{name.replace('_', ' ')}: {part.detail or part.state}", "/ui/#health")
        for name, part in health.components.items()
        if part.state != "ok"
    ]


def _failing(jobs: list[JobState]) -> list[Need]:
    return [
        Need(False, f"the job {job.spec.name} failed", f"/ui/jobs#job-{job.spec.name}")
        for job in jobs
        if is_failing(job)
    ]


def _first_point(jobs: list[JobState]) -> datetime | None:
    """When the next sample is taken, where this daemon knows."""
    return next((job.next_run for job in jobs if job.spec.name == SAMPLE_JOB), None)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
