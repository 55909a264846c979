"""Sweeps: what is due when the clock has moved, what is not, and what a crash in the middle leaves."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from jetway.core import commands as c
from jetway.core.errors import UnavailableError
from jetway.core.ids import ServiceKey, ServiceType
from jetway.core.record import PackageStatus, ServiceRecord, ServiceStatus
from support.builders import AGENT, LINEAGES, POLLER
from support.house import ALICE, House

DAY = 86_400


@pytest.fixture
async def house() -> AsyncIterator[House]:
    house = House(token_ttl=timedelta(days=60))
    await house.start()
    yield house
    await house.crash()


async def active_poller(house: House) -> ServiceRecord:
    """p1, redeemed and heard just now."""
    issued = await house.create(POLLER)
    await house.redeem(issued.token)
    await house.beat(LINEAGES[ServiceType.POLLER])
    return house.record(POLLER)


async def test_a_service_that_is_silent_for_a_day_becomes_inactive(house: House) -> None:
    await active_poller(house)
    house.clock.advance(DAY - 1)
    assert (await house.sweeper.mark_inactive()).due == 0
    house.clock.advance(2)
    swept = await house.sweeper.mark_inactive()
    assert (swept.due, swept.changed, swept.names) == (1, 1, ("poller.p1",))
    assert house.record(POLLER).status is ServiceStatus.INACTIVE
    await house.beat(LINEAGES[ServiceType.POLLER])
    assert house.record(POLLER).status is ServiceStatus.ACTIVE


async def test_a_rehearsal_changes_nothing(house: House) -> None:
    await active_poller(house)
    house.clock.advance(DAY + 1)
    swept = await house.sweeper.mark_inactive(dry_run=True)
    assert (swept.due, swept.changed, swept.names) == (1, 0, ("poller.p1",))
    assert house.record(POLLER).status is ServiceStatus.ACTIVE


async def test_time_in_which_nobody_could_be_heard_makes_nobody_inactive(house: House) -> None:
    await active_poller(house)
    house.clock.advance(DAY / 2)
    house.presence.deaf()
    house.clock.advance(10 * DAY)
    house.presence.listening()
    assert (await house.sweeper.mark_inactive()).due == 0
    house.clock.advance(DAY / 2 + 1)
    assert (await house.sweeper.mark_inactive()).changed == 1


async def test_a_service_set_active_by_hand_and_never_heard_has_its_day_too(house: House) -> None:
    await house.redeem((await house.create(POLLER)).token)
    await house.administrator.override(ALICE, POLLER, ServiceStatus.ACTIVE, reason="by hand")
    house.clock.advance(DAY - 1)
    assert (await house.sweeper.mark_inactive()).due == 0
    house.clock.advance(2)
    assert (await house.sweeper.mark_inactive()).changed == 1


async def test_a_pending_service_ends_after_a_month_but_not_while_its_token_is_good(house: House) -> None:
    await house.create(POLLER)
    await house.create(AGENT, parent_id="p1")
    house.clock.advance(31 * DAY)
    assert (await house.sweeper.expire_pending()).due == 0
    house.clock.advance(30 * DAY)
    await house.sweeper.expire_packages()
    assert house.record(POLLER).package.status is PackageStatus.EXPIRED  # type: ignore[union-attr]
    assert (await house.sweeper.expire_pending()).changed == 2
    record = house.record(POLLER)
    assert (record.status, record.status_reason) == (ServiceStatus.REVOKED, "pending_expired")


async def test_whoever_knocks_in_quarantine_is_not_ended(house: House) -> None:
    lineage = LINEAGES[ServiceType.POLLER]
    await house.beat(lineage)
    house.clock.advance(29 * DAY)
    await house.beat(lineage)
    house.clock.advance(2 * DAY)
    assert (await house.sweeper.expire_pending()).due == 0
    house.clock.advance(29 * DAY)
    assert (await house.sweeper.expire_pending()).changed == 1


async def test_an_inactive_service_is_archived_after_ninety_days(house: House) -> None:
    await active_poller(house)
    house.clock.advance(DAY + 1)
    await house.sweeper.mark_inactive()
    house.clock.advance(90 * DAY - 2)
    assert (await house.sweeper.archive()).due == 0
    house.clock.advance(3)
    assert (await house.sweeper.archive()).changed == 1
    record = house.record(POLLER)
    assert (record.status, record.status_reason) == (ServiceStatus.REVOKED, "archived")


async def test_a_sweep_that_is_cut_off_is_finished_by_the_next_one(house: House) -> None:
    for number in range(5):
        await house.create(ServiceKey(ServiceType.POLLER, f"p{number}"))
    house.clock.advance(61 * DAY)
    house.ledger.fail_next("write", UnavailableError("away"))
    with pytest.raises(UnavailableError):
        await house.sweeper.expire_packages()
    await house.crash()
    await house.start()
    await house.sweeper.expire_packages()
    statuses = {record.package.status for record in house.index.records.values() if record.package}
    assert statuses == {PackageStatus.EXPIRED}
    assert len(house.index.records) == 5


async def test_every_job_of_the_table_can_be_run_and_those_that_say_so_rehearsed(house: House) -> None:
    await active_poller(house)
    for spec in house.jobs.specs.values():
        if spec.rehearses:
            before = house.ledger.writes
            assert (await house.jobs.run(spec.name, ALICE, dry_run=True)).error == ""
            assert house.ledger.writes == before
        assert (await house.jobs.run(spec.name, ALICE)).error == ""


async def test_two_daemons_sweep_the_same_ledger_once(house: House) -> None:
    """Compare-and-swap keeps them honest: one event for one change."""
    await house.create(POLLER)
    house.clock.advance(61 * DAY)
    command = c.ExpirePackage()
    await house.recorder.apply(POLLER, command, ALICE)  # the other one
    revision = house.record(POLLER).revision
    assert (await house.sweeper.expire_packages()).due == 0
    assert house.record(POLLER).revision == revision
