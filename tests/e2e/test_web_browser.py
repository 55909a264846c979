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
from pathlib import Path

import pytest

from support.browser import DESK, PHONE, announce, opened, sync_api
from support.daemon import Daemon, environment, fresh, jetway

PAGES = (
    "/ui/",
    "/ui/services",
    "/ui/services?type=agent",
    "/ui/onboard",
    "/ui/onboard?type=agent",
    "/ui/onboard?type=checker",
    "/ui/tree",
    "/ui/packages",
    "/ui/quarantine",
    "/ui/due",
    "/ui/maintenance",
    "/ui/onboard/many",
    "/ui/audit",
    "/ui/jobs",
    "/ui/tokens",
    "/ui/about",
)
EVIL = "<script>document.title='taken'</script>"


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
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(15)


def test_onboard_redeem_live_and_revoke(browser: sync_api.Browser, daemon: Daemon, tmp_path: Path) -> None:
    poller, agent, checker = fresh("site"), fresh("room"), fresh("uplink")
    three = (
        ("poller", "Site A", poller, ""),
        ("agent", "Core switch room", agent, poller),
        ("checker", "Uplink", checker, agent),
    )
    with opened(browser, daemon, viewport=DESK, color_scheme="light") as page, ExitStack() as hosts:
        for kind, label, service_id, parent_id in three:
            token = onboard(page, kind, label, service_id, parent_id)
            daemon.secrets.add(token)
            page.wait_for_selector("html[data-connected]")
            steps = page.locator("#live-steps")
            sync_api.expect(steps).to_contain_text("Waits for the token")
            page.evaluate("window.notReloaded = true")
            hosts.enter_context(living(tmp_path / kind, token))
            sync_api.expect(steps).to_contain_text("Active", timeout=30_000)
            sync_api.expect(steps).to_contain_text("Redeemed by")
            assert page.evaluate("window.notReloaded")
            page.reload()
            assert page.get_by_label("Token", exact=True).count() == 0
        picture(page, "onboarding")
        page.goto("/ui/")
        page.wait_for_selector("html[data-connected]")
        picture(page, "overview")
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


@pytest.mark.parametrize("viewport", [PHONE, DESK], ids=["phone", "desk"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_fits_and_says_nothing_in_the_console(
    browser: sync_api.Browser, daemon: Daemon, viewport: dict[str, int], scheme: str
) -> None:
    poller = fresh("evil")
    daemon.create("poller", poller, label=EVIL)
    with opened(browser, daemon, viewport=viewport, color_scheme=scheme) as page:
        for path in (*PAGES, f"/ui/services/poller/{poller}", f"/ui/services/poller/{poller}/revoke"):
            answer = page.goto(path)
            assert answer is not None and answer.status == 200, path
            assert page.title() != "taken"
            assert page.locator("h1").count() == 1
            wide = page.evaluate(
                "document.documentElement.scrollWidth - document.documentElement.clientWidth"
            )
            assert wide <= 0, f"{path} is {wide} px too wide"
        page.goto(f"/ui/services/poller/{poller}")
        sync_api.expect(page.get_by_role("heading", level=1)).to_have_text(EVIL)


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
        page.get_by_role("button", name="Sign out").click()
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
