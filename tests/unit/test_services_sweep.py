"""Sweeps: what is due when the clock has moved, what is not, and what a crash in the middle leaves."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from jetway.core import commands as c
from jetway.core.errors import UnavailableError
from jetway.core.heartbeat import EMPTY
from jetway.core.ids import ServiceKey, ServiceType
from jetway.core.record import PackageStatus, ServiceRecord, ServiceStatus
from jetway.ports import Entry
from support.builders import AGENT, CHECKER, LINEAGES, POLLER
from support.builders import spec as described
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


async def test_every_job_of_the_table_can_be_run_and_rehearsed(house: House) -> None:
    await active_poller(house)
    for spec in house.jobs.specs.values():
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


# --- what stands beneath


async def expired(house: House, key: ServiceKey) -> None:
    """Created so long ago that nobody waits for it any more."""
    await house.create(key, token_ttl=timedelta(days=1))
    house.clock.advance(31 * DAY)
    await house.sweeper.expire_packages()


async def require_ended_as(house: House, key: ServiceKey, event: str) -> None:
    """Its record and its trail say so, once, and nobody revoked it."""
    await house.settle()
    record = house.record(key)
    assert (record.status, record.status_reason) == (ServiceStatus.REVOKED, event)
    told = house.trail_of(key)
    assert (told.count(event), told.count("revoked")) == (1, 0)


async def test_nobody_is_expired_above_a_service_that_lives(house: House) -> None:
    await expired(house, POLLER)
    await house.activate(AGENT)
    assert (await house.sweeper.expire_pending(dry_run=True)).due == 0
    assert (await house.sweeper.expire_pending()).changed == 0
    await house.cascades.resume()
    assert (house.status(POLLER), house.status(AGENT)) == ("pending", "active")


@pytest.mark.parametrize("sign", ["token", "knock", "inactive"])
async def test_nobody_is_expired_above_a_service_that_gave_a_sign_of_late(house: House, sign: str) -> None:
    await house.create(POLLER, token_ttl=timedelta(days=1))
    if sign == "token":
        await house.create(AGENT, token_ttl=timedelta(days=60))
        await house.create(CHECKER, token_ttl=timedelta(days=1))
    elif sign == "knock":
        await house.beat(LINEAGES[ServiceType.AGENT])
    else:
        await house.activate(AGENT)
    house.clock.advance(31 * DAY)
    await house.sweeper.expire_packages()
    await house.sweeper.mark_inactive()
    if sign != "token":
        await house.beat(LINEAGES[ServiceType.AGENT])
    assert (await house.sweeper.expire_pending()).due == (1 if sign == "token" else 0)
    assert house.status(POLLER) == "pending"


async def test_nobody_is_archived_above_a_service_that_lives_two_levels_down(house: House) -> None:
    await house.activate_tree()
    house.clock.advance(DAY + 1)
    await house.sweeper.mark_inactive()
    house.clock.advance(60 * DAY)
    await house.beat(LINEAGES[ServiceType.CHECKER])
    house.clock.advance(DAY + 1)
    await house.sweeper.mark_inactive()
    house.clock.advance(40 * DAY)
    assert (await house.sweeper.archive()).due == 0
    house.clock.advance(51 * DAY)
    assert (await house.sweeper.archive()).changed == 3


async def test_what_stands_beneath_goes_for_the_same_reason_and_a_rehearsal_counts_it(house: House) -> None:
    """Of mixed ages: what is beneath alone would not be due yet, and goes with what is above."""
    await house.activate_tree()
    house.clock.advance(DAY + 1)
    await house.sweeper.mark_inactive()
    reissued = house.record(POLLER).package
    assert reissued is not None
    await house.issuer.reissue(ALICE, reissued.package_id, token_ttl=timedelta(days=1))
    house.clock.advance(31 * DAY)
    await house.sweeper.expire_packages()
    swept = await house.sweeper.expire_pending(dry_run=True)
    assert (swept.due, swept.names) == (3, ("agent.a1", "checker.c1", "poller.p1"))
    swept = await house.sweeper.expire_pending()
    assert (swept.due, swept.changed) == (3, 1)
    await house.cascades.resume()
    for key in (POLLER, AGENT, CHECKER):
        await require_ended_as(house, key, "pending_expired")
    package = house.record(AGENT).package
    assert package is not None
    assert package.status is PackageStatus.REVOKED, "what was in use does not expire"


async def test_children_of_an_archived_service_are_archived(house: House) -> None:
    await house.activate(POLLER)
    await house.create(AGENT, token_ttl=timedelta(days=1))
    house.clock.advance(DAY + 1)
    await house.sweeper.mark_inactive()
    house.clock.advance(91 * DAY)
    assert (await house.sweeper.archive()).changed == 1
    await house.cascades.resume()
    await require_ended_as(house, AGENT, "archived")


async def test_a_child_that_outlived_an_archived_parent_goes_as_archived_too(house: House) -> None:
    await house.activate(POLLER)
    house.clock.advance(DAY + 1)
    await house.sweeper.mark_inactive()
    house.clock.advance(91 * DAY)
    await house.sweeper.archive()
    await house.cascades.resume()
    child = c.Register(spec=described(ServiceType.AGENT))
    await house.recorder.apply(AGENT, child, ALICE)  # and a crash before it looks at its parent
    house.clock.advance(11)
    await house.cascades.resume()
    await require_ended_as(house, AGENT, "archived")


# --- races


async def test_a_service_reissued_while_it_is_swept_is_left_alone(house: House) -> None:
    await expired(house, POLLER)
    issued = []

    async def reissue(record: ServiceRecord) -> None:
        house.ledger.before_write = None
        assert record.package is not None
        issued.append(await house.issuer.reissue(ALICE, record.package.package_id))

    house.ledger.before_write = reissue
    assert (await house.sweeper.expire_pending()).changed == 0
    assert house.status(POLLER) == "pending"
    await house.redeem(issued[0].token)


async def test_a_service_reissued_while_it_is_archived_is_left_alone(house: House) -> None:
    await active_poller(house)
    house.clock.advance(DAY + 1)
    await house.sweeper.mark_inactive()
    house.clock.advance(91 * DAY)
    issued = []

    async def reissue(record: ServiceRecord) -> None:
        house.ledger.before_write = None
        assert record.package is not None
        issued.append(await house.issuer.reissue(ALICE, record.package.package_id))

    house.ledger.before_write = reissue
    assert (await house.sweeper.archive()).changed == 0
    await house.redeem(issued[0].token)


async def test_a_service_heard_while_it_is_marked_inactive_stays_active(house: House) -> None:
    """The ledger is read in between, because somebody changed the record; meanwhile a heartbeat comes."""
    issued = await house.create(POLLER)
    await house.redeem(issued.token)
    await house.beat(LINEAGES[ServiceType.POLLER])
    house.clock.advance(DAY + 1)

    async def heard(record: ServiceRecord) -> None:
        house.ledger.before_write = None
        inactive = ServiceStatus.INACTIVE
        await house.administrator.override(ALICE, POLLER, inactive, reason="looks dead")
        await house.beat(LINEAGES[ServiceType.POLLER])

    house.ledger.before_write = heard
    assert (await house.sweeper.mark_inactive()).changed == 0
    assert house.status(POLLER) == "active"


async def test_a_heartbeat_noted_before_the_write_keeps_the_service_active(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that writes nothing: only the table of who was heard knows of it."""
    await active_poller(house)
    house.clock.advance(DAY + 1)
    house.index._digests.pop(POLLER)  # so that the record has to be read before it can be written
    read = house.ledger.read

    async def heard_meanwhile(key: ServiceKey) -> Entry:
        house.presence.note(POLLER, EMPTY, house.clock.now())
        return await read(key)

    monkeypatch.setattr(house.ledger, "read", heard_meanwhile)
    swept = await house.sweeper.mark_inactive()
    assert (swept.due, swept.changed) == (1, 0)
    assert house.status(POLLER) == "active"
