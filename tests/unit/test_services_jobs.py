"""The book of jobs: one run at a time, what became of it, and what a restart remembers."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from jetway.core.errors import Code, RefusedError, UnavailableError
from jetway.ports import JobOutcome, JobRun
from jetway.services.caller import Caller
from jetway.services.jobs import RETRY_AFTER, RUNS_KEPT, JobBook, JobReport, JobSpec
from jetway.services.metrics import Metrics
from support.builders import FakeClock
from support.memory import MemoryJobStore

ALICE = Caller("alice")
WEEK = timedelta(days=7)


class Work:
    """A job's work: counts, waits or fails as a test wants it."""

    def __init__(self) -> None:
        self.runs: list[bool] = []
        self.error: Exception | None = None
        self.gate: asyncio.Event | None = None

    async def __call__(self, dry_run: bool) -> JobReport:
        self.runs.append(dry_run)
        if self.gate:
            await self.gate.wait()
        if self.error:
            raise self.error
        return JobReport(counts={"due": 1}, names=("poller.p1",))


class World:
    """A book, and what it is made of."""

    def __init__(self, *, every: timedelta = WEEK, rehearses: bool = True) -> None:
        self.work, self.clock, self.store, self.metrics = Work(), FakeClock(), MemoryJobStore(), Metrics()
        self.spec = JobSpec(
            name="sweep", description="Sweeps.", every=every, run=self.work, rehearses=rehearses
        )
        self.book = self.reopen()

    def reopen(self) -> JobBook:
        """As after a restart."""
        self.book = JobBook([self.spec], self.store, self.clock, self.metrics)
        return self.book

    def runs(self, outcome: str) -> float:
        """What the metric says."""
        return (
            self.metrics.registry.get_sample_value(
                "jetway_job_runs_total", {"job": "sweep", "outcome": outcome}
            )
            or 0.0
        )


async def test_what_is_left_of_an_interval_is_left_when_the_clock_was_set() -> None:
    world = World()
    assert world.book.due_again_in("sweep") == WEEK
    await world.book.run("sweep")
    world.clock.advance(WEEK - timedelta(hours=1))
    assert world.book.due_again_in("sweep") == timedelta(hours=1)
    world.clock.advance(timedelta(days=30))
    assert world.book.due_again_in("sweep") == timedelta(seconds=1)
    world.clock.advance(timedelta(days=-90))
    assert world.book.due_again_in("sweep") == WEEK
    world.work.error = UnavailableError("away")
    await world.book.run("sweep")
    assert world.book.due_again_in("sweep") == RETRY_AFTER


async def test_a_run_says_who_asked_for_it_and_what_it_did() -> None:
    world = World()
    run = await world.book.run("sweep", ALICE)
    assert (run.actor, run.outcome, run.counts, run.names) == (
        "alice", JobOutcome.DONE, {"due": 1}, ("poller.p1",),
    )  # fmt: skip
    (state,) = await world.book.states()
    assert (state.running, list(state.runs)) == (False, [run])
    assert world.runs("done") == 1


async def test_a_rehearsal_is_told_so_and_does_not_count_as_a_run() -> None:
    world = World()
    run = await world.book.run("sweep", ALICE, dry_run=True)
    assert (world.work.runs, run.dry_run) == ([True], True)
    assert world.runs("done") == 0
    assert world.reopen().due_in("sweep") == WEEK


async def test_what_cannot_be_rehearsed_is_refused_by_the_fields_name() -> None:
    with pytest.raises(RefusedError) as caught:
        await World(rehearses=False).book.run("sweep", ALICE, dry_run=True)
    assert (caught.value.refused.code, caught.value.refused.field) == (Code.INVALID, "dry_run")


async def test_a_job_runs_once_at_a_time() -> None:
    world = World()
    world.work.gate = asyncio.Event()
    first = asyncio.create_task(world.book.run("sweep"))
    await asyncio.sleep(0)
    with pytest.raises(RefusedError) as caught:
        await world.book.run("sweep", ALICE)
    assert caught.value.refused.code is Code.ALREADY_RUNNING
    world.work.gate.set()
    assert (await first).outcome is JobOutcome.DONE
    assert world.work.runs == [False]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (UnavailableError("the ledger is away"), "the ledger is away"),
        (KeyError("secret"), "a mistake of the daemon (KeyError): see its log"),
    ],
)
async def test_a_failure_is_told_and_the_next_run_is_another_chance(error: Exception, said: str) -> None:
    world = World()
    world.work.error = error
    run = await world.book.run("sweep")
    assert (run.outcome, run.error) == (JobOutcome.FAILED, said)
    world.work.error = None
    assert (await world.book.run("sweep")).outcome is JobOutcome.DONE
    assert (world.runs("failed"), world.runs("done")) == (1, 1)


async def test_a_run_that_was_cut_off_stays_on_the_books() -> None:
    world = World()
    world.work.gate = asyncio.Event()
    task = asyncio.create_task(world.book.run("sweep"))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    (state,) = await world.book.states()
    assert [run.outcome for run in state.runs] == [JobOutcome.INTERRUPTED]
    assert not state.running


async def test_a_weekly_job_comes_once_a_week_whatever_restarts() -> None:
    world = World()
    await world.book.run("sweep")
    for _day in range(6):
        world.clock.advance(86_400)
        await world.reopen().load()
        assert world.book.due_in("sweep") == WEEK - (world.clock.now() - (await _last(world)).started_at)
    world.clock.advance(3 * 86_400)
    await world.reopen().load()
    assert world.book.due_in("sweep") == timedelta(seconds=1)


async def test_a_failed_run_does_not_put_the_next_one_off() -> None:
    world = World()
    await world.book.run("sweep")
    world.clock.advance(WEEK.total_seconds() - 60)
    world.work.error = UnavailableError("away")
    await world.book.run("sweep")
    assert world.book.due_in("sweep") == timedelta(seconds=60)


async def test_a_failed_run_is_tried_again_soon_and_then_less_often() -> None:
    world = World()
    assert world.book.retry_in("sweep") is None
    world.work.error = UnavailableError("away")
    waits = []
    for _ in range(4):
        await world.book.run("sweep")
        await world.book.run("sweep", ALICE, dry_run=True)
        waits.append(world.book.retry_in("sweep"))
    assert waits == [RETRY_AFTER, 2 * RETRY_AFTER, 4 * RETRY_AFTER, 8 * RETRY_AFTER]
    for _ in range(RUNS_KEPT):
        await world.book.run("sweep")
    assert world.book.retry_in("sweep") is None, "not more seldom than it would come anyway"
    world.work.error = None
    await world.book.run("sweep")
    assert world.book.retry_in("sweep") is None


async def test_a_run_that_a_crash_cut_off_is_on_the_books_after_it() -> None:
    world = World()
    world.work.gate = asyncio.Event()
    task = asyncio.create_task(world.book.run("sweep"))
    for _ in range(20):
        await asyncio.sleep(0)
    assert world.work.runs == [False]
    await world.reopen().load()
    (state,) = await world.book.states()
    assert [run.outcome for run in state.runs] == [JobOutcome.INTERRUPTED]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_the_books_are_bounded() -> None:
    world = World()
    for _ in range(RUNS_KEPT + 5):
        await world.book.run("sweep")
    (state,) = await world.book.states()
    assert len(state.runs) == len(world.store.runs["sweep"]) == RUNS_KEPT


async def test_rehearsals_do_not_push_out_what_says_when_the_job_is_due() -> None:
    world = World()
    await world.book.run("sweep")
    due = world.book.due_in("sweep")
    for _ in range(RUNS_KEPT + 5):
        await world.book.run("sweep", ALICE, dry_run=True)
    (state,) = await world.book.states()
    assert len(state.runs) == RUNS_KEPT
    assert not state.runs[-1].dry_run
    assert world.book.due_in("sweep") == due


async def test_frequent_jobs_write_nothing_anywhere() -> None:
    world = World(every=timedelta(seconds=15))
    await world.book.run("sweep")
    assert not world.store.runs
    await world.book.run("sweep", ALICE)
    assert len(world.store.runs["sweep"]) == 2


async def test_books_that_cannot_be_kept_stop_no_job() -> None:
    world = World()
    world.store.fail_next("save", UnavailableError("away"))
    assert (await world.book.run("sweep")).outcome is JobOutcome.DONE


async def test_a_daemon_that_does_not_lead_shows_the_leaders_runs_and_runs_nothing() -> None:
    world = World()
    await world.book.run("sweep")
    world.reopen()
    world.book.leads = lambda: False
    assert [run.outcome for run in (await world.book.state("sweep")).runs] == [JobOutcome.DONE]
    with pytest.raises(RefusedError) as caught:
        await world.book.run("sweep", ALICE)
    assert caught.value.refused.code is Code.NOT_LEADING


async def test_an_unknown_job_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(RefusedError, match="there is no job 'nap': there are sweep"):
        await World().book.run("nap")


async def _last(world: World) -> JobRun:
    return (await world.book.state("sweep")).runs[0]
