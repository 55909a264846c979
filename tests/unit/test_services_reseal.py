"""Sealing anew: every secret opens with the new key afterwards, and a repetition finishes what was interrupted."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from jetway.adapters.authority.vault import AesVault, VaultKeys, key_id
from jetway.core.errors import PortError, UnavailableError
from jetway.core.ids import ServiceKey, ServiceType
from jetway.services.identities import seed_context
from jetway.services.reseal import Resealer
from support.builders import LINEAGES, POLLER
from support.house import ALICE, House, running_house

OLD, NEW = bytes(32), bytes(range(32))
BOTH = AesVault(VaultKeys({key_id(OLD): OLD, key_id(NEW): NEW}), key_id(NEW))
ONLY_NEW = AesVault(VaultKeys({key_id(NEW): NEW}), key_id(NEW))
COUNT = 5


@pytest.fixture
async def house() -> AsyncIterator[House]:
    async with running_house() as running:
        for n in range(COUNT):
            issued = await running.create(service_id=f"p{n + 1}")
            await running.redeem(issued.token)
        await running.settle()
        yield running


def sealed(house: House, service_id: str) -> tuple[str, str]:
    identity = house.record(ServiceKey(ServiceType.POLLER, service_id)).identity
    assert identity is not None
    return identity.sealed_seed, seed_context(identity.package_id)


async def test_every_secret_opens_with_the_new_key_alone(house: House) -> None:
    assert await Resealer(house.recorder, BOTH).run(ALICE) == COUNT
    for n in range(COUNT):
        text, context = sealed(house, f"p{n + 1}")
        assert ONLY_NEW.open(text, context=context) == f"SU-seed-{n + 1}".encode()
    await house.settle()
    assert house.trail_of(POLLER)[-1] == "resealed"


async def test_a_repetition_finds_nothing_and_writes_nothing(house: House) -> None:
    await Resealer(house.recorder, BOTH).run(ALICE)
    writes = house.ledger.writes
    assert await Resealer(house.recorder, BOTH).run(ALICE) == 0
    assert house.ledger.writes == writes


async def test_what_was_interrupted_is_finished(house: House) -> None:
    async def away(_: object) -> None:
        if house.ledger.writes >= 2 * COUNT + 2:
            raise UnavailableError("away")

    house.ledger.before_write = away
    with pytest.raises(UnavailableError):
        await Resealer(house.recorder, BOTH).run(ALICE)
    house.ledger.before_write = None
    assert await Resealer(house.recorder, BOTH).run(ALICE) == COUNT - 2


async def test_an_active_service_has_nothing_left_to_seal(house: House) -> None:
    await house.beat(LINEAGES[ServiceType.POLLER])
    assert await Resealer(house.recorder, BOTH).run(ALICE) == COUNT - 1


async def test_what_cannot_be_opened_is_an_error_and_stays(house: House) -> None:
    """The old key is not retired then."""
    before = sealed(house, "p1")
    with pytest.raises(PortError):
        await Resealer(house.recorder, ONLY_NEW).run(ALICE)
    assert sealed(house, "p1") == before
