"""Purge: what goes, what must stay, and what a crash in the middle leaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from jetway.core.errors import Code, PortError, RefusedError, UnavailableError
from jetway.core.identity import RevokedIdentity
from jetway.core.ids import ServiceKey, ServiceType
from jetway.core.record import ServiceRecord, ServiceStatus
from jetway.entry.http import answers as a
from jetway.entry.http import requests as r
from jetway.entry.http.api import Call
from jetway.entry.http.doors import Doors
from jetway.entry.http.jobs import PurgeRoutes
from jetway.ports import JobOutcome
from jetway.services import pace
from support.builders import AGENT, LINEAGES, POLLER
from support.house import ALICE, House

DAY = 86_400


@pytest.fixture
async def house() -> AsyncIterator[House]:
    house = House()
    await house.start()
    yield house
    await house.crash()


async def taken_out(house: House, *, delete: bool = False) -> None:
    """A poller and an agent beneath it, revoked."""
    await house.create(POLLER)
    await house.create(AGENT, parent_id="p1")
    await house.revoke(POLLER)
    if delete:
        await house.administrator.delete(ALICE, AGENT, reason="")
        await house.administrator.delete(ALICE, POLLER, reason="")
    await house.settle()


def purged_events(house: House) -> list[str]:
    return [e.service_id for e in house.database.events.values() if e.event_type == "purged"]


async def test_what_was_deleted_goes_after_a_week_and_what_was_revoked_after_ninety_days(
    house: House,
) -> None:
    await taken_out(house)
    await house.create(ServiceKey(ServiceType.POLLER, "p2"))
    await house.revoke(ServiceKey(ServiceType.POLLER, "p2"))
    await house.administrator.delete(ALICE, ServiceKey(ServiceType.POLLER, "p2"), reason="")
    house.clock.advance(7 * DAY - 1)
    assert (await house.purger.run()).due == 0
    house.clock.advance(2)
    assert (await house.purger.run()).names == ("poller.p2",)
    house.clock.advance(83 * DAY)
    assert (await house.purger.run()).changed == 2
    await house.settle()
    assert not house.index.records
    assert not house.database.services
    assert sorted(purged_events(house)) == ["a1", "p1", "p2"]


async def test_no_cascade_of_theirs_is_left_to_be_finished(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither by the job that does it every few seconds, in whatever moment it comes, nor afterwards."""
    store = house.archive.store

    async def store_meanwhile(name: str, records: Sequence[ServiceRecord]) -> str:
        await house.jobs.run("finish-cascades")
        return await store(name, records)

    monkeypatch.setattr(house.archive, "store", store_meanwhile)
    await taken_out(house)
    house.clock.advance(91 * DAY)
    assert (await house.purger.run()).changed == 2
    await house.settle()
    assert not house.index.records
    assert house.cascades.unfinished() == []


async def test_who_comes_under_its_id_in_this_very_moment_is_not_purged(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish = house.cascades.finish

    async def finish_and_create(key: ServiceKey, *terms: Any) -> list[ServiceRecord]:
        done = await finish(key, *terms)
        await house.create(key)
        return done

    await house.create(POLLER)
    await house.revoke(POLLER)
    await house.settle()
    house.clock.advance(91 * DAY)
    monkeypatch.setattr(house.cascades, "finish", finish_and_create)
    assert (await house.purger.run()).changed == 0
    await house.settle()
    assert house.status(POLLER) == ServiceStatus.PENDING
    assert house.archive.files == {}


async def test_it_is_archived_before_it_is_purged(house: House) -> None:
    await taken_out(house, delete=True)
    house.clock.advance(8 * DAY)
    before = house.record(POLLER)
    await house.purger.run()
    archived = [record for records in house.archive.files.values() for record in records]
    assert before in archived
    assert len(archived) == 2


async def test_nothing_is_purged_that_cannot_be_archived(house: House) -> None:
    await taken_out(house, delete=True)
    house.clock.advance(8 * DAY)
    house.archive.fail_next("store", UnavailableError("the disk is full"))
    with pytest.raises(UnavailableError):
        await house.purger.run()
    assert len(house.index.records) == 2
    assert purged_events(house) == []


async def test_a_rehearsal_writes_nothing(house: House) -> None:
    await taken_out(house, delete=True)
    writes = house.ledger.writes
    swept = await house.purger.run(older_than=timedelta(), dry_run=True)
    assert (swept.due, swept.changed) == (2, 0)
    assert (house.ledger.writes, house.archive.files) == (writes, {})


async def test_earlier_versions_of_its_document_go_with_a_service(house: House) -> None:
    await taken_out(house)
    house.clock.advance(91 * DAY)
    assert set(house.documents.earlier) == {"config/pollers/p1.json", "config/pollers/p1/agents/a1.json"}
    assert (await house.purger.run()).changed == 2
    assert house.documents.earlier == {}


@pytest.mark.parametrize("step", ["archive", "trail", "documents", "purge"])
async def test_cut_off_anywhere_it_is_done_again(house: House, step: str) -> None:
    await taken_out(house, delete=True)
    house.clock.advance(8 * DAY)
    error = UnavailableError("away")
    if step == "archive":
        house.archive.fail_next("store", error, after_effect=True)
    elif step == "trail":
        house.audit.fail_next("append", error, after_effect=True)
    elif step == "documents":
        house.documents.fail_next("forget_earlier", error, after_effect=True)
    else:
        house.ledger.fail_next("purge", error, after_effect=True)
    with pytest.raises(UnavailableError):
        await house.purger.run()
    await house.crash()
    await house.start()
    await house.purger.run()
    await house.settle()
    assert not house.index.records
    assert not house.database.services
    assert sorted(purged_events(house)) == ["a1", "p1"]


async def test_the_next_of_its_id_begins_anew_everywhere(house: House) -> None:
    await taken_out(house, delete=True)
    house.clock.advance(8 * DAY)
    await house.purger.run()
    issued = await house.create(POLLER)
    await house.redeem(issued.token)
    await house.beat(LINEAGES[ServiceType.POLLER])
    await house.settle()
    record, row = house.record(POLLER), house.row(POLLER)
    assert (record.revision, record.incarnation, record.status) == (3, 1, ServiceStatus.ACTIVE)
    assert row is not None
    assert (row.revision, row.status) == (3, "active")
    document = house.document(LINEAGES[ServiceType.POLLER])
    assert document is not None
    assert document["status"] == "active"
    report = await house.reconciler.run()
    assert (report.findings, report.errors, report.gaps_open) == ((), (), 0)


async def test_what_keeps_an_identity_revoked_is_kept(house: House) -> None:
    await taken_out(house, delete=True)
    house.clock.advance(8 * DAY)
    record = house.record(POLLER)
    identity = RevokedIdentity(
        package_id="x",
        nats_public_key="U" + "A" * 55,
        nats_expires_at=house.clock.now() + timedelta(days=20),
        certificates=(),
        revoked_at=record.updated_at,
    )
    kept = replace(
        record,
        revision=record.revision + 1,
        revoked_identities=(identity,),
        transition=replace(record.transition, transition_id="t-kept"),
    )
    entry = await house.ledger.read(POLLER)
    await house.ledger.write(kept, entry.sequence)
    await house.settle()
    assert (await house.purger.run()).names == ("agent.a1",)
    house.clock.advance(21 * DAY)
    assert (await house.purger.run()).names == ("poller.p1",)


async def test_a_service_that_is_made_anew_meanwhile_stays(house: House) -> None:
    await taken_out(house, delete=True)
    house.clock.advance(8 * DAY)
    append = house.audit.append

    async def create_first(event: object) -> None:
        house.audit.append = append  # type: ignore[method-assign]
        await house.create(POLLER)
        await append(event)  # type: ignore[arg-type]

    await house.ledger.purge(AGENT)
    await house.settle()
    house.audit.append = create_first  # type: ignore[method-assign]
    assert (await house.purger.run()).changed == 0
    assert house.record(POLLER).status is ServiceStatus.PENDING


@pytest.mark.parametrize("delete", [False, True])
async def test_a_known_poller_that_was_taken_out_is_never_forgotten(house: House, delete: bool) -> None:
    """Without its record the settings would let it in again."""
    lifecycle = house.settings.lifecycle.model_copy(update={"known_pollers": ["p1"]})
    await house.crash()
    house.settings = house.settings.model_copy(update={"lifecycle": lifecycle})
    await house.start()
    await taken_out(house, delete=delete)
    house.clock.advance(400 * DAY)
    assert (await house.purger.run(older_than=timedelta())).names == ("agent.a1",)
    await house.issuer.register_known("p1")
    assert house.status(POLLER) == ("deleted" if delete else "revoked")


async def test_a_search_for_what_is_due_gives_others_their_turn(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "_TURN_SECONDS", 0.0)
    await taken_out(house)
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    other = asyncio.create_task(count())
    await house.purger.run(dry_run=True)
    other.cancel()
    assert turns >= len(house.index.records)


# --- by hand


async def purge_by_hand(house: House, **body: Any) -> a.Purged:
    doors = cast("Doors", SimpleNamespace(jobs=house.jobs, purger=house.purger))
    call = cast("Call", SimpleNamespace(caller=ALICE))
    return await PurgeRoutes(doors).purge_services(r.Purge.model_validate(body), call)


async def test_a_purge_by_hand_is_a_run_of_the_job(house: House) -> None:
    await taken_out(house)
    purged = await purge_by_hand(house, retention_days=0)
    assert (purged.due, purged.purged) == (2, 2)
    (run,) = (await house.jobs.state("purge")).runs
    assert (run.actor, run.counts) == ("alice", {"due": 2, "purged": 2})


async def test_a_purge_by_hand_waits_its_turn_and_belongs_to_the_leader(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await taken_out(house, delete=True)
    house.clock.advance(8 * DAY)
    refusals = []
    store = house.archive.store

    async def purge_meanwhile(name: str, records: Sequence[ServiceRecord]) -> str:
        with pytest.raises(RefusedError) as caught:
            await purge_by_hand(house)
        refusals.append(caught.value.refused.code)
        return await store(name, records)

    monkeypatch.setattr(house.archive, "store", purge_meanwhile)
    assert (await house.jobs.run("purge")).counts == {"due": 2, "purged": 2}
    assert set(refusals) == {Code.ALREADY_RUNNING}
    house.jobs.leads = lambda: False
    with pytest.raises(RefusedError) as caught:
        await purge_by_hand(house)
    assert caught.value.refused.code is Code.NOT_LEADING


@pytest.mark.parametrize("error", [UnavailableError("the disk is full"), PortError("the disk is full")])
async def test_a_purge_by_hand_that_fails_says_why_and_not_that_nothing_was_changed(
    house: House, error: PortError
) -> None:
    await taken_out(house, delete=True)
    house.archive.fail_next("store", error)
    with pytest.raises(PortError, match="the disk is full") as raised:
        await purge_by_hand(house, retention_days=0)
    assert raised.type is PortError
    (run,) = (await house.jobs.state("purge")).runs
    assert (run.outcome, run.error) == (JobOutcome.FAILED, "the disk is full")


async def test_a_mistake_in_a_purge_by_hand_is_none_of_a_dependency(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def mistaken(*_: object, **__: object) -> None:
        raise KeyError("p1")

    monkeypatch.setattr(house.purger, "run", mistaken)
    with pytest.raises(KeyError):
        await purge_by_hand(house)


async def test_a_purge_on_terms_of_its_own_does_not_put_off_the_daily_one(house: House) -> None:
    await house.jobs.run("purge")
    house.clock.advance(20 * 3600)
    await purge_by_hand(house, retention_days=3650)
    assert (await house.jobs.state("purge")).runs[0].apart
    assert house.jobs.due_in("purge") == timedelta(hours=4)
    await purge_by_hand(house)
    assert not (await house.jobs.state("purge")).runs[0].apart
    assert house.jobs.due_in("purge") == timedelta(hours=24)
