"""Revocation that cuts: told to the server at once, whole, and again until it is heard."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import timedelta

import pytest

from jetway.core import commands as c
from jetway.core.errors import UnavailableError
from jetway.core.ids import ServiceKey, ServiceType
from jetway.core.record import ServiceRecord
from jetway.core.times import rfc3339
from jetway.services import reach
from jetway.services.revocations import Left
from support.builders import AGENT, CHECKER, NOW, POLLER
from support.house import ALICE, House, running_house

LIFETIME = timedelta(days=30)


@pytest.fixture
async def house() -> AsyncIterator[House]:
    async with running_house() as running:
        await running.settle()
        running.nats_account.pushes = 0
        yield running


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer waits for as long as it takes: on a busy machine a second may pass with nothing done."""
    monkeypatch.setattr(reach, "SECONDS", 30.0)


async def activate(house: House, key: ServiceKey, nats_key: str, **changes: str) -> None:
    issued = await house.create(key, **changes)
    await house.redeem(issued.token, key=nats_key, csr=f"csr {nats_key}")
    await house.beat(issued.record.lineage)


async def tree(house: House) -> None:
    for key, nats_key in ((POLLER, "U-p"), (AGENT, "U-a"), (CHECKER, "U-c")):
        await activate(house, key, nats_key)


async def test_a_revoked_tree_is_told_listed_and_the_answer_says_so(house: House) -> None:
    await tree(house)
    house.clock.advance(60)
    change = await house.revoke(POLLER)
    later = NOW + timedelta(seconds=60)
    assert set(change.reached) == {"status", "document", "row", "nats", "crl"}
    assert change.left == ()
    assert house.nats_account.revoked == {"U-p": later, "U-a": later, "U-c": later}
    assert await house.revocations.revocation_list() == "revoked: 1 2 3"
    assert house.metrics.revocations_left._value.get() == 0


async def test_where_nothing_was_handed_out_nothing_is_to_be_told(house: House) -> None:
    house.nats_authority.issues = False
    issued = await house.create()
    await house.redeem(issued.token)
    change = await house.revoke(POLLER)
    assert (set(change.reached), change.left) == ({"status", "document", "row"}, ())


async def test_a_burst_needs_few_tellings(house: House) -> None:
    """Each tells everything that has come together meanwhile."""
    count = 40
    await activate(house, POLLER, "U-p")
    for n in range(count):
        await activate(house, ServiceKey(ServiceType.AGENT, f"a{n}"), f"U-{n}")
    before = house.nats_account.pushes
    house.revocations.pause = 0.05
    await house.revoke(POLLER)
    assert len(house.nats_account.revoked) == count + 1
    assert house.nats_account.pushes - before < 10


async def test_what_the_server_was_not_told_is_said_and_told_later(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reach, "SECONDS", 0.01)
    await activate(house, POLLER, "U-p")
    for _ in range(4):  # longer together than the answer waits
        house.nats_account.fail_next("publish_revocations", UnavailableError("away"))
    change = await house.revoke(POLLER)
    assert "nats" in {each.what for each in change.left}
    assert "nats" not in change.reached
    await _until(lambda: "U-p" in house.nats_account.revoked)
    assert house.revocations.trouble() == ""


async def test_while_it_fails_the_health_and_a_gauge_say_how_many_are_left(house: House) -> None:
    await activate(house, POLLER, "U-p")
    house.nats_account.fail_next("publish_revocations", UnavailableError("away"))
    await house.recorder.apply(POLLER, c.Revoke(reason="stolen"), ALICE)
    await _until(lambda: house.revocations.trouble() != "")
    house.clock.advance(5)
    trouble = "the NATS credentials of 1 revoked services still work, since 5 s: away"
    assert house.revocations.trouble() == trouble
    assert house.metrics.revocations_left._value.get() == 1
    await _until(lambda: house.revocations.trouble() == "")
    assert house.metrics.revocations_left._value.get() == 0


async def test_after_a_crash_the_ledger_tells_what_was_revoked(house: House) -> None:
    await tree(house)
    await house.stall("revocations")
    await house.recorder.apply(POLLER, c.Revoke(reason="stolen"), ALICE)
    assert house.nats_account.revoked == {}
    await house.crash()
    house.nats_account.revoked = {}
    await house.start()
    await house.settle()
    assert set(house.nats_account.revoked) == {"U-p"}
    await house.cascades.resume()
    await house.settle()
    assert set(house.nats_account.revoked) == {"U-p", "U-a", "U-c"}


async def test_nothing_is_told_before_the_whole_ledger_is_read() -> None:
    """Half a set would let the other half in again."""
    house = House()
    house.index.ready.clear()
    telling = asyncio.get_running_loop().create_task(house.revocations.run())
    for _ in range(10):
        await asyncio.sleep(0)
    assert house.nats_account.pushes == 0
    house.index.ready.set()
    await _until(lambda: house.nats_account.pushes == 1)
    telling.cancel()
    await asyncio.wait([telling])


async def test_what_expired_by_itself_is_left_out_of_the_next_telling(house: House) -> None:
    await activate(house, POLLER, "U-p")
    await house.revoke(POLLER)
    house.clock.advance(LIFETIME)
    await activate(house, ServiceKey(ServiceType.POLLER, "p2"), "U-2", service_id="p2")
    await house.revoke(ServiceKey(ServiceType.POLLER, "p2"))
    assert set(house.nats_account.revoked) == {"U-2"}
    assert await house.revocations.revocation_list() == "revoked: 2"


async def test_somebody_elses_server_cannot_be_told_and_the_answer_says_until_when(house: House) -> None:
    house.nats_account.can_revoke = False
    await tree(house)
    change = await house.revoke(POLLER)
    until = rfc3339(NOW + LIFETIME)
    why = f"this NATS server is not the gateway's own: 3 NATS credentials work there until {until}"
    assert change.left == (Left("nats", why),)
    assert set(change.reached) == {"status", "document", "row", "crl"}
    assert house.revocations.trouble() == why
    assert house.nats_account.pushes == 0
    house.clock.advance(LIFETIME)
    assert house.revocations.trouble() == ""


async def test_asking_again_tells_what_is_left(house: House) -> None:
    house.nats_account.can_revoke = False
    await activate(house, POLLER, "U-p")
    first = await house.revoke(POLLER)
    again = await house.revoke(POLLER)
    assert [each.what for each in again.left] == [each.what for each in first.left] == ["nats"]


async def test_an_interrupted_cascade_is_among_what_is_left(house: House) -> None:
    await tree(house)

    async def fail_the_children(record: ServiceRecord) -> None:
        if record.key != POLLER:
            raise UnavailableError("away")

    house.ledger.before_write = fail_the_children
    change = await house.revoke(POLLER)
    assert not change.complete
    assert "cascade" in {each.what for each in change.left}


async def test_a_projection_that_waits_is_among_what_is_left(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reach, "SECONDS", 3.0)
    await activate(house, POLLER, "U-p")
    await house.stall("rows")
    change = await house.revoke(POLLER)
    assert [each.what for each in change.left] == ["row"]
    assert "document" in change.reached


async def test_the_revocation_list_is_made_once_for_what_it_says(house: House) -> None:
    await tree(house)
    for _ in range(3):
        await house.revocations.revocation_list()
    assert house.certificates.calls.count("crl") == 1
    await house.revoke(POLLER)
    for _ in range(3):
        await house.revocations.revocation_list()
    assert house.certificates.calls.count("crl") == 2
    house.clock.advance(timedelta(hours=1))
    await house.revocations.revocation_list()
    assert house.certificates.calls.count("crl") == 3


async def test_a_revocation_list_of_a_clock_that_was_ahead_is_made_anew(house: House) -> None:
    house.clock.advance(timedelta(days=1))
    await house.revocations.revocation_list()
    house.clock.advance(timedelta(days=-1))
    await house.revocations.revocation_list()
    assert house.certificates.calls.count("crl") == 2


async def _until(reached: Callable[[], bool]) -> None:
    """Time is not what is tested: the clock on the wall passes until it is so."""
    async with asyncio.timeout(30):
        while not reached():  # noqa: ASYNC110 - what is waited for sets no event
            await asyncio.sleep(0.01)
