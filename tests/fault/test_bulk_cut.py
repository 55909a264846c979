"""A daemon that is killed in the middle of a bulk of packages: the same call again makes exactly as many.

In CI (`JETWAY_CI=1`) of 10,000, which is as many as one call may ask for.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest

from support.daemon import PACKAGES, SERVICES, TOO_SLOW, Daemon, eventually

NewDaemon = Callable[..., Awaitable[Daemon]]
IN_CI = os.environ.get("JETWAY_CI") == "1"
ROWS = int(os.environ.get("JETWAY_TEST_BULK_ROWS", "10000" if IN_CI else "600"))


async def create_all(daemon: Daemon) -> Any:
    rows = [{"component_type": "poller", "label": f"Site {number}"} for number in range(ROWS)]
    headers = {"Idempotency-Key": "all", "Authorization": f"Bearer {daemon.token}"}
    timeout = aiohttp.ClientTimeout(total=600)
    async with (
        aiohttp.ClientSession(daemon.url, timeout=timeout) as session,
        session.post(f"{PACKAGES}/bulk", json={"rows": rows}, headers=headers) as response,
    ):
        return await response.json()


def kill_in_the_midst(daemon: Daemon) -> int:
    """End it with some created and some not; how many were, when last seen."""

    def some() -> int:
        count = int(daemon.get(f"{SERVICES}/stats")["total"])
        assert count >= ROWS // 10
        return count

    seen = eventually(some, 120)
    assert daemon.process is not None
    daemon.process.kill()
    daemon.wait()
    return seen


@pytest.mark.slow
async def test_a_bulk_that_was_cut_is_finished_by_the_same_call(new_daemon: NewDaemon) -> None:
    for _ in range(3):  # a machine that is busy may look only when all is done
        daemon = await new_daemon()
        daemon.expected_errors |= TOO_SLOW
        call = asyncio.create_task(create_all(daemon))
        seen = await asyncio.to_thread(kill_in_the_midst, daemon)
        (outcome,) = await asyncio.gather(call, return_exceptions=True)
        if seen < ROWS and isinstance(outcome, Exception):
            break
    assert isinstance(outcome, aiohttp.ClientError), outcome
    assert seen < ROWS

    await asyncio.to_thread(daemon.start)
    for _ in range(5):  # a slow disk may fail some rows: the same call goes on
        told = await create_all(daemon)
        if told["created"] == ROWS:
            break
    assert told["created"] == ROWS, told
    packages = {row["package_id"] for row in told["rows"]}
    assert len(packages) == ROWS == len({row["token"] for row in told["rows"]})
    assert (await create_all(daemon))["rows"] == told["rows"]
    assert daemon.get(f"{SERVICES}/stats")["total"] == ROWS
    listed = await asyncio.to_thread(_listed_packages, daemon)
    assert sorted(listed) == sorted(packages)
    assert daemon.stop() == 0
    daemon.check_log()


def _listed_packages(daemon: Daemon) -> list[str]:
    """The ids of all packages, page by page."""
    found: list[str] = []
    cursor = ""
    while True:
        page = daemon.get(f"{PACKAGES}?limit=500{cursor and '&cursor='}{cursor}")
        found += [package["package_id"] for package in page["items"]]
        if not page["next_cursor"]:
            return found
        cursor = page["next_cursor"]
