"""What every ledger must do. A further one joins by an entry in `ledgers`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest

from jetway.core.errors import ConflictError
from jetway.core.ids import ServiceKey, ServiceType
from jetway.core.record import ServiceRecord
from jetway.ports import Change, ChangeBatch, Entry, Ledger
from support.builders import record, transition, uid
from support.memory import MemoryLedger
from support.nats_server import NatsServer, gateway_on

POLLER, AGENT = ServiceType.POLLER, ServiceType.AGENT


@pytest.fixture(params=["memory", "nats"])
async def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Ledger]:
    if request.param == "memory":
        yield MemoryLedger(epoch=1)
        return
    server = NatsServer(tmp_path / "nats-server")
    await server.start()
    try:
        async with gateway_on(server) as gateway:
            yield gateway.ledger
    finally:
        await server.stop()


def revised(service_type: ServiceType = AGENT, number: int = 1, service_id: str = "") -> ServiceRecord:
    made = record(service_type, revision=number, transition=transition(transition_id=uid(number)))
    return replace(made, service_id=service_id) if service_id else made


async def follow_until(ledger: Ledger, count: int, after: int = 0) -> list[Change]:
    """Changes until there are `count` and the reader is caught up."""
    changes: list[Change] = []
    async with asyncio.timeout(30), aclosing(_generator(ledger, after)) as batches:
        async for batch in batches:
            changes += batch.changes
            if batch.caught_up and len(changes) >= count:
                return changes
    raise AssertionError("it ended")


async def _generator(ledger: Ledger, after: int) -> AsyncIterator[ChangeBatch]:
    async for batch in ledger.follow(after):
        yield batch


async def test_a_key_that_was_never_written_has_no_record_and_sequence_zero(ledger: Ledger) -> None:
    entry = await ledger.read(ServiceKey(AGENT, "nobody"))

    assert entry.record is None
    assert entry.sequence == 0


async def test_what_was_written_is_read(ledger: Ledger) -> None:
    sequence = await ledger.write(revised(), 0)

    entry = await ledger.read(revised().key)

    assert entry.record == revised()
    assert entry.sequence == sequence
    assert await ledger.last_sequence() == sequence
    assert ledger.epoch > 0


async def test_a_write_over_a_newer_one_loses_and_changes_nothing(ledger: Ledger) -> None:
    first = await ledger.write(revised(), 0)
    second = await ledger.write(revised(number=2), first)

    for expected in (0, first, second + 1):
        with pytest.raises(ConflictError):
            await ledger.write(revised(number=3), expected)

    assert (await ledger.read(revised().key)).record == revised(number=2)


async def test_one_of_two_racers_wins(ledger: Ledger) -> None:
    sequence = await ledger.write(revised(), 0)

    outcomes = await asyncio.gather(
        *(ledger.write(revised(number=n), sequence) for n in range(2, 12)), return_exceptions=True
    )

    assert sum(isinstance(outcome, int) for outcome in outcomes) == 1
    assert sum(isinstance(outcome, ConflictError) for outcome in outcomes) == 9


async def test_keys_do_not_disturb_each_other(ledger: Ledger) -> None:
    first = await ledger.write(revised(AGENT, service_id="same"), 0)
    await ledger.write(revised(POLLER, service_id="same"), 0)

    assert await ledger.write(revised(AGENT, 2, service_id="same"), first) > first


async def test_following_an_empty_ledger_is_caught_up_at_once(ledger: Ledger) -> None:
    assert await follow_until(ledger, 0) == []


async def test_following_gives_the_newest_per_key_and_then_what_comes(ledger: Ledger) -> None:
    first = await ledger.write(revised(service_id="a"), 0)
    other = await ledger.write(revised(service_id="b"), 0)
    second = await ledger.write(revised(number=2, service_id="a"), first)

    assert await follow_until(ledger, 2) == [
        Change(ServiceKey(AGENT, "b"), revised(service_id="b"), other),
        Change(ServiceKey(AGENT, "a"), revised(number=2, service_id="a"), second),
    ]

    seen: list[Change] = []
    async with asyncio.timeout(60), aclosing(_generator(ledger, 0)) as batches:
        while len(seen) < 2:
            seen += (await anext(batches)).changes
        third = await ledger.write(revised(number=3, service_id="a"), second)
        while len(seen) < 3:
            seen += (await anext(batches)).changes
    assert seen[-1] == Change(ServiceKey(AGENT, "a"), revised(number=3, service_id="a"), third)


async def test_following_goes_on_after_a_sequence(ledger: Ledger) -> None:
    first = await ledger.write(revised(service_id="a"), 0)
    second = await ledger.write(revised(service_id="b"), 0)

    assert [change.sequence for change in await follow_until(ledger, 1, after=first)] == [second]


async def test_two_followers_see_the_same(ledger: Ledger) -> None:
    await ledger.write(revised(service_id="a"), 0)
    await ledger.write(revised(service_id="b"), 0)

    one, two = await asyncio.gather(follow_until(ledger, 2), follow_until(ledger, 2))

    assert one == two


async def test_the_history_has_all_revisions_oldest_first(ledger: Ledger) -> None:
    sequences = {"a1": 0, "other": 0}
    for number in range(1, 6):
        for service_id, expected in sequences.items():
            written = revised(number=number, service_id=service_id)
            sequences[service_id] = await ledger.write(written, expected)

    assert list(await ledger.history(revised().key)) == [revised(number=number) for number in range(1, 6)]
    assert list(await ledger.history(ServiceKey(AGENT, "nobody"))) == []


async def test_a_purge_forgets_the_key_and_its_history(ledger: Ledger) -> None:
    key = revised().key
    sequence = await ledger.write(revised(number=2), await ledger.write(revised(), 0))
    with pytest.raises(ConflictError):
        await ledger.purge(key, sequence - 1)
    marker = await ledger.purge(key, sequence)
    assert await ledger.read(key) == Entry(None, marker)
    assert await ledger.history(key) == []
    changes = await follow_until(ledger, 1)
    assert [(change.key, change.record) for change in changes] == [(key, None)]
    with pytest.raises(ConflictError):
        await ledger.write(revised(), 0)
    await ledger.write(revised(), marker)
    assert (await ledger.read(key)).record == revised()
