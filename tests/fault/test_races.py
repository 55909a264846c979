"""Two daemons on one NATS: whatever they are asked at the same moment, there is one outcome and one story.

Here their services race in one process, by the hundred or, with `JETWAY_TEST_RACE_ROUNDS=1000`, by the thousand:
two sequences of requests to a real server fall between each other in every way there is. `test_two_daemons.py`
does the same with whole daemons, in smaller numbers.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from nats.aio.msg import Msg

from jetway.adapters.nats.inbox import Inbox
from jetway.core.ids import Lineage, ServiceKey, ServiceType
from jetway.core.policy import GONE
from jetway.core.record import LIVE_PACKAGE, Cascade, PackageStatus, ServiceRecord, ServiceStatus
from jetway.services import issue
from support.stacks import Stack, code, two_stacks

ROUNDS = int(os.environ.get("JETWAY_TEST_RACE_ROUNDS", "200"))
AT_ONCE = 16
"""Rounds under way at one time."""
Stacks = tuple[Stack, Stack]
S = ServiceStatus

_numbers = itertools.count(1)
pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer waits for document and row, and a question for the server, as long as they take with so many."""
    monkeypatch.setattr(issue, "PROJECTION_SECONDS", 60.0)
    ask = Inbox.ask

    async def patiently(
        inbox: Inbox, subject: str, data: bytes, headers: dict[str, str] | None, timeout: float
    ) -> Msg:
        return await ask(inbox, subject, data, headers, max(timeout, 60.0))

    monkeypatch.setattr(Inbox, "ask", patiently)


@pytest.fixture
async def stacks(tmp_path: Path) -> AsyncIterator[Stacks]:
    async with two_stacks(tmp_path) as both:
        yield both


@pytest.fixture
async def open_stacks(tmp_path: Path) -> AsyncIterator[Stacks]:
    """Unknown services are admitted at once."""
    async with two_stacks(tmp_path, implicit_registration="allow", implicit_limit=100_000) as both:
        yield both


@pytest.fixture
async def quarantining(tmp_path: Path) -> AsyncIterator[Stacks]:
    async with two_stacks(tmp_path, implicit_registration="quarantine", implicit_limit=100_000) as both:
        yield both


def poller() -> ServiceKey:
    return ServiceKey(ServiceType.POLLER, f"p-{next(_numbers)}")


def agent() -> ServiceKey:
    return ServiceKey(ServiceType.AGENT, f"a-{next(_numbers)}")


def checker() -> ServiceKey:
    return ServiceKey(ServiceType.CHECKER, f"c-{next(_numbers)}")


async def rounds(
    play: Callable[[random.Random], Awaitable[str]], *expected: str, often: bool = False
) -> None:
    """Play it many times. Each of the `expected` outcomes comes, else it was no race.

    In a thousand rounds, that is: some come once in a hundred. In a hundred, where all of them come `often`.
    """
    chance = random.Random(7)
    left = iter(range(ROUNDS))
    seen: Counter[str] = Counter()

    async def one_after_the_other() -> None:
        for _ in left:
            seen[await play(chance)] += 1

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(one_after_the_other())
    print(f"{sum(seen.values())} rounds:", dict(seen.most_common()))
    missing = [name for name in expected if not any(name in outcome for outcome in seen)]
    enough = 100 if often else 1000
    assert enough > ROUNDS or not missing, f"never seen: {missing} in {dict(seen)}"


async def together(chance: random.Random, *calls: Awaitable[Any]) -> list[Any]:
    """All at about the same moment, in a random order; refusals come back as values."""
    within = chance.choice((0.001, 0.004, 0.02, 0.1))

    async def late(call: Awaitable[Any], by: float) -> Any:
        await asyncio.sleep(by)
        return await call

    tasks = [asyncio.ensure_future(late(call, chance.random() * within)) for call in calls]
    return await asyncio.gather(*tasks, return_exceptions=True)


async def require_nobody_outlives_a_parent(stacks: Stacks) -> None:
    """Where a cascade is complete nothing lives beneath; and every cascade gets there."""
    leader = stacks[0]
    for finished in (False, True):
        for stack in stacks:
            await stack.caught_up()
            records = stack.house.index.records
            for record in list(records.values()):
                above = records.get(record.parent) if record.parent else None
                if above and above.status in GONE and (finished or above.cascade is Cascade.NONE):
                    assert not record.live, f"{record.key} lives beneath {above.key}"
        while any(r.cascade is Cascade.RUNNING for r in leader.house.index.records.values()):
            await leader.house.cascades.resume()
            await leader.caught_up()


# --- beneath a parent that goes


async def test_a_child_created_while_its_parent_is_revoked(stacks: Stacks) -> None:
    one, other = stacks

    async def play(chance: random.Random) -> str:
        parent, child = poller(), agent()
        await one.create(parent)
        creating, revoking = chance.sample(stacks, 2)
        created, revoked = await together(chance, creating.create(child, parent), revoking.revoke(parent))
        assert code(revoked) == "done"
        assert revoked.complete
        story = await other.story(child)
        record = await other.record(child)
        match code(created):
            case "done":
                assert story == ["registered", "issued", "revoked", "cascade_completed"]
                assert record is not None
                assert record.status_reason == f"{parent} was taken out"
            case "parent_not_live":
                ends = ([], ["withdrawn"], ["revoked"], ["revoked", "cascade_completed"])
                assert story in ([], *(["registered", "issued", *end] for end in ends[1:]))
            case unexpected:
                raise AssertionError(unexpected)
        assert record is None or record.status in GONE
        assert await other.story(parent) == [
            *("registered", "issued"),
            *("status_override", "revoked", "cascade_completed"),
        ]
        return f"{code(created)} {story[2:3]}"

    await rounds(play, "done ['revoked']", "parent_not_live []", "withdrawn")
    await require_nobody_outlives_a_parent(stacks)


async def test_grandchildren_created_on_one_while_the_other_revokes_the_whole_tree(stacks: Stacks) -> None:
    one, _ = stacks

    async def play(chance: random.Random) -> str:
        root, agents = poller(), [agent() for _ in range(3)]
        await one.create(root)
        await asyncio.gather(*(one.create(key, root) for key in agents))
        revoking, creating = chance.sample(stacks, 2)
        below = [(checker(), chance.choice(agents)) for _ in range(5)]
        revoked, *created = await together(
            chance, revoking.revoke(root), *(creating.create(key, above) for key, above in below)
        )
        assert revoked.complete
        outcomes = Counter(code(each) for each in created)
        assert set(outcomes) <= {"done", "parent_not_live"}
        for key, _ in below:
            record = await revoking.record(key)
            assert record is None or record.status in GONE, record
        for key in agents:
            record = await revoking.record(key)
            assert record is not None
            assert (record.status, record.cascade) == (S.REVOKED, Cascade.NONE)
        return f"{outcomes['done']} created"

    await rounds(play, "1 created", "2 created", "3 created")
    await require_nobody_outlives_a_parent(stacks)


async def test_a_child_reissued_while_its_parent_is_revoked(stacks: Stacks) -> None:
    one, _ = stacks

    async def play(chance: random.Random) -> str:
        parent, child = poller(), agent()
        await one.create(parent)
        package = (await one.create(child, parent)).package
        await asyncio.gather(*(stack.caught_up() for stack in stacks))
        reissuing, revoking = chance.sample(stacks, 2)
        reissued, revoked = await together(
            chance, reissuing.reissue(package.package_id), revoking.revoke(parent)
        )
        assert revoked.complete
        assert code(reissued) in (
            "done",
            "parent_not_live",
            "illegal_transition",
        )  # its own cascade may be running
        record = await one.record(child)
        assert record is not None
        assert record.status is S.REVOKED
        assert all(p.status not in LIVE_PACKAGE for p in (record.package, *record.earlier_packages) if p)
        story = [event for event in (await one.story(child))[2:] if event != "cascade_completed"]
        assert story in (
            ["revoked"],
            ["reissued", "issued", "revoked"],
            ["revoked", "reissued", "issued", "revoked"],
        )
        return f"{code(reissued)} {story}"

    await rounds(play, "done", "parent_not_live")
    await require_nobody_outlives_a_parent(stacks)


async def test_services_that_register_themselves_while_their_poller_is_revoked(open_stacks: Stacks) -> None:
    """Both daemons hear the heartbeat of a checker whose agent is not known either."""
    one, other = open_stacks

    async def play(chance: random.Random) -> str:
        root, above, below = poller(), agent(), checker()
        await one.create(root)
        lineage = Lineage(ServiceType.CHECKER, root.service_id, above.service_id, below.service_id)
        revoking = chance.choice(open_stacks)
        *verdicts, revoked = await together(
            chance, one.beat(lineage), other.beat(lineage), revoking.revoke(root)
        )
        assert revoked.complete
        records = [await one.record(key) for key in (above, below)]
        return f"{[v.refused for v in verdicts]} {[r.status.value if r else None for r in records]}"

    await rounds(play, "[None, None]")
    await require_nobody_outlives_a_parent(open_stacks)


async def test_a_service_approved_while_its_poller_is_revoked(quarantining: Stacks) -> None:
    one, _ = quarantining

    async def play(chance: random.Random) -> str:
        root, child = poller(), agent()
        await one.create(root)
        await one.beat(Lineage(ServiceType.AGENT, root.service_id, child.service_id))
        approving, revoking = chance.sample(quarantining, 2)
        approved, revoked = await together(chance, approving.approve(child), revoking.revoke(root))
        assert revoked.complete
        record = await one.record(child)
        assert record is not None
        assert record.status is S.REVOKED
        story = await one.story(child)
        taken_out = ["revoked", "cascade_completed"]
        assert story in (["registered", *taken_out], ["registered", "approved", *taken_out])
        assert ("approved" in story) is (code(approved) == "done")
        return code(approved)

    await rounds(play, "done", "illegal_transition")
    await require_nobody_outlives_a_parent(quarantining)


async def test_two_revocations_of_one_tree_at_once(stacks: Stacks) -> None:
    one, other = stacks

    async def play(chance: random.Random) -> str:
        root, agents = poller(), [agent() for _ in range(4)]
        await one.create(root)
        await asyncio.gather(*(one.create(key, root) for key in agents))
        await other.caught_up()
        both = await together(chance, one.revoke(root), other.revoke(root))
        assert all(affected.complete for affected in both)
        for key in agents:
            assert await one.story(key) == ["registered", "issued", "revoked", "cascade_completed"]
        assert (await one.story(root)).count("cascade_completed") == 1
        return str(sorted(len(affected.services) for affected in both))

    await rounds(play)
    await require_nobody_outlives_a_parent(stacks)


async def test_a_value_that_is_no_record_at_the_end_of_the_ledger_is_read_past(stacks: Stacks) -> None:
    """Whoever begins to lead waits for the end of the ledger: it must get there."""
    one, other = stacks
    jetstream = one.outside.ledger._js  # type: ignore[attr-defined]
    await jetstream.publish("$KV.registry.poller.rubbish", b"by hand")
    for stack in (one, other):
        assert await stack.house.recorder.catch_up(20)


# --- one service, two wishes


async def test_a_token_redeemed_while_its_service_is_reissued(stacks: Stacks) -> None:
    one, _ = stacks

    async def play(chance: random.Random) -> str:
        key = poller()
        issued = await one.create(key)
        await asyncio.gather(*(stack.caught_up() for stack in stacks))
        redeeming, reissuing = chance.sample(stacks, 2)
        redeemed, reissued = await together(
            chance, redeeming.redeem(issued.token), reissuing.reissue(issued.package.package_id)
        )
        assert code(reissued) == "done"
        story, record = await one.story(key), await one.record(key)
        assert record is not None
        old = record.find_package(issued.package.package_id)
        assert old is not None
        assert old.status is PackageStatus.SUPERSEDED
        match code(redeemed):
            case "done":
                assert story == ["registered", "issued", "delivered", "reissued", "issued"]
                assert old.delivered_to == "edge (192.0.2.1)"
            case "superseded":
                assert story == ["registered", "issued", "reissued", "issued"]
                assert old.delivered_at is None
            case unexpected:
                raise AssertionError(unexpected)
        require_at_most_one_live_package(record)
        again = await asyncio.gather(redeeming.redeem(issued.token), return_exceptions=True)
        assert code(again[0]) == "superseded"
        assert code(await reissuing.redeem(reissued.token)) == "done"
        return code(redeemed)

    await rounds(play, "done", "superseded", often=True)


def require_at_most_one_live_package(record: ServiceRecord) -> None:
    packages = [p for p in (record.package, *record.earlier_packages) if p]
    assert sum(p.status in LIVE_PACKAGE for p in packages) <= 1
    assert len({p.generation for p in packages}) == len(packages)


async def test_a_package_revoked_while_its_service_is_reissued(stacks: Stacks) -> None:
    """Whoever means the old package must not hit the new one."""
    one, other = stacks

    async def play(chance: random.Random) -> str:
        key = poller()
        issued = await one.create(key)
        await other.caught_up()
        package_id = issued.package.package_id
        revoking, reissuing = chance.sample(stacks, 2)
        revoked, reissued = await together(
            chance, revoking.revoke_package(package_id), reissuing.reissue(package_id)
        )
        record = await one.record(key)
        assert record is not None
        outcome = (code(revoked), code(reissued))
        match outcome:
            case ("done", "done"):
                assert "revoked" in await one.story(key)
                assert record.status is S.PENDING
            case ("superseded", "done"):
                assert await one.story(key) == ["registered", "issued", "reissued", "issued"]
                assert record.status is S.PENDING
            case ("done", "illegal_transition"):  # the cascade was running
                assert record.status is S.REVOKED
            case unexpected:
                raise AssertionError(unexpected)
        return str(outcome)

    await rounds(play, "('done', 'done')", "superseded", often=True)


async def test_two_reissues_and_a_redemption_at_once(stacks: Stacks) -> None:
    one, other = stacks

    async def play(chance: random.Random) -> str:
        key = poller()
        issued = await one.create(key)
        await other.caught_up()
        package_id = issued.package.package_id
        first, second, redeemed = await together(
            chance,
            *(one.reissue(package_id), other.reissue(package_id)),
            chance.choice(stacks).redeem(issued.token),
        )
        assert code(first) == code(second) == "done"
        record = await one.record(key)
        assert record is not None
        require_at_most_one_live_package(record)
        assert record.package is not None
        assert record.package.generation == 3
        good = [each for each in (first, second) if each.package.package_id == record.package.package_id]
        bad = first if good == [second] else second
        outcomes = await asyncio.gather(
            one.redeem(bad.token), other.redeem(good[0].token), return_exceptions=True
        )
        assert [code(each) for each in outcomes] == ["superseded", "done"]
        return code(redeemed)

    await rounds(play, "done", "superseded", often=True)


async def test_a_service_deleted_while_it_is_created_anew(stacks: Stacks) -> None:
    one, _ = stacks

    async def play(chance: random.Random) -> str:
        key = poller()
        issued = await one.create(key)
        await one.revoke(key)
        await asyncio.gather(*(stack.caught_up() for stack in stacks))
        deleting, creating = chance.sample(stacks, 2)
        deleted, created, third = await together(
            chance, deleting.delete(key), creating.create(key), deleting.create(key)
        )
        assert code(deleted) == "done"
        record, story = await one.record(key), await one.story(key)
        assert record is not None
        before = ["registered", "issued", "status_override", "revoked", "cascade_completed"]
        gone = [*before, "deleted", "cascade_completed"]
        outcomes = sorted((code(created), code(third)))
        if "done" in outcomes:
            assert outcomes[0] != outcomes[1], "two winners"
            assert (record.status, record.incarnation, record.cascade) == (S.PENDING, 2, Cascade.NONE)
            assert story == [*gone, "registered", "issued"]
            winner = created if code(created) == "done" else third
            assert record.package is not None
            assert record.package.package_id == winner.package.package_id
            assert record.package.generation == issued.package.generation + 1
        else:
            assert (record.status, record.incarnation) == (S.DELETED, 1)
            assert story == gone
        assert set(outcomes) <= {"done", "taken", "illegal_transition"}
        return str(outcomes)

    await rounds(play, "done", "taken")


async def test_an_id_created_on_both_at_once(stacks: Stacks) -> None:
    one, other = stacks

    async def play(chance: random.Random) -> str:
        key = poller()
        outcomes = await together(chance, one.create(key), other.create(key))
        assert sorted(code(each) for each in outcomes) == ["done", "taken"]
        assert await one.story(key) == ["registered", "issued"]
        record = await one.record(key)
        winner = next(each for each in outcomes if code(each) == "done")
        assert record == winner.record
        return "first" if winner is outcomes[0] else "second"

    await rounds(play, "first", "second", often=True)


async def test_one_idempotency_key_used_on_both_at_once(stacks: Stacks) -> None:
    one, other = stacks

    async def play(chance: random.Random) -> str:
        key = poller()
        name = f"key-{key}"
        calls = [stack.create(key, idempotency_key=name) for stack in (one, other, one, other)]
        outcomes = await together(chance, *calls)
        assert {code(each) for each in outcomes} == {"done"}
        assert len({(each.package.package_id, each.token) for each in outcomes}) == 1
        assert await one.story(key) == ["registered", "issued"]
        assert all(each.projection == {"document": "written", "row": "written"} for each in outcomes)
        return "done"

    await rounds(play)


async def test_a_token_redeemed_by_many_on_both_at_once(stacks: Stacks) -> None:
    one, _ = stacks

    async def play(chance: random.Random) -> str:
        key = poller()
        issued = await one.create(key)
        calls = [stacks[number % 2].redeem(issued.token, f"host-{number}") for number in range(8)]
        outcomes = await together(chance, *calls)
        counted = Counter(code(each) for each in outcomes)
        assert counted == {"done": 1, "already_redeemed": 7}
        winner = next(number for number, each in enumerate(outcomes) if code(each) == "done")
        record = await one.record(key)
        assert record is not None
        assert record.package is not None
        assert record.package.delivered_to == f"host-{winner} (192.0.2.1)"
        assert await one.story(key) == ["registered", "issued", "delivered"]
        return "first" if winner % 2 == 0 else "second"

    await rounds(play, "first", "second")


async def test_a_first_heartbeat_heard_by_both(stacks: Stacks) -> None:
    one, other = stacks

    async def play(chance: random.Random) -> str:
        key = poller()
        await one.redeem((await one.create(key)).token)
        await other.caught_up()
        verdicts = await together(chance, one.beat(_alone(key)), other.beat(_alone(key)))
        assert {(verdict.status, verdict.refused) for verdict in verdicts} == {("active", None)}
        assert await one.story(key) == ["registered", "issued", "delivered", "activated"]
        return "active"

    await rounds(play)


async def test_a_service_nobody_knows_heard_by_both(open_stacks: Stacks) -> None:
    one, other = open_stacks

    async def play(chance: random.Random) -> str:
        root, above, below = poller(), agent(), checker()
        lineage = Lineage(ServiceType.CHECKER, root.service_id, above.service_id, below.service_id)
        verdicts = await together(chance, one.beat(lineage), other.beat(lineage))
        assert {(verdict.status, verdict.refused) for verdict in verdicts} == {("active", None)}
        assert await one.story(below) == ["registered", "activated"]
        for key in (root, above):
            assert await one.story(key) == ["registered"]
        return "active"

    await rounds(play)


async def test_a_heartbeat_while_the_service_is_revoked(stacks: Stacks) -> None:
    one, _ = stacks

    async def play(chance: random.Random) -> str:
        key = poller()
        await one.redeem((await one.create(key)).token)
        await asyncio.gather(*(stack.caught_up() for stack in stacks))
        hearing, revoking = chance.sample(stacks, 2)
        verdict, revoked = await together(chance, hearing.beat(_alone(key)), revoking.revoke(key))
        assert revoked.complete
        story, record = (await one.story(key))[3:], await one.record(key)
        assert record is not None
        assert record.status is S.REVOKED
        taken_out = ["status_override", "revoked", "cascade_completed"]
        assert story in (taken_out, ["activated", *taken_out])
        assert ("activated" in story) is (verdict.refused is None)
        return str(verdict.refused)

    await rounds(play, "None", "revoked")


def _alone(key: ServiceKey) -> Lineage:
    return Lineage(ServiceType.POLLER, key.service_id)
