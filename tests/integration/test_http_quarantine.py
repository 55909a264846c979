"""Quarantine over HTTP: who waits and what is known of it, and adoption into a package."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from jetway.core import commands as c
from jetway.core.errors import UnavailableError
from jetway.core.heartbeat import Payload
from jetway.core.ids import Lineage, ServiceType
from jetway.services.caller import Caller
from support.http_world import Answer, World, http_world

QUARANTINE = "/api/admin/quarantine"
SERVICES = "/api/admin/services"
PACKAGES = "/api/admin/edge-packages"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with http_world(tmp_path) as made:
        yield made


async def knock(world: World, *ids: str, beats: int = 1, heard: bool = True) -> None:
    """A service registers itself by its heartbeats, or is named by a child's."""
    lineage = Lineage((ServiceType.POLLER, ServiceType.AGENT, ServiceType.CHECKER)[len(ids) - 1], *ids)
    admit = c.Admit(lineage=lineage, approval_required=True, heard=heard)
    await world.doors.administrator._recorder.apply(lineage.key, admit, Caller(f"heartbeat:{lineage.key}"))
    for _ in range(beats):
        payload = Payload(version="2.1", source_ip="192.0.2.7", instance_id="i-1")
        world.doors.catalogue._presence.note(lineage.key, payload, world.clock.now())


async def adopt(world: World, path: str, package_id: str, role: str = "operator") -> Answer:
    return await world.call("POST", f"{QUARANTINE}/{path}/adopt", {"package_id": package_id}, role=role)


async def waiting(world: World, query: str = "") -> Any:
    return (await world.call("GET", f"{QUARANTINE}{query}", role="viewer")).json


async def test_who_waits_is_shown_with_what_is_known(world: World) -> None:
    await knock(world, "p1", beats=0, heard=False)
    world.clock.advance(5)
    await knock(world, "p1", "a1", beats=3)
    shown = await waiting(world)
    named, heard = shown["items"]
    assert (shown["total"], named["service_id"], named["first_heartbeat"], named["heartbeats"]) == (
        2,
        "p1",
        None,
        0,
    )
    assert heard["subject"] == "edge.heartbeat.agent.p1.a1"
    assert (heard["source_ip"], heard["version"], heard["heartbeats"]) == ("192.0.2.7", "2.1", 3)
    assert heard["first_heartbeat"] == heard["last_heartbeat"] == heard["registered_at"]
    first = await waiting(world, "?limit=1")
    rest = await waiting(world, f"?limit=1&cursor={first['next_cursor']}")
    assert [first["items"][0]["service_id"], rest["items"][0]["service_id"]] == ["p1", "a1"]
    assert (await waiting(world, "?service_type=agent"))["total"] == 1


async def test_who_was_approved_waits_no_longer_and_who_was_rejected_is_listed_apart(world: World) -> None:
    await knock(world, "p1")
    await knock(world, "p2")
    await world.call("POST", f"{SERVICES}/pollers/p1/approve", {})
    await world.call("POST", f"{SERVICES}/pollers/p2/reject", {})
    assert (await waiting(world))["items"] == []
    assert [each["service_id"] for each in (await waiting(world, "?approval=rejected"))["items"]] == ["p2"]


async def test_adoption_gives_the_service_what_the_package_says_and_ends_the_package(world: World) -> None:
    made = await world.create("poller", "site-a", site="A", labels={"rack": "12"}, metadata={"owner": "ops"})
    await knock(world, "p1")
    path, package_id = "pollers/p1", made["package"]["package_id"]
    world.clock.advance(5)
    answer = await adopt(world, path, package_id)
    assert answer.status == 200
    shown = answer.json
    assert (shown["approval"], shown["site"], shown["labels"]) == ("granted", "A", {"rack": "12"})
    assert (shown["label"], shown["metadata"]) == ("site-a", {"owner": "ops"})
    assert (await world.call("GET", f"{PACKAGES}/{package_id}")).json["status"] == "revoked"
    assert (await world.redeem(made["token"])).status == 410
    events = (await world.call("GET", f"{SERVICES}/{path}/events")).json["items"]
    assert [event["event_type"] for event in events] == ["adopted", "registered"]
    again = await adopt(world, path, package_id)
    assert (again.status, again.json["revision"]) == (200, shown["revision"])


async def test_adoption_that_was_interrupted_goes_on(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    package_id = (await world.create("poller", "site-a", site="A"))["package"]["package_id"]
    await knock(world, "p1")

    async def away(*_arguments: object) -> None:
        raise UnavailableError("away")

    with monkeypatch.context() as patched:
        patched.setattr(world.doors.issuer, "adopt", away)
        assert (await adopt(world, "pollers/p1", package_id)).status == 503
    assert (await waiting(world))["total"] == 1
    assert (await adopt(world, "pollers/p1", package_id)).json["site"] == "A"


async def test_only_a_package_for_this_place_that_nobody_redeemed(world: World) -> None:
    poller = await world.create("poller", "site-a")
    agent = await world.create("agent", "a1", "site-a")
    redeemed = await world.create("poller", "site-b")
    await world.redeem(redeemed["token"])
    await knock(world, "p1")
    with_child = await adopt(world, "pollers/p1", poller["package"]["package_id"])
    assert (with_child.status, with_child.code) == (409, "children_live")
    foreign = await adopt(world, "pollers/p1", agent["package"]["package_id"])
    assert (foreign.status, foreign.code, foreign.fields) == (409, "wrong_parents", ["package_id"])
    used = await adopt(world, "pollers/p1", redeemed["package"]["package_id"])
    assert (used.status, used.fields) == (409, ["package_id"])
    assert (await adopt(world, "agents/a1", agent["package"]["package_id"])).status == 409
    assert (await adopt(world, "pollers/nobody", agent["package"]["package_id"])).status == 404
    assert (await adopt(world, "pollers/p1", agent["package"]["package_id"], role="viewer")).status == 403
    assert (await waiting(world))["total"] == 1
