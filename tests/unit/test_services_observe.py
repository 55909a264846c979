"""Heartbeats: the first one activates, a steady one costs nothing, and nobody admits itself past the rules."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from jetway.core import commands as c
from jetway.core.errors import Code, RefusedError, UnavailableError
from jetway.core.heartbeat import EMPTY, Beat, Payload
from jetway.core.ids import Lineage, ServiceKey, ServiceType
from jetway.core.liveness import Liveness
from jetway.core.record import Approval, ServiceRecord, ServiceStatus, Source
from jetway.core.rows import Presence
from jetway.services.caller import SYSTEM
from jetway.services.observe import ImplicitMode, Verdict
from support.builders import AGENT, CHECKER, LINEAGES, NOW, POLLER
from support.house import ALICE, House, running_house

POLLER_LINEAGE, AGENT_LINEAGE, CHECKER_LINEAGE = LINEAGES.values()


@pytest.fixture
async def house() -> AsyncIterator[House]:
    async with running_house() as running:
        yield running


@pytest.fixture
async def open_house() -> AsyncIterator[House]:
    async with running_house(implicit="allow") as running:
        yield running


@pytest.fixture
async def closed_house() -> AsyncIterator[House]:
    async with running_house(implicit="deny") as running:
        yield running


def lineage_of(number: int) -> Lineage:
    return Lineage(ServiceType.POLLER, f"box-{number}")


# --- known services


async def test_the_first_heartbeat_activates_a_delivered_package(house: House) -> None:
    issued = await house.create()
    await house.redeem(issued.token)
    house.clock.advance(60)
    verdict = await house.beat(POLLER_LINEAGE, Payload(source_ip="198.51.100.4", version="1.2"))
    assert verdict == Verdict("active", True, 30, 3)
    document, row = house.document(POLLER_LINEAGE), house.row(POLLER)
    assert document is not None
    assert row is not None
    assert (document["status"], row.status, row.first_seen, row.last_seen) == (
        "active",
        "active",
        NOW + timedelta(seconds=60),
        NOW + timedelta(seconds=60),
    )
    package = house.database.packages[issued.package.package_id]
    assert (package.status, package.activated_from) == ("activated", "198.51.100.4")


async def test_before_delivery_a_heartbeat_is_refused_and_counted(house: House) -> None:
    await house.create()
    verdict = await house.beat(POLLER_LINEAGE)
    assert (verdict.status, verdict.known, verdict.refused) == ("pending", True, Code.NOT_DELIVERED)
    assert house.refused("not_delivered") == 1
    assert house.ledger.writes == 1
    assert house.presence.presence(POLLER) == Presence()
    assert house.liveness.of(POLLER) is Liveness.NEVER


async def test_who_is_refused_before_delivery_does_not_wait_for_ever(house: House) -> None:
    """Its token was good for a day: whatever claims its name keeps it no longer."""
    await house.create()
    for _ in range(31):
        house.clock.advance(timedelta(days=1))
        assert (await house.beat(POLLER_LINEAGE)).refused is Code.NOT_DELIVERED
        await house.sweeper.expire_packages()
    assert (await house.sweeper.expire_pending()).changed == 1


async def test_a_steady_heartbeat_writes_nothing_to_the_ledger(house: House) -> None:
    await house.activate_tree()
    writes, calls = house.ledger.writes, len(house.ledger.calls)
    for _ in range(100):
        house.clock.advance(10)
        for lineage in (POLLER_LINEAGE, AGENT_LINEAGE, CHECKER_LINEAGE):
            assert (await house.beat(lineage, Payload(healthy=False, version="2"))).refused is None
    assert (house.ledger.writes, len(house.ledger.calls)) == (writes, calls)
    assert house.presence.presence(CHECKER).last_seen == house.clock.now()


async def test_a_burst_of_first_heartbeats_activates_once(house: House) -> None:
    issued = await house.create()
    await house.redeem(issued.token)
    for _ in range(50):
        house.observer.observe(Beat(POLLER_LINEAGE, EMPTY), house.clock.now())
    await house.settle()
    assert house.trail_of(POLLER).count("activated") == 1
    assert house.ledger.writes == 3


async def test_of_several_waiting_heartbeats_the_newest_counts(house: House) -> None:
    issued = await house.create()
    await house.redeem(issued.token)
    verdicts: list[Verdict] = []
    for version in ("old", "new"):
        house.clock.advance(1)
        beat = Beat(POLLER_LINEAGE, Payload(version=version))
        house.observer.observe(beat, house.clock.now(), verdicts.append)
    await house.settle()
    assert house.presence.presence(POLLER).version == "new"
    assert house.presence.presence(POLLER).last_seen == house.clock.now()
    assert [verdict.status for verdict in verdicts] == ["active", "active"], "each sender gets its answer"


@pytest.mark.parametrize("key", [POLLER, AGENT, CHECKER])
async def test_an_inactive_service_of_any_type_is_active_again_when_it_is_heard(
    house: House, key: ServiceKey
) -> None:
    """`inactive` becomes `active` again, and not for pollers alone."""
    await house.activate_tree()
    await house.recorder.apply(key, c.Deactivate(silent_since=NOW), SYSTEM)
    assert house.status(key) == "inactive"
    assert (await house.beat(LINEAGES[key.service_type])).status == "active"
    assert house.trail_of(key)[-2:] == ["deactivated", "reactivated"]


@pytest.mark.parametrize(
    "lineage",
    [
        Lineage(ServiceType.AGENT, "p2", "a1"),
        Lineage(ServiceType.CHECKER, "p1", "a2", "c1"),
        Lineage(ServiceType.CHECKER, "p2", "a1", "c1"),
    ],
)
async def test_the_parents_in_the_subject_must_be_the_records(house: House, lineage: Lineage) -> None:
    await house.activate_tree()
    writes, seen = house.ledger.writes, house.presence.presence(lineage.key)
    house.clock.advance(60)
    verdict = await house.beat(lineage)
    assert verdict.refused is Code.WRONG_PARENTS
    assert house.refused("wrong_parents") == 1
    assert house.ledger.writes == writes
    assert house.presence.presence(lineage.key) == seen


@pytest.mark.parametrize("refused_as", [Code.REVOKED, Code.DELETED])
async def test_a_refused_service_is_not_shown_as_alive(house: House, refused_as: Code) -> None:
    await house.activate()
    await house.revoke(POLLER)
    if refused_as is Code.DELETED:
        await house.administrator.delete(ALICE, POLLER, reason="")
    seen = house.presence.presence(POLLER)
    house.clock.advance(60)
    assert (await house.beat(POLLER_LINEAGE)).refused is refused_as
    assert house.presence.presence(POLLER) == seen


async def test_a_heartbeat_that_meets_a_ledger_that_is_away_is_late_and_not_lost(house: House) -> None:
    issued = await house.create()
    await house.redeem(issued.token)
    house.ledger.fail_next("write", UnavailableError("away"))
    house.observer.observe(Beat(POLLER_LINEAGE, EMPTY), house.clock.now())
    await house.settle()
    assert house.status(POLLER) == "pending"
    assert house.refused("ledger_unavailable") == 1
    assert (await house.beat(POLLER_LINEAGE)).status == "active"


async def test_who_beats_is_not_silent_while_what_its_heartbeat_changes_waits_for_the_ledger(
    house: House,
) -> None:
    await house.activate()
    await house.recorder.apply(POLLER, c.Deactivate(), SYSTEM)
    record = house.index.records[POLLER]
    for _ in range(8):
        house.clock.advance(30)
        house.ledger.fail_next("write", UnavailableError("away"))
        house.observer.observe(Beat(POLLER_LINEAGE, EMPTY), house.clock.now())
        await house.settle()
        assert house.presence.liveness(record) is Liveness.ONLINE
    assert house.status(POLLER) == "inactive"


async def test_a_farewell_is_not_undone_by_a_heartbeat_before_it_that_was_written_late(house: House) -> None:
    await house.activate()
    await house.recorder.apply(POLLER, c.Deactivate(), SYSTEM)
    beats = [Beat(POLLER_LINEAGE, EMPTY), Beat(POLLER_LINEAGE, Payload(stopping=True))]
    house.clock.advance(30)
    house.observer.observe(beats[0], house.clock.now())
    await asyncio.sleep(0)  # its write is under way
    house.clock.advance(1)
    house.observer.observe(beats[1], house.clock.now())
    await house.settle()
    assert house.presence.liveness(house.index.records[POLLER]) is Liveness.OFFLINE


async def test_a_heartbeat_that_crosses_a_revocation_does_not_bring_the_service_back(house: House) -> None:
    await house.activate()
    await house.recorder.apply(POLLER, c.Deactivate(), SYSTEM)

    async def revoke_first(record: ServiceRecord) -> None:
        if "reactivated" in record.transition.events:
            house.ledger.before_write = None
            await house.revoke(POLLER)

    house.ledger.before_write = revoke_first
    assert (await house.beat(POLLER_LINEAGE)).refused is Code.REVOKED
    assert house.status(POLLER) == "revoked"


async def test_a_verdict_names_the_services_own_interval(house: House) -> None:
    await house.activate(POLLER, heartbeat_interval_seconds=7)
    assert (await house.beat(POLLER_LINEAGE)).interval_seconds == 7


async def test_a_flood_is_refused_beyond_a_bound(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jetway.services.observe._QUEUE_LIMIT", 3)
    outcomes = [house.observer.observe(Beat(lineage_of(n), EMPTY), NOW) for n in range(5)]
    assert outcomes == [None, None, None, Code.TOO_MANY_FAILURES, Code.TOO_MANY_FAILURES]
    assert house.refused("overloaded") == 2
    await house.settle()


# --- unknown services


async def test_in_quarantine_an_unknown_service_is_registered_and_waits(house: House) -> None:
    verdict = await house.beat(POLLER_LINEAGE)
    assert (verdict.status, verdict.refused) == ("pending", Code.APPROVAL_REQUIRED)
    record = house.record(POLLER)
    assert (record.approval, record.registration_source) == (Approval.REQUIRED, Source.IMPLICIT)
    for _ in range(5):
        assert (await house.beat(POLLER_LINEAGE)).refused is Code.APPROVAL_REQUIRED
    assert house.ledger.writes == 1, "asking again costs nothing"
    assert house.refused("approval_required") == 6


async def test_in_quarantine_the_parents_that_a_subject_names_wait_too(house: House) -> None:
    await house.beat(CHECKER_LINEAGE)
    for key in (POLLER, AGENT, CHECKER):
        assert house.record(key).approval is Approval.REQUIRED
    assert [house.record(key).first_seen is not None for key in (POLLER, AGENT, CHECKER)] == [
        False,
        False,
        True,
    ]


async def test_where_it_is_allowed_an_unknown_service_is_active_at_once(open_house: House) -> None:
    assert (await open_house.beat(CHECKER_LINEAGE)).status == "active"
    assert [open_house.status(key) for key in (POLLER, AGENT, CHECKER)] == ["pending", "pending", "active"]
    assert open_house.trail_of(CHECKER) == ["registered", "activated"]
    assert (await open_house.beat(POLLER_LINEAGE)).status == "active", (
        "a named parent is active once it is heard"
    )


async def test_where_it_is_denied_an_unknown_service_is_refused_and_costs_nothing(
    closed_house: House,
) -> None:
    """Unknown ids are judged in memory: no refresh from the database, no crash, no registration."""
    calls = len(closed_house.ledger.calls), len(closed_house.database.calls)
    for number in range(50):
        verdict = await closed_house.beat(lineage_of(number))
        assert (verdict.status, verdict.known, verdict.refused) == ("", False, Code.UNKNOWN_SERVICE)
    assert (len(closed_house.ledger.calls), len(closed_house.database.calls)) == calls
    assert closed_house.refused("unknown_service") == 50


async def test_an_unknown_child_of_a_known_parent_is_not_active_in_quarantine(house: House) -> None:
    """Reports do not register unknown ids before it is asked whether they are known."""
    await house.activate()
    assert (await house.beat(AGENT_LINEAGE)).refused is Code.APPROVAL_REQUIRED
    assert [house.status(key) for key in (POLLER, AGENT)] == ["active", "pending"]


@pytest.mark.parametrize("mode", ["allow", "quarantine"])
async def test_an_unknown_child_of_a_revoked_parent_is_refused(mode: ImplicitMode) -> None:
    async with running_house(implicit=mode) as house:
        await house.activate()
        await house.revoke(POLLER)
        assert (await house.beat(AGENT_LINEAGE)).refused is Code.PARENT_NOT_LIVE
        assert house.status(AGENT) == "-"


async def test_an_unknown_checker_beneath_a_misplaced_agent_is_refused(open_house: House) -> None:
    await open_house.activate()
    await open_house.activate(AGENT)
    verdict = await open_house.beat(Lineage(ServiceType.CHECKER, "p2", "a1", "c1"))
    assert verdict.refused is Code.WRONG_PARENTS
    assert open_house.status(CHECKER) == "-"


async def test_an_agent_that_somebody_registers_elsewhere_meanwhile_takes_no_strange_checker(
    open_house: House,
) -> None:
    async def register_elsewhere(record: ServiceRecord) -> None:
        if record.key == AGENT:
            open_house.ledger.before_write = None
            elsewhere = Lineage(ServiceType.AGENT, "p9", "a1")
            command = c.Admit(lineage=elsewhere, approval_required=False, heard=True)
            await open_house.recorder.apply(AGENT, command, SYSTEM)

    open_house.ledger.before_write = register_elsewhere
    verdict = await open_house.beat(CHECKER_LINEAGE)
    assert verdict.refused is Code.WRONG_PARENTS
    assert open_house.status(CHECKER) == "-"


async def test_an_unknown_child_whose_parent_is_revoked_meanwhile_is_revoked(open_house: House) -> None:
    await open_house.activate()

    async def revoke_the_parent(record: ServiceRecord) -> None:
        if record.key == AGENT:
            open_house.ledger.before_write = None
            await open_house.revoke(POLLER)

    open_house.ledger.before_write = revoke_the_parent
    assert (await open_house.beat(AGENT_LINEAGE)).refused is Code.PARENT_NOT_LIVE
    assert open_house.status(AGENT) == "revoked"


async def test_a_parent_registered_on_the_way_is_taken_back_where_its_own_parent_went(
    open_house: House,
) -> None:
    """The agent is known by the checker's subject alone; the poller's cascade passed before it was written."""
    await open_house.activate()

    async def revoke_the_poller(record: ServiceRecord) -> None:
        if record.key == AGENT:
            open_house.ledger.before_write = None
            await open_house.revoke(POLLER)

    open_house.ledger.before_write = revoke_the_poller
    assert (await open_house.beat(LINEAGES[ServiceType.CHECKER])).refused is Code.PARENT_NOT_LIVE
    assert (open_house.status(AGENT), open_house.status(CHECKER)) == ("revoked", "-")


async def test_a_service_that_is_created_while_it_is_heard_is_judged_by_its_record(house: House) -> None:
    async def create_first(record: ServiceRecord) -> None:
        if record.registration_source is Source.IMPLICIT:
            house.ledger.before_write = None
            await house.create()

    house.ledger.before_write = create_first
    assert (await house.beat(POLLER_LINEAGE)).refused is Code.NOT_DELIVERED
    assert house.record(POLLER).registration_source is Source.EDGE_ONBOARDING


async def test_the_quarantine_holds_a_bounded_number() -> None:
    async with running_house(implicit_limit=3) as house:
        for number in range(6):
            await house.beat(lineage_of(number))
        assert len(house.index.records) == 3
        assert house.refused("quarantine_full") == 3
        await house.administrator.reject(ALICE, lineage_of(0).key, "")
        assert (await house.beat(lineage_of(9))).refused is Code.APPROVAL_REQUIRED, "there is room again"


async def test_a_burst_does_not_overfill_the_quarantine() -> None:
    """A burst of unknown ids is no way to make the gateway write without end."""
    async with running_house(implicit_limit=10) as house:
        for number in range(500):
            house.observer.observe(Beat(lineage_of(number), EMPTY), house.clock.now())
        await house.settle()
        assert len(house.index.records) == 10
        assert house.ledger.writes == 10
        assert house.refused("quarantine_full") == 490


async def test_unknown_services_are_registered_at_a_bounded_rate() -> None:
    async with running_house(implicit="allow", implicit_per_minute=60) as house:
        for number in range(500):
            house.observer.observe(Beat(lineage_of(number), EMPTY), house.clock.now())
        await house.settle()
        assert len(house.index.records) == 60
        assert house.refused("too_many_unknown") == 440
        house.clock.advance(10)
        for number in range(500):
            house.observer.observe(Beat(lineage_of(number), EMPTY), house.clock.now())
        await house.settle()
        assert len(house.index.records) == 70, "those who were put off come in later"


async def test_named_parents_take_room_in_the_quarantine_too() -> None:
    async with running_house(implicit_limit=2) as house:
        assert (await house.beat(CHECKER_LINEAGE)).refused is Code.TOO_MANY_FAILURES
        assert house.status(CHECKER) == "-"


def agent_of(poller: str, number: int) -> Lineage:
    return Lineage(ServiceType.AGENT, poller, f"{poller}-{number}")


async def test_one_poller_does_not_fill_the_quarantine_for_the_others() -> None:
    """Its credentials let it name agents beneath itself, as many as it likes, from wherever it says it is."""
    async with running_house(implicit_limit=100, implicit_per_sender=5, proven=True) as house:
        for number in range(50):
            beat = Beat(agent_of("hostile", number), Payload(source_ip=f"192.0.2.{number}"))
            house.observer.observe(beat, house.clock.now())
        await house.settle()
        assert len(house.index.records) == 5, "the poller itself, and four of its agents"
        assert house.refused("quarantine_share") == 46
        assert house.refused("quarantine_full") == 0
        assert (await house.beat(agent_of("honest", 1))).refused is Code.APPROVAL_REQUIRED
        assert house.status(agent_of("honest", 1).key) == "pending"


async def test_a_share_is_free_again_once_somebody_has_decided() -> None:
    async with running_house(implicit_per_sender=2, proven=True) as house:
        await house.beat(agent_of("p", 1))
        assert (await house.beat(agent_of("p", 2))).refused is Code.TOO_MANY_FAILURES
        await house.administrator.approve(ALICE, agent_of("p", 1).key, "")
        assert (await house.beat(agent_of("p", 2))).refused is Code.APPROVAL_REQUIRED
        assert (await house.beat(agent_of("p", 3))).refused is Code.TOO_MANY_FAILURES


async def test_without_credentials_a_share_is_an_addresss() -> None:
    async with running_house(implicit_per_sender=3) as house:
        here, elsewhere = Payload(source_ip="192.0.2.1"), Payload(source_ip="192.0.2.2")
        told = [(await house.beat(lineage_of(number), here)).refused for number in range(5)]
        assert told == [Code.APPROVAL_REQUIRED] * 3 + [Code.TOO_MANY_FAILURES] * 2
        assert (await house.beat(lineage_of(9), elsewhere)).refused is Code.APPROVAL_REQUIRED
        assert (await house.beat(lineage_of(10))).refused is Code.APPROVAL_REQUIRED, "it tells of none"
        await house.crash()
        await house.start()
        assert (await house.beat(lineage_of(5), here)).refused is Code.TOO_MANY_FAILURES
        assert (await house.beat(lineage_of(6), elsewhere)).refused is Code.APPROVAL_REQUIRED


async def test_the_quarantine_is_counted_anew_after_a_restart() -> None:
    async with running_house(implicit_limit=1) as house:
        await house.beat(lineage_of(0))
        await house.crash()
        await house.start()
        assert (await house.beat(lineage_of(1))).refused is Code.TOO_MANY_FAILURES


async def test_explicit_creation_adopts_a_service_in_quarantine(house: House) -> None:
    """Explicit registration after an implicit one is not refused: the provenance improves."""
    await house.beat(POLLER_LINEAGE)
    issued = await house.create(label="Known now")
    assert (issued.record.registration_source, issued.record.approval) == (
        Source.EDGE_ONBOARDING,
        Approval.GRANTED,
    )
    await house.redeem(issued.token)
    assert (await house.beat(POLLER_LINEAGE)).status == "active"


async def test_sources_and_counts_survive_heartbeats(house: House) -> None:
    """Counters and provenance are not reset by heartbeats."""
    await house.activate_tree()
    for _ in range(3):
        house.clock.advance(30)
        await house.beat(POLLER_LINEAGE, Payload(metadata={"agent_count": 0}))
    await house.row_writer.flush_presence()
    row = house.row(POLLER)
    assert row is not None
    assert (row.registration_source, row.agent_count, row.checker_count) == ("edge_onboarding", 1, 1)


async def test_a_service_activated_by_hand_has_a_first_seen_once_it_is_heard(house: House) -> None:
    await house.recorder.apply(
        POLLER, c.Admit(lineage=POLLER_LINEAGE, approval_required=False, heard=False), SYSTEM
    )
    await house.administrator.override(ALICE, POLLER, ServiceStatus.ACTIVE, reason="")
    assert house.record(POLLER).first_seen is None
    house.clock.advance(60)
    await house.beat(POLLER_LINEAGE)
    assert house.record(POLLER).first_seen == NOW + timedelta(seconds=60)
    writes = house.ledger.writes
    await house.beat(POLLER_LINEAGE)
    assert house.ledger.writes == writes


async def test_many_services_are_activated_in_one_burst(house: House) -> None:
    issued = [await house.create(POLLER, service_id=f"box-{n}") for n in range(100)]
    await asyncio.gather(*(house.redeem(one.token) for one in issued))
    for number in range(100):
        house.observer.observe(Beat(lineage_of(number), EMPTY), house.clock.now())
    await house.settle()
    assert {house.status(lineage_of(n).key) for n in range(100)} == {"active"}


async def test_nobody_comes_in_beneath_a_rejected_parent_and_its_knocking_costs_nothing(house: House) -> None:
    """A rejected one stays quiet: no record, no event, no read, but counted."""
    await house.beat(LINEAGES[ServiceType.POLLER])
    await house.administrator.reject(ALICE, POLLER, "who is it")
    await house.settle()
    writes, events = house.ledger.writes, len(house.database.events)
    for _ in range(5):
        verdict = await house.beat(LINEAGES[ServiceType.AGENT])
        assert (verdict.known, verdict.refused) == (False, Code.REJECTED)
        await house.beat(LINEAGES[ServiceType.POLLER])
    assert house.refused("rejected") == 10
    assert (house.ledger.writes, len(house.database.events)) == (writes, events)
    assert house.observer.waiting == 0


async def test_who_registered_itself_elsewhere_can_be_moved_as_the_refusal_says(house: House) -> None:
    await house.create(POLLER, service_id="p2")
    await house.beat(AGENT_LINEAGE)
    with pytest.raises(RefusedError, match="revoke and delete it first"):
        await house.create(AGENT, parent_id="p2")
    await house.revoke(AGENT)
    await house.administrator.delete(ALICE, AGENT, reason="")
    await house.cascades.resume()
    assert (await house.create(AGENT, parent_id="p2")).record.parent_id == "p2"
