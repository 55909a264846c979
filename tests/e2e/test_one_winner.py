"""A token is good once: of all who come with it one gets the answer, and may ask for it again."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import tarfile
from collections import Counter
from typing import Any

import aiohttp

from support.daemon import PACKAGES, REDEEM, Daemon, eventually, fresh, nats_key

REDEEMERS = 100
ROUNDS = 50


async def redeem(session: aiohttp.ClientSession, token: str, number: int) -> tuple[int, int, bytes, str]:
    """(who, status, body, key) of one redeemer's call."""
    key = nats_key()
    body = {"token": token, "nats_public_key": key, "host": {"hostname": f"host-{number}"}}
    async with session.post(REDEEM, json=body) as response:
        return number, response.status, await response.read(), key


async def test_of_100_redeemers_exactly_one_wins_50_rounds_long(daemon: Daemon) -> None:
    connector = aiohttp.TCPConnector(limit=REDEEMERS)
    async with aiohttp.ClientSession(daemon.url, connector=connector) as session:
        for _ in range(ROUNDS):
            poller = fresh("p")
            created = await asyncio.to_thread(daemon.create, "poller", poller)
            calls = (redeem(session, created["token"], number) for number in range(REDEEMERS))
            answers = await asyncio.gather(*calls)
            assert Counter(status for _, status, _, _ in answers) == {200: 1, 409: REDEEMERS - 1}
            who, _, body, key = next(answer for answer in answers if answer[1] == 200)
            package = daemon.package(created["package"]["package_id"])
            assert package["status"] == "delivered"
            assert package["delivered_to"] == f"host-{who} (127.0.0.1)"
            assert daemon.service("poller", poller)["revision"] == 2
            again = daemon.redeem(created["token"], nats_public_key=key)
            assert (again.status, again.body) == (200, body)
    _trail_names_both_sides(daemon, created, winner=who)


def _trail_names_both_sides(daemon: Daemon, created: Any, winner: int) -> None:
    path = f"{PACKAGES}/{created['package']['package_id']}/events?limit=500"

    def all_told() -> list[Any]:
        events: list[Any] = daemon.get(path)["items"]
        assert Counter(event["event_type"] for event in events)["redeem_refused"] == REDEEMERS - 1
        return events

    events = eventually(all_told)
    delivered = [event for event in events if event["event_type"] == "delivered"]
    assert [event["metadata"]["hostname"] for event in delivered] == [f"host-{winner}"]
    refused = [event for event in events if event["event_type"] == "redeem_refused"]
    losers = {f"host-{number}" for number in range(REDEEMERS)} - {f"host-{winner}"}
    assert {event["metadata"]["hostname"] for event in refused} == losers
    assert {event["metadata"]["delivered_to"] for event in refused} == {f"host-{winner} (127.0.0.1)"}
    assert {event["source_ip"] for event in refused} == {"127.0.0.1"}
    assert {event["service_id"] for event in refused} == {created["service"]["service_id"]}


def test_the_winners_retry_gets_the_identical_answer_as_json_and_as_an_archive(daemon: Daemon) -> None:
    created, key = daemon.create("poller", fresh("p")), nats_key()
    first = daemon.redeem(created["token"], nats_public_key=key, host={"hostname": "edge-1"})
    second = daemon.redeem(created["token"], nats_public_key=key, host={"hostname": "edge-1"})
    assert (first.status, second.status) == (200, 200)
    assert first.body == second.body
    archives = [
        daemon.redeem(created["token"], nats_public_key=key, accept="application/gzip") for _ in range(2)
    ]
    assert archives[0].headers["content-type"] == "application/gzip"
    assert archives[0].body == archives[1].body
    assert _answer_in(archives[0].body) == _without_credentials(first.json)
    assert daemon.service("poller", created["service"]["service_id"])["revision"] == 2


def _answer_in(archive: bytes) -> Any:
    """The JSON answer among the files of the archive."""
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(archive))) as files:
        for member in files.getmembers():
            stream = files.extractfile(member)
            if member.name.endswith("service.json") and stream is not None:
                return json.loads(stream.read())
    raise AssertionError("the archive holds no service.json")


def _without_credentials(answer: Any) -> Any:
    """In an archive they have a file of their own."""
    return {**answer, "nats": {name: value for name, value in answer["nats"].items() if name != "creds"}}


def test_a_lost_first_reply_does_not_burn_the_token_whatever_form_was_asked_for(daemon: Daemon) -> None:
    created, key = daemon.create("poller", fresh("p")), nats_key()
    lost = daemon.redeem(created["token"], nats_public_key=key, accept="application/gzip")
    assert lost.status == 200
    again = daemon.redeem(created["token"], nats_public_key=key)
    assert _without_credentials(again.json) == _answer_in(lost.body)


def test_an_installer_without_a_key_is_answered_once(daemon: Daemon) -> None:
    created = daemon.create("poller", fresh("p"))
    assert daemon.redeem(created["token"], host={"hostname": "edge-1"}).status == 200
    again = daemon.redeem(created["token"], host={"hostname": "edge-1"})
    assert (again.status, again.json["code"]) == (409, "already_redeemed")
    assert "edge-1 (127.0.0.1)" in again.json["detail"]


def test_a_second_installer_is_told_who_was_first_and_changes_nothing(daemon: Daemon) -> None:
    created = daemon.create("poller", fresh("p"))
    daemon.redeem(created["token"], nats_public_key=nats_key(), host={"hostname": "first"})
    before = daemon.package(created["package"]["package_id"])
    refused = daemon.redeem(created["token"], nats_public_key=nats_key(), host={"hostname": "second"})
    assert refused.status == 409
    assert "first (127.0.0.1)" in refused.json["detail"]
    assert daemon.package(created["package"]["package_id"]) == before


async def test_the_winner_may_not_ask_again_once_the_service_is_active(daemon: Daemon) -> None:
    created, key = daemon.create("poller", fresh("p")), nats_key()
    answer = daemon.redeem(created["token"], nats_public_key=key).json
    async with daemon.nats() as client:
        await client.publish(answer["heartbeat"]["subject"])
        await client.flush()

    def active() -> None:
        assert daemon.service("poller", created["service"]["service_id"])["status"] == "active"

    await asyncio.to_thread(eventually, active)
    assert daemon.redeem(created["token"], nats_public_key=key).status == 409


async def test_one_idempotency_key_makes_one_package_however_often_it_is_sent_at_once(daemon: Daemon) -> None:
    poller = fresh("p")
    body = {"component_type": "poller", "label": poller}
    headers = {"Authorization": f"Bearer {daemon.token}", "Idempotency-Key": fresh("key")}
    async with aiohttp.ClientSession(daemon.url, headers=headers) as session:

        async def create() -> tuple[int, str, str]:
            async with session.post(PACKAGES, json=body) as response:
                told = await response.json()
                return response.status, told["package"]["package_id"], told["token"]

        answers = await asyncio.gather(*(create() for _ in range(20)))
        assert len(set(answers)) == 1
        assert answers[0][0] == 201
        async with session.post(PACKAGES, json={**body, "site": "B"}) as other:
            assert other.status == 422
    assert daemon.service("poller", poller)["revision"] == 1


async def test_of_many_creators_of_one_id_one_wins(daemon: Daemon) -> None:
    poller = fresh("p")
    body = {"component_type": "poller", "label": poller}
    headers = {"Authorization": f"Bearer {daemon.token}"}
    async with aiohttp.ClientSession(daemon.url, headers=headers) as session:

        async def create() -> int:
            async with session.post(PACKAGES, json=body) as response:
                return response.status

        statuses = Counter(await asyncio.gather(*(create() for _ in range(50))))
    assert statuses == {201: 1, 409: 49}
    assert daemon.get(f"{PACKAGES}?q={poller}")["total"] == 1
