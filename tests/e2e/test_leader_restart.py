"""A daemon by itself on an external NATS server: it says that it leads, and leads again at once after a kill."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from jetway.adapters.nats.lease import LEASE_SECONDS
from support.daemon import Daemon, eventually
from support.nats_server import NatsServer

NewDaemon = Callable[..., Daemon]


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[NatsServer]:
    """A server that somebody else runs."""
    external = NatsServer(tmp_path / "nats")
    await external.start()
    yield external
    await external.stop()


def leads(daemon: Daemon) -> None:
    answer = daemon.call("GET", "/readyz", token="")
    assert answer.json["components"]["leader"] == {"state": "ok", "detail": "this daemon leads"}


async def test_a_daemon_that_was_killed_leads_again_before_its_lease_has_run_out(
    server: NatsServer, new_daemon: NewDaemon
) -> None:
    daemon = new_daemon(JETWAY_NATS__MODE="external", JETWAY_NATS__URLS=json.dumps([server.url]))
    eventually(lambda: leads(daemon))
    daemon.require_written(daemon.create("poller", "site-a"))

    took: list[float] = []
    while len(took) < 3 and not any(seconds < LEASE_SECONDS / 2 for seconds in took):
        daemon.discard()
        daemon.start()
        began = time.monotonic()
        eventually(lambda: leads(daemon), 60)
        took.append(time.monotonic() - began)
    assert min(took) < LEASE_SECONDS / 2, "it waits until what it left behind itself has run out"
    daemon.require_written(daemon.create("poller", "site-b"))
