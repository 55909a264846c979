"""What people and hosts write is text on every page; streams and sessions end when they must."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from jetway.core import commands as c
from jetway.core.heartbeat import Payload
from jetway.core.ids import Lineage, ServiceKey, ServiceType
from jetway.entry.web import live, sessions
from jetway.services.caller import Caller
from support.browsing import Browser, browsing
from support.http_world import World, http_world

EVIL = "<script>alert(1)</script>"
ESCAPED = "&lt;script&gt;alert(1)&lt;/script&gt;"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with http_world(tmp_path) as world:
        yield world


@pytest.fixture
async def browser(world: World) -> AsyncIterator[Browser]:
    async with browsing(world) as browser:
        await browser.sign_in("operator")
        yield browser


async def test_what_people_and_hosts_write_is_text_everywhere(world: World, browser: Browser) -> None:
    issued = await world.create("poller", "p1", label=EVIL, site=EVIL, notes=EVIL, labels={"rack": EVIL})
    await world.create("agent", "a1", "p1", label=EVIL)
    assert (await world.redeem(issued["token"], host={"hostname": EVIL})).status == 200
    stranger = Lineage(ServiceType.POLLER, "stranger")
    admit = c.Admit(lineage=stranger, approval_required=True, heard=True)
    recorder = world.doors.administrator._recorder
    await recorder.apply(stranger.key, admit, Caller(f"heartbeat:{stranger.key}", EVIL))
    world.presence.listening()
    for key in (ServiceKey(ServiceType.POLLER, "p1"), stranger.key):
        world.presence.note(key, Payload(version=EVIL, source_ip=EVIL), world.clock.now())
    csrf = await browser.csrf("/ui/maintenance")
    for subject in ({"site": EVIL}, {"label": f"rack={EVIL}"}):
        form = {"csrf": csrf, "lasts": "604800", "reason": EVIL, **subject}
        assert (await browser.post("/ui/maintenance", form)).status == 303
    world.clock.advance(timedelta(hours=25))
    await browser.sign_in("operator")
    for path in (
        "/ui/",
        "/ui/services",
        "/ui/tree?open=poller.p1",
        "/ui/audit",
        "/ui/quarantine",
        "/ui/due",
        "/ui/maintenance",
        "/ui/packages",
        "/ui/services/bulk?scope=all&action=revoke&type=poller",
        "/ui/services/bulk?scope=chosen&action=activate&pick=poller.p1",
        f"/ui/onboard/{issued['package']['package_id']}",
        "/ui/onboard?type=agent",
        "/ui/services/poller/p1",
        "/ui/services/poller/p1/revoke",
        "/ui/services/poller/stranger",
    ):
        answer = await browser.get(path)
        body = answer.body.decode()
        assert answer.status == 200 and EVIL not in body, path
        if "activate" not in path and path not in ("/ui/",):
            assert ESCAPED in body, f"{path} shows none of it"


async def test_a_stream_ends_with_its_session(
    world: World, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "KEEP_ALIVE_SECONDS", 0.05)
    async with browser.session.get(world.server.url + "/ui/live") as response:
        assert await response.content.readline() == b"retry: 2000\n"
        assert await response.content.readline() == b"\n"
        assert await response.content.readline() == b": nothing new\n", "the session is good"
        await world.doors.api_tokens.revoke(Caller("test"), "operator")
        async with asyncio.timeout(30):
            await response.content.read()
    assert (await browser.get("/ui/live")).status == 401


async def test_a_session_ends_after_a_week_however_it_is_used(world: World, browser: Browser) -> None:
    step = sessions.IDLE_SECONDS - 1
    for _ in range(int(sessions.LONGEST_SECONDS // step)):
        world.clock.advance(step)
        assert (await browser.get("/ui/about")).status == 200
    world.clock.advance(sessions.LONGEST_SECONDS % step + 1)
    assert (await browser.get("/ui/about")).status == 303
