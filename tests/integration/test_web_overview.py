"""The overview's needs and health: each number is the one that its link finds, and jobs are looked at, too."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import AsyncIterator
from datetime import timedelta
from html import unescape
from pathlib import Path

import pytest

from jetway.core.errors import UnavailableError
from jetway.core.heartbeat import Payload
from jetway.core.ids import ServiceKey, ServiceType
from jetway.services.jobs import RUNS_KEPT, JobReport, JobSpec
from support.browsing import Browser, browsing
from support.http_world import World, http_world


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with http_world(tmp_path) as world:
        world.presence.listening()
        yield world


@pytest.fixture
async def browser(world: World) -> AsyncIterator[Browser]:
    async with browsing(world) as browser:
        await browser.sign_in("admin")
        yield browser


async def needs(browser: Browser) -> dict[str, str]:
    page = (await browser.get("/ui/")).body.decode()
    found = re.findall(r'<li class="(?:grave)?"><a href="([^"]+)">.*?</svg>([^<]+)</a></li>', page, re.S)
    return {text: unescape(path) for path, text in found}


async def silent(world: World, poller_id: str, *, site: str = "", status: str = "active") -> None:
    body = {"service_id": poller_id, "label": poller_id, "site": site}
    assert (await world.call("POST", "/api/admin/services/pollers", body)).status == 201
    path = f"/api/admin/services/pollers/{poller_id}/status"
    assert (await world.call("POST", path, {"status": "active"})).status == 200
    if status != "active":
        assert (await world.call("POST", path, {"status": status})).status == 200
    world.presence.note(ServiceKey(ServiceType.POLLER, poller_id), Payload(stopping=True), world.clock.now())


async def test_offline_is_one_number_in_need_tile_and_filter(world: World, browser: Browser) -> None:
    for name, status in (("p1", "active"), ("p2", "inactive"), ("p3", "revoked")):
        await silent(world, name, status=status)
    found = await needs(browser)
    path = found["2 pollers offline"]
    table = (await browser.get(path)).body.decode()
    assert re.findall(r'<tr id="row-poller-(\w+)"', table) == ["p1", "p2"] and "2 in all" in table
    assert re.findall(r"<option value=\"(\w+)\" selected>", table.split("Liveness")[0]) == [
        "active",
        "inactive",
    ]
    overview = (await browser.get("/ui/")).body.decode()
    tile = re.search(r"<strong>(\d+)</strong>(?:(?!<strong>).)*Offline", overview, re.DOTALL)
    assert tile and tile[1] == "2"


async def test_who_is_in_maintenance_is_said_and_needs_nobody(world: World, browser: Browser) -> None:
    await silent(world, "p1", site="A")
    await silent(world, "p2", site="B")
    for site, expected in (("A", ["2 pollers offline, 1 of them in maintenance"]), ("B", [])):
        form = {"csrf": await browser.csrf("/ui/maintenance"), "site": site, "lasts": "3600"}
        assert (await browser.post("/ui/maintenance", form)).status == 303
        assert list(await needs(browser)) == expected


async def test_a_clone_needs_somebody(
    world: World, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.create("poller", "p1")
    key = ServiceKey(ServiceType.POLLER, "p1")
    monkeypatch.setattr(world.watched.troubles, "cloned", lambda: [key])
    monkeypatch.setattr(world.watched.troubles, "clones", lambda _key: ("one", "two"))
    assert await needs(browser) == {"Poller p1 seems to be cloned": "/ui/services/poller/p1"}
    assert b"Clone suspected" in (await browser.get("/ui/services")).body
    many = [ServiceKey(ServiceType.POLLER, f"p{number}") for number in range(13)]
    monkeypatch.setattr(world.watched.troubles, "cloned", lambda: many)
    assert "3 further services seem to be cloned" in await needs(browser)


def add_job(world: World, name: str, *, error: str = "", rehearses: bool = True) -> list[bool]:
    """A job of that name; what it was called with."""
    called: list[bool] = []

    async def run(dry_run: bool) -> JobReport:
        called.append(dry_run)
        if error:
            raise UnavailableError(error)
        return JobReport(counts={"due": 3, "changed": 0 if dry_run else 3}, names=("poller.p1",))

    spec = JobSpec(
        name=name, description=f"Does {name}.", every=timedelta(hours=1), run=run, rehearses=rehearses
    )
    world.doors.jobs.specs[name] = spec
    world.doors.jobs._runs[name] = deque(maxlen=RUNS_KEPT)
    return called


async def jobs_row(browser: Browser) -> str:
    page = (await browser.get("/ui/")).body.decode()
    return re.sub(
        r"\s+", " ", re.sub(r"<[^>]*>", "", page.split("<dt>Jobs</dt>")[1].split("</dl>")[0])
    ).strip()


async def test_the_health_of_jobs_is_one_line(world: World, browser: Browser) -> None:
    assert "none has run yet" in await jobs_row(browser)
    await world.doors.jobs.run("count")
    assert await jobs_row(browser) == "Ok the last run just now"
    add_job(world, "reconcile", error="away")
    await world.doors.jobs.run("reconcile", apart=True)
    assert await jobs_row(browser) == "Ok the last run just now", "that was on terms of its own"
    await world.doors.jobs.run("reconcile")
    assert "1 failing, the last run" in await jobs_row(browser)
    assert "The job reconcile failed" in await needs(browser)
    world.clock.advance(timedelta(hours=3))
    assert "1 failing, 2 overdue, the last run" in await jobs_row(browser)


@pytest.mark.parametrize("name", ["archive", "purge"])
async def test_what_nothing_undoes_is_rehearsed_and_confirmed(
    world: World, browser: Browser, name: str
) -> None:
    called = add_job(world, name)
    csrf, path = await browser.csrf("/ui/jobs"), f"/ui/jobs/{name}/runs"
    asked = await browser.post(path, {"csrf": csrf})
    body = asked.body.decode()
    assert asked.status == 200 and f"Run the job {name} now?" in body
    assert "<dt>Due</dt><dd>3</dd>" in body and "poller.p1" in body
    assert called == [True], "only rehearsed"
    form = dict(re.findall(r'type="hidden" name="([^"]+)" value="([^"]*)"', body))
    assert (await browser.post(path, form)).status == 303
    assert called == [True, False]


async def test_one_that_cannot_be_rehearsed_says_so(world: World, browser: Browser) -> None:
    called = add_job(world, "trim-audit", rehearses=False)
    form = {"csrf": await browser.csrf("/ui/jobs")}
    assert b"It cannot be rehearsed" in (await browser.post("/ui/jobs/trim-audit/runs", form)).body
    add_job(world, "purge", error="the database is away")
    failed = await browser.post("/ui/jobs/purge/runs", form)
    assert b"could not be found out: the database is away." in failed.body
    assert called == []
