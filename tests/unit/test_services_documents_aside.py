"""A config document that cannot be written is set aside, named and tried again; the others go on."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from jetway.core.errors import PortError, RejectedError, UnavailableError
from jetway.core.ids import Lineage, ServiceKey, ServiceType
from jetway.services import issue, project
from jetway.services.documents_aside import PATIENCE, DocumentsAside
from jetway.services.health import Component, Health
from jetway.services.metrics import Metrics
from support.builders import AGENT, LINEAGES, POLLER
from support.drift import reconcile
from support.house import ALICE, House, running_house

POLLER_LINEAGE = LINEAGES[ServiceType.POLLER]
AGENTS = 40
BROKEN = PortError("the bucket answers nonsense")


@pytest.fixture
async def house(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[House]:
    monkeypatch.setattr(project, "_FIRST_BACKOFF", 0)
    monkeypatch.setattr(project, "_LAST_BACKOFF", 0)
    monkeypatch.setattr(issue, "PROJECTION_SECONDS", 0.02)
    async with running_house() as house:
        house.settling.patience = 1.0
        yield house


def agent(number: int) -> ServiceKey:
    return ServiceKey(ServiceType.AGENT, f"a{number:02}")


async def with_many_agents(house: House) -> None:
    """p1 lists so many agents that its document is refused from some time on."""
    await house.create()
    await house.settle()
    stored = await house.documents.read("config/pollers/p1.json")
    house.documents.largest = len(stored.data or b"") + 500
    for number in range(AGENTS):
        await house.create(AGENT, service_id=agent(number).service_id)
    await house.settle()


def document_status(house: House, key: ServiceKey) -> object:
    lineage = POLLER_LINEAGE if key == POLLER else Lineage(ServiceType.AGENT, "p1", key.service_id)
    document = house.document(lineage)
    return document and document["status"]


def children(house: House) -> int:
    document = house.document(POLLER_LINEAGE)
    assert document is not None
    return len(document["children"])


def counted(house: House) -> float | None:
    value: float | None = house.metrics.registry.get_sample_value("jetway_documents_set_aside")
    return value


async def test_a_document_that_is_too_large_keeps_nobody_else_back(house: House) -> None:
    await with_many_agents(house)
    await house.revoke(agent(7))
    await house.create(service_id="p2")
    await house.settle()
    assert document_status(house, agent(7)) == "revoked"
    assert document_status(house, agent(AGENTS - 1)) == "pending"
    assert house.document(Lineage(ServiceType.POLLER, "p2")) is not None
    assert children(house) < AGENTS
    assert [refused.name for refused in house.documents_aside.all()] == ["poller.p1"]
    assert counted(house) == 1


async def test_its_next_change_is_tried_again(house: House) -> None:
    await with_many_agents(house)
    await house.revoke(POLLER)
    await house.settle()
    assert document_status(house, POLLER) == "pending"
    house.documents.largest *= 100
    await house.administrator.delete(ALICE, agent(0), reason="")
    await house.settle()
    assert document_status(house, POLLER) == "revoked"
    assert (len(house.documents_aside), counted(house)) == (0, 0)


async def test_reconcile_tries_it_again_and_mends_the_others(house: House) -> None:
    await with_many_agents(house)
    key = "config/pollers/p1/agents/a39.json"
    await house.documents.delete(key, (await house.documents.read(key)).sequence)
    report = await reconcile(house)
    assert document_status(house, agent(39)) == "pending"
    assert report.errors == ("documents that cannot be written: 1",)
    assert any(finding.startswith("document set aside: poller.p1: ") for finding in report.findings)
    house.documents.largest *= 100
    report = await reconcile(house)
    assert (report.errors, children(house), counted(house)) == ((), AGENTS, 0)


async def test_a_reproject_goes_on_past_it(house: House) -> None:
    await with_many_agents(house)
    house.reprojector.start(ALICE)
    await house.settle()
    state = house.reprojector.state
    assert (state.state, state.done, state.error) == ("done", AGENTS + 1, "")


async def test_readiness_names_it(house: House) -> None:
    await with_many_agents(house)
    health = Health(
        house.index,
        house.projections,
        house.database,
        lambda: Component("ok"),
        house.clock,
        documents_aside=house.documents_aside,
    )
    report = await health.report()
    assert (report.ready, report.status) == (True, "degraded")
    detail = report.components["documents_set_aside"].detail
    assert detail.startswith("1 config documents are set aside: poller.p1: ")


async def test_what_may_be_nobodys_fault_is_tried_a_few_times_first(house: House) -> None:
    for _ in range(PATIENCE - 1):
        house.documents.fail_next("write", BROKEN)
    await house.create()
    await house.settle()
    assert document_status(house, POLLER) == "pending"
    assert len(house.documents_aside) == 0
    for _ in range(PATIENCE * 3):
        house.documents.fail_next("write", BROKEN)
    await house.revoke(POLLER)
    await house.settle()
    assert [str(refused) for refused in house.documents_aside.all()] == [f"poller.p1: {BROKEN}"]


async def test_a_bucket_that_is_away_sets_nothing_aside(house: House) -> None:
    for _ in range(PATIENCE * 3):
        house.documents.fail_next("write", UnavailableError("away"))
    await house.create()
    await house.settle()
    assert document_status(house, POLLER) == "pending"
    assert len(house.documents_aside) == 0


async def test_who_begins_to_lead_knows_of_none(house: House) -> None:
    await with_many_agents(house)
    house.document_writer.forget()
    assert (len(house.documents_aside), counted(house)) == (0, 0)


async def again() -> None:
    raise AssertionError("nobody asked")


def test_no_more_than_the_limit_is_set_aside() -> None:
    table = DocumentsAside(Metrics(), limit=2)
    refused = RejectedError("too large")
    assert [table.put(f"p{number}", refused, again) for number in range(3)] == [True, True, False]
    assert table.put("p1", refused, again), "it is there already"
    table.take("p0")
    assert table.put("p2", refused, again)
    assert [each.name for each in table.all()] == ["p1", "p2"]


async def test_who_asks_is_not_told_that_such_a_document_is_written(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(issue, "PROJECTION_SECONDS", 30.0)
    other = await house.create(service_id="p2")
    house.documents.largest = 10
    issued = await house.create()
    assert (other.projection["document"], issued.projection["document"]) == ("written", "queued")
    assert issued.projection["row"] == "written"
    revoked = await house.revoke(POLLER)
    assert "document" not in revoked.reached
    assert "document" in [left.what for left in revoked.left]
