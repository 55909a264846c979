"""Jobs: one that fails stops no other, and stopping is no failure."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import pytest

from jetway.core.errors import UnavailableError
from jetway.entry.jobs import Jobs
from jetway.services.jobs import JobBook, JobReport, JobSpec
from jetway.services.metrics import Metrics
from support.builders import FakeClock
from support.memory import MemoryJobStore


def jobs_of(runs: dict[str, Callable[[], Awaitable[None]]], *, at_once: bool = True) -> Jobs:
    """A table of jobs that do this, once an hour."""

    def spec(name: str, run: Callable[[], Awaitable[None]]) -> JobSpec:
        async def report(_dry_run: bool) -> JobReport:
            await run()
            return JobReport()

        every = timedelta(hours=1) if at_once else timedelta(seconds=1)
        return JobSpec(name=name, description="", every=every, run=report, at_once=at_once)

    specs = [spec(name, run) for name, run in runs.items()]
    return Jobs(JobBook(specs, MemoryJobStore(), FakeClock(), Metrics()))


async def test_a_job_that_fails_stops_no_other_and_runs_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jetway.services.jobs.RETRY_AFTER", timedelta(seconds=0.05))
    runs: list[str] = []
    again = asyncio.Event()

    async def fails() -> None:
        runs.append("fails")
        if runs.count("fails") == 2:
            again.set()
        raise UnavailableError("away")

    async def works() -> None:
        runs.append("works")

    jobs = jobs_of({"fails": fails, "works": works})
    jobs.start()
    try:
        async with asyncio.timeout(30):
            await again.wait()
    finally:
        jobs.stop()
    assert sorted(runs[:2]) == ["fails", "works"]
    assert runs.count("works") == 1, "its next time is in an hour"


async def test_after_the_retry_that_works_the_job_comes_at_its_interval_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("jetway.services.jobs.RETRY_AFTER", timedelta(seconds=0.05))
    errors, done = [UnavailableError("away")], asyncio.Event()

    async def run() -> None:
        if errors:
            raise errors.pop()
        done.set()

    jobs = jobs_of({"job": run})
    jobs.start()
    try:
        async with asyncio.timeout(30):
            await done.wait()
        left = jobs._scheduler.get_job("job").next_run_time - datetime.now(UTC)
        assert timedelta(minutes=50) < left <= timedelta(hours=1)
    finally:
        jobs.stop()


async def test_runs_that_were_missed_come_once() -> None:
    runs: list[int] = []
    once, twice = asyncio.Event(), asyncio.Event()

    async def run() -> None:
        runs.append(len(runs))
        (twice if once.is_set() else once).set()

    jobs = jobs_of({"job": run})
    jobs.start()
    try:
        async with asyncio.timeout(30):
            await once.wait()
            missed = datetime.now(UTC) - timedelta(hours=10)
            jobs._scheduler.modify_job("job", next_run_time=missed)
            await twice.wait()
            for _ in range(1000):
                await asyncio.sleep(0)
        assert len(runs) == 2, "ten were missed"
        assert jobs._scheduler.get_job("job").next_run_time > datetime.now(UTC)
    finally:
        jobs.stop()


async def test_a_job_under_way_is_cancelled_at_the_stop_without_an_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    began, ended = asyncio.Event(), asyncio.Event()

    async def endless() -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    jobs = jobs_of({"endless": endless})
    with caplog.at_level(logging.ERROR):
        jobs.start()
        async with asyncio.timeout(30):
            await began.wait()
            jobs.stop()
            await ended.wait()
            await asyncio.sleep(0)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_a_wall_clock_that_is_set_back_lets_no_job_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jetway.entry.jobs._LOOK_SECONDS", 0.01)
    ran = asyncio.Event()

    async def run() -> None:
        ran.set()

    jobs = jobs_of({"job": run}, at_once=False)
    jobs.start()
    try:
        # As the scheduler sees it: what was due in a second is due in an hour and a second.
        late = datetime.now(UTC) + timedelta(hours=1)
        jobs._scheduler.modify_job("job", next_run_time=late)
        await asyncio.sleep(0.05)
        assert jobs._scheduler.get_job("job").next_run_time == late
        wall = time.time
        monkeypatch.setattr("jetway.entry.jobs.time.time", lambda: wall() - 3600)
        async with asyncio.timeout(30):
            await ran.wait()
    finally:
        jobs.stop()
