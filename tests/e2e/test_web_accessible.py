"""The dashboard by axe-core: nothing that keeps somebody out who reads by ear or goes by keyboard."""

from __future__ import annotations

import os
from typing import Any

import pytest

from support.browser import DESK, PHONE, opened, sync_api
from support.daemon import Daemon
from support.tour import tour

if os.environ.get("JETWAY_CI") == "1":
    from axe_playwright_python.sync_playwright import Axe
else:
    Axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed").Axe

SERIOUS = {"serious", "critical"}
LOOKS = ((DESK, "light"), (PHONE, "dark"))
"""Both sizes and both themes: a page is the same in the dark but for its colours."""


def serious(page: sync_api.Page) -> list[dict[str, Any]]:
    found = Axe().run(page).response["violations"]
    return [
        {"rule": each["id"], "where": [node["target"] for node in each["nodes"]][:5]}
        for each in found
        if each["impact"] in SERIOUS
    ]


def test_axe_finds_nothing_serious_anywhere(browser: sync_api.Browser, daemon: Daemon) -> None:
    with opened(browser, daemon, refusals=True, viewport=DESK) as page:
        found = {}
        for where in tour(page, daemon):
            page.wait_for_load_state()  # with its style
            for viewport, scheme in LOOKS:
                page.set_viewport_size(viewport)
                page.emulate_media(color_scheme=scheme)
                if wrong := serious(page):
                    found[f"{where} {viewport['width']} {scheme}"] = wrong
            page.set_viewport_size(DESK)
        assert found == {}, "\n".join(map(str, found.items()))


def test_what_is_wrong_would_be_found(browser: sync_api.Browser, daemon: Daemon) -> None:
    with opened(browser, daemon) as page:
        page.goto("/ui/services")
        page.evaluate(
            "document.querySelector('input[name=q]').closest('label').replaceWith(document.createElement('input'))"
        )
        assert {each["rule"] for each in serious(page)} >= {"label"}
