"""The tree page: level by level, how the worst beneath is, what is open stands in the address."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from jetway.entry.web import tree as module
from jetway.entry.web.assets import Assets
from support.browsing import Browser, browsing
from support.http_world import World, http_world

TREE = "/ui/tree"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with http_world(tmp_path) as world:
        for number in (1, 2, 3):
            await world.create("poller", f"p{number}", site="North" if number == 3 else "")
        for number in (1, 2, 3):
            await world.create("agent", f"a{number}", "p1")
        await world.create("checker", "c1", "a1")
        yield world


@pytest.fixture
async def browser(world: World) -> AsyncIterator[Browser]:
    async with browsing(world) as browser:
        await browser.sign_in("viewer")
        yield browser


async def shown(browser: Browser, path: str) -> list[str]:
    answer = await browser.get(path)
    assert answer.status == 200, answer.body
    return re.findall(r'id="node-([^"]+)"', answer.body.decode())


async def test_a_branch_shows_once_it_is_open(browser: Browser) -> None:
    assert await shown(browser, TREE) == ["poller-p1", "poller-p2", "poller-p3"]
    body = (await browser.get(TREE)).body.decode()
    assert "3 agents, 1 checker" in body and body.count('aria-expanded="false"') == 1
    opened = await shown(browser, f"{TREE}?open=poller.p1&open=agent.a1")
    assert opened == ["poller-p1", "agent-a1", "checker-c1", "agent-a2", "agent-a3", "poller-p2", "poller-p3"]
    assert await shown(browser, f"{TREE}?open=agent.a1") == ["poller-p1", "poller-p2", "poller-p3"]


async def test_without_scripts_the_button_leads_to_the_opened_page_and_back(browser: Browser) -> None:
    answer = await browser.get(f"{TREE}?q=p&toggle=poller.p1")
    assert answer.status == 303
    assert answer.headers["Location"] == f"{TREE}?q=p&open=poller.p1#node-poller-p1"
    answer = await browser.get(f"{TREE}?open=poller.p1&toggle=poller.p1")
    assert answer.headers["Location"] == f"{TREE}#node-poller-p1"


async def test_the_worst_beneath_is_told_at_the_root(world: World, browser: Browser) -> None:
    made = {"service_id": "c2", "parent_id": "a2", "checker_kind": "icmp"}
    assert (await world.call("POST", "/api/admin/services/checkers", made)).status == 201
    assert b"the worst" not in (await browser.get(TREE)).body
    path = "/api/admin/services/checkers/c2/status"
    assert (await world.call("POST", path, {"status": "active"})).status == 200
    assert b"the worst" in (await browser.get(TREE)).body


async def test_roots_are_searched_and_paged(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await shown(browser, f"{TREE}?q=north") == ["poller-p3"]
    monkeypatch.setattr(module, "_SHOWN", 2)
    first = (await browser.get(TREE)).body.decode()
    assert "3 in all" in first
    found = re.search(r'rel="next" href="([^"]+)"', first)
    assert found
    assert await shown(browser, found[1].replace("&amp;", "&")) == ["poller-p3"]


async def test_a_long_branch_goes_on_on_a_page_of_its_own(
    browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SHOWN", 2)
    body = (await browser.get(f"{TREE}?open=poller.p1")).body.decode()
    found = re.search(r'data-more href="([^"]+)"', body)
    assert found and "Further ones, of 3" in body
    assert await shown(browser, found[1].replace("&amp;", "&")) == ["agent-a3"]
    assert b"All pollers" in (await browser.get(f"{TREE}?root=poller.p1")).body


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("root=nobody", 422),
        ("root=poller.nobody", 404),
        ("toggle=x", 422),
        ("cursor=x", 422),
        ("open=x", 200),
    ],
)
async def test_what_the_address_cannot_mean_is_said(browser: Browser, query: str, status: int) -> None:
    assert (await browser.get(f"{TREE}?{query}")).status == status


async def test_open_branches_are_few(browser: Browser) -> None:
    many = "&".join(f"open=poller.x{number}" for number in range(module.MOST_OPEN))
    assert "agent-a1" not in await shown(browser, f"{TREE}?open=poller.p1&{many}")


def test_an_asset_s_version_changes_with_what_it_imports(tmp_path: Path) -> None:
    (tmp_path / "app.js").write_text('import { a } from "./other.js";\n')
    (tmp_path / "other.js").write_text("export const a = 1;\n")
    before = Assets(tmp_path)
    (tmp_path / "other.js").write_text("export const a = 2;\n")
    after = Assets(tmp_path)
    assert before.url("app.js") != after.url("app.js")
    (tmp_path / "other.js").write_text('import "./app.js";\n')
    with pytest.raises(ValueError, match=r"app\.js → other\.js → app\.js"):
        Assets(tmp_path)


async def test_modules_are_named_with_their_versions_and_kept_for_ever(browser: Browser) -> None:
    page = (await browser.get(TREE)).body.decode()
    script = re.search(r'src="(/ui/static/app\.js\?v=\w+)"', page)
    assert script
    body = (await browser.get(script[1])).body.decode()
    imports = re.findall(r'"\./([\w-]+\.js\?v=\w+)"', body)
    assert len(imports) >= 5 and '.js";' not in body
    for name in imports:
        answer = await browser.get(f"/ui/static/{name}")
        assert "immutable" in answer.headers["Cache-Control"]
