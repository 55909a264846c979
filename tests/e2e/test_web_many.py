"""In a real browser on the real daemon: many from a file, their tokens as a download, a service in maintenance."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path
from typing import Any

import pytest

from support.browser import DESK, PHONE, opened, sync_api
from support.daemon import Daemon, eventually, fresh

if os.environ.get("JETWAY_CI") == "1":
    from axe_playwright_python.sync_playwright import Axe
else:
    Axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed").Axe


def serious(page: sync_api.Page) -> list[Any]:
    found = Axe().run(page).response["violations"]
    return [
        (each["id"], each["nodes"][0]["target"])
        for each in found
        if each["impact"] in {"serious", "critical"}
    ]


def _document(page: sync_api.Page, poller: str) -> str:
    page.goto(f"/ui/services/poller/{poller}")
    return page.locator("#live-document").inner_text()


def _require_written(page: sync_api.Page, poller: str) -> None:
    assert "as the gateway wrote it" in _document(page, poller)


def test_many_from_a_file_and_one_of_them_into_maintenance(
    browser: sync_api.Browser, daemon: Daemon, tmp_path: Path
) -> None:
    poller, agent = fresh("site"), fresh("room")
    file = tmp_path / "many.csv"
    file.write_text(
        "component_type,label,component_id,parent_id,site\n"
        f"agent,Core switch room,{agent},{poller},\npoller,Site A,{poller},,Hall 9\npoller,Lost,Not An Id,,\n"
    )
    with opened(browser, daemon, viewport=DESK, color_scheme="light") as page:
        page.goto("/ui/onboard")
        page.get_by_role("link", name="many at once").click()
        page.locator("[name=file]").set_input_files(file)
        page.get_by_role("button", name="Look at the rows").click()
        sync_api.expect(page.locator("#row-3")).to_contain_text("component_id")
        assert serious(page) == []
        page.get_by_role("button", name="Create 2 packages").click()
        sync_api.expect(page.locator("#row-1")).to_contain_text("Created", timeout=30_000)
        assert serious(page) == []
        with page.expect_download() as started:
            page.get_by_role("button", name="Download 2 tokens as CSV").click()
        taken = list(csv.DictReader(io.StringIO(Path(started.value.path()).read_text())))
        daemon.secrets.update(row["token"] for row in taken)
        assert {row["service_id"] for row in taken} == {poller, agent}
        assert all(row["token"].startswith("jw1.") for row in taken)
        page.reload()
        sync_api.expect(page.get_by_text("They were handed over.")).to_be_visible()

        # The page reads its document again only where something changes: it must be there before.
        eventually(lambda: _require_written(page, poller))
        sync_api.expect(page.locator("#live-document")).to_contain_text("It is as the gateway wrote it.")
        page.get_by_label("Reason").fill("new cables")
        page.get_by_role("button", name="Begin maintenance").click()
        sync_api.expect(page.locator("#live-head")).to_contain_text("In maintenance")
        assert serious(page) == []
        page.goto("/ui/maintenance")
        assert serious(page) == []
        page.set_viewport_size(PHONE)
        page.goto(f"/ui/services/agent/{agent}")
        sync_api.expect(page.locator("#live-maintenance")).to_contain_text("new cables")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.get_by_role("button", name=f"End the maintenance of poller.{poller}").click()
        sync_api.expect(page.locator("#live-maintenance")).to_contain_text("None is going on")

        page.set_viewport_size(DESK)
        page.get_by_role("main").locator('a[href^="/ui/onboard/"]').first.click()
        page.locator("#way-docker summary").click()
        sync_api.expect(page.locator("#cmd-docker")).to_contain_text(f"jetway-{agent}:/state")
        assert not page.locator("#cmd-python").is_visible()
        assert serious(page) == []
