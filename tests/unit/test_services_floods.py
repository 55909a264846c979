"""Who floods is shut out for a while, and let in again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from jetway.core.errors import UnavailableError
from jetway.core.ids import ServiceKey, ServiceType
from jetway.services.floods import SHUT_OUT
from support.builders import AGENT, NOW, POLLER
from support.house import House, running_house

LATER = NOW + SHUT_OUT


@pytest.fixture
async def house() -> AsyncIterator[House]:
    """p1 with credentials, a1 beneath it without."""
    async with running_house() as running:
        issued = await running.create(POLLER)
        await running.redeem(issued.token, key="U-p", csr="csr U-p")
        await running.beat(issued.record.lineage)
        running.nats_authority.issues = False
        beneath = await running.create(AGENT)
        await running.redeem(beneath.token)
        yield running


async def test_it_is_shut_out_told_of_and_let_in_again(house: House) -> None:
    house.floods.begin(POLLER)
    house.floods.begin(POLLER)
    await house.floods.look()
    await house.settle()
    assert house.nats_account.revoked == {"U-p": LATER}
    (event,) = house.events("flooded")
    assert (event.service_id, "60 s" in event.reason) == ("p1", True)
    assert house.metrics.floods._value.get() == 1

    house.clock.advance(SHUT_OUT)
    await house.floods.look()
    await house.settle()
    assert house.nats_account.revoked == {}
    assert len(house.events("flooded")) == 1

    house.floods.begin(POLLER)
    await house.floods.look()
    await house.settle()
    assert house.nats_account.revoked == {"U-p": LATER + SHUT_OUT}
    assert len(house.events("flooded")) == 2


async def test_its_end_does_not_end_a_revocation(house: House) -> None:
    house.floods.begin(POLLER)
    await house.revoke(POLLER)
    house.clock.advance(SHUT_OUT)
    await house.floods.look()
    await house.settle()
    assert house.nats_account.revoked == {"U-p": NOW}


@pytest.mark.parametrize("key", [AGENT, ServiceKey(ServiceType.POLLER, "stranger")], ids=str)
async def test_who_has_no_credentials_cannot_be_shut_out(house: House, key: ServiceKey) -> None:
    house.floods.begin(key)
    await house.floods.look()
    await house.settle()
    assert house.nats_account.revoked == {}
    assert house.events("flooded") == []


async def test_nor_can_anybody_where_the_server_cannot_be_told(house: House) -> None:
    house.nats_account.can_revoke = False
    house.floods.begin(POLLER)
    await house.floods.look()
    await house.settle()
    assert house.events("flooded") == []


async def test_the_trail_is_told_once_it_can_be(house: House) -> None:
    house.audit.fail_next("append", UnavailableError("away"))
    house.floods.begin(POLLER)
    await house.floods.look()
    await house.settle()
    assert house.events("flooded") == []
    house.clock.advance(timedelta(seconds=1))
    await house.floods.look()
    await house.settle()
    assert len(house.events("flooded")) == 1
