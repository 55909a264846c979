"""What a service is, at a glance: let in or kept out, who made it so, in maintenance, and the worst beneath it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from jetway.core import commands as c
from jetway.core.heartbeat import EMPTY, Payload
from jetway.core.ids import Lineage, ServiceKey, ServiceType
from jetway.services.caller import SYSTEM, Caller
from support.browsing import Browser, browsing
from support.http_world import World, http_world


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with http_world(tmp_path) as world:
        world.presence.listening()
        yield world


@pytest.fixture
async def browser(world: World) -> AsyncIterator[Browser]:
    async with browsing(world) as browser:
        await browser.sign_in("operator")
        yield browser


async def knock(world: World, poller_id: str) -> None:
    """A poller registers itself by a heartbeat."""
    lineage = Lineage(ServiceType.POLLER, poller_id)
    admit = c.Admit(lineage=lineage, approval_required=True, heard=True)
    await world.doors.administrator._recorder.apply(lineage.key, admit, Caller(f"heartbeat:{lineage.key}"))


async def said(browser: Browser, path: str) -> str:
    """The page's text, without tags."""
    body = (await browser.get(path)).body.decode()
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", "", body[body.index("<main") :]))


async def decide(browser: Browser, poller_id: str, name: str, reason: str = "") -> None:
    path = f"/ui/services/poller/{poller_id}/{name}"
    answer = await browser.post(path, {"csrf": await browser.csrf(path), "reason": reason})
    assert answer.status == 303, answer.body


async def test_strangers_and_rejected_ones_look_so_and_take_no_children(
    world: World, browser: Browser
) -> None:
    await knock(world, "stranger")
    await knock(world, "rejected")
    await world.create("poller", "known")
    await decide(browser, "rejected", "reject", "nobody knows it")
    table = (await browser.get("/ui/services")).body.decode()
    rows = {
        name: re.sub(r"<[^>]*>", " ", row)
        for name, row in re.findall(r'<tr id="row-poller-(\w+)" data-row>(.*?)</tr>', table, re.DOTALL)
    }
    assert "Awaits approval" in rows["stranger"] and "Rejected" in rows["rejected"]
    assert "Awaits" not in rows["known"] and "Rejected" not in rows["known"]
    head = await said(browser, "/ui/services/poller/rejected")
    assert "Rejected by operator" in head and "nobody knows it" in head and "was rejected" in head
    assert "Onboard an agent beneath" not in head
    assert "Onboard an agent beneath" not in await said(browser, "/ui/services/poller/stranger")
    assert "Onboard an agent beneath" in await said(browser, "/ui/services/poller/known")
    parents = (await browser.get("/ui/onboard/parents?type=agent")).json
    assert [each["id"] for each in parents] == ["known"]
    for tree in ("/ui/tree", "/ui/due"):
        assert (await browser.get(tree)).status == 200
    assert "Rejected" in await said(browser, "/ui/tree")


async def test_a_rejected_one_can_be_approved_after_all(world: World, browser: Browser) -> None:
    await knock(world, "p1")
    await decide(browser, "p1", "reject")
    assert "Approve after all" in await said(browser, "/ui/services/poller/p1")
    await decide(browser, "p1", "approve", "it is ours")
    head = await said(browser, "/ui/services/poller/p1")
    assert "Approved by operator" in head and "it is ours" in head
    assert "Onboard an agent beneath" in head


async def test_who_set_the_status_is_told_however_it_went_on(world: World, browser: Browser) -> None:
    await world.create("poller", "p1")
    await world.create("agent", "a1", "p1")
    assert "Pending by admin, just now" in await said(browser, "/ui/services/poller/p1")
    await decide(browser, "p1", "revoke", "stolen")
    world.clock.advance(120)
    record = world.ledger.index.get(ServiceKey(ServiceType.POLLER, "p1"))
    assert record and record.transition.actor == SYSTEM.actor, "the cascade's end is its last change"
    assert "Revoked by operator, 2 min ago: stolen" in await said(browser, "/ui/services/poller/p1")
    assert "Revoked by operator" in await said(browser, "/ui/services/agent/a1")


async def test_while_the_database_is_away_the_record_tells_what_it_knows(
    world: World, browser: Browser
) -> None:
    await world.create("poller", "p1")
    await decide(browser, "p1", "revoke", "stolen")
    world.database.away = True
    head = await said(browser, "/ui/services/poller/p1")
    assert "stolen" in head and "Pending by" not in head


async def test_the_status_is_found_behind_a_long_history(world: World, browser: Browser) -> None:
    await world.create("poller", "p1")
    key = ServiceKey(ServiceType.POLLER, "p1")
    path = f"/ui/services/poller/{key.service_id}/reissue"
    for _ in range(20):  # two events each, none of them a change of the status
        await browser.post(path, {"csrf": await browser.csrf(path)})
    events = (await world.call("GET", "/api/admin/services/pollers/p1/events?limit=100")).json["items"]
    assert len(events) > 30
    assert "Pending by" in await said(browser, "/ui/services/poller/p1")


async def test_the_worst_beneath_come_first_and_ten_in_all(world: World, browser: Browser) -> None:
    await world.create("poller", "p1")
    for number in range(12):
        await world.create("agent", f"a{number:02}", "p1")
    for name, payload in (("a11", Payload(stopping=True)), ("a10", EMPTY)):
        key = ServiceKey(ServiceType.AGENT, name)
        made = await world.call("POST", f"/api/admin/services/agents/{name}/status", {"status": "revoked"})
        assert made.status == 200
        world.presence.note(key, payload, world.clock.now())
    body = {"service_id": "last", "label": "Z", "parent_id": "p1"}
    assert (await world.call("POST", "/api/admin/services/agents", body)).status == 201
    answer = await world.call("POST", "/api/admin/services/agents/last/status", {"status": "active"})
    assert answer.status == 200
    world.presence.note(ServiceKey(ServiceType.AGENT, "last"), Payload(stopping=True), world.clock.now())
    page = (await browser.get("/ui/services/poller/p1")).body.decode()
    beneath = page[page.index('id="live-children"') : page.index("All 13")]
    shown = re.findall(r'href="/ui/services/agent/([\w]+)"', beneath)
    assert shown == ["last", *(f"a{number:02}" for number in range(9))]


async def test_maintenance_is_marked_wherever_liveness_is(world: World, browser: Browser) -> None:
    await world.create("poller", "p1", site="A")
    await world.create("agent", "a1", "p1")
    csrf = await browser.csrf("/ui/maintenance")
    assert (await browser.post("/ui/maintenance", {"csrf": csrf, "site": "A", "lasts": "60"})).status == 303
    assert "In maintenance" in (await said(browser, "/ui/services")).split("Last seen")[-1]
    assert "In maintenance" in await said(browser, "/ui/tree")
    beneath = await said(browser, "/ui/services/poller/p1")
    assert "In maintenance" in beneath.split("Beneath it")[1].split("Maintenance Maintenance")[0]
