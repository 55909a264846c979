"""Messages that are no good heartbeats: counted by reason, and they move nothing."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from nats.aio.client import Client

from support.daemon import PACKAGES, SERVICES, Daemon, eventually, fresh
from support.daemon_state import unchanged
from support.nats_server import settled

MEGABYTE = 1024 * 1024
FLOOD = 40_000
"""More messages than the share of a sender in the five seconds that end within it, and in the next."""


@dataclass(frozen=True, slots=True)
class Family:
    """A delivered poller with a delivered agent, neither heard so far, and a poller of others."""

    poller: str
    agent: str
    other: str

    @property
    def agent_subject(self) -> str:
        return f"edge.heartbeat.agent.{self.poller}.{self.agent}"


@pytest.fixture
def family(daemon: Daemon) -> Family:
    made = Family(fresh("p"), fresh("a"), fresh("o"))
    for created in (
        daemon.create("poller", made.poller),
        daemon.create("agent", made.agent, made.poller),
        daemon.create("poller", made.other),
    ):
        assert daemon.redeem(created["token"]).status == 200
    return made


def refused(daemon: Daemon, reason: str) -> float:
    return daemon.metric("jetway_heartbeats_refused_total", reason=reason)


async def must_count(
    daemon: Daemon, reason: str, subject: str, payload: bytes = b"", headers: dict[str, str] | None = None
) -> None:
    """Publishing this is counted under that reason, once, and changes nothing, nor is anybody heard by it."""
    async with unchanged(daemon, heard=False) as client:
        before = refused(daemon, reason)
        await client.publish(subject, payload, headers=headers)
        await client.flush()

        def counted() -> None:
            assert refused(daemon, reason) == before + 1

        eventually(counted)


@pytest.mark.parametrize(
    "payload",
    [
        b"garbage",
        b"\x00\xff\xfe",
        b"[]",
        b'"text"',
        b"{",
        b'{"healthy": "very"}',
        b'{"timestamp": "yesterday"}',
        b'{"timestamp": "2026-01-01T00:00:00"}',
        b'{"interval_seconds": 0}',
        b'{"interval_seconds": 1e99}',
        b'{"version": "' + b"9" * 200 + b'"}',
        b'{"metadata": ' + b"[" * 1000 + b"]" * 1000 + b"}",
        b" " * MEGABYTE,
        b'{"version": "' + b"9" * MEGABYTE + b'"}',
    ],
    ids=lambda payload: f"{payload[:24]!r}-{len(payload)}",
)
async def test_a_payload_that_is_none_is_malformed(daemon: Daemon, family: Family, payload: bytes) -> None:
    await must_count(daemon, "malformed", family.agent_subject, payload)
    assert daemon.service("agent", family.agent)["status"] == "pending"


@pytest.mark.parametrize(
    "subject",
    [
        "edge.heartbeat.agent.{poller}",
        "edge.heartbeat.agent.{poller}.{agent}.more",
        "edge.heartbeat.poller.{poller}.{agent}",
        "edge.heartbeat.router.{poller}",
        "edge.heartbeat.poller.UPPER",
        "edge.heartbeat.poller.a_b",
        "edge.heartbeat.poller." + "a" * 64,
        "edge.heartbeat.batch.NOT_AN_ID",
        "edge.heartbeat.checker.{poller}.{agent}",
    ],
)
async def test_a_subject_that_names_nobody_is_malformed(daemon: Daemon, family: Family, subject: str) -> None:
    named = subject.format(poller=family.poller, agent=family.agent)
    await must_count(daemon, "malformed", named, b'{"heartbeats": []}')


async def test_another_ones_parents_in_the_subject_are_refused(daemon: Daemon, family: Family) -> None:
    subject = f"edge.heartbeat.agent.{family.other}.{family.agent}"
    await must_count(daemon, "wrong_parents", subject)
    assert daemon.service("agent", family.agent)["status"] == "pending"
    async with daemon.nats(inbox=f"_INBOX_agent_{family.other}_{family.agent}") as client:
        reply = await client.request(subject, timeout=30)
        assert json.loads(reply.data)["refused"] == "wrong_parents"


async def test_another_ones_parents_are_refused_of_an_active_service_too(
    daemon: Daemon, family: Family
) -> None:
    async with daemon.nats(inbox=f"_INBOX_agent_{family.poller}_{family.agent}") as client:
        await client.request(family.agent_subject, b'{"version": "1"}', timeout=30)
    seen = daemon.service("agent", family.agent)["last_seen"]
    subject = f"edge.heartbeat.agent.{family.other}.{family.agent}"
    await must_count(daemon, "wrong_parents", subject, b'{"version": "2"}')
    after = daemon.service("agent", family.agent)
    assert (after["version"], after["last_seen"]) == ("1", seen)


@pytest.mark.parametrize(
    "headers",
    [{"Status": "503"}, {"status": "100"}, {"Nats-Msg-Id": "1"}, {"Nats-Stream": "KV_config"}],
    ids=str,
)
async def test_a_message_that_the_server_was_made_to_send_is_no_heartbeat(
    daemon: Daemon, family: Family, headers: dict[str, str]
) -> None:
    await must_count(daemon, "server_message", family.agent_subject, b"{}", headers)
    assert daemon.service("agent", family.agent)["status"] == "pending"


async def test_who_was_not_delivered_is_not_heard(daemon: Daemon, family: Family) -> None:
    agent = fresh("a")
    daemon.create("agent", agent, family.poller)
    await must_count(daemon, "not_delivered", f"edge.heartbeat.agent.{family.poller}.{agent}")


async def test_a_revoked_and_a_deleted_service_are_not_heard(daemon: Daemon, family: Family) -> None:
    package = daemon.service("agent", family.agent)["package_id"]
    assert daemon.call("POST", f"{PACKAGES}/{package}/revoke", {"reason": "stolen"}).status == 200
    await must_count(daemon, "revoked", family.agent_subject)
    assert daemon.service("agent", family.agent)["status"] == "revoked"
    assert daemon.call("DELETE", f"{SERVICES}/agents/{family.agent}").status == 204
    await must_count(daemon, "deleted", family.agent_subject)
    assert daemon.service("agent", family.agent)["status"] == "deleted"


@pytest.mark.parametrize(
    "timestamp", ["1970-01-01T00:00:00Z", "2999-12-31T23:59:59Z", "9999-12-31T23:59:59.999999Z"]
)
async def test_the_senders_clock_says_nothing_about_when_it_was_heard(
    daemon: Daemon, family: Family, timestamp: str
) -> None:
    before = datetime.now(UTC)
    async with daemon.nats(inbox=f"_INBOX_agent_{family.poller}_{family.agent}") as client:
        payload = json.dumps({"timestamp": timestamp}).encode()
        answer = json.loads((await client.request(family.agent_subject, payload, timeout=30)).data)
        assert answer["status"] == "active"
        service = daemon.service("agent", family.agent)
        for moment in (service["last_seen"], service["first_seen"]):
            assert_between(before, moment, datetime.now(UTC))
        # Steady ones change no record, whatever they claim.
        async with unchanged(daemon):
            await client.request(family.agent_subject, payload, timeout=30)
        assert daemon.service("agent", family.agent)["last_seen"] >= service["last_seen"]


def assert_between(before: datetime, moment: str, after: datetime) -> None:
    told = datetime.fromisoformat(moment)
    assert before.replace(microsecond=before.microsecond // 1000 * 1000) <= told <= after


async def test_a_batch_is_judged_entry_by_entry(daemon: Daemon, family: Family) -> None:
    foreign = fresh("a")
    assert daemon.redeem(daemon.create("agent", foreign, family.other)["token"]).status == 200
    entries: list[Any] = [
        {"service_type": "agent", "agent_id": family.agent},
        {"service_type": "agent", "agent_id": foreign},
        {"service_type": "agent", "poller_id": family.other, "agent_id": foreign},
        {"service_type": "agent"},
        {"service_type": "router"},
        "text",
        {"service_type": "agent", "agent_id": "a.b"},
    ]
    answer = await ask_batch(daemon, family.poller, entries)
    assert answer == {"heartbeats": 7, "refused": 6}

    def active() -> None:
        assert daemon.service("agent", family.agent)["status"] == "active"

    eventually(active)
    assert daemon.service("agent", foreign)["status"] == "pending"


async def ask_batch(daemon: Daemon, poller: str, entries: list[Any]) -> Any:
    async with daemon.nats(inbox=f"_INBOX_poller_{poller}") as client:
        payload = json.dumps({"heartbeats": entries}).encode()
        return json.loads((await client.request(f"edge.heartbeat.batch.{poller}", payload, timeout=30)).data)


async def test_a_batch_takes_1000_and_no_more(daemon: Daemon, family: Family) -> None:
    entry = {"service_type": "poller"}
    assert await ask_batch(daemon, family.poller, [entry] * 1000) == {"heartbeats": 1000, "refused": 0}

    def active() -> None:
        assert daemon.service("poller", family.poller)["status"] == "active"

    eventually(active)  # the batch is answered before the first heartbeat's change is written
    payload = json.dumps({"heartbeats": [entry] * 1001}).encode()
    await must_count(daemon, "malformed", f"edge.heartbeat.batch.{family.poller}", payload)


@pytest.mark.parametrize(
    "payload", [b"", b"garbage", b"{}", b'{"heartbeats": {}}', b"[" * 1000, b" " * 2 * MEGABYTE]
)
async def test_a_batch_and_a_relay_that_are_none_are_malformed(
    daemon: Daemon, family: Family, payload: bytes
) -> None:
    await must_count(daemon, "malformed", f"edge.heartbeat.batch.{family.poller}", payload)
    await must_count(daemon, "malformed", "edge.heartbeat.relay", payload)


async def test_a_relay_speaks_for_any_service_and_answers_nobody(daemon: Daemon, family: Family) -> None:
    entries = [
        {"service_type": "agent", "poller_id": family.poller, "agent_id": family.agent, "version": "7"},
        {"service_type": "poller", "poller_id": family.other},
        {"service_type": "agent", "poller_id": family.other, "agent_id": family.agent},
    ]
    before = refused(daemon, "wrong_parents")
    async with daemon.nats() as client:
        await client.publish("edge.heartbeat.relay", json.dumps({"heartbeats": entries}).encode())
        await client.flush()

    def heard() -> None:
        assert daemon.service("agent", family.agent)["version"] == "7"
        assert daemon.service("poller", family.other)["status"] == "active"
        assert refused(daemon, "wrong_parents") == before + 1

    eventually(heard)


async def flood(client: Client, subject: str, count: int) -> None:
    for _ in range(count):
        await client.publish(subject, b"garbage")
    await settled(client)


async def test_a_flood_of_garbage_does_not_keep_others_from_being_heard(
    daemon: Daemon, family: Family
) -> None:
    before, unread_before = refused(daemon, "malformed"), refused(daemon, "too_much")
    async with daemon.nats() as client:
        await flood(client, f"edge.heartbeat.poller.{family.other}", FLOOD)
    async with daemon.nats(inbox=f"_INBOX_agent_{family.poller}_{family.agent}") as client:
        answer = json.loads((await client.request(family.agent_subject, timeout=30)).data)
    assert answer["status"] == "active"
    unread = refused(daemon, "too_much") - unread_before
    assert unread > 0, "not even read"
    assert refused(daemon, "malformed") + unread == before + FLOOD
