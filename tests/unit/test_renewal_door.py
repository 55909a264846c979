"""The renewal door: who is answered and where, and that nothing a sender does breaks it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from jetway.core.errors import UnavailableError
from jetway.core.heartbeat import HEADERS_NOT_READ
from jetway.core.ids import ServiceKey, ServiceType
from jetway.core.renewal import RenewalAnswer, RenewalRefusal, make_request, parse_answer
from jetway.entry import renewals
from jetway.entry.renewals import RenewalDoor
from jetway.entry.shares import sender_shares
from jetway.ports import HeartbeatMessage
from support.authorities import sign
from support.builders import LINEAGES, POLLER
from support.house import House, running_house

P1 = LINEAGES[ServiceType.POLLER]
SUBJECT, INBOX = "jetway.renew.poller.p1", "_INBOX_poller_p1.7"


class Door:
    """The door of a running house with one active poller, and what it answered."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.sent: list[tuple[str, RenewalAnswer | RenewalRefusal]] = []
        self.error: Exception | None = None
        self.flooding: list[ServiceKey] = []
        self.held: asyncio.Event | None = None
        self.door = RenewalDoor(house.renewer, self, sender_shares(house.clock, self.flooding.append))

    async def reply(self, subject: str, data: bytes) -> None:
        """Implements `ports.Replies`."""
        if self.held:
            await self.held.wait()
        if self.error:
            raise self.error
        self.sent.append((subject, parse_answer(data)))

    def request(self, key: str = "U-mine") -> bytes:
        return make_request(
            P1, nats_public_key=key, now=self.house.clock.now(), sign=lambda message: sign(key, message)
        )

    async def take(self, data: bytes, *, subject: str = SUBJECT, reply: str = INBOX, **headers: str) -> None:
        self.door.take(HeartbeatMessage(subject, data, reply, headers))
        await self.door.drain()

    def counted(self, outcome: str) -> int:
        return int(self.house.metrics.renewals.labels(outcome)._value.get())


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    async with running_house() as house:
        await house.redeem((await house.create()).token, key="U-mine")
        yield Door(house)


async def test_the_sender_is_answered_in_its_own_inbox(door: Door) -> None:
    await door.take(door.request())
    ((subject, answer),) = door.sent
    assert subject == INBOX
    assert isinstance(answer, RenewalAnswer)
    assert answer.creds


async def test_a_refusal_says_why(door: Door) -> None:
    await door.house.revoke(POLLER)
    await door.take(door.request())
    assert door.sent == [(INBOX, RenewalRefusal(error="revoked", detail="this identity was revoked"))]


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "_INBOX.1",
        "_INBOX_poller_p1",
        "_INBOX_poller_p10.1",
        "_INBOX_agent_p1_a1.1",
        "$KV.registry.poller.p1",
    ],
)
async def test_elsewhere_nothing_is_sent_and_nothing_is_done(door: Door, reply: str) -> None:
    writes = door.house.ledger.writes
    await door.take(door.request(), reply=reply)
    assert (door.sent, door.house.ledger.writes, door.counted("foreign_reply")) == ([], writes, 1)


@pytest.mark.parametrize("header", [{"Status": "408"}, {"Nats-Sequence": "1"}])
async def test_what_the_server_was_made_to_send_is_no_request(door: Door, header: dict[str, str]) -> None:
    await door.take(door.request(), **header)
    assert (door.sent, door.counted("server_message")) == ([], 1)


@pytest.mark.parametrize(
    "subject", ["jetway.renew", "jetway.renew.poller", "jetway.renew.agent.p1", "x.poller.p1"]
)
async def test_a_subject_that_names_no_service_is_counted(door: Door, subject: str) -> None:
    await door.take(door.request(), subject=subject)
    assert (door.sent, door.counted("malformed")) == ([], 1)


@pytest.mark.parametrize("data", [b"", b"{}", b"\xff", b"[" * 30_000])
async def test_what_cannot_be_read_is_answered_as_malformed(door: Door, data: bytes) -> None:
    await door.take(data)
    ((_, answer),) = door.sent
    assert isinstance(answer, RenewalRefusal)
    assert answer.error == "malformed"


async def test_a_request_for_another_is_refused(door: Door) -> None:
    """The subject says who asks, whatever the body says."""
    body = json.loads(door.request()) | {"subject": "jetway.renew.poller.p2"}
    await door.take(json.dumps(body).encode())
    assert [getattr(answer, "error", "") for _, answer in door.sent] == ["malformed"]


async def test_with_the_ledger_away_the_host_shall_ask_again(door: Door) -> None:
    door.house.ledger.fail_next("write", UnavailableError("away"))
    await door.take(door.request())
    assert [getattr(answer, "error", "") for _, answer in door.sent] == ["unavailable"]
    await door.take(door.request())
    assert isinstance(door.sent[-1][1], RenewalAnswer)


async def test_an_answer_that_cannot_be_sent_is_counted(door: Door) -> None:
    door.error = UnavailableError("away")
    await door.take(door.request())
    assert door.counted("answer_failed") == 1


async def test_a_flood_is_bounded(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(renewals, "_AT_ONCE", 2)
    for _ in range(5):
        door.door.take(HeartbeatMessage(SUBJECT, door.request(), INBOX))
    await door.door.drain()
    assert (len(door.sent), door.counted("dropped")) == (2, 3)


async def test_one_host_does_not_keep_others_from_renewing(door: Door) -> None:
    door.held = asyncio.Event()
    for _ in range(6):
        door.door.take(HeartbeatMessage(SUBJECT, door.request(), INBOX))
    door.door.take(HeartbeatMessage("jetway.renew.poller.p2", b"{}", "_INBOX_poller_p2.7"))
    await door.house.settle()
    door.held.set()
    await door.door.drain()
    assert sorted(subject for subject, _ in door.sent) == [INBOX] * 4 + ["_INBOX_poller_p2.7"]
    assert door.counted("dropped") == 2
    await door.take(door.request())
    assert len(door.sent) == 6, "its place is free again"


@pytest.mark.parametrize("reply", [INBOX, ""])
async def test_who_floods_with_requests_is_told_of_and_read_no_more(door: Door, reply: str) -> None:
    """Whatever they are good for: each has to be received."""
    for _ in range(20_000):
        door.door.take(HeartbeatMessage(SUBJECT, b"garbage", reply))
    await door.door.drain()
    assert door.counted("too_much") > 5_000
    assert door.flooding == [POLLER]
    door.door.take(HeartbeatMessage("jetway.renew.poller.p2", b"{}", "_INBOX_poller_p2.7"))
    await door.door.drain()
    assert door.sent[-1][0] == "_INBOX_poller_p2.7", "others are read all the same"


async def test_what_has_to_be_checked_uses_up_more_of_a_share(door: Door) -> None:
    for _ in range(100):
        await door.take(b"garbage")
    assert (door.counted("malformed"), door.counted("too_much")) == (80, 20)
    assert door.flooding == []


@pytest.mark.parametrize("headers", [{"Nats-Sequence": "1"}, {"Status": "404"}])
async def test_nobody_can_use_up_anothers_share_by_what_the_server_sends(
    door: Door, headers: dict[str, str]
) -> None:
    for _ in range(20_000):
        door.door.take(HeartbeatMessage(SUBJECT, b"x" * 1000, INBOX, headers))
    assert door.flooding == []
    await door.take(door.request())
    assert isinstance(door.sent[-1][1], RenewalAnswer)


async def test_headers_that_are_too_many_to_be_read_are_the_senders_own(door: Door) -> None:
    for _ in range(200):
        door.door.take(HeartbeatMessage(SUBJECT, b"", INBOX, {HEADERS_NOT_READ: "65536"}))
    assert door.flooding == [POLLER]


async def test_a_mistake_of_our_own_is_counted_and_breaks_nothing(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def mistake(*_: Any, **__: Any) -> None:
        await asyncio.sleep(0)
        raise RuntimeError("a mistake")

    with monkeypatch.context() as broken:
        broken.setattr(door.house.renewer, "renew", mistake)
        await door.take(door.request())
    assert (door.sent, door.counted("failed")) == ([], 1)
    await door.take(door.request())
    assert len(door.sent) == 1
