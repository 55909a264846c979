"""Every job with a moved clock, with a crash at any of its calls, and on two daemons at the same time.

A job that is new in the table fails here until `support.job_cases` tells its story.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from jetway.core.record import ServiceRecord
from jetway.ports import JobOutcome
from jetway.services import observe
from support.harness import Fault, FaultyHouse, faults_for
from support.house import House
from support.invariants import check_at_rest
from support.job_cases import CASES, JobCase
from support.second_house import SecondHouse
from support.virtual_time import run_virtually

MOMENT = timedelta(seconds=1)
CUTS = (Fault.CRASH, Fault.CRASH_AFTER)
ROUNDS = 4
"""Runs after which even a job that was cut off is done."""
RACES = 10
"""Ways in which two runs of a job are interleaved."""

every_job = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(observe, "_WORKERS", 4)
    monkeypatch.setattr(asyncio, "to_thread", at_once)  # threads take real time
    with capture_logs():
        yield


async def at_once(work: Callable[..., Any], *args: Any) -> Any:
    return work(*args)


async def test_every_job_of_the_table_has_its_story() -> None:
    assert set(CASES) == set(House(checkpoints=True).jobs.specs)


async def run(house: House, name: str) -> None:
    """As the scheduler runs it."""
    ended = await house.jobs.run(name)
    assert (ended.outcome, ended.error) == (JobOutcome.DONE, "")


async def require_whole(house: House, case: JobCase) -> None:
    """What one job leaves to another, that one deals with; then all that is derived says what the ledger says."""
    await run(house, "finish-cascades")
    await house.settle()
    if not case.trims:
        check_at_rest(house)


# --- a moved clock


@every_job
def test_it_does_its_work_when_the_clock_has_moved_and_not_before(case: type[JobCase]) -> None:
    run_virtually(_moved(case()))


async def _moved(case: JobCase) -> None:
    house = House(**case.settings)
    await house.start()
    await case.prepare(house)
    await house.settle()
    assert not await case.done(house)
    if case.due_after:
        house.clock.advance(case.due_after - MOMENT)
        await run(house, case.name)
        await house.settle()
        assert not await case.done(house), "too early"
        house.clock.advance(2 * MOMENT)
    await run(house, case.name)
    await house.settle()
    assert await case.done(house)
    # Somebody sets the wall clock, back and then far ahead: what is done stays done, and is not done again.
    now = house.clock.now()
    for jump in (-timedelta(days=2), timedelta(days=2)):
        house.clock.set_wall(now + jump)
        await run(house, case.name)
        await house.settle()
        assert await case.done(house)
    await require_whole(house, case)
    await house.crash()


# --- a crash in the middle


@every_job
def test_cut_off_at_any_call_it_is_done_again(case: type[JobCase]) -> None:
    calls = run_virtually(_calls(case()))
    assert calls
    for number, call in enumerate(calls):
        for fault in set(CUTS) & set(faults_for(call)):
            try:
                run_virtually(_cut(case(), number, fault))
            except BaseException as error:
                error.add_note(f"{case.name}: call {number} ({call}): {fault.value}")
                raise


async def _ready(case: JobCase) -> FaultyHouse:
    house = FaultyHouse(**case.settings)
    await house.start()
    await case.prepare(house)
    await house.settle()
    house.clock.advance(case.due_after + MOMENT)
    return house


async def _calls(case: JobCase) -> list[str]:
    """Every call of a port from the job's beginning until all that follows of it is at rest."""
    house = await _ready(case)
    house.faults.arm({})
    await run(house, case.name)
    await house.settle()
    calls = list(house.faults.calls)
    await house.crash()
    return calls


async def _cut(case: JobCase, number: int, fault: Fault) -> None:
    house = await _ready(case)
    house.faults.arm({number: fault})
    await house.attempt(house.jobs.run(case.name))
    await house.rest()
    assert house.faults.all_struck, "the fault never struck"
    await house.restart()
    house.faults.armed = False
    await house.row_writer.remember()  # as a daemon does at its start
    await case.after_a_crash(house)
    for _ in range(ROUNDS):
        await run(house, case.name)
        await house.settle()
        if await case.done(house):
            break
        # A silence that was interrupted begins anew, and so does the time of what was deleted to be purged.
        await run(house, "finish-cascades")
        await house.settle()
        house.clock.advance(case.due_after + MOMENT)
    assert await case.done(house)
    await require_whole(house, case)
    await house.crash()


# --- two daemons


@every_job
def test_two_daemons_that_run_it_at_the_same_time_do_it_once(case: type[JobCase]) -> None:
    for seed in range(RACES):
        try:
            run_virtually(_raced(case(), random.Random(seed)))
        except BaseException as error:
            error.add_note(f"{case.name}: race {seed}")
            raise


async def _raced(case: JobCase, chance: random.Random) -> None:
    house = House(**case.settings)
    await house.start()
    other = SecondHouse(house)
    await other.start()
    await case.prepare(house)
    await house.settle()
    await other.settle()
    await case.tell_other(other)
    house.clock.advance(case.due_after + MOMENT)

    async def dawdle(_record: ServiceRecord) -> None:
        for _ in range(chance.randrange(5)):
            await asyncio.sleep(0)

    house.ledger.before_write = house.ledger.after_write = dawdle
    await asyncio.gather(run(house, case.name), run(other, case.name))
    await house.settle()
    await other.settle()
    assert await case.done(house)
    assert house.index.records == other.index.records
    await require_whole(house, case)
    await other.crash()
    await house.crash()
