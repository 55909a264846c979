"""/readyz says when the ledger is read but takes no writes."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from jetway.core.errors import (
    ConflictError,
    ExhaustedError,
    OutcomeUnknownError,
    PortError,
    UnavailableError,
)
from jetway.services.health import Component, Health
from jetway.services.write_watch import HOLDS_SECONDS, UNANSWERED_SECONDS
from support.house import House, running_house

NO_ROOM = ExhaustedError("JetStream: insufficient storage resources available (10047)")
UNANSWERED = OutcomeUnknownError("no answer")


@pytest.fixture
async def house() -> AsyncIterator[House]:
    async with running_house() as house:
        yield house


async def said(house: House) -> Component | None:
    health = Health(
        house.index,
        house.projections,
        house.database,
        lambda: Component("ok"),
        house.clock,
        ledger=house.ledger,
        writes=house.recorder.writes,
    )
    report = await health.report()
    assert report.ready
    assert report.status == ("degraded" if "writes" in report.components else "ok")
    return report.components.get("writes")


async def fail(house: House, error: PortError) -> None:
    house.ledger.fail_next("write", error)
    with pytest.raises(type(error)):
        await house.create(service_id="p9")


async def test_a_write_refused_for_want_of_room_is_told_until_one_is_taken(house: House) -> None:
    assert await said(house) is None
    await fail(house, NO_ROOM)
    component = await said(house)
    assert component == Component(
        "degraded", "NATS has no room: a write was refused 0 s ago, and none was taken since"
    )
    await house.create()
    assert await said(house) is None


async def test_it_is_old_news_after_a_while(house: House) -> None:
    await fail(house, NO_ROOM)
    house.clock.advance(HOLDS_SECONDS)
    assert await said(house) is not None
    house.clock.advance(1)
    assert await said(house) is None


async def test_writes_that_go_unanswered_are_told_once_it_cannot_be_a_lost_link(house: House) -> None:
    for _ in range(3):
        await fail(house, UNANSWERED)
    assert await said(house) is None, "one lost link takes many along"
    house.clock.advance(UNANSWERED_SECONDS + 1)
    await fail(house, UNANSWERED)
    component = await said(house)
    assert component is not None
    assert component.detail.startswith("NATS does not answer writes")
    house.clock.advance(HOLDS_SECONDS + 1)
    await fail(house, UNANSWERED)
    assert await said(house) is None, "it begins anew"


async def test_what_is_told_elsewhere_is_not_told_here(house: House) -> None:
    await fail(house, UnavailableError("NATS is not connected"))
    house.ledger.fail_next("write", ConflictError("another came first"))
    await house.create()
    assert await said(house) is None
