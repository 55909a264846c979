"""The dashboard by axe-core: nothing that keeps somebody out who reads by ear or goes by keyboard."""

from __future__ import annotations

import os
from typing import Any

import pytest

from support.browser import DESK, PHONE, announce, opened, sync_api
from support.daemon import Daemon, fresh

if os.environ.get("JETWAY_CI") == "1":
    from axe_playwright_python.sync_playwright import Axe
else:
    Axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed").Axe

PATHS = (
    "/ui/",
    "/ui/services",
    "/ui/onboard?type=poller",
    "/ui/onboard?type=checker",
    "/ui/tree",
    "/ui/packages",
    "/ui/quarantine",
    "/ui/audit",
    "/ui/jobs",
    "/ui/tokens",
    "/ui/about",
)
SERIOUS = {"serious", "critical"}


@pytest.fixture(scope="module")
def some_poller(daemon: Daemon) -> str:
    """With a package and an agent beneath it; another poller waits in quarantine."""
    poller, agent, waiting = fresh("site"), fresh("room"), fresh("waiting")
    daemon.create("poller", poller, labels={"region": "north"}, site="Hall 3")
    daemon.create("agent", agent, poller)
    announce(daemon, waiting)
    return poller


def serious(page: sync_api.Page) -> list[dict[str, Any]]:
    found = Axe().run(page).response["violations"]
    return [
        {"rule": each["id"], "where": [node["target"] for node in each["nodes"]][:5]}
        for each in found
        if each["impact"] in SERIOUS
    ]


@pytest.mark.parametrize(("viewport", "scheme"), [(DESK, "light"), (DESK, "dark"), (PHONE, "light")])
def test_axe_finds_nothing_serious(
    browser: sync_api.Browser,
    daemon: Daemon,
    some_poller: str,
    viewport: dict[str, int],
    scheme: str,
) -> None:
    of_one = (f"/ui/services/poller/{some_poller}", f"/ui/services/poller/{some_poller}/revoke")
    with opened(browser, daemon, viewport=viewport, color_scheme=scheme) as page:
        found = {}
        for path in (*PATHS, *of_one):
            page.goto(path)
            if wrong := serious(page):
                found[path] = wrong
        assert found == {}


def test_the_page_of_signing_in_too(browser: sync_api.Browser, daemon: Daemon) -> None:
    context = browser.new_context(base_url=daemon.url)
    try:
        page = context.new_page()
        page.goto("/ui/sign-in")
        assert serious(page) == []
    finally:
        context.close()


def test_what_is_wrong_would_be_found(browser: sync_api.Browser, daemon: Daemon) -> None:
    with opened(browser, daemon) as page:
        page.goto("/ui/services")
        page.evaluate(
            "document.querySelector('input[name=q]').closest('label').replaceWith(document.createElement('input'))"
        )
        assert {each["rule"] for each in serious(page)} >= {"label"}
