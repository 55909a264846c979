"""About: the settings shown are those in force, as `jetway check-config` prints them."""

from __future__ import annotations

import re
import tomllib
from collections.abc import AsyncIterator
from dataclasses import replace
from html import unescape
from pathlib import Path

import pytest

from jetway.cli.check_config import _toml
from jetway.core.errors import UnavailableError
from jetway.effective import describe
from jetway.entry.web.about import AboutPages, _text
from jetway.settings import Settings, load_settings
from support.browsing import Browser, browsing
from support.http_world import http_world

SECTION = re.compile(r'<h3>([^<]+)</h3><dl class="facts">(.*?)</dl>', re.DOTALL)
FACT = re.compile(r"<dt>([^<]+)</dt><dd>([^<]*)</dd>")


def shown(body: bytes) -> dict[str, dict[str, str]]:
    return {
        unescape(section): {unescape(name): unescape(value) for name, value in FACT.findall(facts)}
        for section, facts in SECTION.findall(body.decode())
    }


def printed(settings: Settings) -> dict[str, dict[str, object]]:
    """What check-config prints, by the sections of the page."""
    effective = tomllib.loads("\n".join(_toml(describe(settings))))
    top = {name: value for name, value in effective.items() if not isinstance(value, dict)}
    return {"At the top": top} | {name: value for name, value in effective.items() if isinstance(value, dict)}


async def test_the_page_and_check_config_agree(tmp_path: Path) -> None:
    async with http_world(tmp_path) as world, browsing(world) as browser:
        await browser.sign_in("admin")
        found = shown((await browser.get("/ui/about")).body)
        wanted = printed(load_settings(overrides={"state_dir": tmp_path, "http": {"listen": "127.0.0.1:0"}}))
        assert found.keys() == wanted.keys()
        for section, values in wanted.items():
            for name, value in values.items():
                assert found[section][name] == _text(value), (section, name)
        assert found["http"]["public_url"].startswith("http://127.0.0.1")
        assert found["database"]["url"] == f"sqlite:///{tmp_path / 'registry.db'}"
        assert found["nats"]["public_urls"] == "nats://127.0.0.1:4222"


def test_secrets_are_hidden_in_both(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("a" * 32)
    settings = load_settings(
        overrides={
            "state_dir": tmp_path,
            "database": {"url": "proton://joe:hunter2@db.example:8463/default"},
            "alerts": {"webhooks": [{"url": "https://hooks.example/hunter2", "secret_file": str(secret)}]},
        }
    )
    text = str(describe(settings))
    assert "hunter2" not in text and "proton://[hidden]@db.example:8463/default" in text


@pytest.fixture
async def browser(tmp_path: Path) -> AsyncIterator[Browser]:
    async with http_world(tmp_path) as world, browsing(world) as browser:
        yield browser


async def test_what_it_is_connected_with_is_told_or_that_it_is_away(browser: Browser, tmp_path: Path) -> None:
    settings = load_settings(overrides={"state_dir": tmp_path})

    async def versions() -> dict[str, str]:
        return {"NATS server": "2.15.1", "Database schema": "0007_counts"}

    async def away() -> dict[str, str]:
        raise UnavailableError("away")

    doors = replace(browser.world.doors, versions=versions)
    about = AboutPages(doors, settings)
    assert await about._outside() == await versions()
    about = AboutPages(replace(doors, versions=away), settings)
    assert "away" in (await about._outside())["Database schema"]
    await browser.sign_in("viewer")
    body = (await browser.get("/ui/about")).body
    assert b"Settings in force" not in body and b"<dt>Jetway</dt>" in body
