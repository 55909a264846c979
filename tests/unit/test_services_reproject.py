"""Reproject over ports in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from jetway.core.errors import Code, RefusedError, UnavailableError
from jetway.core.ids import ServiceType
from jetway.services.reproject import Reprojection
from support.builders import AGENT, CHECKER, LINEAGES, POLLER
from support.drift import PATHS, assert_whole, edit, put
from support.house import ALICE, House, running_house


@pytest.fixture
async def house() -> AsyncIterator[House]:
    async with running_house() as house:
        house.settling.patience = 10.0
        await house.activate_tree()
        await house.settle()
        yield house
        await house.reprojector.stop()


async def reproject(house: House) -> Reprojection:
    house.reprojector.start(ALICE)
    for _ in range(10_000):
        if house.reprojector.state.state != "running":
            break
        await asyncio.sleep(0)
    await house.settle()
    return house.reprojector.state


async def test_everything_is_written_anew_whatever_it_looks_like(house: House) -> None:
    documents = {path: house.documents.documents[path].data for path in PATHS.values()}
    rows, packages = dict(house.database.services), dict(house.database.packages)
    put(house, PATHS[POLLER], None)
    put(house, PATHS[AGENT], b"not JSON")
    house.database.services[AGENT] = replace(rows[AGENT], revision=999, label="by hand")
    del house.database.services[CHECKER]
    house.database.packages.clear()

    state = await reproject(house)

    assert (state.state, state.total, state.done, state.written, state.error) == ("done", 3, 3, 5, "")
    assert state.started_at is not None and state.finished_at is not None
    assert {path: house.documents.documents[path].data for path in PATHS.values()} == documents
    assert (house.database.services, house.database.packages) == (rows, packages)
    await assert_whole(house)


async def test_a_checker_config_changed_by_hand_is_kept(house: House) -> None:
    edit(house, CHECKER, checker_config={"by": "hand"}, status="revoked")
    assert (await reproject(house)).written == 4
    document = house.document(LINEAGES[ServiceType.CHECKER])
    assert document is not None
    assert (document["checker_config"], document["status"]) == ({"by": "hand"}, "active")


async def test_documents_that_are_right_are_not_announced_again(house: House) -> None:
    before = dict(house.documents.documents)
    assert (await reproject(house)).written == 3, "the rows alone"
    assert house.documents.documents == before


async def test_it_stands_in_the_trail(house: House) -> None:
    await reproject(house)
    (event,) = house.events("reprojected")
    assert (event.actor, event.source_ip) == ("alice", ALICE.source_ip)
    assert event.metadata == {"services": 3, "written": 3}


async def test_a_failure_is_told_and_another_run_finishes_it(house: House) -> None:
    house.database.fail_next("write_rows", UnavailableError("the database is away"))
    put(house, PATHS[POLLER], None)
    state = await reproject(house)
    assert (state.state, state.done, state.error) == ("failed", 0, "the database is away")
    assert house.events("reprojected") == []
    assert (await reproject(house)).state == "done"
    await assert_whole(house)


async def test_a_mistake_of_ours_is_told_too(house: House) -> None:
    house.database.fail_next("write_rows", RuntimeError("a mistake"))
    state = await reproject(house)
    assert (state.state, state.error) == ("failed", "a mistake of the daemon (RuntimeError): see its log")
    assert (await reproject(house)).state == "done"


async def test_neither_runs_beside_the_other(house: House) -> None:
    assert house.reprojector.state == Reprojection()
    assert house.reprojector.start(ALICE).state == "running"
    for run in (house.reconciler.run, lambda: asyncio.sleep(0, house.reprojector.start(ALICE))):
        with pytest.raises(RefusedError) as refused:
            await run()
        assert refused.value.refused.code is Code.ALREADY_RUNNING
    await house.reprojector.stop()
    assert (house.reprojector.state.state, house.reprojector.state.error) == ("failed", "it was interrupted")
    await assert_whole(house)
    reconciling = asyncio.create_task(house.reconciler.run())
    await asyncio.sleep(0)
    with pytest.raises(RefusedError):
        house.reprojector.start(ALICE)
    await reconciling


async def test_one_that_does_not_lead_refuses(house: House) -> None:
    house.turn.leads = lambda: False
    with pytest.raises(RefusedError) as refused:
        house.reprojector.start(ALICE)
    assert refused.value.refused.code is Code.NOT_LEADING
