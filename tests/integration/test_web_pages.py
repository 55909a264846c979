"""The dashboard's doors: who gets in, what a form must bring, what a role sees, and what is shown as text."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import ClientSession, CookieJar

from jetway.core.ids import ServiceKey, ServiceType
from jetway.entry.web import sessions as module
from jetway.services.caller import Caller
from support.http_world import Answer, World, http_world

SAME = {"Sec-Fetch-Site": "same-origin"}
EVIL = "<script>alert(1)</script>"
PAGES = (
    "/ui/",
    "/ui/services",
    "/ui/services?type=checker&status=active&liveness=offline&source=config&site=A&label=a%3Db&q=x&sort=-site",
    "/ui/packages",
    "/ui/quarantine",
    "/ui/due",
    "/ui/audit",
    "/ui/jobs",
    "/ui/about",
)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with http_world(tmp_path, failures_per_minute=5) as world:
        yield world


class Browser:
    """Keeps cookies, sends forms as browsers do, follows nothing."""

    def __init__(self, world: World, session: ClientSession) -> None:
        self.world = world
        self.session = session

    async def get(self, path: str, **headers: str) -> Answer:
        url = self.world.server.url + path
        async with self.session.get(url, headers=headers, allow_redirects=False) as response:
            return await Answer.of(response)

    async def post(self, path: str, headers: dict[str, str] | None = None, **form: str) -> Answer:
        url = self.world.server.url + path
        sent = SAME if headers is None else headers
        async with self.session.post(url, headers=sent, data=form, allow_redirects=False) as response:
            return await Answer.of(response)

    async def sign_in(self, role: str = "admin") -> Browser:
        answer = await self.post("/ui/sign-in", token=self.world.tokens[role])
        assert (answer.status, answer.headers["Location"]) == (303, "/ui/")
        return self

    async def csrf(self, path: str = "/ui/tokens") -> str:
        found = re.search(rb'name="csrf" value="([^"]+)"', (await self.get(path)).body)
        assert found
        return found[1].decode()


@pytest.fixture
async def browser(world: World) -> AsyncIterator[Browser]:
    async with ClientSession(cookie_jar=CookieJar(unsafe=True)) as session:
        yield Browser(world, session)


async def test_who_is_not_signed_in_is_asked_to(browser: Browser) -> None:
    assert (await browser.get("/")).headers["Location"] == "/ui/"
    answer = await browser.get("/ui/services?type=agent")
    assert answer.status == 303
    assert answer.headers["Location"] == "/ui/sign-in?next=%2Fui%2Fservices%3Ftype%3Dagent"
    assert (await browser.get("/ui/live")).status == 401
    assert (await browser.get("/ui/sign-in")).status == 200


async def test_a_session_cookie_is_for_the_browser_alone(browser: Browser) -> None:
    answer = await browser.post("/ui/sign-in", token=browser.world.tokens["viewer"], next="/ui/jobs")
    assert answer.headers["Location"] == "/ui/jobs"
    cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie and "Path=/ui" in cookie
    assert browser.world.tokens["viewer"] not in cookie


@pytest.mark.parametrize(
    "goal", ["https://evil.example/", "//evil.example", "/ui\\evil", "/docs", "/ui/\r\nX: y"]
)
async def test_the_way_after_signing_in_stays_here(browser: Browser, goal: str) -> None:
    answer = await browser.post("/ui/sign-in", token=browser.world.tokens["viewer"], next=goal)
    assert answer.headers["Location"] == "/ui/"


async def test_wrong_tokens_are_refused_and_then_have_to_wait(browser: Browser) -> None:
    answers = [await browser.post("/ui/sign-in", token="jwa_wrong") for _ in range(6)]
    assert [answer.status for answer in answers] == [401] * 5 + [429]
    assert b"unknown, revoked or expired" in answers[0].body
    assert b"jwa_wrong" not in answers[0].body
    await browser.sign_in()  # a good one passes all the same


async def test_every_page_shows_and_carries_the_policy(browser: Browser) -> None:
    await browser.sign_in("viewer")
    for path in PAGES:
        answer = await browser.get(path)
        assert answer.status == 200, (path, answer.body)
        policy = answer.headers["Content-Security-Policy"]
        assert "script-src 'self'" in policy and "unsafe" not in policy
        assert answer.headers["Referrer-Policy"] == "same-origin"
        assert b" style=" not in answer.body and b"onclick" not in answer.body


async def test_what_people_write_is_text(browser: Browser) -> None:
    await browser.world.create("poller", "p1", label=EVIL, notes=EVIL, site=EVIL, labels={"a": EVIL})
    await browser.sign_in()
    for path in (
        "/ui/",
        "/ui/services",
        "/ui/services/poller/p1",
        "/ui/services/poller/p1/revoke",
        "/ui/packages",
    ):
        body = (await browser.get(path)).body.decode()
        assert EVIL not in body
    assert "&lt;script&gt;" in body


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {},
    ],
)
async def test_a_form_from_elsewhere_is_refused(browser: Browser, headers: dict[str, str]) -> None:
    await browser.sign_in()
    csrf = await browser.csrf()
    answer = await browser.post("/ui/tokens", headers, csrf=csrf, name="stolen", role="admin", days="30")
    assert answer.status == 403
    assert (await browser.post("/ui/sign-in", headers, token=browser.world.tokens["admin"])).status == 403
    assert "stolen" not in [token.name for token in browser.world.doors.api_tokens.list()]


async def test_a_form_needs_the_session_s_own_word(browser: Browser) -> None:
    await browser.sign_in()
    for form in ({}, {"csrf": "x"}):
        answer = await browser.post("/ui/tokens", name="stolen", role="admin", days="30", **form)
        assert answer.status == 403
    origin = {"Origin": browser.world.server.url}
    answer = await browser.post(
        "/ui/tokens", origin, csrf=await browser.csrf(), name="good", role="viewer", days="30"
    )
    assert answer.status == 303
    assert b"jwa_" in (await browser.get("/ui/tokens")).body
    assert b"jwa_" not in (await browser.get("/ui/tokens")).body
    await browser.world.doors.refusals.tell(all_of_it=True)
    told = [e for e in browser.world.database.events.values() if e.event_type == "api_refused"]
    assert [(event.actor, event.metadata["code"]) for event in told] == [("admin", "foreign_form")] * 2


async def test_what_a_role_may_not_is_not_shown_and_refused(browser: Browser) -> None:
    await browser.world.create("poller", "p1")
    await browser.sign_in("viewer")
    body = (await browser.get("/ui/services/poller/p1")).body
    assert b"/ui/onboard" not in body.replace(b"/ui/onboard/", b"") and b"Revoke" not in body
    for path in ("/ui/onboard", "/ui/tokens", "/ui/services/poller/p1/revoke"):
        assert (await browser.get(path)).status == 403
    assert (await browser.post("/ui/jobs/count/runs")).status == 403


async def test_a_revoked_token_ends_its_sessions(browser: Browser) -> None:
    await browser.sign_in("viewer")
    await browser.world.doors.api_tokens.revoke(Caller("test"), "viewer")
    assert (await browser.get("/ui/")).status == 303


async def test_a_session_ends_when_it_is_left_alone_and_when_it_is_old(browser: Browser) -> None:
    await browser.sign_in()
    clock = browser.world.clock
    clock.advance(module.IDLE_SECONDS - 1)
    assert (await browser.get("/ui/about", **{"X-Jetway-Live": "1"})).status == 200  # keeps nothing awake
    clock.advance(2)
    assert (await browser.get("/ui/about")).status == 303


async def test_signing_out_ends_the_session(browser: Browser) -> None:
    await browser.sign_in()
    answer = await browser.post("/ui/sign-out")
    assert answer.headers["Location"] == "/ui/sign-in"
    assert (await browser.get("/ui/")).status == 303


async def test_onboarding_names_the_wrong_field_and_a_form_sent_twice_makes_one(browser: Browser) -> None:
    await browser.sign_in("operator")
    csrf = await browser.csrf("/ui/onboard")
    wrong = await browser.post("/ui/onboard", csrf=csrf, component_type="agent", label="A", labels="no pair")
    assert wrong.status == 422 and b"Must be key=value" in wrong.body
    wrong = await browser.post(
        "/ui/onboard", csrf=csrf, component_type="agent", label="A", parent_id="nobody"
    )
    assert wrong.status == 422 and b"wrong-parent_id" in wrong.body
    form = {"csrf": csrf, "component_type": "poller", "label": "Site A", "retry_key": "one"}
    first, second = [await browser.post("/ui/onboard", **form) for _ in range(2)]
    assert first.status == 303 and first.headers["Location"] == second.headers["Location"]
    page = await browser.get(first.headers["Location"])
    assert b'id="token-text"' in page.body
    assert b'id="token-text"' not in (await browser.get(first.headers["Location"])).body


async def test_revoking_previews_and_takes_all_beneath(browser: Browser) -> None:
    await browser.world.create("poller", "p1")
    await browser.world.create("agent", "a1", "p1")
    await browser.sign_in("operator")
    asked = await browser.get("/ui/services/poller/p1/revoke")
    assert b"a1" in asked.body and b"2 services" in asked.body
    csrf = await browser.csrf("/ui/services/poller/p1/revoke")
    answer = await browser.post("/ui/services/poller/p1/revoke", csrf=csrf, reason="stolen")
    assert answer.headers["Location"] == "/ui/services/poller/p1"
    view = browser.world.doors.catalogue.get(ServiceKey(ServiceType.AGENT, "a1"))
    assert view.record.status.value == "revoked"
    again = await browser.post("/ui/services/poller/p1/revoke", csrf=csrf, reason="stolen")
    assert again.status == 409 and b"cannot be revoked" in again.body


async def test_errors_are_pages(browser: Browser) -> None:
    await browser.sign_in()
    for path, status in (
        ("/ui/nothing", 404),
        ("/ui/services/poller/nobody", 404),
        ("/ui/services?sort=colour", 422),
        ("/ui/services?cursor=x", 422),
        ("/ui/audit?cursor=x", 422),
    ):
        answer = await browser.get(path)
        assert answer.status == status, path
        assert answer.headers["Content-Type"].startswith("text/html") and b"This did not work" in answer.body


async def test_a_job_is_run_by_hand(browser: Browser) -> None:
    await browser.sign_in()
    answer = await browser.post("/ui/jobs/count/runs", csrf=await browser.csrf("/ui/jobs"))
    assert answer.headers["Location"] == "/ui/jobs#job-count"
    assert b"The job count did: services 0" in (await browser.get("/ui/jobs")).body


async def test_live_changes_need_a_session(browser: Browser) -> None:
    await browser.sign_in("viewer")
    async with browser.session.get(browser.world.server.url + "/ui/live") as response:
        assert response.headers["Content-Type"] == "text/event-stream"
        assert await response.content.readline() == b"retry: 2000\n"
        await browser.world.create("poller", "p1")
        lines = [await response.content.readline() for _ in range(2)]
        assert b"event: changed\n" in lines


async def test_the_theme_is_kept_in_a_cookie(browser: Browser) -> None:
    answer = await browser.post("/ui/theme", theme="dark", next="/ui/jobs")
    assert answer.headers["Location"] == "/ui/jobs"
    assert b'data-theme="dark"' in (await browser.get("/ui/sign-in")).body
