"""A real browser on the dashboard: Debian's chromium, driven by playwright."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from support import require_program
from support.daemon import Daemon, eventually

if os.environ.get("JETWAY_CI") == "1":
    from playwright import sync_api
else:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

# Long, for a machine that has much else to do: a page that was answered slowly asks again after up to a minute.
# What does not come at all fails all the same.
sync_api.expect.set_options(timeout=90_000)

PHONE, DESK = {"width": 390, "height": 844}, {"width": 1440, "height": 900}


@contextmanager
def launched() -> Iterator[sync_api.Browser]:
    """The browser; the test is skipped, in CI it fails, where there is none."""
    program = require_program("chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(
    browser: sync_api.Browser, daemon: Daemon, *, refusals: bool = False, unlike: str = "", **options: object
) -> Iterator[sync_api.Page]:
    """A page that is signed in; errors in its console fail the test.

    `refusals`: a refused form is none; `unlike`: nor is an error that holds this text.
    """
    context = browser.new_context(base_url=daemon.url, **options)
    page = context.new_page()
    page.set_default_timeout(20_000)
    errors: list[str] = []
    page.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    try:
        page.goto("/")
        page.get_by_label("API token").fill(daemon.token)
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_url("**/ui/")
        yield page
        real = [
            text for text in errors if not (refusals and "the server responded with a status of 4" in text)
        ]
        assert [text for text in real if not (unlike and unlike in text)] == []
    finally:
        context.close()


def announce(daemon: Daemon, poller: str, payload: bytes = b"") -> None:
    """A heartbeat of a poller, by which one that nobody onboarded comes in.

    Playwright's loop runs in this thread, so in another one.
    """

    async def beat() -> None:
        async with daemon.nats() as client:
            await client.publish(f"edge.heartbeat.poller.{poller}", payload)
            await client.flush()

    with ThreadPoolExecutor(1) as pool:
        pool.submit(lambda: asyncio.run(beat())).result()
    eventually(lambda: daemon.service("poller", poller))
