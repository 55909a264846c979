"""Administering: revocation reaches everybody beneath, proves it is complete, and survives interruption."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import pytest

from jetway.core import commands as c
from jetway.core.errors import Code, PortError, RefusedError, UnavailableError
from jetway.core.ids import Lineage, ServiceKey, ServiceType
from jetway.core.record import Approval, Cascade, ServiceRecord, ServiceStatus
from jetway.ports import Entry
from jetway.services import administer, cascade, recorder
from jetway.services.administer import Affected
from jetway.services.caller import SYSTEM
from jetway.services.issue import Issued
from support.builders import AGENT, CHECKER, LINEAGES, POLLER, package, record, uid
from support.house import ALICE, House, running_house

S = ServiceStatus
POLLER_LINEAGE, AGENT_LINEAGE, CHECKER_LINEAGE = LINEAGES.values()
TREE = (POLLER, AGENT, CHECKER)


@pytest.fixture
async def house() -> AsyncIterator[House]:
    async with running_house() as running:
        yield running


async def refused(work: object) -> Code:
    with pytest.raises(RefusedError) as caught:
        await work  # type: ignore[misc]
    return caught.value.refused.code


def touched(affected: Affected) -> list[tuple[str, str, str]]:
    return [(a.service_id, a.status_before.value, a.status_after.value) for a in affected.services]


async def revoke_package(
    house: House, key: ServiceKey, *, cascade: bool = True, dry_run: bool = False
) -> Affected:
    package = house.record(key).package
    assert package is not None
    return await house.administrator.revoke_package(
        ALICE, package.package_id, reason="stolen", cascade=cascade, dry_run=dry_run
    )


# --- revoking


async def test_revoking_a_package_revokes_its_service_everywhere(house: House) -> None:
    """Revoking revokes: record, document and row say so, and admission has nothing else to look at."""
    await house.activate()
    await revoke_package(house, POLLER)
    await house.settle()
    document, row = house.document(POLLER_LINEAGE), house.row(POLLER)
    assert document is not None
    assert row is not None
    assert (house.status(POLLER), document["status"], row.status) == ("revoked",) * 3
    assert row.status_reason == "stolen"
    assert {p.status for p in house.database.packages.values()} == {"revoked"}


async def test_a_revoked_poller_is_not_admitted_again(house: House) -> None:
    await house.activate()
    await house.revoke(POLLER)
    verdict = await house.beat(POLLER_LINEAGE)
    assert (verdict.status, verdict.refused) == ("revoked", Code.REVOKED)
    assert house.status(POLLER) == "revoked"
    assert house.refused("revoked") == 1


async def test_a_cascade_takes_out_all_beneath_and_says_whom(house: House) -> None:
    """Children do not survive their parent's revocation."""
    await house.activate_tree()
    affected = await revoke_package(house, POLLER)
    assert affected.complete
    assert touched(affected) == [
        ("p1", "active", "revoked"),
        ("a1", "active", "revoked"),
        ("c1", "active", "revoked"),
    ]
    assert [house.status(key) for key in TREE] == ["revoked"] * 3
    assert [house.record(key).cascade for key in TREE] == [Cascade.NONE] * 3
    await house.settle()
    (event,) = [e for e in house.events("revoked") if e.service_id == "c1"]
    assert (event.actor, event.metadata) == ("alice", {"because_of": "agent.a1"})
    (done,) = [e for e in house.events("cascade_completed") if e.service_id == "p1"]
    assert done.metadata == {"revoked": 2}


async def test_revoking_an_agent_leaves_its_poller_alone(house: House) -> None:
    """Revoking an agent does not unlist its poller."""
    await house.activate_tree()
    await house.activate(AGENT, service_id="a2")
    await revoke_package(house, AGENT)
    assert [house.status(key) for key in TREE] == ["active", "revoked", "revoked"]
    assert house.status(ServiceKey(ServiceType.AGENT, "a2")) == "active"
    assert house.catalogue.get(POLLER).record.status is S.ACTIVE


async def test_a_dry_run_says_whom_it_would_take_out_and_writes_nothing(house: House) -> None:
    await house.activate_tree()
    writes = house.ledger.writes
    preview = await revoke_package(house, POLLER, dry_run=True)
    assert house.ledger.writes == writes
    assert preview.dry_run
    assert touched(preview) == touched(await revoke_package(house, POLLER))


async def test_a_dry_run_is_refused_where_the_deed_would_be(house: House) -> None:
    await house.activate_tree()
    assert await refused(revoke_package(house, POLLER, cascade=False, dry_run=True)) is Code.CHILDREN_LIVE
    assert (
        await refused(house.administrator.delete(ALICE, POLLER, reason="", dry_run=True))
        is Code.ILLEGAL_TRANSITION
    )
    assert await refused(house.revoke(ServiceKey(ServiceType.POLLER, "px"), dry_run=True)) is Code.NOT_FOUND


async def test_without_cascade_live_children_forbid_it(house: House) -> None:
    await house.activate_tree()
    writes = house.ledger.writes
    assert await refused(revoke_package(house, AGENT, cascade=False)) is Code.CHILDREN_LIVE
    assert await refused(house.revoke(AGENT, cascade=False)) is Code.CHILDREN_LIVE
    assert house.ledger.writes == writes
    await house.revoke(CHECKER)
    assert touched(await revoke_package(house, AGENT, cascade=False)) == [("a1", "active", "revoked")]


async def test_revoking_twice_is_no_error_and_no_second_change(house: House) -> None:
    await house.activate_tree()
    await revoke_package(house, POLLER)
    writes = house.ledger.writes
    assert touched(await revoke_package(house, POLLER)) == []
    assert house.ledger.writes == writes


async def test_two_at_once_revoke_once(house: House) -> None:
    await house.activate_tree()
    await asyncio.gather(*(revoke_package(house, POLLER) for _ in range(5)))
    await house.settle()
    assert len([e for e in house.events("revoked") if e.service_id == "c1"]) == 1
    assert [house.record(key).cascade for key in TREE] == [Cascade.NONE] * 3


async def test_only_the_current_package_leads_to_its_service(house: House) -> None:
    first = await house.create()
    await house.issuer.reissue(ALICE, first.package.package_id)
    work = house.administrator.revoke_package(
        ALICE, first.package.package_id, reason="", cascade=True, dry_run=False
    )
    assert await refused(work) is Code.SUPERSEDED
    unknown = house.administrator.revoke_package(ALICE, uid(999), reason="", cascade=True, dry_run=False)
    assert await refused(unknown) is Code.NOT_FOUND


async def test_a_wide_cascade_reaches_everybody(house: House) -> None:
    await house.create()
    for number in range(150):
        await house.recorder.apply(
            ServiceKey(ServiceType.AGENT, f"a{number}"),
            c.Admit(
                lineage=Lineage(ServiceType.AGENT, "p1", f"a{number}"), approval_required=False, heard=True
            ),
            SYSTEM,
        )
    affected = await revoke_package(house, POLLER)
    assert len(affected.services) == 151
    assert {record.status for record in house.index.records.values()} == {S.REVOKED}


# --- interruption


@pytest.mark.parametrize("victim", [AGENT, CHECKER])
async def test_a_cascade_that_the_ledger_interrupts_says_so_and_is_finished_later(
    house: House, victim: ServiceKey
) -> None:
    await house.activate_tree()

    async def fail_at(record: ServiceRecord) -> None:
        if record.key == victim:
            house.ledger.before_write = None
            raise UnavailableError("away")

    house.ledger.before_write = fail_at
    affected = await revoke_package(house, POLLER)
    assert not affected.complete
    assert house.status(victim) == "active"
    assert house.record(POLLER).cascade is Cascade.RUNNING
    await house.crash()
    await house.start()
    assert await house.cascades.resume() >= 1
    assert [house.status(key) for key in TREE] == ["revoked"] * 3
    assert [house.record(key).cascade for key in TREE] == [Cascade.NONE] * 3
    assert await house.cascades.resume() == 0


async def test_revoking_again_goes_on_with_an_interrupted_cascade(house: House) -> None:
    await house.activate_tree()

    async def fail_at(record: ServiceRecord) -> None:
        if record.key == AGENT:
            house.ledger.before_write = None
            raise UnavailableError("away")

    house.ledger.before_write = fail_at
    await revoke_package(house, POLLER)
    affected = await revoke_package(house, POLLER)
    assert affected.complete
    assert touched(affected) == [("a1", "active", "revoked"), ("c1", "active", "revoked")]


async def test_a_cascade_waits_for_the_index_rather_than_miss_a_child(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cascade, "_CATCH_UP_SECONDS", 0.01)
    await house.activate_tree()
    await house.stall("index")
    affected = await revoke_package(house, POLLER)
    assert not affected.complete
    assert house.record(POLLER).cascade is Cascade.RUNNING
    with pytest.raises(PortError):
        await house.cascades.resume()
    await house.crash()
    await house.start()
    monkeypatch.undo()
    await house.cascades.resume()
    assert [house.status(key) for key in TREE] == ["revoked"] * 3


async def test_a_service_is_not_reissued_while_its_cascade_runs(house: House) -> None:
    await house.activate_tree()
    applied = await house.recorder.apply(POLLER, c.Revoke(), SYSTEM)
    package = applied.after.package
    assert package is not None
    assert await refused(house.issuer.reissue(ALICE, package.package_id)) is Code.ILLEGAL_TRANSITION
    assert [house.status(key) for key in TREE] == ["revoked", "active", "active"]
    await house.cascades.resume()
    assert (await house.issuer.reissue(ALICE, package.package_id)).record.status is S.PENDING


# --- deleting


async def test_only_a_revoked_or_inactive_service_is_deleted(house: House) -> None:
    await house.create()
    delete = house.administrator.delete
    assert await refused(delete(ALICE, POLLER, reason="")) is Code.ILLEGAL_TRANSITION
    await house.activate(POLLER, service_id="p2")
    p2 = ServiceKey(ServiceType.POLLER, "p2")
    assert await refused(delete(ALICE, p2, reason="")) is Code.ILLEGAL_TRANSITION
    await house.recorder.apply(p2, c.Deactivate(), SYSTEM)
    assert (await delete(ALICE, p2, reason="sold")).record.status is S.DELETED
    assert await refused(delete(ALICE, ServiceKey(ServiceType.POLLER, "p3"), reason="")) is Code.NOT_FOUND
    assert await refused(delete(ALICE, p2, reason="")) is Code.ILLEGAL_TRANSITION


async def test_deleting_takes_out_what_lives_beneath_or_is_refused(house: House) -> None:
    await house.activate_tree()
    await house.recorder.apply(POLLER, c.Deactivate(), SYSTEM)
    alone = house.administrator.delete(ALICE, POLLER, reason="", cascade=False)
    assert await refused(alone) is Code.CHILDREN_LIVE
    affected = await house.administrator.delete(ALICE, POLLER, reason="sold")
    assert touched(affected) == [
        ("p1", "inactive", "deleted"),
        ("a1", "active", "revoked"),
        ("c1", "active", "revoked"),
    ]


async def test_deleting_takes_the_document_and_keeps_the_row_and_the_trail(house: House) -> None:
    """Deletion does not remove the audit trail."""
    await house.activate()
    await house.revoke(POLLER)
    await house.administrator.delete(ALICE, POLLER, reason="sold")
    await house.settle()
    assert house.document(POLLER_LINEAGE) is None
    row = house.row(POLLER)
    assert row is not None
    assert row.status == "deleted"
    assert house.trail_of(POLLER)[:4] == ["registered", "issued", "delivered", "activated"]
    assert "deleted" in house.trail_of(POLLER)


async def test_a_deleted_service_stays_away_when_it_is_heard(house: House) -> None:
    """A stale record does not come back."""
    await house.activate()
    await house.revoke(POLLER)
    await house.administrator.delete(ALICE, POLLER, reason="")
    writes = house.ledger.writes
    assert (await house.beat(POLLER_LINEAGE)).refused is Code.DELETED
    assert house.ledger.writes == writes


async def test_only_a_revoked_or_expired_package_is_deleted(house: House) -> None:
    issued = await house.create()
    package_id = issued.package.package_id
    assert await refused(house.administrator.delete_package(ALICE, package_id)) is Code.ILLEGAL_TRANSITION
    await house.revoke(POLLER)
    await house.administrator.delete_package(ALICE, package_id)
    assert await refused(house.administrator.delete_package(ALICE, package_id)) is Code.NOT_FOUND
    with pytest.raises(RefusedError):
        house.catalogue.package(package_id)
    await house.settle()
    assert house.database.packages[package_id].deleted_at is not None
    assert "package_deleted" in house.trail_of(POLLER)


async def test_a_deleted_package_leaves_its_token_dead(house: House) -> None:
    """A spent or revoked token does not come alive again when its package is deleted."""
    issued = await house.create()
    await house.revoke(POLLER)
    await house.administrator.delete_package(ALICE, issued.package.package_id)
    assert await refused(house.redeem(issued.token)) is Code.REVOKED


# --- by hand


async def test_an_override_says_who_and_why_and_what_was_before(house: House) -> None:
    """Status overrides are checked, and have an actor and an event."""
    await house.activate()
    affected = await house.administrator.override(ALICE, POLLER, S.INACTIVE, reason="maintenance")
    assert touched(affected) == [("p1", "active", "inactive")]
    await house.settle()
    (event,) = house.events("status_override")
    assert (event.actor, event.source_ip, event.request_id) == ("alice", "192.0.2.9", "req-1")
    assert (event.reason, event.from_status, event.to_status) == ("maintenance", "active", "inactive")


@pytest.mark.parametrize("wanted", [S.PENDING, S.ACTIVE, S.INACTIVE, S.DELETED])
async def test_nobody_overrides_a_revocation_away(house: House, wanted: ServiceStatus) -> None:
    await house.activate()
    await house.revoke(POLLER)
    work = house.administrator.override(ALICE, POLLER, wanted, reason="")
    assert await refused(work) is Code.ILLEGAL_TRANSITION
    assert house.status(POLLER) == "revoked"


async def test_an_override_to_the_same_status_changes_nothing(house: House) -> None:
    await house.activate()
    writes = house.ledger.writes
    assert touched(await house.administrator.override(ALICE, POLLER, S.ACTIVE, reason="")) == []
    assert house.ledger.writes == writes


async def test_an_approved_service_is_active_at_its_next_heartbeat(house: House) -> None:
    assert (await house.beat(POLLER_LINEAGE)).refused is Code.APPROVAL_REQUIRED
    approved = await house.administrator.approve(ALICE, POLLER, "known")
    assert (approved.status, approved.approval) == (S.PENDING, Approval.GRANTED)
    assert (await house.beat(POLLER_LINEAGE)).status == "active"


async def test_a_rejected_service_stays_out_until_somebody_changes_their_mind(house: House) -> None:
    await house.beat(POLLER_LINEAGE)
    await house.administrator.reject(ALICE, POLLER, "unknown box")
    assert (await house.beat(POLLER_LINEAGE)).refused is Code.REJECTED
    await house.administrator.approve(ALICE, POLLER, "")
    assert (await house.beat(POLLER_LINEAGE)).status == "active"


async def test_approval_is_for_those_that_registered_themselves(house: House) -> None:
    await house.create()
    assert await refused(house.administrator.approve(ALICE, POLLER, "")) is Code.ILLEGAL_TRANSITION
    assert await refused(house.administrator.reject(ALICE, POLLER, "")) is Code.ILLEGAL_TRANSITION


async def test_concurrent_changes_are_not_lost(house: House) -> None:
    """Each change is a compare-and-swap: none overwrites another's."""
    await house.activate()
    for number in range(10):
        await house.create(AGENT, service_id=f"a{number}")
    commands = [
        house.recorder.apply(POLLER, c.Override(status=S.INACTIVE), SYSTEM),
        *(house.recorder.apply(POLLER, c.Heartbeat(lineage=POLLER_LINEAGE), SYSTEM) for _ in range(5)),
        *(house.revoke(ServiceKey(ServiceType.AGENT, f"a{number}")) for number in range(10)),
    ]
    await asyncio.gather(*commands)
    await house.settle()
    revisions = [
        change.record.revision
        for change in house.ledger.changes.values
        if change.record and change.key == POLLER
    ]
    assert revisions == list(range(1, len(revisions) + 1))
    row = house.row(POLLER)
    assert row is not None
    assert row.agent_count == 10


async def test_a_key_that_changes_all_the_time_is_given_up_with_a_reason(house: House) -> None:
    await house.activate()

    async def somebody_else(record: ServiceRecord) -> None:
        hook, house.ledger.before_write = house.ledger.before_write, None
        wanted = S.INACTIVE if house.status(POLLER) == "active" else S.ACTIVE
        await house.recorder.apply(POLLER, c.Override(status=wanted), SYSTEM)
        house.ledger.before_write = hook

    house.ledger.before_write = somebody_else
    with pytest.raises(UnavailableError, match="changes too fast"):
        await house.recorder.apply(POLLER, c.Revoke(), SYSTEM)


async def test_a_child_that_outlived_its_parent_through_a_crash_is_revoked(house: House) -> None:
    """A crash between the child's write and its second look at the parent leaves it live: it is found later."""
    await house.create()
    await house.revoke(POLLER)
    orphan = record(ServiceType.AGENT, ServiceStatus.PENDING, revision=1, epoch=house.ledger.epoch)
    await house.ledger.write(orphan, 0)
    await house.settle()
    assert await house.cascades.resume() == 0, "it may still be about to take itself back"
    house.clock.advance(11)
    assert await house.cascades.resume() == 2, "the agent, and the cascade beneath it"
    assert house.status(AGENT) == "revoked"
    assert await house.cascades.resume() == 0


async def test_one_cascade_that_cannot_be_finished_holds_up_no_other(house: House) -> None:
    other = ServiceKey(ServiceType.POLLER, "p2")
    for key in (POLLER, other):
        await house.create(service_id=key.service_id)
        await house.recorder.apply(key, c.Revoke(), SYSTEM)
    await house.settle()
    first, read = min(POLLER, other), house.ledger.read

    async def damaged(key: ServiceKey) -> Entry:
        if key == first:
            raise UnavailableError("its record is damaged")
        return await read(key)

    house.ledger.read = damaged  # type: ignore[method-assign]
    with pytest.raises(UnavailableError, match="damaged"):
        await house.cascades.resume()
    assert house.cascades.unfinished() == [first]


async def test_a_late_cascade_leaves_alone_what_came_back_after_it(house: House) -> None:
    """Another daemon finished the same cascade a moment earlier, and the tree was issued anew since."""
    parent, child = await house.create(), await house.create(AGENT)
    revoked = await house.recorder.apply(POLLER, c.Revoke(), SYSTEM)
    late = asyncio.create_task(house.cascades.finish(POLLER, revoked.sequence + 100, SYSTEM))
    await house.cascades.finish(POLLER, revoked.sequence, SYSTEM)
    for issued in (parent, child):
        await house.issuer.reissue(ALICE, issued.package.package_id)
    await house.settle()
    house.index.progress.advance(revoked.sequence + 100)
    assert await late == []
    assert (house.status(POLLER), house.status(AGENT)) == ("pending", "pending")


async def follow_nothing(house: House) -> None:
    """A daemon that stands by, and whose index is a moment behind."""
    for name in ("index", "documents", "rows"):
        await house.stall(name)


async def test_a_package_that_another_daemon_made_a_moment_ago_is_found(house: House) -> None:
    await follow_nothing(house)
    elsewhere = record(ServiceType.POLLER, revision=1, epoch=house.ledger.epoch, package=package())
    await house.ledger.write(elsewhere, 0)
    asking = asyncio.create_task(revoke_package(house, POLLER))
    await asyncio.sleep(0)
    house.resume_index()
    assert (await asking).record.status is S.REVOKED


async def test_without_a_cascade_a_child_made_elsewhere_a_moment_ago_stands_in_the_way(house: House) -> None:
    await house.create()
    await house.settle()
    await follow_nothing(house)
    await house.ledger.write(record(ServiceType.AGENT, revision=1, epoch=house.ledger.epoch), 0)
    asking = asyncio.create_task(house.revoke(POLLER, cascade=False))
    await asyncio.sleep(0)
    house.resume_index()
    with pytest.raises(RefusedError) as refused:
        await asking
    assert refused.value.refused.code is Code.CHILDREN_LIVE


async def test_a_version_that_is_expected_is_compared_with_what_the_swap_replaces(house: House) -> None:
    """No write in between lets anybody overwrite what he has not seen."""
    issued = await house.create()
    first = issued.record.version

    async def redeemed_in_between(_record: ServiceRecord) -> None:
        house.ledger.before_write = None
        await house.redeem(issued.token)

    house.ledger.before_write = redeemed_in_between
    assert await refused(_revoke_at(house, first)) is Code.VERSION_DIFFERS
    assert house.status(POLLER) == "pending"
    assert (await _revoke_at(house, house.record(POLLER).version)).record.status is S.REVOKED


def _revoke_at(house: House, version: tuple[int, int]) -> Coroutine[Any, Any, Affected]:
    return house.administrator.override(ALICE, POLLER, S.REVOKED, reason="", expected={version})


# --- without a cascade, and somebody comes meanwhile


@pytest.mark.parametrize("moment", ["before_write", "after_write"])
async def test_without_a_cascade_nobody_goes_who_was_acknowledged(house: House, moment: str) -> None:
    """A child that comes just as its parent is looked beneath: one of the two is refused, whichever it is."""
    await house.activate(POLLER)
    coming: list[asyncio.Task[Issued]] = []

    async def a_child_comes(record: ServiceRecord) -> None:
        if record.key == POLLER and not coming:
            coming.append(asyncio.create_task(house.create(AGENT)))
            for _ in range(5 if moment == "before_write" else 0):
                await asyncio.sleep(0)

    setattr(house.ledger, moment, a_child_comes)
    try:
        await house.revoke(POLLER, cascade=False)
        revoked = True
    except RefusedError as error:
        assert error.refused.code is Code.CHILDREN_LIVE
        revoked = False
    (child,) = coming
    if revoked:
        assert await refused(child) is Code.PARENT_NOT_LIVE
        assert house.status(AGENT) in ("-", "deleted", "revoked")
    else:
        assert (await child).record.live
        assert (house.status(POLLER), house.status(AGENT)) == ("active", "pending")
    assert house.record(POLLER).cascade is Cascade.NONE


async def test_without_a_cascade_a_child_acknowledged_just_before_stands_in_the_way(house: House) -> None:
    await house.activate(POLLER)

    async def a_child_comes(record: ServiceRecord) -> None:
        house.ledger.before_write = None
        await house.create(AGENT)

    house.ledger.before_write = a_child_comes
    assert await refused(house.revoke(POLLER, cascade=False)) is Code.CHILDREN_LIVE
    assert (house.status(POLLER), house.status(AGENT)) == ("active", "pending")
    assert house.record(POLLER).cascade is Cascade.NONE
    await house.settle()
    assert house.trail_of(POLLER)[-2:] == ["closed_to_children", "opened_to_children"]
    await house.create(AGENT, service_id="a2")


async def test_without_a_cascade_a_change_meanwhile_is_no_obstacle(house: House) -> None:
    await house.redeem((await house.create(POLLER)).token)

    async def heard(record: ServiceRecord) -> None:
        if record.cascade is Cascade.CLOSING:
            house.ledger.after_write = None
            await house.recorder.apply(POLLER, c.Heartbeat(lineage=record.lineage), ALICE)

    house.ledger.after_write = heard
    done = await house.revoke(POLLER, cascade=False)
    assert done.record.status is S.REVOKED
    assert done.services[0].status_before is S.ACTIVE


async def test_without_a_cascade_who_cannot_be_looked_beneath_stays(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await house.create(POLLER)
    await house.settle()
    monkeypatch.setattr(recorder, "_CATCH_UP_SECONDS", 0.01)
    monkeypatch.setattr(administer, "_CATCH_UP_SECONDS", 0.01)
    house.ledger.fail_next("last_sequence", UnavailableError("away"))
    with pytest.raises(UnavailableError):
        await house.revoke(POLLER, cascade=False)
    await house.stall("index")

    with pytest.raises(UnavailableError):
        await house.revoke(POLLER, cascade=False)
    assert house.record(POLLER).live
    assert house.record(POLLER).cascade is Cascade.NONE
    house.resume_index()


async def test_who_crashed_while_he_looked_leaves_nothing_closed(house: House) -> None:
    await house.activate(POLLER)
    await house.recorder.apply(POLLER, c.Close(), ALICE)
    await house.crash()
    await house.start()
    await house.cascades.resume()
    assert house.record(POLLER).cascade is Cascade.CLOSING, "somebody may still be looking"
    house.clock.advance(31)
    await house.cascades.resume()
    assert house.record(POLLER).cascade is Cascade.NONE
    assert (await house.create(AGENT)).record.live


async def test_two_who_revoke_without_a_cascade_at_once_do_not_keep_each_other_from_it(house: House) -> None:
    await house.activate(POLLER)
    done = await asyncio.gather(*(house.revoke(POLLER, cascade=False) for _ in range(3)))
    assert sum(len(one.services) for one in done) == 1
    await house.settle()
    assert house.trail_of(POLLER).count("revoked") == 1
    assert house.record(POLLER).cascade is Cascade.NONE
