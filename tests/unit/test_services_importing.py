"""Import: parents first, nothing overwritten, nothing brought back, the second run changes nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

import pytest

from jetway.core.errors import UnavailableError
from jetway.core.ids import Lineage, ServiceKey, ServiceType
from jetway.core.importing import Imported, Verdict, judge
from jetway.core.record import Approval, ServiceStatus, Source
from jetway.services.importing import Importer
from jetway.services.issue import NewService
from support.builders import record
from support.house import ALICE, House, running_house

POLLER, AGENT, CHECKER = ServiceType.POLLER, ServiceType.AGENT, ServiceType.CHECKER
CREATED, ADOPTED, UNCHANGED, KEPT, REFUSED = Imported


def row(kind: ServiceType, service_id: str, parent_id: str = "", **more: object) -> NewService:
    kind_of_checker = {"checker_kind": "icmp", "checker_config": {"hosts": ["192.0.2.1"]}}
    fields = {"label": service_id, **(kind_of_checker if kind is CHECKER else {}), **more}
    return NewService(
        service_type=kind,
        service_id=service_id,
        parent_id=parent_id,
        **fields,  # type: ignore[arg-type]
    )


ROWS = [row(CHECKER, "c1", "a1"), row(AGENT, "a1", "p1", site="A"), row(POLLER, "p1")]


@pytest.fixture
async def house() -> AsyncIterator[House]:
    async with running_house() as running:
        yield running


async def run(house: House, rows: Sequence[NewService], **more: object) -> list[Verdict]:
    importer = Importer(house.issuer)
    return list(await importer.run(ALICE, rows, **{"dry_run": False, **more}))  # type: ignore[arg-type]


def outcomes(verdicts: Sequence[Verdict]) -> list[Imported]:
    return [verdict.outcome for verdict in verdicts]


async def test_parents_come_before_their_children_whatever_the_order(house: House) -> None:
    assert outcomes(await run(house, ROWS)) == [CREATED] * 3
    made = await house.recorder.read(ServiceKey(CHECKER, "c1"))
    assert made is not None
    assert (made.registration_source, made.status, made.poller_id) == (
        Source.CONFIG,
        ServiceStatus.PENDING,
        "p1",
    )
    assert (made.approval, made.package) == (Approval.NONE, None)


async def test_a_second_run_writes_nothing(house: House) -> None:
    await run(house, ROWS)
    writes = house.ledger.writes
    assert outcomes(await run(house, ROWS)) == [UNCHANGED] * 3
    assert house.ledger.writes == writes


async def test_a_dry_run_writes_nothing_and_says_the_same(house: House) -> None:
    bad = [row(AGENT, "a2", "nobody"), row(POLLER, "p1"), replace(row(CHECKER, "c2", "a1"), checker_kind="")]
    tried = await run(house, [*ROWS, *bad], dry_run=True)
    assert house.ledger.writes == 0
    done = await run(house, [*ROWS, *bad])
    assert tried == done
    assert [(v.outcome, v.field) for v in done[3:]] == [
        (REFUSED, "parent_id"),
        (REFUSED, "service_id"),
        (REFUSED, "checker_kind"),
    ]


async def test_a_dry_run_in_parts_is_told_of_the_parents_to_be(house: House) -> None:
    planned = {ServiceKey(POLLER, "p1")}
    assert outcomes(await run(house, [row(AGENT, "a1", "p1")], dry_run=True, planned=planned)) == [CREATED]
    assert outcomes(await run(house, [row(AGENT, "a1", "p1")], planned=planned)) == [REFUSED]


async def test_better_provenance_stays(house: House) -> None:
    issued = await house.create()
    verdicts = await run(house, [row(POLLER, issued.record.service_id, label="x", site="elsewhere")])
    (verdict,) = verdicts
    assert verdict.outcome is KEPT
    assert "edge_onboarding" in verdict.why
    assert "site" in verdict.why
    assert await house.recorder.read(issued.record.key) == issued.record


async def test_what_a_person_took_out_is_not_brought_back(house: House) -> None:
    await run(house, ROWS)
    administrator = house.administrator
    await administrator.override(ALICE, ServiceKey(CHECKER, "c1"), ServiceStatus.REVOKED, reason="gone")
    (verdict, *_) = await run(house, ROWS)
    assert (verdict.outcome, verdict.field) == (REFUSED, "service_id")
    await administrator.delete(ALICE, ServiceKey(CHECKER, "c1"), reason="gone")
    (verdict, *_) = await run(house, ROWS)
    assert verdict.outcome is REFUSED
    assert "deleted" in verdict.why


async def test_it_is_active_at_its_first_heartbeat(house: House) -> None:
    await run(house, ROWS)
    await house.beat(Lineage(POLLER, "p1"))
    heard = await house.recorder.read(ServiceKey(POLLER, "p1"))
    assert heard is not None
    assert heard.status is ServiceStatus.ACTIVE


async def test_one_that_registered_itself_is_adopted_once(house: House) -> None:
    await house.beat(Lineage(POLLER, "p1"))
    await house.settle()
    assert outcomes(await run(house, ROWS[2:], dry_run=True)) == [ADOPTED]
    assert outcomes(await run(house, ROWS[2:])) == [ADOPTED]
    assert outcomes(await run(house, ROWS[2:])) == [UNCHANGED]


async def test_a_ledger_that_is_away_is_no_refusal(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(_key: ServiceKey) -> None:
        raise UnavailableError("away")

    monkeypatch.setattr(house.recorder, "read", away)
    with pytest.raises(UnavailableError):
        await run(house, ROWS)


@pytest.mark.parametrize("source", [Source.EDGE_ONBOARDING, Source.K8S_SPIFFE])
@pytest.mark.parametrize("status", [ServiceStatus.PENDING, ServiceStatus.ACTIVE, ServiceStatus.INACTIVE])
def test_judge_keeps_what_came_in_otherwise(source: Source, status: ServiceStatus) -> None:
    known = record(AGENT, status=status, registration_source=source)
    assert judge(known, known.parent_id, {}).outcome is KEPT


def test_judge_refuses_another_parent_and_whom_a_person_rejected() -> None:
    known = record(AGENT, registration_source=Source.IMPLICIT, approval=Approval.REQUIRED)
    assert judge(known, "elsewhere", {}).field == "parent_id"
    assert judge(replace(known, approval=Approval.REJECTED), known.parent_id, {}).outcome is REFUSED
    assert judge(known, known.parent_id, {}).outcome is ADOPTED
