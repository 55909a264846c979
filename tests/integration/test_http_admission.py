"""Admission over HTTP, and over NATS where hosts must not reach it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from jetway.adapters.nats.accounts import ADMIN_FILE
from jetway.adapters.nats.admission import NatsQuestions
from jetway.adapters.nats.names import Names
from jetway.core.errors import UnavailableError
from jetway.core.ids import Lineage, ServiceType
from jetway.ports import HeartbeatMessage
from support.http_world import World, http_world
from support.secured_nats import SecuredNats, secured_nats

PATH = "/api/admin/admission/pollers/"
LINEAGES = (
    Lineage(ServiceType.POLLER, "p1"),
    Lineage(ServiceType.AGENT, "p1", "a1"),
    Lineage(ServiceType.CHECKER, "p1", "a1", "c1"),
)
SUBJECT = Names().known_subject


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with http_world(tmp_path) as world:
        yield world


async def test_a_poller_is_asked_about(world: World) -> None:
    created = await world.create("poller", "p1")
    known = await world.call("GET", PATH + "p1", role="viewer")
    assert (known.status, known.json) == (
        200,
        {"known": True, "status": "pending", "source": "edge_onboarding"},
    )
    package = created["package"]["package_id"]
    await world.call("POST", f"/api/admin/edge-packages/{package}/revoke", {"reason": "stolen"})
    revoked = await world.call("GET", PATH + "p1", role="viewer")
    assert (revoked.json["known"], revoked.json["status"]) == (False, "revoked")


async def test_one_that_nobody_knows_is_an_answer_and_no_error(world: World) -> None:
    for name in ("nobody", "Not_a.Label:1"):
        answer = await world.call("GET", PATH + name, role="viewer")
        assert (answer.status, answer.json) == (200, {"known": False, "status": "", "source": ""})
    assert (await world.call("GET", PATH + "static", role="viewer")).json["known"] is True


async def test_strangers_may_not_ask_and_nonsense_is_refused_by_name(world: World) -> None:
    assert (await world.call("GET", PATH + "p1", role=None)).status == 401
    answer = await world.call("GET", PATH + "-x", role="viewer")
    assert (answer.status, answer.fields) == (404, ["poller_id"])


@pytest.fixture
async def secured(tmp_path: Path) -> AsyncIterator[SecuredNats]:
    async with secured_nats(tmp_path) as server:
        yield server


async def test_core_servers_are_answered_and_edge_hosts_cannot_even_ask(secured: SecuredNats) -> None:
    asked: list[bytes] = []
    questions, answers = NatsQuestions(secured.gateway, SUBJECT), set[asyncio.Future[None]]()

    def answer(message: HeartbeatMessage) -> None:
        asked.append(message.data)
        answers.add(asyncio.ensure_future(questions.answer(message.reply, b"yes", {})))

    await questions.open(answer)
    core = await secured.connect(secured.folder / "nats" / ADMIN_FILE)
    assert (await core.client.request(SUBJECT, b"p1", timeout=30)).data == b"yes"

    for lineage in LINEAGES:
        host = await secured.host(lineage)
        await host.publish(SUBJECT, f"{lineage.inbox_prefix}1")
        assert SUBJECT in (await host.denied())["publish"]

    # Also somebody in their account who may do everything reaches nobody there.
    with pytest.raises(UnavailableError, match="nobody answers"):
        await secured.edge.request(SUBJECT, b"p1", timeout=30)
    assert asked == [b"p1"]
    await asyncio.gather(*answers)
    await questions.close()
