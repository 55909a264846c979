"""The dashboard in a real browser, on the real daemon: from the form to a service that lives, and out again.

With `JETWAY_PICTURES=docs/images` the pictures of the documentation are made anew on the way.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from support.browser import DESK, PHONE, announce, opened, sync_api
from support.daemon import Daemon, environment, fresh, jetway
from support.pictured import seed
from support.tour import forgotten, tour

WIDTHS = (320, 390, 720, 1024, 1151, 1440)
"""Phones; half a desk's screen, or a desk's at 200 %; a small screen; the narrowest with tables; a desk's."""
BROKEN = """() => {
  const found = [], range = document.createRange();
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const text = texts.currentNode;
    const holder = text.parentElement;
    if (!holder.offsetParent || holder.closest("code, pre, textarea, .hidden, .scroll")) continue;
    for (const word of text.data.matchAll(/(?<!\\S)[A-Za-z]{3,16}(?!\\S)/g)) {
      range.setStart(text, word.index);
      range.setEnd(text, word.index + word[0].length);
      if (new Set([...range.getClientRects()].map((box) => Math.round(box.top))).size > 1) found.push(word[0]);
    }
  }
  return found;
}"""
"""Words that are broken into letters: what has no more room than that for one."""


def picture(page: sync_api.Page, name: str) -> None:
    folder = os.environ.get("JETWAY_PICTURES")
    if folder:
        page.screenshot(path=Path(folder) / f"{name}.png")


def onboard(page: sync_api.Page, kind: str, label: str, service_id: str, parent_id: str = "") -> str:
    """Through the form; the token that the next page shows."""
    page.goto(f"/ui/onboard?type={kind}")
    page.get_by_label("Label", exact=True).fill(label)
    if parent_id:
        page.locator("[name=parent_id]").fill(parent_id)
    page.get_by_text("More", exact=True).click()
    page.locator("[name=component_id]").fill(service_id)
    page.locator("[name=heartbeat_interval_seconds]").fill("1")
    page.get_by_role("button", name="Create the package").click()
    page.wait_for_url("**/ui/onboard/*-*")
    return page.get_by_label("Token", exact=True).input_value()


@contextmanager
def living(folder: Path, token: str) -> Iterator[None]:
    """The joined service on its host, for as long as this lasts."""
    done = jetway("join", "--dir", str(folder), given=token)
    assert done.returncode == 0, done.stderr
    with (folder / "run.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "jetway", "run", "--dir", str(folder)],
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        yield
    except BaseException:
        process.kill()  # what failed is to be told, not that this one does not end
        process.wait()
        raise
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(60)
    finally:
        process.kill()
        process.wait()


def test_onboard_redeem_live_and_revoke(browser: sync_api.Browser, daemon: Daemon, tmp_path: Path) -> None:
    poller, agent, checker = fresh("site"), fresh("room"), fresh("uplink")
    three = (
        ("poller", "Site A", poller, ""),
        ("agent", "Core switch room", agent, poller),
        ("checker", "Uplink", checker, agent),
    )
    if os.environ.get("JETWAY_PICTURES"):
        seed(daemon)
    with opened(browser, daemon, viewport=DESK, color_scheme="light") as page, ExitStack() as hosts:
        for kind, label, service_id, parent_id in three:
            token = onboard(page, kind, label, service_id, parent_id)
            daemon.secrets.add(token)
            page.wait_for_selector("html[data-connected]")
            steps = page.locator("#live-steps")
            sync_api.expect(steps).to_contain_text("Waits for the token")
            page.evaluate("window.notReloaded = true")
            hosts.enter_context(living(tmp_path / kind, token))
            sync_api.expect(steps).to_contain_text("Active", timeout=60_000)
            sync_api.expect(steps).to_contain_text("Redeemed by")
            assert page.evaluate("window.notReloaded")
            page.reload()
            assert page.get_by_label("Token", exact=True).count() == 0
        picture(page, "onboarding")
        page.set_viewport_size({"width": DESK["width"], "height": 1080})
        page.goto("/ui/")
        page.wait_for_selector("html[data-connected]")
        picture(page, "overview")
        page.set_viewport_size(DESK)
        page.goto(f"/ui/tree?open=poller.{poller}&open=agent.{agent}")
        picture(page, "tree")
        page.goto("/ui/services?type=agent")
        page.emulate_media(color_scheme="dark")
        picture(page, "services-dark")
        page.set_viewport_size(PHONE)
        page.goto("/ui/services")
        picture(page, "phone-dark")
        page.set_viewport_size(DESK)
        page.emulate_media(color_scheme="light")

        page.goto(f"/ui/services/poller/{poller}")
        page.wait_for_selector("html[data-connected]")
        picture(page, "service")
        page.get_by_role("link", name="Revoke…").click()
        dialog = page.get_by_role("dialog")
        sync_api.expect(dialog).to_contain_text(agent)
        sync_api.expect(dialog).to_contain_text(checker)
        picture(page, "revoke")
        dialog.get_by_label("Reason, for the audit trail").fill("the host was stolen")
        dialog.get_by_role("button", name="Revoke 3 services").click()
        page.wait_for_url(f"**/ui/services/poller/{poller}")
        sync_api.expect(page.get_by_role("status")).to_contain_text("revoked, and 2 beneath it")
        sync_api.expect(page.locator("#live-head")).to_contain_text("Revoked")
    assert daemon.service("checker", checker)["status"] == "revoked"
    assert daemon.service("poller", poller)["status_reason"] == "the host was stolen"


def test_every_page_fits_and_says_nothing_in_the_console(browser: sync_api.Browser, daemon: Daemon) -> None:
    with opened(browser, daemon, refusals=True, viewport=DESK) as page:
        seen, wrong = [], []
        for where in tour(page, daemon):
            page.wait_for_load_state()  # with its style
            seen.append(page.url)
            assert page.title() != "taken", where
            assert page.locator("h1").locator("visible=true").count() >= 1, where
            for width in WIDTHS:
                page.set_viewport_size({"width": width, "height": 900})
                wide = page.evaluate(
                    "document.documentElement.scrollWidth - document.documentElement.clientWidth"
                )
                wrong += [(where, width, f"{wide} px too wide")] if wide > 0 else []
                wrong += [(where, width, text) for text in page.evaluate(BROKEN)]
            page.set_viewport_size(DESK)
        assert wrong == [], "\n".join(map(str, wrong))
        assert forgotten(seen) == set()


def test_a_script_that_got_into_a_page_does_not_run(browser: sync_api.Browser, daemon: Daemon) -> None:
    inside = "<script>window.taken = 'inline'</script><img src='x:' onerror=\"window.taken = 'handler'\">"
    elsewhere = "<script src='https://evil.example/x.js'></script>"
    with opened(browser, daemon, unlike="Content Security Policy") as page:

        def injected(route: sync_api.Route) -> None:
            answer = route.fetch()
            route.fulfill(
                response=answer, body=answer.text().replace("</h1>", f"</h1>{inside}{elsewhere}", 1)
            )

        page.route("**/ui/about", injected)
        failed: dict[str, str | None] = {}
        page.on("requestfailed", lambda request: failed.update({request.url: request.failure}))
        page.goto("/ui/about")
        assert page.locator("h1 + script").count() == 1, "it is there"
        page.evaluate(
            "() => { const late = document.createElement('script');"
            " late.textContent = \"window.taken = 'late'\"; document.body.append(late); }"
        )
        page.wait_for_load_state("networkidle")
        assert page.evaluate("window.taken") is None
        assert failed["https://evil.example/x.js"] == "csp"
        assert page.get_by_text("NATS server", exact=True).is_visible()


def test_a_phone_s_menu_holds_all_that_stands_at_the_side(browser: sync_api.Browser, daemon: Daemon) -> None:
    def entries() -> list[str]:
        return page.get_by_role("banner").get_by_role("link").all_inner_texts()

    with opened(browser, daemon, viewport=DESK) as page:
        at_the_side = entries()
        page.set_viewport_size(PHONE)
        assert len(entries()) == 1
        page.get_by_text("Menu", exact=True).click()
        assert entries() == at_the_side
        for button in ("Light", "Dark", "Auto", "Sign out"):
            box = page.get_by_role("button", name=button).bounding_box()
            assert box and box["height"] >= 24, button
        assert page.get_by_role("banner").get_by_text("admin").locator("visible=true").count()
        page.get_by_role("banner").get_by_role("link", name="Audit").click()
        page.wait_for_url("**/ui/audit")


def test_copying_works_where_the_browser_has_no_clipboard(browser: sync_api.Browser, daemon: Daemon) -> None:
    with opened(browser, daemon) as page:
        page.add_init_script(
            "Object.defineProperty(navigator, 'clipboard', { value: undefined });"
            "document.addEventListener('copy', () => { const from = document.activeElement;"
            " window.copied = from.select ? from.value : getSelection().toString(); });"
        )
        page.clock.install()
        token = onboard(page, "poller", "Site A", fresh("copied"))
        daemon.secrets.add(token)
        button = page.locator("[data-copy=token-text]")
        page.clock.pause_at(datetime.now(UTC) + timedelta(hours=1))  # it is said for as long as is looked
        button.click()
        sync_api.expect(page.locator("#copied")).to_have_text("Copied")
        assert page.evaluate("window.copied") == token
        page.clock.run_for(2000)
        sync_api.expect(button).to_have_text("Copy")
        sync_api.expect(page.locator("#copied")).to_have_text("")
        page.locator("[data-copy=cmd-python]").click()
        sync_api.expect(page.locator("#copied")).to_have_text("Copied")
        assert page.evaluate("window.copied").startswith(page.locator("#cmd-python").inner_text()[:20])


def test_a_question_is_read_from_its_heading(browser: sync_api.Browser, daemon: Daemon) -> None:
    poller = fresh("site")
    daemon.create("poller", poller)
    for _ in range(12):
        daemon.create("agent", fresh("room"), poller, label="Room with a long name")
    with opened(browser, daemon, viewport=PHONE) as page:
        page.goto(f"/ui/services/poller/{poller}")
        page.get_by_role("link", name="Revoke…").click()
        dialog = page.get_by_role("dialog")
        heading = dialog.get_by_role("heading", level=1)
        sync_api.expect(heading).to_be_focused()
        sync_api.expect(heading).to_be_in_viewport()
        sync_api.expect(dialog.get_by_role("button", name="Revoke 13 services")).to_be_in_viewport()
        dialog.get_by_label("To confirm").fill("13")
        dialog.get_by_role("button", name="Revoke 13 services").click()
        sync_api.expect(page.locator("#live-head")).to_contain_text("Revoked")


def test_reading_and_forms_work_without_javascript(browser: sync_api.Browser, daemon: Daemon) -> None:
    poller = fresh("plain")
    with opened(browser, daemon, refusals=True, java_script_enabled=False) as page:
        page.goto("/ui/onboard?type=poller")
        page.get_by_label("Label", exact=True).fill("!!!")
        page.get_by_role("button", name="Create the package").click()
        sync_api.expect(page.locator(".wrong").first).to_be_visible()
        page.locator("[name=component_id]").fill(poller)
        page.get_by_role("button", name="Create the package").click()
        daemon.secrets.add(page.get_by_label("Token", exact=True).input_value())
        page.goto(f"/ui/services?q={poller}")
        page.get_by_role("link", name="!!!").click()
        page.get_by_role("link", name="Revoke…").click()
        page.get_by_role("button", name="Revoke").click()
        sync_api.expect(page.locator("#live-head")).to_contain_text("Revoked")
        page.get_by_role("button", name="Sign out").locator("visible=true").click()
        page.goto("/ui/services")
        sync_api.expect(page.get_by_role("button", name="Sign in")).to_be_visible()


def test_a_service_in_quarantine_is_approved(browser: sync_api.Browser, daemon: Daemon) -> None:
    poller = fresh("waiting")
    announce(daemon, poller)
    with opened(browser, daemon, viewport=DESK) as page:
        page.goto("/ui/quarantine")
        row = page.get_by_role("row").filter(has_text=poller)
        sync_api.expect(row).to_contain_text("1 heartbeat")
        row.get_by_role("link", name=poller).click()
        page.wait_for_url(f"**/ui/services/poller/{poller}")
        page.get_by_role("link", name="Approve…").click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_label("Reason, for the audit trail").fill("known to the site's people")
        dialog.get_by_role("button", name="Approve").click()
        sync_api.expect(page.get_by_role("status")).to_contain_text("approved")
        page.goto("/ui/quarantine")
        assert page.get_by_role("link", name=poller).count() == 0
    assert daemon.service("poller", poller)["approval"] == "granted"
