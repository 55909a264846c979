"""The heartbeat door: what is let in, who is answered and where, and that nothing a sender does breaks it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from jetway.core.errors import UnavailableError
from jetway.core.heartbeat import (
    BATCH_LIMIT,
    BATCH_PAYLOAD_LIMIT,
    HEADERS_NOT_READ,
    PAYLOAD_LIMIT,
)
from jetway.core.ids import Lineage, ServiceKey, ServiceType
from jetway.core.rows import Presence
from jetway.entry import heartbeats
from jetway.entry.heartbeats import HeartbeatDoor
from jetway.entry.shares import sender_shares
from jetway.ports import HeartbeatMessage
from support.builders import AGENT, CHECKER, LINEAGES, POLLER
from support.house import House, running_house
from support.virtual_time import run_virtually

PREFIX = "edge.heartbeat"
POLLER_SUBJECT, AGENT_SUBJECT, CHECKER_SUBJECT = (lineage.subject(PREFIX) for lineage in LINEAGES.values())
BATCH_SUBJECT, RELAY_SUBJECT = f"{PREFIX}.batch.p1", f"{PREFIX}.relay"
P2 = ServiceKey(ServiceType.POLLER, "p2")


class Answers:
    """Implements `ports.Replies`: notes them; with `held` they wait, with `error` they fail."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, dict[str, object]]] = []
        self.held: asyncio.Event | None = None
        self.error: Exception | None = None

    async def reply(self, subject: str, data: bytes) -> None:
        if self.held:
            await self.held.wait()
        if self.error:
            raise self.error
        self.sent.append((subject, json.loads(data)))


class Door:
    """The door of a running house, and what came of what went in."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.answers = Answers()
        self.flooding: list[ServiceKey] = []
        shares = sender_shares(house.clock, self.flooding.append)
        self.door = HeartbeatDoor(house.observer, self.answers, house.clock, PREFIX, shares)

    async def take(
        self, subject: str, data: bytes = b"", reply: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        self.door.take(HeartbeatMessage(subject, data, reply, headers or {}))
        await self.house.settle()
        await self.door.drain()

    @property
    def refusals(self) -> dict[str, int]:
        return counts(self.house.metrics.registry, "jetway_heartbeats_refused")

    @property
    def accepted(self) -> int:
        return sum(counts(self.house.metrics.registry, "jetway_heartbeats").values())

    def heard(self, key: ServiceKey) -> Presence:
        return self.house.presence.presence(key)


def counts(registry: CollectorRegistry, name: str) -> dict[str, int]:
    found = {}
    for metric in registry.collect():
        for sample in metric.samples:
            if sample.name == f"{name}_total" and sample.value:
                found["".join(sample.labels.values())] = int(sample.value)
    return found


def batch(*entries: object) -> bytes:
    return json.dumps({"heartbeats": list(entries)}).encode()


def entry(service_type: str, **ids: object) -> dict[str, object]:
    return {"service_type": service_type, **ids}


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    """In a house where p1, a1 beneath it and c1 beneath that have been active for a minute."""
    async with running_house() as house:
        await house.activate_tree()
        house.metrics.heartbeats.clear()
        house.observer._accepted = {kind: house.metrics.heartbeats.labels(kind.value) for kind in ServiceType}
        house.clock.advance(60)
        yield Door(house)


# --- one heartbeat


@pytest.mark.parametrize(
    ("subject", "key"), [(POLLER_SUBJECT, POLLER), (AGENT_SUBJECT, AGENT), (CHECKER_SUBJECT, CHECKER)]
)
async def test_the_subject_says_who_speaks(door: Door, subject: str, key: ServiceKey) -> None:
    await door.take(
        subject, b'{"healthy": true, "version": "1.4", "poller_id": "p2", "service_type": "agent"}'
    )
    assert door.heard(key) == Presence(door.house.clock.now(), True, "1.4")
    assert (door.accepted, door.refusals, door.answers.sent) == (1, {}, [])


async def test_the_time_of_receipt_counts(door: Door) -> None:
    await door.take(POLLER_SUBJECT, b'{"timestamp": "2031-01-01T00:00:00Z"}')
    assert door.heard(POLLER).last_seen == door.house.clock.now()


@pytest.mark.parametrize(
    "name",
    [
        "Status",
        "status",
        "STATUS",
        "Nats-Msg-Id",
        "nats-expected-last-sequence",
        "NATS-",
        "nAtS-Service-Error",
    ],
)
async def test_what_the_server_makes_is_no_heartbeat(door: Door, name: str) -> None:
    """The server can be made to send a message of its own to any subject, a heartbeat's as well."""
    seen = door.heard(POLLER)
    await door.take(POLLER_SUBJECT, headers={"X-Trace": "1", name: "503"}, reply="_INBOX_poller_p1.1")
    assert door.heard(POLLER) == seen
    assert (door.accepted, door.refusals, door.answers.sent) == (0, {"server_message": 1}, [])


@pytest.mark.parametrize("subject", [BATCH_SUBJECT, RELAY_SUBJECT])
async def test_nor_is_it_a_batch_of_them(door: Door, subject: str) -> None:
    await door.take(subject, batch(entry("poller", poller_id="p1")), headers={"Nats-Stream": "x"})
    assert (door.accepted, door.refusals) == (0, {"server_message": 1})


@pytest.mark.parametrize("name", ["X-Status", "Statuses", "Natsy", "X-Nats-Msg-Id", "traceparent"])
async def test_other_headers_do_not_matter(door: Door, name: str) -> None:
    await door.take(POLLER_SUBJECT, headers={name: "1"})
    assert (door.accepted, door.refusals) == (1, {})


@pytest.mark.parametrize(
    "data",
    [
        b"\x00\xff\xfe",
        b"{",
        b"[]",
        b"null",
        b"7",
        b'"healthy"',
        b'{"healthy": "perhaps"}',
        b'{"interval_seconds": 0}',
        b'{"interval_seconds": 1e400}',
        b'{"version": "' + b"9" * 129 + b'"}',
        b'{"timestamp": "yesterday"}',
        b'{"metadata": ' + b"[" * 5000 + b"]" * 5000 + b"}",
        b'{"version": "\\ud800"}',
        b" " * (PAYLOAD_LIMIT + 1),
        b"x" * 1024 * 1024,
    ],
    ids=lambda data: repr(data[:24]),
)
async def test_garbage_is_counted_and_nobody_is_heard(door: Door, data: bytes) -> None:
    seen = door.heard(AGENT)
    await door.take(AGENT_SUBJECT, data, reply="_INBOX_agent_p1_a1.1")
    assert door.heard(AGENT) == seen
    assert (door.accepted, door.refusals, door.answers.sent) == (0, {"malformed": 1}, [])


def large(beats: int = 1) -> bytes:
    """A payload of 64 KiB, or a batch of so many of that size in all."""
    padding = {"metadata": {"x": "y" * (PAYLOAD_LIMIT // beats - 200)}}
    return json.dumps(padding).encode() if beats == 1 else batch(*[entry("poller", **padding)] * beats)


async def test_who_says_too_much_at_a_time_is_not_read_further(door: Door) -> None:
    for _ in range(100):
        await door.take(POLLER_SUBJECT, large())
    heard = door.accepted
    assert 75 <= heard < 85
    assert door.refusals == {"too_much": 100 - heard}
    await door.take(POLLER_SUBJECT)
    assert door.accepted == heard
    await door.take(AGENT_SUBJECT, large())  # has a share of its own
    assert door.accepted == heard + 1
    door.house.clock.advance(5)
    await door.take(POLLER_SUBJECT, large())
    assert door.accepted == heard + 2


async def test_small_heartbeats_use_up_a_share_as_well(door: Door) -> None:
    message = HeartbeatMessage(POLLER_SUBJECT, b"", "", {})
    for _ in range(12_000):
        door.door.take(message)
    assert 10_000 <= door.accepted < 10_500
    assert door.flooding == []
    for _ in range(12_000):
        door.door.take(message)
    assert door.flooding == [POLLER]


async def test_headers_that_are_too_many_to_be_read_count_as_well(door: Door) -> None:
    unread = HeartbeatMessage(POLLER_SUBJECT, b"", "", {HEADERS_NOT_READ: str(64 * 1024)})
    for _ in range(150):
        door.door.take(unread)
    assert door.accepted == 0
    assert door.refusals["server_message"] < 90
    assert door.flooding == [POLLER]


async def test_nobody_can_use_up_anothers_share_by_what_the_server_sends(door: Door) -> None:
    """Any host can have the server send the answer to a question of its own to another's subject."""
    made = HeartbeatMessage(POLLER_SUBJECT, b"x" * 4000, "", {"Nats-Sequence": "1"})
    for _ in range(10_000):
        door.door.take(made)
    assert (door.refusals, door.flooding) == ({"server_message": 10_000}, [])
    await door.take(POLLER_SUBJECT)
    assert door.accepted == 1


async def test_who_sends_far_more_than_is_read_is_told_of(door: Door) -> None:
    for _ in range(140):
        await door.take(AGENT_SUBJECT, large())
    assert door.flooding == [AGENT]
    for _ in range(140):
        await door.take(BATCH_SUBJECT, large(beats=10))
    assert door.flooding == [AGENT, POLLER]
    for _ in range(140):
        await door.take(RELAY_SUBJECT, batch(entry("poller", poller_id="p1", metadata={"x": "y" * 60_000})))
    assert door.flooding == [AGENT, POLLER]


async def test_a_batch_uses_up_its_senders_share_and_a_relay_has_no_end_of_it(door: Door) -> None:
    for _ in range(100):
        await door.take(BATCH_SUBJECT, large(beats=10))
    assert door.accepted == 10 * (100 - door.refusals["too_much"]) < 850
    await door.take(POLLER_SUBJECT, large())
    accepted = door.accepted
    assert accepted % 10 == 0  # what it says of itself is of the same share
    for _ in range(40):
        await door.take(RELAY_SUBJECT, batch(entry("poller", poller_id="p1", metadata={"x": "y" * 60_000})))
    assert door.accepted == accepted + 40


@pytest.mark.parametrize("wrong", [1, {}, {"service_type": "gateway"}], ids=str)
async def test_entries_that_are_none_are_dear(door: Door, wrong: object) -> None:
    """A few thousand bytes of them take as long to look into as a megabyte takes to read."""
    for _ in range(8):
        await door.take(BATCH_SUBJECT, batch(*[wrong] * BATCH_LIMIT))
    assert door.refusals == {"malformed_entry": 5 * BATCH_LIMIT, "too_much": 3}
    door.house.clock.advance(5)
    await door.take(POLLER_SUBJECT)
    assert door.accepted == 1


@pytest.mark.parametrize(
    "subject",
    [
        PREFIX,
        f"{PREFIX}.",
        f"{PREFIX}.poller",
        f"{PREFIX}.poller.p1.a1",
        f"{PREFIX}.agent.p1",
        f"{PREFIX}.checker.p1.a1",
        f"{PREFIX}.checker.p1.a1.c1.x",
        f"{PREFIX}.poller.P1",
        f"{PREFIX}.poller.p1 ",
        f"{PREFIX}.poller.*",
        f"{PREFIX}.gateway.p1",
        f"{PREFIX}x.poller.p1",
        f"{PREFIX}.batch",
        f"{PREFIX}.batch.",
        f"{PREFIX}.batch.p1.p2",
        f"{PREFIX}.batch.P1",
        f"{PREFIX}.relay.p1",
        f"{PREFIX}.relayed",
        "poller.p1",
        "",
    ],
)
async def test_a_subject_that_is_none_is_malformed(door: Door, subject: str) -> None:
    data = b"" if ".batch" not in subject else batch(entry("poller"))
    await door.take(subject, data, reply="_INBOX_poller_p1.1")
    assert (door.accepted, door.refusals, door.answers.sent) == (0, {"malformed": 1}, [])


@given(
    subject=st.one_of(
        st.text(), st.sampled_from([POLLER_SUBJECT, CHECKER_SUBJECT, BATCH_SUBJECT, RELAY_SUBJECT])
    ),
    data=st.one_of(
        st.binary(),
        st.recursive(
            st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        ).map(lambda value: json.dumps({"heartbeats": value, "metadata": value}).encode()),
    ),
    reply=st.text(),
    headers=st.dictionaries(st.text(), st.text(), max_size=2),
)
def test_nothing_that_arrives_is_an_exception(
    subject: str, data: bytes, reply: str, headers: dict[str, str]
) -> None:
    async def take() -> None:
        async with running_house(implicit="deny") as house:
            await Door(house).take(subject, data, reply, headers)

    run_virtually(take())


# --- answers


async def test_a_request_is_answered_in_the_senders_own_inbox(door: Door) -> None:
    await door.take(AGENT_SUBJECT, reply="_INBOX_agent_p1_a1.x.1")
    document = {"status": "active", "known": True, "interval_seconds": 30, "config_revision": 3}
    assert door.answers.sent == [("_INBOX_agent_p1_a1.x.1", document)]
    assert door.refusals == {}


async def test_a_first_heartbeat_is_answered_once_it_is_written(door: Door) -> None:
    issued = await door.house.create(AGENT, service_id="a2")
    await door.house.redeem(issued.token)
    await door.take(issued.record.lineage.subject(PREFIX), reply="_INBOX_agent_p1_a2.1")
    ((subject, document),) = door.answers.sent
    assert (subject, document["status"]) == ("_INBOX_agent_p1_a2.1", "active")
    assert door.house.status(issued.record.key) == "active"


@pytest.mark.parametrize(
    ("subject", "why", "known"),
    [
        (f"{PREFIX}.poller.px", "approval_required", True),
        (f"{PREFIX}.agent.p9.a1", "wrong_parents", True),
    ],
)
async def test_who_is_refused_is_told_why(door: Door, subject: str, why: str, known: bool) -> None:
    inbox = subject.removeprefix(f"{PREFIX}.").replace(".", "_")
    await door.take(subject, reply=f"_INBOX_{inbox}.1")
    ((_, document),) = door.answers.sent
    assert (document["refused"], document["known"]) == (why, known)


@pytest.mark.parametrize(
    "reply",
    [
        "_INBOX.abc",
        "_INBOX_agent_p1_a1",
        "_INBOX_agent_p1_a10.1",
        "_INBOX_agent_p1_a2.1",
        "_INBOX_agent_p1.1",
        "_INBOX_poller_p1.1",
        "_inbox_agent_p1_a1.1",
        "x._INBOX_agent_p1_a1.1",
        "$KV.registry.poller.p1",
        "$JS.API.STREAM.DELETE.KV_registry",
        "edge.heartbeat.poller.p1",
    ],
)
async def test_a_foreign_reply_subject_gets_nothing_and_is_counted(door: Door, reply: str) -> None:
    """The daemon may publish anywhere, so whoever could choose where would publish in its name."""
    await door.take(AGENT_SUBJECT, reply=reply)
    assert door.answers.sent == []
    assert door.refusals == {"foreign_reply": 1}
    assert (door.accepted, door.heard(AGENT).last_seen) == (1, door.house.clock.now()), "heard all the same"


async def test_without_a_reply_subject_nobody_is_answered(door: Door) -> None:
    await door.take(AGENT_SUBJECT)
    assert (door.answers.sent, door.refusals) == ([], {})


async def test_answers_beyond_the_bound_are_dropped_and_counted(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeats, "_ANSWERS_AT_ONCE", 3)
    door.answers.held = asyncio.Event()
    for number in range(5):
        door.door.take(HeartbeatMessage(AGENT_SUBJECT, b"", f"_INBOX_agent_p1_a1.{number}"))
    assert door.refusals == {"answer_dropped": 2}
    assert door.accepted == 5, "the heartbeats count all the same"
    door.answers.held.set()
    await door.door.drain()
    assert sorted(subject[-1] for subject, _ in door.answers.sent) == ["0", "1", "2"]
    door.answers.held = None
    await door.take(AGENT_SUBJECT, reply="_INBOX_agent_p1_a1.9")
    assert door.answers.sent[-1][0] == "_INBOX_agent_p1_a1.9", "room again"


async def test_an_answer_that_cannot_be_sent_is_counted(door: Door) -> None:
    door.answers.error = UnavailableError("not connected")
    await door.take(AGENT_SUBJECT, reply="_INBOX_agent_p1_a1.1")
    await asyncio.sleep(0)
    assert door.refusals == {"answer_failed": 1}


async def test_draining_waits_for_answers_under_way(door: Door) -> None:
    await door.door.drain()
    door.answers.held = asyncio.Event()
    door.door.take(HeartbeatMessage(AGENT_SUBJECT, b"", "_INBOX_agent_p1_a1.1"))
    draining = asyncio.create_task(door.door.drain())
    await asyncio.sleep(0)
    assert not draining.done()
    door.answers.held.set()
    await draining
    assert len(door.answers.sent) == 1


def test_draining_does_not_wait_for_ever() -> None:
    async def drain() -> float:
        async with running_house() as house:
            await house.activate()
            door = Door(house)
            door.answers.held = asyncio.Event()
            door.door.take(HeartbeatMessage(POLLER_SUBJECT, b"", "_INBOX_poller_p1.1"))
            loop = asyncio.get_running_loop()
            began = loop.time()
            await door.door.drain()
            waited = loop.time() - began
            assert door.answers.sent == []
            door.answers.held.set()
            await door.door.drain()
            return waited

    assert run_virtually(drain()) == pytest.approx(2)


# --- many at once


async def test_a_batch_is_the_pollers_and_what_is_beneath_it(door: Door) -> None:
    data = batch(
        entry("poller", version="2"),
        entry("agent", agent_id="a1", healthy=False),
        entry("checker", poller_id="p1", agent_id="a1", checker_id="c1"),
    )
    await door.take(BATCH_SUBJECT, data, reply="_INBOX_poller_p1.1")
    now = door.house.clock.now()
    assert [door.heard(key).last_seen for key in (POLLER, AGENT, CHECKER)] == [now] * 3
    assert (door.heard(POLLER).version, door.heard(AGENT).healthy) == ("2", False)
    assert door.answers.sent == [("_INBOX_poller_p1.1", {"heartbeats": 3, "refused": 0})]
    assert (door.accepted, door.refusals) == (3, {})


async def test_each_entry_is_judged_alone_and_a_foreign_one_refused(door: Door) -> None:
    await door.house.activate(P2, label="Another")
    seen = door.heard(P2)
    door.house.clock.advance(5)
    data = batch(
        entry("poller", poller_id="p2"),
        entry("agent", poller_id="p2", agent_id="a1"),
        entry("agent", agent_id="a1"),
        entry("agent"),
        entry("checker", checker_id="c1"),
        entry("checker", agent_id="a9", checker_id="c1"),
        entry("gateway", agent_id="a1"),
        entry("agent", agent_id="A1"),
        entry("poller", interval_seconds=-1),
        "p1",
        None,
        [],
    )
    await door.take(BATCH_SUBJECT, data, reply="_INBOX_poller_p1.1")
    assert door.heard(P2) == seen
    assert door.heard(AGENT).last_seen == door.house.clock.now()
    assert door.refusals == {"malformed_entry": 10, "wrong_parents": 1}
    assert door.answers.sent == [("_INBOX_poller_p1.1", {"heartbeats": 12, "refused": 11})]


async def test_a_batch_cannot_speak_for_another_poller(door: Door) -> None:
    """The records say whose an agent is, whatever the batch's subject says."""
    await door.house.activate(P2, label="Another")
    door.house.clock.advance(5)
    seen = door.heard(AGENT)
    await door.take(f"{PREFIX}.batch.p2", batch(entry("agent", agent_id="a1")))
    assert door.heard(AGENT) == seen
    assert door.refusals == {"wrong_parents": 1}


async def test_a_batch_of_a_thousand_is_taken_and_one_more_is_not(door: Door) -> None:
    entries = [entry("poller")] * BATCH_LIMIT
    await door.take(BATCH_SUBJECT, batch(*entries))
    assert (door.accepted, door.refusals) == (BATCH_LIMIT, {})
    await door.take(BATCH_SUBJECT, batch(*entries, entry("poller")), reply="_INBOX_poller_p1.1")
    assert (door.accepted, door.refusals, door.answers.sent) == (BATCH_LIMIT, {"malformed": 1}, [])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b'{"heartbeats": {}}',
        b'{"heartbeats": [}',
        b'{"heartbeats": []}'.ljust(BATCH_PAYLOAD_LIMIT + 1),
    ],
    ids=lambda data: repr(data[:24]),
)
@pytest.mark.parametrize("subject", [BATCH_SUBJECT, RELAY_SUBJECT])
async def test_what_is_no_batch_is_malformed_as_a_whole(door: Door, subject: str, data: bytes) -> None:
    await door.take(subject, data, reply="_INBOX_poller_p1.1")
    assert (door.accepted, door.refusals, door.answers.sent) == (0, {"malformed": 1}, [])


async def test_a_relay_speaks_for_any_service_and_names_its_poller(door: Door) -> None:
    await door.house.activate(P2, label="Another")
    door.house.clock.advance(5)
    data = batch(
        entry("poller", poller_id="p1"),
        entry("poller", poller_id="p2"),
        entry("agent", poller_id="p1", agent_id="a1"),
        entry("agent", agent_id="a1"),
        entry("agent", poller_id="p2", agent_id="a1"),
    )
    await door.take(RELAY_SUBJECT, data)
    now = door.house.clock.now()
    assert [door.heard(key).last_seen for key in (POLLER, P2, AGENT)] == [now] * 3
    assert door.refusals == {"malformed_entry": 1, "wrong_parents": 1}


@pytest.mark.parametrize("reply", ["_INBOX_poller_p1.1", "_INBOX.1", "$KV.registry.poller.p1"])
async def test_a_relay_is_never_answered(door: Door, reply: str) -> None:
    """It has no inbox that its subject could tell."""
    await door.take(RELAY_SUBJECT, batch(entry("poller", poller_id="p1")), reply=reply)
    assert (door.accepted, door.answers.sent, door.refusals) == (1, [], {"foreign_reply": 1})


@pytest.mark.parametrize(
    "reply",
    ["_INBOX.1", "_INBOX_poller_p1", "_INBOX_poller_p10.1", "_INBOX_poller_p2.1", "$KV.registry.poller.p1"],
)
async def test_a_batchs_foreign_reply_subject_gets_nothing_and_is_counted(door: Door, reply: str) -> None:
    await door.take(BATCH_SUBJECT, batch(entry("poller")), reply=reply)
    assert door.answers.sent == []
    assert (door.accepted, door.refusals) == (1, {"foreign_reply": 1})


async def test_a_batch_admits_the_unknown_beneath_its_own_poller_alone(door: Door) -> None:
    data = batch(entry("agent", agent_id="a7"), entry("agent", poller_id="p7", agent_id="a8"))
    await door.take(BATCH_SUBJECT, data)
    assert door.house.record(ServiceKey(ServiceType.AGENT, "a7")).lineage == Lineage(
        ServiceType.AGENT, "p1", "a7"
    )
    assert door.house.status(ServiceKey(ServiceType.AGENT, "a8")) == "-"
    assert door.house.status(ServiceKey(ServiceType.POLLER, "p7")) == "-"
