"""One of several daemons leads: never two, never long none."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from jetway.adapters.clock import RandomIdentifiers, SystemClock
from jetway.adapters.nats.bucket import Bucket
from jetway.adapters.nats.lease import LEASE_KEY, LEASE_SECONDS, LeaseBucket, NatsLease
from jetway.core.errors import ConflictError, OutcomeUnknownError, UnavailableError
from jetway.ports import StoredDocument
from support.nats_server import NatsServer, gateway_on
from support.virtual_time import Pausable, VirtualClock, run_virtually

HANDOVER_SECONDS = LEASE_SECONDS * 1.2
"""The lease, and how often the others look."""


class Key:
    """What the server keeps: one key."""

    def __init__(self) -> None:
        self.stored = StoredDocument(None, 0)

    def swap(self, data: bytes | None, expected: int) -> int:
        if expected != self.stored.sequence:
            raise ConflictError("wrong last sequence")
        self.stored = StoredDocument(data, self.stored.sequence + 1)
        return self.stored.sequence


class Wire:
    """One daemon's way to the key, which delays, loses and cuts."""

    def __init__(self, key: Key) -> None:
        self.key = key
        self.delay: Callable[[], float] = lambda: 0.001
        self.cut = False
        self.lost_questions = 0
        self.lost_answers = 0
        self.writes = 0

    async def read(self, key: str) -> StoredDocument:
        return await self._ask(lambda: self.key.stored)

    async def write(self, key: str, data: bytes, expected: int) -> int:
        self.writes += 1
        return await self._ask(lambda: self.key.swap(data, expected))

    async def delete(self, key: str, expected: int) -> None:
        await self._ask(lambda: self.key.swap(None, expected))

    async def _ask(self, do: Callable[[], StoredDocument | int]) -> object:
        self._need_link()
        await asyncio.sleep(self.delay())
        if self.cut or self._take("lost_questions"):
            await self._never()
        answer = do()
        await asyncio.sleep(self.delay())
        if self.cut or self._take("lost_answers"):
            await self._never()
        return answer

    def _need_link(self) -> None:
        if self.cut:
            raise UnavailableError("not connected")

    def _take(self, counter: str) -> bool:
        left: int = getattr(self, counter)
        setattr(self, counter, max(0, left - 1))
        return left > 0

    async def _never(self) -> None:
        await asyncio.sleep(5)
        raise OutcomeUnknownError("no answer")


class Contender:
    """One daemon as far as the lease is concerned."""

    def __init__(
        self, key: Key, *, offset: float = 0.0, rate: float = 1.0, holder: str = "", host: str = ""
    ) -> None:
        self.wire = Wire(key)
        self.clock = VirtualClock(offset, rate)
        self.lease = NatsLease(
            self.wire,  # type: ignore[arg-type]
            self.clock,
            RandomIdentifiers(),
            holder=holder,
            host=host,
        )
        self.process = Pausable(self.lease.run())
        self.task = asyncio.get_running_loop().create_task(self.process.run())

    async def die(self) -> None:
        self.task.cancel()
        await asyncio.wait([self.task])


def seconds() -> float:
    return asyncio.get_running_loop().time()


async def until(check: Callable[[], bool], within: float) -> float:
    """How long it took."""
    began = seconds()
    while not check():
        assert seconds() - began <= within, f"not within {within} s"
        await asyncio.sleep(0.01)
    return seconds() - began


def virtually(test: Callable[[Contender, Contender], Awaitable[None]]) -> Callable[[], None]:
    """Run a test with two contenders, the first of which leads, in virtual time."""

    async def play() -> None:
        key = Key()
        first = Contender(key)
        await until(lambda: first.lease.held, 1)
        second = Contender(key, offset=1e6)
        await test(first, second)
        await first.die()
        await second.die()

    def run() -> None:
        run_virtually(play())

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


@virtually
async def test_the_first_one_keeps_the_lease_as_long_as_it_lives(first: Contender, second: Contender) -> None:
    for _ in range(3600):
        await asyncio.sleep(1)
        assert first.lease.held
        assert not second.lease.held


@virtually
async def test_another_one_leads_within_the_lease_after_the_holders_death(
    first: Contender, second: Contender
) -> None:
    await asyncio.sleep(100)
    await first.die()
    await until(lambda: not first.lease.held, LEASE_SECONDS)
    assert not second.lease.held
    await until(lambda: second.lease.held, HANDOVER_SECONDS)


@virtually
async def test_a_release_hands_over_at_once_and_for_good(first: Contender, second: Contender) -> None:
    await asyncio.sleep(100)
    await first.lease.release()
    assert not first.lease.held
    assert await until(lambda: second.lease.held, HANDOVER_SECONDS) < LEASE_SECONDS / 6
    await second.die()
    await asyncio.sleep(10 * LEASE_SECONDS)
    assert not first.lease.held, "it was released: its daemon is stopping"
    await first.lease.release()


@virtually
async def test_a_release_right_after_a_renewal_whose_answer_was_lost_still_hands_over(
    first: Contender, second: Contender
) -> None:
    writes = first.wire.writes
    first.wire.lost_answers = 1
    await until(lambda: first.wire.writes > writes, LEASE_SECONDS)
    await asyncio.sleep(0.1)
    await first.lease.release()
    assert await until(lambda: second.lease.held, HANDOVER_SECONDS) < LEASE_SECONDS / 6


@virtually
async def test_a_lost_answer_to_a_renewal_costs_nothing(first: Contender, second: Contender) -> None:
    for _ in range(50):
        first.wire.lost_answers = 1
        for _ in range(100):
            await asyncio.sleep(LEASE_SECONDS / 50)
            assert first.lease.held
            assert not second.lease.held


@virtually
async def test_whoever_cannot_reach_nats_stops_leading_before_another_may_begin(
    first: Contender, second: Contender
) -> None:
    await asyncio.sleep(100)
    first.wire.cut = True
    stopped = await until(lambda: not first.lease.held, LEASE_SECONDS)
    began = stopped + await until(lambda: second.lease.held, HANDOVER_SECONDS)
    assert began - stopped > LEASE_SECONDS * 0.2, (
        "there is room for its last writes and for clocks that differ"
    )
    first.wire.cut = False
    await asyncio.sleep(10 * LEASE_SECONDS)
    assert second.lease.held
    assert not first.lease.held


@virtually
async def test_whoever_waits_learns_in_time_that_it_no_longer_leads(
    first: Contender, second: Contender
) -> None:
    """`wait(False)` is what ends projections and jobs: it must not come later than `held` says."""
    await asyncio.sleep(LEASE_SECONDS * 0.77)
    first.wire.cut = True
    waiting = asyncio.get_running_loop().create_task(first.lease.wait(False))
    await until(lambda: not first.lease.held, LEASE_SECONDS)
    await until(waiting.done, LEASE_SECONDS / 20)
    assert not second.lease.held


@virtually
async def test_with_nats_away_nobody_leads_and_then_one_does_again(
    first: Contender, second: Contender
) -> None:
    first.wire.cut = second.wire.cut = True
    await until(lambda: not first.lease.held, LEASE_SECONDS)
    await asyncio.sleep(300)
    assert not first.lease.held
    assert not second.lease.held
    first.wire.cut = second.wire.cut = False
    await until(lambda: first.lease.held or second.lease.held, LEASE_SECONDS / 4)
    assert not (first.lease.held and second.lease.held)


@virtually
async def test_a_holder_that_was_stopped_does_not_lead_when_it_goes_on(
    first: Contender, second: Contender
) -> None:
    await asyncio.sleep(100)
    first.process.pause()
    await until(lambda: second.lease.held, HANDOVER_SECONDS)
    await asyncio.sleep(60)
    assert not first.lease.held
    first.process.resume()
    await asyncio.sleep(60)
    assert not first.lease.held
    assert second.lease.held


def test_taking_the_lease_survives_a_lost_answer() -> None:
    async def play() -> None:
        key = Key()
        contender = Contender(key)
        contender.wire.lost_answers = 2  # of the read, then of the write
        await until(lambda: contender.lease.held, LEASE_SECONDS)
        await contender.die()

    run_virtually(play())


@pytest.mark.parametrize("seed", range(12))
def test_there_are_never_two_leaders_whatever_happens(seed: int) -> None:
    """Three daemons with clocks that differ; links that delay, lose and break; processes that stop and go on."""

    async def play() -> None:
        chance = random.Random(seed)
        key = Key()
        all_ = [
            Contender(key, offset=chance.uniform(0, 1e6), rate=chance.uniform(0.99, 1.01)) for _ in range(3)
        ]
        for contender in all_:
            contender.wire.delay = lambda: (
                chance.expovariate(50) if chance.random() < 0.9 else chance.uniform(0, 4)
            )
        leaders: list[Contender] = []
        trouble = chance.expovariate(0.2)
        while seconds() < 1200:
            await asyncio.sleep(0.02)
            holding = [contender for contender in all_ if contender.lease.held]
            assert len(holding) <= 1, f"two leaders at {seconds():.2f} s"
            if holding and leaders[-1:] != holding:
                leaders += holding
            if seconds() > trouble:
                make_trouble(chance, all_)
                trouble = seconds() + chance.expovariate(0.2)
        assert len(leaders) > 10, "the leaders did not change: nothing was shown"
        for contender in all_:
            contender.process.resume()
            contender.wire.cut, contender.wire.lost_questions, contender.wire.lost_answers = False, 0, 0
            contender.wire.delay = lambda: 0.001
        await until(lambda: any(contender.lease.held for contender in all_), HANDOVER_SECONDS + 5)
        for contender in all_:
            await contender.die()

    run_virtually(play())


def make_trouble(chance: random.Random, all_: list[Contender]) -> None:
    holding = [contender for contender in all_ if contender.lease.held]
    victim = chance.choice(holding or all_) if chance.random() < 0.6 else chance.choice(all_)
    match chance.randrange(6):
        case 0:
            victim.process.pause()
        case 1:
            victim.wire.cut = True
        case 2:
            victim.wire.lost_answers += chance.randint(1, 4)
        case 3:
            victim.wire.lost_questions += chance.randint(1, 4)
        case _:
            for contender in all_:
                contender.process.resume()
                contender.wire.cut = False


# --- started again from the same state directory


async def killed(key: Key, holder: str) -> None:
    """A daemon that leads, renews, and is killed."""
    before = Contender(key, holder=holder, host="before")
    await until(lambda: before.lease.held, 1)
    await asyncio.sleep(LEASE_SECONDS * 1.1)
    await before.die()


def test_a_daemon_that_was_killed_takes_its_own_lease_back_at_once() -> None:
    async def play() -> None:
        key = Key()
        await killed(key, "state-1")
        again = Contender(key, offset=1e6, holder="state-1")
        await until(lambda: again.lease.held, 0.1)
        await again.die()

    run_virtually(play())


def test_the_lease_of_another_state_directory_is_waited_for() -> None:
    async def play() -> None:
        key = Key()
        await killed(key, "state-1")
        other = Contender(key, offset=1e6, holder="state-2")
        assert await until(lambda: other.lease.held, HANDOVER_SECONDS) > LEASE_SECONDS * 0.9
        await other.die()

    run_virtually(play())


def test_one_that_came_in_between_keeps_the_lease() -> None:
    async def play() -> None:
        key = Key()
        await killed(key, "state-1")
        other = Contender(key, offset=1e6, holder="state-2")
        await until(lambda: other.lease.held, HANDOVER_SECONDS)
        again = Contender(key, holder="state-1")
        for _ in range(100):
            await asyncio.sleep(LEASE_SECONDS / 20)
            assert other.lease.held
            assert not again.lease.held
        await other.die()
        await again.die()

    run_virtually(play())


def test_copies_of_one_state_directory_do_not_take_the_lease_from_each_other_for_ever() -> None:
    """They should not run at the same time. If they do, one of them leads after a moment, and goes on leading."""

    async def play() -> None:
        key = Key()
        one = Contender(key, holder="state-1")
        await until(lambda: one.lease.held, 1)
        copy = Contender(key, offset=1e6, holder="state-1")
        await until(lambda: copy.lease.held and not one.lease.held, LEASE_SECONDS)
        for _ in range(100):
            await asyncio.sleep(LEASE_SECONDS / 20)
            assert copy.lease.held
            assert not one.lease.held
        await one.die()
        await copy.die()

    run_virtually(play())


def test_a_lost_answer_to_the_first_write_does_not_cost_the_lease() -> None:
    async def play() -> None:
        key = Key()
        await killed(key, "state-1")
        again = Contender(key, offset=1e6, holder="state-1")
        again.wire.lost_answers = 2
        await until(lambda: again.lease.held, LEASE_SECONDS)
        await again.die()

    run_virtually(play())


@virtually
async def test_garbage_in_the_key_is_waited_for_and_written_over(first: Contender, second: Contender) -> None:
    await first.die()
    for data in (b"\xff", b"[]", b"7", b'{"holder": ["x"]}'):
        second.wire.key.swap(data, second.wire.key.stored.sequence)
        await until(lambda: not second.lease.held, LEASE_SECONDS)
        await until(lambda: second.lease.held, HANDOVER_SECONDS)


def test_it_is_known_who_leads() -> None:
    async def play() -> None:
        key = Key()
        one = Contender(key, host="alpha")
        await until(lambda: one.lease.held, 1)
        other = Contender(key, host="beta", offset=1e6)
        await asyncio.sleep(1)
        assert (one.lease.leader, other.lease.leader) == (None, "alpha")
        await asyncio.sleep(5 * LEASE_SECONDS)
        assert other.lease.leader == "alpha"
        await one.die()
        await until(lambda: other.lease.leader is None, HANDOVER_SECONDS)
        await until(lambda: other.lease.held, HANDOVER_SECONDS)
        await other.die()

    run_virtually(play())


# --- on a real server

SHORT = 4.0
"""Seconds: a machine that stands still for a while does not cost the lease."""


@asynccontextmanager
async def contending(server: NatsServer) -> AsyncIterator[NatsLease]:
    """A lease on a connection of its own."""
    async with gateway_on(server) as gateway:
        bucket: LeaseBucket = Bucket(gateway.jetstream, gateway.names.meta_bucket)
        lease = NatsLease(bucket, SystemClock(), RandomIdentifiers(), seconds=SHORT)
        running = asyncio.create_task(lease.run())
        try:
            yield lease
        finally:
            running.cancel()
            await asyncio.wait([running])


async def test_on_nats_it_is_kept_handed_over_and_taken_over(nats_server: NatsServer) -> None:
    async with asyncio.timeout(60), contending(nats_server) as second:
        await second.wait(True)
        async with contending(nats_server) as first:
            await second.wait(True)
            assert not first.held
            await second.release()
            await first.wait(True)
        # `first` is gone without a release.
        async with contending(nats_server) as third:
            assert not third.held
            await third.wait(True)
            assert not first.held


async def test_on_nats_that_stands_still_nobody_leads_until_it_goes_on(nats_server: NatsServer) -> None:
    async with asyncio.timeout(60), contending(nats_server) as first:
        await first.wait(True)
        async with contending(nats_server) as second:
            await nats_server.pause()
            await first.wait(False)
            assert not second.held
            nats_server.resume()
            while not (first.held or second.held):  # noqa: ASYNC110 - either may be the one
                await asyncio.sleep(0.01)
            assert not (first.held and second.held)


async def test_a_lease_whose_key_somebody_deleted_is_taken_again_by_one(nats_server: NatsServer) -> None:
    async with asyncio.timeout(60), contending(nats_server) as first, gateway_on(nats_server) as gateway:
        await first.wait(True)
        bucket = Bucket(gateway.jetstream, gateway.names.meta_bucket)
        deleted = False
        while not deleted:
            stored = await bucket.read(LEASE_KEY)
            with contextlib.suppress(ConflictError):  # it was renewed in between
                await bucket.delete(LEASE_KEY, stored.sequence)
                deleted = True
        await first.wait(False)
        await first.wait(True)
