"""Whatever arrives on a heartbeat subject is accounted for: taken, or refused and counted. Nothing is raised.

The door and the observer are the real ones, over ports in memory. Answers go to the sender's own inbox alone.
"""

from __future__ import annotations

import asyncio
import json

from hypothesis import example, given, settings
from hypothesis import strategies as st

from jetway.core.heartbeat import MalformedError, parse_batch, parse_payload, parse_subject
from jetway.core.ids import Lineage, ServiceType
from jetway.entry.heartbeats import HeartbeatDoor
from jetway.entry.shares import sender_shares
from jetway.ports import HeartbeatMessage
from support.builders import LINEAGES
from support.house import House, running_house

PREFIX = "edge.heartbeat"
KNOWN = ["p1", "a1", "c1", "p2", "p1x", "x"]
IDS = st.sampled_from(KNOWN) | st.sampled_from(
    ["", "P1", "p1.", "*", ">", "p 1", "p1\0", "-p1", "é", "p" * 64]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FIELDS: dict[str, st.SearchStrategy[object]] = {
    "timestamp": st.sampled_from(["2026-03-04T05:06:07Z", "0001-01-01T00:00:00+23:59", "x", 0, 1e300]) | JSON,
    "healthy": st.booleans() | JSON,
    "version": st.text(max_size=200) | JSON,
    "source_ip": st.text(max_size=80) | JSON,
    "interval_seconds": st.integers(-1, 90_000) | JSON,
    "config_revision": st.integers() | JSON,
    "stopping": st.booleans() | JSON,
    "metadata": st.dictionaries(st.text(max_size=5), JSON, max_size=3) | JSON,
}
PAYLOADS = st.fixed_dictionaries({}, optional=FIELDS)
ENTRIES = st.fixed_dictionaries(
    {},
    optional={
        **FIELDS,
        "service_type": st.sampled_from(["poller", "agent", "checker", "x"]) | JSON,
        **dict.fromkeys(("poller_id", "agent_id", "checker_id"), IDS | JSON),
    },
)


def as_bytes(value: object) -> bytes:
    """JSON as it may come, halves of surrogate pairs and NaN included."""
    return json.dumps(value).encode()


DATA = st.one_of(
    st.just(b""),
    st.binary(max_size=50),
    PAYLOADS.map(as_bytes),
    JSON.map(as_bytes),
    st.just(b"[" * 70_000),
    st.just(b'{"version": "' + b"x" * 70_000 + b'"}'),
    st.just(b'{"metadata": {"a": "\\ud800"}, "version": "\\udfff"}'),
    st.just(b'{"interval_seconds": 1' + b"0" * 5000 + b"}"),
    st.just(b'{"healthy": true, "healthy": false}'),
)
BATCHES = DATA | st.lists(ENTRIES | JSON, max_size=4).map(lambda entries: as_bytes({"heartbeats": entries}))
SINGLE = st.one_of(
    st.sampled_from([lineage.subject(PREFIX) for lineage in LINEAGES.values()]),
    st.lists(IDS, max_size=5).flatmap(
        lambda ids: st.sampled_from(["poller", "agent", "checker", "", "x"]).map(
            lambda kind: ".".join([PREFIX, kind, *ids])
        )
    ),
    st.text(max_size=30),
    st.builds(f"{PREFIX}{{}}".format, st.text(max_size=20)),
)
BATCH = IDS.map(lambda poller: f"{PREFIX}.batch.{poller}") | st.just(f"{PREFIX}.relay")
REPLIES = st.one_of(
    st.just(""),
    st.sampled_from([f"{lineage.inbox_prefix}x" for lineage in LINEAGES.values()]),
    st.builds(
        "{}{}".format,
        st.sampled_from(
            ["_INBOX_poller_p1", "_INBOX_poller_p1.", "_INBOX_agent_p1_a1.", "_INBOX.", "", "_INBOX_poller_p"]
        ),
        st.text(max_size=10),
    ),
    st.sampled_from(
        ["$JS.API.STREAM.DELETE.KV_registry", "$KV.registry.poller.p1", "edge.heartbeat.poller.p2", ">"]
    ),
)
HEADERS = st.dictionaries(
    st.sampled_from(["Status", "status", "Nats-Msg-Id", "nats-x", "X"]) | st.text(max_size=8),
    st.text(max_size=8),
    max_size=2,
)
MESSAGES = st.builds(HeartbeatMessage, SINGLE, DATA, REPLIES, HEADERS) | st.builds(
    HeartbeatMessage, BATCH, BATCHES, REPLIES, st.just({}) | HEADERS
)


class Inbox:
    """Implements `ports.Replies`: keeps what is sent."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, bytes]] = []

    async def reply(self, subject: str, data: bytes) -> None:
        self.sent.append((subject, data))


def accounted(house: House) -> float:
    """Heartbeats taken and refused so far."""
    families = [*house.metrics.heartbeats.collect(), *house.metrics.heartbeats_refused.collect()]
    return sum(one.value for family in families for one in family.samples if one.name.endswith("_total"))


def by_the_server(message: HeartbeatMessage) -> bool:
    """Whether its headers are such as the server sets."""
    return any(name.lower() == "status" or name.lower().startswith("nats-") for name in message.headers)


def owed(message: HeartbeatMessage) -> int:
    """How much is to be accounted for, an answer that is not given left aside."""
    if by_the_server(message):
        return 1
    is_batch = message.subject.startswith(f"{PREFIX}.batch.") or message.subject == f"{PREFIX}.relay"
    if not is_batch:
        return 1
    poller = (
        message.subject.removeprefix(f"{PREFIX}.batch.") if message.subject != f"{PREFIX}.relay" else None
    )
    try:
        if poller is not None:
            parse_subject(f"{PREFIX}.poller.{poller}", PREFIX)
        return len(parse_batch(message.data, poller))
    except MalformedError:
        return 1


def sender(message: HeartbeatMessage) -> Lineage | None:
    """Who speaks, by the subject alone."""
    if message.subject.startswith(f"{PREFIX}.batch."):
        return Lineage(ServiceType.POLLER, message.subject.removeprefix(f"{PREFIX}.batch."))
    try:
        parse_payload(message.data)
        return parse_subject(message.subject, PREFIX)
    except MalformedError:
        return None


async def deliver(messages: list[HeartbeatMessage]) -> None:
    async with running_house() as house:
        await house.activate_tree()
        inbox = Inbox()
        door = HeartbeatDoor(house.observer, inbox, house.clock, PREFIX, sender_shares(house.clock))
        for message in messages:
            before, foreign = accounted(house), house.refused("foreign_reply")
            servers, writes = house.refused("server_message"), house.ledger.writes
            inbox.sent.clear()
            door.take(message)
            await house.settle()
            await door.drain()
            foreign = house.refused("foreign_reply") - foreign
            taken = accounted(house) - before - foreign
            # Two entries of a batch for one service that waits for its write are one heartbeat.
            assert taken == owed(message) or (owed(message) > 1 and 1 <= taken <= owed(message)), message
            if by_the_server(message):
                assert house.refused("server_message") == servers + 1
                assert house.ledger.writes == writes
                assert not inbox.sent
            assert len(inbox.sent) + foreign <= (1 if message.reply else 0)
            for subject, data in inbox.sent:
                own = sender(message)
                assert own is not None
                assert subject == message.reply
                assert subject.startswith(own.inbox_prefix)
                assert isinstance(json.loads(data), dict)
        for key in house.ledger.entries:
            record = house.ledger.entries[key].record
            assert record is not None
            assert all(part in KNOWN for part in record.lineage.ids), "nothing else is an id"


@settings(max_examples=100)
@given(st.lists(MESSAGES, min_size=1, max_size=8))
@example([HeartbeatMessage(f"{PREFIX}.poller.p1", b"", "_INBOX_poller_p1x.y")])
@example([HeartbeatMessage(f"{PREFIX}.batch.p1", b'{"heartbeats": []}', "_INBOX_poller_p1.y")])
@example(
    [
        HeartbeatMessage(
            f"{PREFIX}.relay", b'{"heartbeats": [{"service_type": "poller"}]}', "_INBOX_poller_p1.y"
        )
    ]
)
def test_every_message_is_accounted_for_and_nobody_else_is_answered(messages: list[HeartbeatMessage]) -> None:
    asyncio.run(deliver(messages))
