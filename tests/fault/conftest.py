"""Daemons for faults on real servers. Each test has its own, and ends what it started."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support import daemon as support
from support.daemon import Daemon
from support.nats_server import NatsServer
from support.ports import free_port

NewDaemon = Callable[..., Awaitable[Daemon]]


@pytest.fixture
def new_daemon(tmp_path: Path) -> Iterator[NewDaemon]:
    """Starts daemons whose ports stay the same over restarts."""
    made: list[Daemon] = []

    async def make(**settings: str) -> Daemon:
        fixed = {
            "JETWAY_HTTP__LISTEN": f"127.0.0.1:{free_port()}",
            "JETWAY_HTTP__FAILURES_PER_MINUTE": "1000000",
        }
        made.append(Daemon(tmp_path / f"daemon-{len(made)}", **{**fixed, **settings}))
        return await asyncio.to_thread(made[-1].start)

    try:
        yield make
    finally:
        for each in made:
            each.discard()


@pytest.fixture
async def nats_server(tmp_path: Path) -> AsyncIterator[NatsServer]:
    """Somebody else's NATS server, with an empty store."""
    server = NatsServer(tmp_path / "nats-server")
    await server.start()
    yield server
    await server.stop()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    """Put the end of every running daemon's log beside a failure."""
    report = yield
    if report.failed:
        for each in support.running:
            told = [line for line in each.log_text().splitlines() if '"http_request"' not in line]
            report.sections.append((f"log of {each.state.parent.name}", "\n".join(told)[-6000:]))
    return report
