"""Every job of the table can say what it would do, and does nothing of it."""

from __future__ import annotations

from copy import deepcopy
from datetime import timedelta

import pytest

from jetway.core.errors import RejectedError, UnavailableError
from jetway.core.rows import Event
from jetway.ports import JobOutcome
from support.builders import POLLER
from support.house import ALICE, House, running_house
from support.job_cases import CASES


def everything(house: House) -> tuple[object, ...]:
    """All that stands outside the daemon."""
    database = house.database
    tables = (database.services, database.packages, database.events, database.counts)
    documents = {path: stored.data for path, stored in house.documents.documents.items()}
    return deepcopy((house.ledger.writes, *tables, documents, house.shelf.kept, house.archive.files))


def trail(house: House) -> list[Event]:
    return list(house.audit.events)


@pytest.mark.parametrize("name", list(CASES))
async def test_a_rehearsal_tells_what_is_due_and_changes_nothing(name: str) -> None:
    case = CASES[name]()
    async with running_house(**case.settings) as house:
        await case.prepare(house)
        await house.settle()
        house.clock.advance(case.due_after + timedelta(seconds=1))
        before, told = everything(house), trail(house)
        run = await house.jobs.run(name, ALICE, dry_run=True)
        await house.settle()
        assert (run.outcome, run.error, run.dry_run) == (JobOutcome.DONE, "", True)
        assert any(run.counts.values()), "something is due"
        assert (everything(house), trail(house)) == (before, told)
        assert house.metrics.registry.get_sample_value("jetway_drift_total", {"kind": "row_missing"}) is None
        await house.jobs.run(name, ALICE)
        await house.settle()
        assert await case.done(house)


def test_there_is_no_job_that_cannot_be_rehearsed() -> None:
    house = House(checkpoints=True)
    assert set(house.jobs.specs) == set(CASES)
    assert all(spec.rehearses for spec in house.jobs.specs.values())


async def test_a_rehearsed_reconcile_names_what_differs() -> None:
    async with running_house() as house:
        await house.create(POLLER)
        await house.settle()
        await house.database.remove_rows([POLLER])
        house.database.events.clear()
        run = await house.jobs.run("reconcile", ALICE, dry_run=True)
        assert run.counts == {"checked": 1, "row_missing": 1, "audit_gap": 1}
        assert "row missing: poller.p1" in run.names
        assert house.reconciler.last is None, "nothing was compared and mended yet"


async def test_a_rehearsed_reconcile_makes_nothing_again_that_the_stream_passed_over() -> None:
    async with running_house() as house:
        await house.create(POLLER)
        await house.settle()
        house.views.lost.append((1, 1))
        before, told = everything(house), trail(house)
        run = await house.jobs.run("reconcile", ALICE, dry_run=True)
        assert run.counts["audit_stream_gap"] == 1
        assert (everything(house), trail(house)) == (before, told)


async def test_a_rehearsed_reconcile_tries_no_document_that_is_set_aside() -> None:
    async with running_house() as house:
        house.documents.fail_next("write", RejectedError("too large"))
        await house.create(POLLER)
        await house.settle()
        assert len(house.documents_aside) == 1
        before = everything(house)
        await house.jobs.run("reconcile", ALICE, dry_run=True)
        assert everything(house) == before
        await house.jobs.run("reconcile", ALICE)
        assert len(house.documents_aside) == 0


@pytest.mark.parametrize("dry_run", [False, True])
async def test_a_reconcile_that_could_not_compare_has_failed_and_says_why(dry_run: bool) -> None:
    async with running_house() as house:
        await house.create(POLLER)
        await house.settle()
        house.database.fail_next("load_rows", UnavailableError("the database is away"))
        run = await house.jobs.run("reconcile", ALICE, dry_run=dry_run)
        assert run.outcome is JobOutcome.FAILED
        assert "the database is away" in run.error
        assert run.counts["checked"] == 1, "the rest was compared"
        assert (await house.jobs.run("reconcile", ALICE, dry_run=dry_run)).outcome is JobOutcome.DONE
