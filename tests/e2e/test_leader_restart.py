"""A daemon by itself on an external NATS server: it says that it leads, and leads again at once after a kill."""

from __future__ import annotations

import json
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
    new_daemon: NewDaemon, server: NatsServer
) -> None:
    daemon = new_daemon(JETWAY_NATS__MODE="external", JETWAY_NATS__URLS=json.dumps([server.url]))
    eventually(lambda: leads(daemon))
    assert daemon.create("poller", "site-a")["projection"]["row"] == "written"

    daemon.discard()
    daemon.start()

    eventually(lambda: leads(daemon), LEASE_SECONDS / 2)
    assert daemon.create("poller", "site-b")["projection"] == {"document": "written", "row": "written"}
