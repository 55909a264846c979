"""The admission door: what is a question, and where answers may go."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jetway.core.errors import UnavailableError
from jetway.entry.admission import known_endpoint, read_question
from jetway.entry.questions import QuestionDoor, Told
from jetway.ports import HeartbeatMessage
from jetway.services.admit import Admission
from jetway.services.index import Index
from jetway.services.metrics import Metrics
from support.builders import POLLER, FakeClock, record

INBOX = "_INBOX.abc.1"


class Answers:
    """Implements `ports.Answers`."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, Any]] = []
        self.headers: list[Mapping[str, str]] = []
        self.error: Exception | None = None

    async def answer(self, subject: str, data: bytes, headers: Mapping[str, str]) -> None:
        if self.error:
            raise self.error
        self.headers.append(headers)
        self.sent.append((subject, json.loads(data)))


class World:
    def __init__(self, at_once: int | None = None) -> None:
        self.answers, self.metrics, index = Answers(), Metrics(), Index()
        index.apply(record(POLLER.service_type))
        admission = Admission(index, FakeClock(), self.metrics, mode="enforce", known_pollers=())
        self.endpoint = known_endpoint(admission, "jetway.known")
        if at_once is not None:
            self.endpoint = replace(self.endpoint, at_once=at_once)
        dropped = self.metrics.admission_dropped
        self.door = QuestionDoor(
            self.endpoint,
            self.answers,
            self.metrics.nats_requests,
            lambda reason: dropped.labels(reason).inc(),
        )

    async def ask(self, data: bytes, reply: str = INBOX, headers: Mapping[str, str] | None = None) -> None:
        self.door.take(HeartbeatMessage("jetway.known", data, reply, headers or {}))
        await self.door.drain()

    def dropped(self, reason: str) -> float:
        found = self.metrics.registry.get_sample_value("jetway_admission_dropped_total", {"reason": reason})
        return found or 0.0


@pytest.mark.parametrize("data", [b'{"poller_id": "p1"}', b"p1", b"  p1\n", b' {"poller_id":"p1"}'])
async def test_a_question_is_json_or_plain_text(data: bytes) -> None:
    world = World()
    assert POLLER.service_id == "p1"
    await world.ask(data)
    assert world.answers.sent == [
        (INBOX, {"known": True, "status": "pending", "source": "edge_onboarding"}),
    ]


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"", "poller_id"),
        (b"{", "JSON"),
        (b"{}", "poller_id"),
        (b'{"poller_id": ""}', "poller_id"),
        (b'{"poller_id": 7}', "poller_id"),
        (b'{"poller_id": "p1", "agent_id": "a1"}', "agent_id"),
        (b"\xff\xfe", "poller_id"),
        (b"x" * 254, "poller_id"),
        (b"x" * 5000, "4096"),
    ],
)
async def test_what_is_no_question_is_told_why(data: bytes, word: str) -> None:
    world = World()
    await world.ask(data)
    [(_, answer)] = world.answers.sent
    assert answer["known"] is False
    assert word in answer["error"]
    assert world.dropped("malformed") == 1
    [headers] = world.answers.headers
    assert headers["Nats-Service-Error-Code"] == "400"
    assert word in headers["Nats-Service-Error"]
    assert (world.endpoint.tally.requests, world.endpoint.tally.errors) == (1, 1)


@pytest.mark.parametrize("reply", ["_INBOX.a.1", "_INBOX_core_a.1", "_R_.x.y"])
async def test_an_inbox_is_answered(reply: str) -> None:
    world = World()
    await world.ask(b"p1", reply)
    assert [subject for subject, _ in world.answers.sent] == [reply]


@pytest.mark.parametrize("reply", ["", "$JS.API.STREAM.DELETE.KV_registry", "edge.heartbeat.relay", "_INBOX"])
async def test_nothing_is_said_anywhere_else(reply: str) -> None:
    world = World()
    await world.ask(b"p1", reply)
    assert not world.answers.sent
    assert world.dropped("foreign_reply") == 1


async def test_what_the_server_was_made_to_send_is_no_question() -> None:
    world = World()
    await world.ask(b"p1", headers={"Nats-Sequence": "1"})
    assert not world.answers.sent
    assert world.dropped("server_message") == 1


async def test_an_answer_that_cannot_be_sent_is_counted() -> None:
    world = World()
    world.answers.error = UnavailableError("away")
    await world.ask(b"p1")
    assert world.dropped("answer_failed") == 1


async def test_no_more_answers_are_under_way_than_may_be() -> None:
    world = World(at_once=2)
    for _ in range(5):
        world.door.take(HeartbeatMessage("jetway.known", b"p1", INBOX))
    await world.door.drain()
    assert len(world.answers.sent) == 2
    assert world.dropped("overloaded") == 3
    await world.ask(b"p1")
    assert len(world.answers.sent) == 3


async def test_a_mistake_of_the_daemon_is_answered_and_tells_nothing() -> None:
    world = World()

    async def fail(_message: HeartbeatMessage) -> Told:
        raise RuntimeError("the secret is 1234")

    door = QuestionDoor(replace(world.endpoint, answer=fail), world.answers, world.metrics.nats_requests)
    door.take(HeartbeatMessage("jetway.known", b"p1", INBOX))
    await door.drain()
    [(_, answer)], [headers] = world.answers.sent, world.answers.headers
    assert (answer["status"], answer["code"]) == (500, "internal")
    assert headers["Nats-Service-Error-Code"] == "500"
    assert "1234" not in json.dumps([answer, dict(headers)])


def test_what_a_header_cannot_hold_is_left_to_the_body() -> None:
    sentence = Told(b"", 400, "invalid", "wörd\r\nNats-Sequence: 1" + "x" * 500).headers["Nats-Service-Error"]
    assert sentence.isascii()
    assert sentence.isprintable()
    assert len(sentence) <= 200


@given(st.binary(max_size=300))
def test_any_bytes_are_a_question_or_a_sentence(data: bytes) -> None:
    try:
        assert 1 <= len(read_question(data)) <= 253
    except ValueError as error:
        assert str(error)
