"""Two daemons as they are installed, on one NATS server: they race, they die, they stand still; nothing shows."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from jetway.adapters.nats.lease import LEASE_SECONDS
from support.daemon import PACKAGES, REDEEM, SERVICES, Daemon, eventually, fresh, nats_key
from support.daemon_load import Book, load, require_hardly_refused, until_created
from support.daemon_pair import START_AGAIN_SECONDS, Pair, SharingDaemon, make_pair, two_daemons
from support.daemon_state import eventually_async, history, newest, require_all_equal
from support.nats_server import NatsServer

ROUNDS = int(os.environ.get("JETWAY_TEST_DAEMON_RACE_ROUNDS", "30"))
HANDOVER_SECONDS = LEASE_SECONDS / 2
"""Much longer than a handover takes, and too short for a lease that runs out."""
WRITTEN = {"document": "written", "row": "written"}
Session = aiohttp.ClientSession
Told = tuple[int, Any]

pytestmark = pytest.mark.slow


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Pair]:
    async with two_daemons(tmp_path) as pair:
        await pair.leader()
        yield pair


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[NatsServer]:
    """A server with nothing in it yet."""
    empty = NatsServer(tmp_path / "nats-server")
    await empty.start()
    yield empty
    await empty.stop()


async def post(session: Session, path: str, body: Any, **headers: str) -> Told:
    """Where the answer says to, and it does no harm, again: a slow disk may keep one from coming in time."""
    repeatable = (path == REDEEM and "nats_public_key" in body) or "Idempotency-Key" in headers
    for _ in range(60):
        async with session.post(path, json=body, headers=headers) as response:
            told = response.status, await response.json(content_type=None)
        if told[0] != 503 or not repeatable:
            break
        await asyncio.sleep(0.5)
    return told


async def create(session: Session, kind: str, own: str, parent: str = "", **headers: str) -> Told:
    body: dict[str, Any] = {"component_type": kind, "label": own, "component_id": own}
    if parent:
        body["parent_id"] = parent
    if kind == "checker":
        body |= {"checker_kind": "icmp", "checker_config": {"targets": ["192.0.2.1"]}}
    return await post(session, PACKAGES, body, **headers)


async def made(session: Session, kind: str, own: str, parent: str = "") -> Any:
    status, told = await create(session, kind, own, parent)
    assert status == 201, told
    return told


async def written(daemon: Daemon) -> Any:
    """A creation whose answer says that document and row are written: the first of a few, on a busy machine."""
    for _ in range(10):
        told = await asyncio.to_thread(daemon.create, "poller", fresh("p"))
        if told["projection"] == WRITTEN:
            return told
        await asyncio.sleep(1)
    raise AssertionError(told["projection"])


def package_of(told: Any) -> str:
    return f"{PACKAGES}/{told['package']['package_id']}"


async def require_one_truth(
    pair: Pair, seconds: float = START_AGAIN_SECONDS
) -> dict[tuple[str, str], dict[str, Any]]:
    """Documents, rows and events say what the ledger says, no cascade runs, nobody outlives a parent."""
    alive = next(daemon for daemon in pair.both if daemon.process and daemon.process.poll() is None)

    async def equal() -> dict[tuple[str, str], dict[str, Any]]:
        async with alive.nats() as client:
            records = await require_all_equal(alive, client)
        assert not [key for key, record in records.items() if record["cascade"] == "running"]
        return records

    records = await eventually_async(equal, seconds)
    above = {"agent": "poller", "checker": "agent"}
    for (kind, own), record in records.items():
        if kind in above and record["status"] in ("pending", "active", "inactive"):
            parent = records[above[kind], record["parent_id"]]
            assert parent["status"] not in ("revoked", "deleted"), f"{kind} {own} outlives its parent"
    return records


# --- beginning


async def test_a_daemon_with_other_keys_is_told_which_to_copy(tmp_path: Path, server: NatsServer) -> None:
    pair = make_pair(tmp_path, server)
    try:
        await asyncio.to_thread(pair.one.start)
        with pytest.raises(
            RuntimeError, match="copy the directory keys/ from the daemon that made the ledger"
        ):
            await asyncio.to_thread(pair.other.start)
        pair.other.wait()
        shutil.copy2(pair.one.state / "keys" / "token-signing.pem", pair.other.state / "keys")
        with pytest.raises(RuntimeError, match=r"the token secret is .* copy the directory keys/"):
            await asyncio.to_thread(pair.other.start)
        pair.other.wait()
        shutil.copy2(pair.one.state / "keys" / "token-secret.key", pair.other.state / "keys")
        with pytest.raises(RuntimeError, match=r"the authority is .* copy keys/ from the daemon"):
            await asyncio.to_thread(pair.other.start)
        pair.other.wait()
        for name in ("ca.pem", "ca-key.pem"):
            shutil.copy2(pair.one.state / "keys" / name, pair.other.state / "keys")
        with pytest.raises(RuntimeError, match=r"vault\.keys is missing: .* copy the directory keys/"):
            await asyncio.to_thread(pair.other.start)
        pair.other.wait()
        for name in ("vault.keys", "checkpoint-signing.pem"):
            shutil.copy2(pair.one.state / "keys" / name, pair.other.state / "keys")
        await asyncio.to_thread(pair.other.start)
        assert [await asyncio.to_thread(daemon.stop) for daemon in pair.both] == [0, 0]
    finally:
        for daemon in pair.both:
            daemon.discard()


def _require_token_known(daemon: Daemon) -> None:
    """What one has made, the other hears of."""
    assert daemon.call("GET", f"{SERVICES}/stats").status == 200


async def test_two_that_begin_at_once_on_an_empty_server_share_it(tmp_path: Path, server: NatsServer) -> None:
    """Streams, schema, keys, the first API token: all are made once, whoever comes first."""
    donor = Daemon(tmp_path / "donor")
    await asyncio.to_thread(donor.start)
    await asyncio.to_thread(donor.stop)
    pair = make_pair(tmp_path, server)
    try:
        for daemon in pair.both:
            daemon.take_keys_of(donor)
        await asyncio.gather(*(asyncio.to_thread(daemon.start) for daemon in pair.both))
        tokens = [daemon.token for daemon in pair.both if daemon.token]
        assert len(tokens) == 1
        pair.one.token = pair.other.token = tokens[0]
        await pair.leader()
        for daemon in pair.both:
            await asyncio.to_thread(eventually, partial(_require_token_known, daemon))
            told = await asyncio.to_thread(daemon.create, "poller", fresh("p"))
            await asyncio.to_thread(daemon.require_written, told)
            await asyncio.to_thread(eventually, partial(_require_ready, daemon))
        assert [await asyncio.to_thread(daemon.stop) for daemon in pair.both] == [0, 0]
        for daemon in pair.both:
            daemon.check_log()
    finally:
        for daemon in pair.both:
            daemon.discard()


def _require_ready(daemon: Daemon) -> None:
    assert daemon.call("GET", "/readyz", token="").status == 200


async def test_both_answer_when_document_and_row_are_written_and_both_show_it(pair: Pair) -> None:
    for writing, reading in (pair.both, pair.both[::-1]):
        told = await written(writing)
        own = told["service"]["service_id"]
        assert pair.one.rows(f"SELECT status FROM pollers WHERE poller_id = '{own}'") == [
            {"status": "pending"}
        ]
        await asyncio.to_thread(eventually, lambda d=reading, o=own: d.service("poller", o))


# --- races


async def test_they_race_for_ids_keys_and_tokens_and_there_is_one_winner(pair: Pair) -> None:
    async with pair.sessions() as (one, other):
        for number in range(ROUNDS):
            taken = await asyncio.gather(*(create(s, "poller", f"same-{number}") for s in (one, other)))
            assert sorted(status for status, _ in taken) == [201, 409]
            key = {"Idempotency-Key": f"key-{number}"}
            same = await asyncio.gather(
                *(create(s, "poller", f"idem-{number}", **key) for s in (one, other) * 2)
            )
            assert {status for status, _ in same} == {201}
            assert len({(told["package"]["package_id"], told["token"]) for _, told in same}) == 1
            token = same[0][1]["token"]
            redeemed = await asyncio.gather(
                *(post(s, REDEEM, {"token": token, "nats_public_key": nats_key()}) for s in (one, other) * 10)
            )
            assert Counter(status for status, _ in redeemed) == {200: 1, 409: 19}
    await require_one_truth(pair)


async def test_a_heartbeat_that_both_hear_activates_once(pair: Pair) -> None:
    async with pair.sessions() as (one, other), pair.one.nats() as client:
        made_ = [await made(one, "poller", f"beat-{number}") for number in range(ROUNDS)]
        for told in made_:
            status, answer = await post(other, REDEEM, {"token": told["token"]})
            assert status == 200
            for _ in range(3):
                await client.publish(answer["heartbeat"]["subject"])
        await client.flush()

        async def all_active() -> None:
            records = newest(await history(client))
            assert {record["status"] for record in records.values()} == {"active"}

        await eventually_async(all_active)
        told_events = Counter(e for r in await history(client) for e in r["transition"]["events"])
    assert told_events == dict.fromkeys(("registered", "issued", "delivered", "activated"), ROUNDS)
    await require_one_truth(pair)

    async def heard_by_both() -> None:
        # Who learns of the delivery a moment after the heartbeats has refused them: hosts beat on.
        async with pair.one.nats() as client:
            await client.publish("edge.heartbeat.poller.beat-0")
            await client.flush()
        for daemon in pair.both:
            assert daemon.service("poller", "beat-0")["liveness"] == "online"

    await eventually_async(heard_by_both)


async def test_trees_revoked_on_one_while_the_other_adds_to_them(pair: Pair) -> None:
    chance = random.Random(3)
    async with pair.sessions() as sessions:
        outcomes: Counter[int] = Counter()
        for number in range(ROUNDS):
            revoking, creating = chance.sample(sessions, 2)
            root = await made(creating, "poller", f"r-{number}")
            for below in range(3):
                await made(creating, "agent", f"a-{number}-{below}", f"r-{number}")

            async def add(path: str, parent: str, by: float, to: Session = creating) -> Told:
                await asyncio.sleep(by)
                kind, _, own = path.partition(".")
                return await create(to, kind, own, parent)

            calls = [
                add(f"checker.c-{number}-{below}", f"a-{number}-{below % 3}", chance.random() * 0.02)
                for below in range(6)
            ]
            calls.append(add(f"agent.late-{number}", f"r-{number}", chance.random() * 0.02))
            (status, told), *added = await asyncio.gather(
                post(revoking, f"{package_of(root)}/revoke", {"reason": "race"}), *calls
            )
            assert status == 200, told
            assert {status for status, _ in added} <= {201, 409}
            outcomes.update(status for status, _ in added)
    assert set(outcomes) == {201, 409}
    records = await require_one_truth(pair)
    assert not [key for key, record in records.items() if record["status"] not in ("revoked", "deleted")]


async def test_a_reissue_races_a_redemption_and_a_deletion_a_creation(pair: Pair) -> None:
    chance = random.Random(5)
    async with pair.sessions() as sessions:
        for number in range(ROUNDS):
            first, second = chance.sample(sessions, 2)
            old = await made(first, "poller", f"re-{number}")
            (reissued, new), (redeemed, answer) = await asyncio.gather(
                post(second, f"{package_of(old)}/reissue", {"reason": "race"}),
                post(first, REDEEM, {"token": old["token"]}),
            )
            assert reissued == 201, new
            assert redeemed in (200, 410), answer
            assert (await post(first, REDEEM, {"token": old["token"]}))[0] == 410
            assert (await post(first, REDEEM, {"token": new["token"]}))[0] == 200
            revoked, told = await post(first, f"{package_of(new)}/revoke", {"reason": "race"})
            assert revoked == 200, told

            async def delete(session: Session, own: str) -> int:
                async with session.delete(f"{SERVICES}/pollers/{own}") as response:
                    return response.status

            deleted, (created, again) = await asyncio.gather(
                delete(second, f"re-{number}"), create(first, "poller", f"re-{number}")
            )
            assert deleted in (200, 204)
            assert created in (201, 409), again
    await require_one_truth(pair)


# --- one of them goes


async def loaded(pair: Pair, victim: SharingDaemon, hit: Any, *, count: int = 60) -> Book:
    """Load on both; `hit` the one; the other one's load goes on until it leads. What the survivor acknowledged."""
    survivor = pair.other if victim is pair.one else pair.one
    async with load(survivor) as book:
        async with load(victim) as cut:
            await asyncio.gather(until_created(book, count), until_created(cut, count))
            await hit()
        await asyncio.to_thread(eventually, lambda: _require(survivor.leads), START_AGAIN_SECONDS)
        await until_created(book, len(book.created) + count)
    require_hardly_refused(book)
    book.created |= cut.created
    book.redeemed |= cut.redeemed
    return book


def _require(truth: bool) -> None:
    assert truth


async def require_kept(pair: Pair, book: Book) -> None:
    records = await require_one_truth(pair)
    packages = {record["package"]["package_id"]: record for record in records.values()}
    assert set(book.created) <= set(packages)
    assert {packages[each]["package"]["status"] for each in book.redeemed} <= {"delivered", "activated"}


async def test_a_leader_killed_under_load_is_followed_by_the_other_and_nothing_is_lost(pair: Pair) -> None:
    leader, _ = await pair.leader()

    async def kill() -> None:
        assert leader.process is not None
        leader.process.kill()
        await asyncio.to_thread(leader.wait)

    book = await loaded(pair, leader, kill)
    await require_kept(pair, book)
    await asyncio.to_thread(leader.start)
    leader.token = pair.one.token
    told = await asyncio.to_thread(leader.create, "poller", fresh("p"))
    await asyncio.to_thread(leader.require_written, told)
    await require_kept(pair, book)


async def test_a_leader_stopped_in_order_hands_over_at_once(pair: Pair) -> None:
    """At one of three times at least: a machine that is busy may be slow to let the other one know."""
    took: list[float] = []
    while len(took) < 3 and not any(seconds < HANDOVER_SECONDS for seconds in took):
        leader, other = await pair.leader()

        async def stop(leader: SharingDaemon = leader, other: SharingDaemon = other) -> None:
            assert await asyncio.to_thread(leader.stop) == 0
            began = time.monotonic()
            await asyncio.to_thread(eventually, lambda: _require(other.leads), START_AGAIN_SECONDS)
            took.append(time.monotonic() - began)

        await require_kept(pair, await loaded(pair, leader, stop))
        await asyncio.to_thread(leader.start)
        leader.token = other.token
    assert min(took) < HANDOVER_SECONDS


def stand_still(daemon: SharingDaemon) -> None:
    """Stop it, but not within a write: SQLite keeps all others waiting until whoever writes goes on."""
    assert daemon.process is not None
    stat = Path(f"/proc/{daemon.process.pid}/stat")
    for _ in range(200):
        daemon.process.send_signal(signal.SIGSTOP)
        while stat.read_text().rpartition(")")[2].split()[0] != "T":
            time.sleep(0.001)
        with contextlib.closing(sqlite3.connect(daemon.database, timeout=0)) as database:
            try:
                database.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                pass
            else:
                database.rollback()
                return
        daemon.process.send_signal(signal.SIGCONT)
        time.sleep(0.005)
    raise AssertionError("it writes all the time")


async def test_a_leader_that_stood_still_does_not_write_backwards_when_it_goes_on(pair: Pair) -> None:
    """Children come and go meanwhile: lists and counts are what an old leader could spoil."""
    leader, other = await pair.leader()
    assert leader.process is not None
    async with pair.sessions() as sessions:
        session = sessions[pair.both.index(other)]
        for number in range(20):
            await made(session, "poller", f"still-{number}")
        burst = [
            create(session, "agent", f"before-{number}-{n}", f"still-{number}")
            for number in range(20)
            for n in range(5)
        ]
        creating = asyncio.gather(*burst)
        await asyncio.sleep(0.1)  # in the middle of it
        await asyncio.to_thread(stand_still, leader)
        try:
            assert {status for status, _ in await creating} == {201}
            await asyncio.to_thread(eventually, lambda: _require(other.leads), START_AGAIN_SECONDS)
            after = [create(session, "agent", f"after-{number}", f"still-{number}") for number in range(20)]
            assert {status for status, _ in await asyncio.gather(*after)} == {201}
            await require_one_truth(pair)
        finally:
            leader.process.send_signal(signal.SIGCONT)

        def gave_up() -> None:
            assert [line.action for line in leader.log_lines() if line.action.startswith("lease_")][
                -1
            ] == "lease_lost"

        await asyncio.to_thread(eventually, gave_up)
        told = await made(sessions[pair.both.index(leader)], "poller", fresh("p"))
        await asyncio.to_thread(leader.require_written, told)
    for _ in range(3):
        await asyncio.sleep(0.5)  # whatever it still had in hand
        await require_one_truth(pair)


@pytest.mark.parametrize("who", ["leads", "stands by"])
async def test_a_cascade_whose_daemon_is_killed_is_finished_by_the_other(pair: Pair, who: str) -> None:
    leader, follower = await pair.leader()
    victim, survivor = (leader, follower) if who == "leads" else (follower, leader)
    async with pair.sessions() as sessions:
        session = sessions[pair.both.index(victim)]
        root = await made(session, "poller", "root")
        for start in range(0, 300, 50):
            told = await asyncio.gather(
                *(create(session, "agent", f"a-{number}", "root") for number in range(start, start + 50))
            )
            assert {status for status, _ in told} == {201}
        revoking = asyncio.create_task(post(session, f"{package_of(root)}/revoke", {"reason": "race"}))

        def begun() -> None:
            assert survivor.service("poller", "root")["status"] == "revoked"

        await asyncio.to_thread(eventually, begun)
        assert victim.process is not None
        victim.process.kill()
        await asyncio.to_thread(victim.wait)
        outcome = (await asyncio.gather(revoking, return_exceptions=True))[0]
    records = await require_one_truth(pair, 90)
    assert {record["status"] for record in records.values()} == {"revoked"}, outcome


async def test_jobs_go_on_at_the_other_when_their_daemon_is_killed(tmp_path: Path) -> None:
    """What fell due while nobody led is done by the one that follows, once; the books are taken over as well."""
    async with two_daemons(tmp_path, JETWAY_LIFECYCLE__TOKEN_TTL="2s") as pair:
        leader, other = await pair.leader()
        run = "/api/admin/jobs/archive/runs"
        refused = await asyncio.to_thread(other.call, "POST", run, {"dry_run": False})
        assert (refused.status, refused.json["code"]) == (409, "not_leading")
        assert (await asyncio.to_thread(leader.call, "POST", run, {"dry_run": False})).status == 200
        issued = [await asyncio.to_thread(other.create, "poller", fresh("p")) for _ in range(3)]
        assert leader.process is not None
        leader.process.kill()
        await asyncio.to_thread(leader.wait)

        async def expired() -> None:
            async with other.nats() as client:
                revisions = [r for r in await history(client) if r["service_type"] == "poller"]
            told = Counter(r["service_id"] for r in revisions if "expired" in r["transition"]["events"])
            assert told == {made_["service"]["service_id"]: 1 for made_ in issued}

        await eventually_async(expired, START_AGAIN_SECONDS)
        await require_one_truth(pair)
        books = await asyncio.to_thread(other.get, "/api/admin/jobs/archive")
        # It runs by itself a minute after a leader's start, too.
        asked_for = [run for run in books["runs"] if run["actor"] == "admin"]
        assert [run["outcome"] for run in asked_for] == ["done"]
