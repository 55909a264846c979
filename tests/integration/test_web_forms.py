"""Forms say all that is wrong at once, in sentences, at its field; what is grave takes more than a click."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from html import unescape
from pathlib import Path

import pytest

from jetway.core.ids import ServiceKey, ServiceType
from jetway.entry.web import actions
from support.browsing import Browser, browsing
from support.http_world import Answer, World, http_world


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with http_world(tmp_path) as world:
        yield world


@pytest.fixture
async def browser(world: World) -> AsyncIterator[Browser]:
    async with browsing(world) as browser:
        await browser.sign_in("operator")
        yield browser


def wrong(answer: Answer) -> dict[str, str]:
    """Field → what is said of it."""
    found = re.findall(
        r'<span class="wrong" id="wrong-([^"]+)" role="alert">([^<]+)</span>', answer.body.decode()
    )
    return {name: unescape(text) for name, text in found}


async def test_all_that_is_wrong_is_said_at_once_in_sentences(browser: Browser) -> None:
    form = {
        "csrf": await browser.csrf("/ui/onboard"),
        "component_type": "checker",
        "checker_kind": "ping",
        "label": "x" * 300,
        "component_id": "No Id",
        "parent_id": "nobody",
        "labels": "no pair",
        "metadata": "neither",
        "heartbeat_interval_seconds": "soon",
        "spiffe_id": "no uri",
    }
    answer = await browser.post("/ui/onboard", form)
    found = wrong(answer)
    assert answer.status == 422
    assert set(form) - {"csrf", "component_type", "checker_kind"} <= set(found), found
    assert all(text[0].isupper() and text.endswith(".") for text in found.values()), found
    assert found["heartbeat_interval_seconds"] == "Must be a whole number of seconds."
    assert found["parent_id"] == "The parent agent 'nobody' does not exist."
    assert b'value="soon"' in answer.body


async def test_answers_to_a_template_are_named_at_their_fields(browser: Browser) -> None:
    browser.world.documents.contents["templates/checkers/snmp.json"] = b'{"count": 3, "rules": {"a": 1}}'
    form = {
        "csrf": await browser.csrf("/ui/onboard"),
        "component_type": "checker",
        "checker_kind": "snmp",
        "label": "",
        "config.count": "many",
        "config.rules": "{",
    }
    found = wrong(await browser.post("/ui/onboard", form))
    assert (found["config-count"], found["config-rules"]) == ("Must be a number.", "Must be JSON.")
    assert "label" in found


async def test_a_wrong_filter_of_the_trail_comes_back_with_what_is_wrong(browser: Browser) -> None:
    answer = await browser.get("/ui/audit?service_id=No+Id&actor=admin&type=issued")
    assert answer.status == 422 and list(wrong(answer)) == ["service_id"]
    body = answer.body.decode()
    assert 'value="No Id"' in body and 'value="admin"' in body and '<option value="issued" selected>' in body
    assert "since" in wrong(await browser.get("/ui/audit?since=yesterday"))
    assert (await browser.get("/ui/audit/export.csv?service_id=No+Id")).status == 422


async def test_an_override_says_between_which_statuses(browser: Browser) -> None:
    body = {"service_id": "p1", "label": "P"}
    assert (await browser.world.call("POST", "/api/admin/services/pollers", body)).status == 201
    path = "/api/admin/services/pollers/p1/status"
    assert (await browser.world.call("POST", path, {"status": "active"})).status == 200
    for page in ("/ui/", "/ui/audit", "/ui/services/poller/p1"):
        assert "Status override: pending → active" in (await browser.get(page)).body.decode(), page


async def test_revoking_one_with_many_beneath_takes_their_number(
    world: World, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(actions, "COUNT_AGAIN", 2)
    await world.create("poller", "p1", label="Site A")
    for number, agent in enumerate(("p1", "a1")):  # ids are unique per type alone
        await world.create("agent", agent, "p1", label=f"Room {number}")
    path = "/ui/services/poller/p1/revoke"
    page = (await browser.get(path)).body.decode()
    assert 'name="count"' in page and "are revoked as well: 2 agents." in page
    assert page.index("Revoke 3 services") < page.index("Room 0"), "who it touches stands below the button"
    csrf = await browser.csrf(path)
    for given in ({}, {"count": "2"}):
        answer = await browser.post(path, {"csrf": csrf, "reason": "kept", **given})
        assert answer.status == 422 and wrong(answer)["count"].startswith("Must be 3")
        assert b'value="kept"' in answer.body
    record = world.doors.catalogue.record(ServiceKey(ServiceType.POLLER, "p1"))
    assert record and record.status.value == "pending"
    assert (await browser.post(path, {"csrf": csrf, "count": "3"})).status == 303
    assert b'name="count"' not in (await browser.get("/ui/services/agent/a1/delete")).body


async def test_a_viewer_is_not_shown_what_it_may_not(world: World, browser: Browser) -> None:
    issued = await world.create("poller", "p1")
    path = f"/ui/onboard/{issued['package']['package_id']}"
    assert b"/reissue" in (await browser.get(path)).body
    await browser.post("/ui/sign-out", {})
    await browser.sign_in("viewer")
    body = (await browser.get(path)).body
    assert b"/reissue" not in body and b"an operator can reissue" in body
    assert re.search(rb"it ends in <time[^>]*data-countdown[^>]*>24:00:00|1 d 00:00:00</time>", body)


async def test_an_empty_table_says_whether_there_is_nothing_or_nothing_like_that(browser: Browser) -> None:
    assert b"There are no packages yet" in (await browser.get("/ui/packages")).body
    filtered = (await browser.get("/ui/packages?q=x")).body
    assert b"No package is like that" in filtered and b'href="/ui/packages">Clear' in filtered


async def test_services_are_filtered_by_sources_in_words_and_sites_in_use(
    world: World, browser: Browser
) -> None:
    await world.create("poller", "p1", site="Hall 3")
    body = (await browser.get("/ui/services")).body
    assert b'<option value="implicit">Announced itself</option>' in body
    assert b'list="sites"' in body and b'<option value="Hall 3">' in body
