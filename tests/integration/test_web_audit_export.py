"""The audit trail taken along from its page: the filter that is seen, whole or visibly broken off."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import ClientError

from jetway.core.errors import UnavailableError
from jetway.entry.web import audit as module
from support.browsing import Browser, browsing
from support.http_world import World, http_world

LINES, TABLE = "/ui/audit/export.jsonl", "/ui/audit/export.csv"


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(module, "_EXPORTED_AT_ONCE", 2)
    async with http_world(tmp_path) as world:
        for number in range(5):
            await world.create("poller", f"p{number}")
        yield world


@pytest.fixture
async def browser(world: World) -> AsyncIterator[Browser]:
    async with browsing(world) as browser:
        await browser.sign_in("viewer")
        yield browser


async def test_the_page_links_to_what_it_shows(browser: Browser) -> None:
    body = (await browser.get("/ui/audit?type=issued&service_id=p3&cursor=")).body.decode()
    assert f'href="{LINES}?type=issued&amp;service_id=p3"' in body
    assert f'href="{TABLE}?type=issued&amp;service_id=p3"' in body


async def test_lines_are_those_of_the_api(browser: Browser) -> None:
    listed = await browser.world.call("GET", "/api/admin/events?type=issued&limit=500")
    answer = await browser.get(LINES + "?type=issued")
    assert answer.headers["Content-Type"] == "application/x-ndjson"
    assert answer.headers["Content-Disposition"].startswith('attachment; filename="audit-')
    assert answer.headers["Cache-Control"] == "no-store"
    lines = [json.loads(line) for line in answer.body.splitlines()]
    assert len(lines) == 5 and lines == listed.json["items"]


async def test_a_table_has_every_event_and_no_formula(browser: Browser) -> None:
    evil = {"status": "inactive", "reason": '=HYPERLINK("http://evil.example")'}
    created = await browser.world.create("poller", "p9")
    assert (await browser.world.redeem(created["token"])).status == 200
    path = "/api/admin/edge-packages/" + created["package"]["package_id"] + "/revoke"
    assert (await browser.world.call("POST", path, {"reason": evil["reason"]})).status == 200
    rows = list(csv.DictReader(io.StringIO((await browser.get(TABLE)).body.decode(), newline="")))
    assert len([row for row in rows if row["event_type"] == "issued"]) == 6
    [revoked] = [row for row in rows if row["event_type"] == "revoked"]
    assert revoked["reason"] == "'" + evil["reason"] and revoked["service_id"] == "p9"


async def test_that_it_was_exported_is_in_the_trail(browser: Browser) -> None:
    await browser.get(TABLE + "?type=issued&service_type=poller&nonsense=1")
    [event] = (await browser.world.call("GET", "/api/admin/events?type=exported")).json["items"]
    assert event["actor"] == "viewer"
    assert event["metadata"]["filters"] == {"type": ["issued"], "service_type": "poller"}


async def test_a_database_that_is_away_is_a_page_and_no_empty_export(browser: Browser) -> None:
    browser.world.database.fail_next("find_events", UnavailableError("away"))
    answer = await browser.get(LINES)
    assert answer.status == 503 and b"This did not work" in answer.body


async def test_what_breaks_off_does_not_look_whole(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    find, pages = browser.world.database.find_events, iter((True, True, False))

    async def breaks(query):  # type: ignore[no-untyped-def]
        if not next(pages):
            raise UnavailableError("away")
        return await find(query)

    monkeypatch.setattr(browser.world.database, "find_events", breaks)
    with pytest.raises(ClientError):
        await browser.get(LINES + "?type=issued")


async def test_who_is_not_signed_in_gets_none(world: World) -> None:
    async with browsing(world) as stranger:
        answer = await stranger.get(LINES)
        assert answer.status == 303 and answer.headers["Location"].startswith("/ui/sign-in")
