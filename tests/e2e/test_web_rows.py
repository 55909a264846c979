"""Rows that stay where they are while services change, and branches that open in place: in a real browser."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from support import require_program
from support.http_world import World, http_world

if os.environ.get("JETWAY_CI") == "1":
    from playwright import async_api
else:
    async_api = pytest.importorskip("playwright.async_api", reason="playwright is not installed")

expect = async_api.expect
expect.set_options(timeout=90_000)  # a page that was answered slowly asks again after up to 60 s


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with http_world(tmp_path) as world:
        for name in ("b", "c", "d"):
            await world.create("poller", name)
        await world.create("agent", "a1", "b")
        await world.create("checker", "c1", "a1")
        yield world


@pytest.fixture
async def page(world: World) -> AsyncIterator[async_api.Page]:
    """Signed in; whatever its console says of errors fails the test."""
    errors: list[str] = []
    program = require_program("chromium")
    async with async_api.async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = await browser.new_page(base_url=world.server.url)
        page.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        await page.goto("/")
        await page.get_by_label("API token").fill(world.tokens["operator"])
        await page.get_by_role("button", name="Sign in").click()
        await page.wait_for_url("**/ui/")
        try:
            yield page
        finally:
            await browser.close()
    assert [text for text in errors if "status of 422" not in text] == []


async def revoke(world: World, kind: str, service_id: str) -> None:
    path = f"/api/admin/services/{kind}s/{service_id}/status"
    assert (await world.call("POST", path, {"status": "revoked"})).status == 200


async def followed(page: async_api.Page, path: str) -> None:
    await page.goto(path)
    await page.wait_for_selector("html[data-connected]")


class Hold:
    """A route that holds requests back until `over`."""

    def __init__(self) -> None:
        self.arrived, self.over = asyncio.Event(), asyncio.Event()

    async def __call__(self, route: async_api.Route) -> None:
        self.arrived.set()
        await self.over.wait()
        await route.continue_()


async def rows(page: async_api.Page) -> list[str]:
    return await page.locator("[data-row]").evaluate_all("rows => rows.map((row) => row.id)")


async def test_rows_keep_their_place_their_ticks_and_the_focus(world: World, page: async_api.Page) -> None:
    await followed(page, "/ui/services?type=poller&sort=status")
    order = ["row-poller-b", "row-poller-c", "row-poller-d"]
    assert await rows(page) == order
    await page.get_by_label("Tick c").check()
    await page.get_by_role("link", name="d", exact=True).first.focus()
    await revoke(world, "poller", "b")
    await world.create("poller", "a")
    await expect(page.locator("#row-poller-b")).to_contain_text("Revoked")
    show = page.get_by_role("button", name="1 changed: show")
    await expect(show).to_be_visible()
    assert await rows(page) == order
    await expect(page.get_by_label("Tick c")).to_be_checked()
    await expect(page.get_by_role("link", name="d", exact=True).first).to_be_focused()
    await expect(page.locator("#total")).to_have_text("4 in all")
    await show.click()
    assert await rows(page) == ["row-poller-a", "row-poller-c", "row-poller-d", "row-poller-b"]
    await expect(page.get_by_label("Tick c")).to_be_checked()
    await expect(page.locator("[data-changed]")).to_be_hidden()


async def test_what_is_ticked_is_revoked(world: World, page: async_api.Page) -> None:
    await followed(page, "/ui/services?type=poller")
    await page.get_by_label("All on this page").check()
    await page.get_by_label("Tick d").uncheck()
    await expect(page.locator("#picked")).to_have_text("2")
    await page.locator("select[name=action]").select_option("revoke")
    await page.get_by_role("button", name="Preview…").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Revoke 4 services?")
    await page.get_by_label("Reason, for the audit trail").fill("gone")
    await page.get_by_role("button", name="Revoke 4 services").click()
    await page.get_by_role("link", name="Back to the table").click()
    await expect(page.locator("tr[data-row]", has_text="Revoked")).to_have_count(2)


async def test_branches_open_by_keyboard_stay_open_and_follow(world: World, page: async_api.Page) -> None:
    await followed(page, "/ui/tree")
    twist = page.get_by_role("button", name="Beneath b")
    await twist.press("Enter")
    await expect(page.locator("#node-agent-a1")).to_be_visible()
    await expect(twist).to_have_attribute("aria-expanded", "true")
    await expect(twist).to_be_focused()
    await page.get_by_role("button", name="Beneath a1").press(" ")
    await revoke(world, "checker", "c1")
    await expect(page.locator("#node-checker-c1")).to_contain_text("Revoked")
    await expect(page.locator("[data-changed]")).to_be_hidden()
    await page.reload()
    await expect(page.locator("#node-checker-c1")).to_be_visible()
    await page.get_by_role("button", name="Beneath b").click()
    assert await rows(page) == ["node-poller-b", "node-poller-c", "node-poller-d"]


async def test_a_burst_is_one_reading_a_second(world: World, page: async_api.Page) -> None:
    await followed(page, "/ui/services?type=poller")
    read: list[str] = []
    page.on("request", lambda request: read.append(request.url) if "/ui/services" in request.url else None)
    for number in range(150):
        await world.create("poller", f"n{number:03}")
    await expect(page.get_by_role("button", name="changed: show")).to_contain_text("47 changed")
    began, seconds = len(read), await page.evaluate("performance.now() / 1000")
    assert 1 <= began <= seconds + 1


async def test_the_last_that_was_typed_is_what_is_shown(world: World, page: async_api.Page) -> None:
    await followed(page, "/ui/services?type=poller")
    held, arrived = asyncio.Event(), asyncio.Event()

    async def hold(route: async_api.Route) -> None:
        arrived.set()
        await held.wait()
        with contextlib.suppress(async_api.Error):  # it was called off meanwhile
            await route.continue_()

    await page.route(re.compile(r"/ui/services\?.*q=b(&|$)"), hold)
    field = page.get_by_label("Search")
    await field.fill("b")
    await asyncio.wait_for(arrived.wait(), 30)
    await field.fill("c")
    await expect(page.locator("#total")).to_have_text("1 in all")
    held.set()
    await expect(page.locator("[data-row]")).to_have_count(1)
    await page.wait_for_load_state("networkidle")
    assert await rows(page) == ["row-poller-c"] and "q=c" in page.url
    assert await page.locator("#bulk input[name=q]").input_value() == "c"
    tab = page.get_by_label("Types of services").get_by_role("link", name="Agents")
    assert "q=c" in str(await tab.get_attribute("href"))
    await page.get_by_role("link", name="Clear").click()
    await expect(page.locator("[data-row]")).to_have_count(3)


async def test_what_changed_while_the_reader_went_on_is_shown_all_the_same(
    world: World, page: async_api.Page
) -> None:
    await followed(page, "/ui/services?type=poller")
    held, arrived = asyncio.Event(), asyncio.Event()

    async def hold(route: async_api.Route) -> None:
        if arrived.is_set():
            return await route.continue_()
        arrived.set()
        await held.wait()
        return await route.continue_()

    await page.route("**/ui/services?*", hold)
    await world.create("poller", "e")
    await asyncio.wait_for(arrived.wait(), 30)
    await page.evaluate("history.replaceState(null, '', '/ui/services?type=poller&sort=-service_id')")
    held.set()
    await expect(page.locator("#total")).to_have_text("4 in all")


async def test_a_token_that_was_spent_leaves_the_page(world: World, page: async_api.Page) -> None:
    await page.goto("/ui/onboard?type=poller")
    await page.get_by_label("Label", exact=True).fill("P9")
    await page.get_by_role("button", name="Create the package").click()
    await page.wait_for_selector("html[data-connected]")
    token = await page.get_by_label("Token", exact=True).input_value()
    left = page.locator("[data-countdown]")
    await expect(left).to_have_text(re.compile(r"^\d\d:\d\d:\d\d$"))
    assert (await world.redeem(token)).status == 200
    await expect(page.locator("#spendable")).to_have_count(0)


async def test_the_first_wrong_field_has_the_focus(world: World, page: async_api.Page) -> None:
    await page.goto("/ui/audit?service_id=x")
    await page.get_by_label("Service id").fill("No Id")
    async with page.expect_navigation():
        await page.get_by_role("button", name="Filter").click()
    await expect(page.get_by_label("Service id")).to_be_focused()
    await expect(page.locator("#wrong-service_id")).to_be_visible()


async def test_what_changed_before_the_page_could_follow_is_shown(world: World, page: async_api.Page) -> None:
    hold = Hold()
    await page.route("**/ui/live*", hold)
    await page.goto("/ui/services?type=poller")
    await asyncio.wait_for(hold.arrived.wait(), 30)
    await world.create("poller", "e")
    hold.over.set()
    await expect(page.locator("#total")).to_have_text("4 in all")


async def test_what_is_unfolded_stays_so(world: World, page: async_api.Page) -> None:
    await world.create("poller", "e", metadata={"rack": "12"})
    await followed(page, "/ui/services/poller/e")
    await page.get_by_text("Metadata").click()
    await page.evaluate("document.querySelector('#live-facts dl').dataset.first = 'yes'")
    await revoke(world, "poller", "e")
    await expect(page.locator("#live-facts dl[data-first]")).to_have_count(0)
    await expect(page.locator("#live-facts details")).to_have_attribute("open", "")


async def test_a_branch_is_open_though_its_row_was_renewed_while_it_came(
    world: World, page: async_api.Page
) -> None:
    await followed(page, "/ui/tree")
    hold = Hold()
    await page.route(re.compile(r"/ui/tree\?root="), hold)
    twist = page.get_by_role("button", name="Beneath b")
    await twist.click()
    await asyncio.wait_for(hold.arrived.wait(), 30)
    await world.create("agent", "a2", "b")
    await expect(page.locator("#node-poller-b")).to_contain_text("2 agents")
    hold.over.set()
    await expect(page.locator("#node-agent-a1")).to_be_visible()
    await expect(twist).to_have_attribute("aria-expanded", "true")
    await expect(page).to_have_url(re.compile("open=poller.b"))


async def test_a_page_that_follows_no_more_goes_on_saying_so(world: World, page: async_api.Page) -> None:
    """An event ends the first stream; the next is answered with 204, at which a browser gives up."""
    answers = ["retry: 100\n\nevent: changed\ndata: {}\n\n", ""]
    read: list[str] = []

    async def stream(route: async_api.Route) -> None:
        body = answers.pop(0)
        kind = {"Content-Type": "text/event-stream"} if body else {}
        await route.fulfill(status=200 if body else 204, headers=kind, body=body)

    await page.route("**/ui/live*", stream)
    page.on("response", lambda answer: read.append(answer.url) if "/ui/services" in answer.url else None)
    await page.goto("/ui/services?type=poller")
    stale = page.locator("#stale")
    await expect(stale).to_be_visible()
    while len(read) < 2:  # noqa: ASYNC110 - there is nothing to wait on
        await asyncio.sleep(0.05)
    await page.wait_for_load_state("networkidle")
    await expect(stale).to_be_visible()
    assert answers == []


async def test_a_label_that_is_not_whole_yet_costs_nothing(world: World, page: async_api.Page) -> None:
    await followed(page, "/ui/services?type=poller")
    await world.create("poller", "e", labels={"rack-row": "1"})
    field = page.get_by_label("Label", exact=True)
    async with page.expect_response(lambda answer: answer.status == 422):
        await field.press_sequentially("rack-")
    await expect(field).to_have_attribute("aria-invalid", "true")
    await field.press_sequentially("row=1")
    await expect(page.locator("#total")).to_have_text("1 in all")
    await expect(field).to_have_value("rack-row=1")
    await expect(field).to_be_focused()
    await expect(field).not_to_have_attribute("aria-invalid", "true")


async def test_a_branch_that_follows_no_more_stays_open_all_the_same(
    world: World, page: async_api.Page
) -> None:
    """Of many only the last ones stand in the address, and on the page that is read again."""
    for number in range(11):
        await world.create("poller", f"n{number:02}")
        await world.create("agent", f"m{number:02}", f"n{number:02}")
    await followed(page, "/ui/tree")
    for number in range(11):
        await page.get_by_role("button", name=f"Beneath n{number:02}").click()
        await expect(page.locator(f"#node-agent-m{number:02}")).to_be_visible()
    await world.create("agent", "further", "n00")
    await expect(page.locator("#node-poller-n00")).to_contain_text("2 agents")
    twist = page.get_by_role("button", name="Beneath n00")
    await expect(twist).to_have_attribute("aria-expanded", "true")
    await twist.click()
    await expect(page.locator("#node-agent-m00")).to_have_count(0)
    await expect(twist).to_have_attribute("aria-expanded", "false")
