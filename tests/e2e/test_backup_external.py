"""Restoring into a NATS that is not the daemon's own: moving there, and what is refused."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from support.daemon import Daemon, jetway
from support.nats_server import NatsServer

NewDaemon = Callable[..., Daemon]


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[NatsServer]:
    external = NatsServer(tmp_path / "nats")
    await external.start()
    yield external
    await external.stop()


async def test_an_embedded_ledger_moves_to_somebody_elses_server_which_takes_one_only(
    new_daemon: NewDaemon, server: NatsServer, tmp_path: Path
) -> None:
    embedded = new_daemon("embedded")
    token = embedded.create("poller", "site-a")["token"]
    file = str(tmp_path / "backup.tar.gz")
    embedded.json_of("backup", file)
    assert embedded.stop() == 0
    external = {
        "JETWAY_NATS__MODE": "external",
        "JETWAY_NATS__URLS": json.dumps([server.url]),
        "JETWAY_NATS__BUCKET_PREFIX": "gw_",
    }

    moved = jetway("restore", file, JETWAY_STATE_DIR=str(tmp_path / "external" / "state"), **external)

    assert moved.returncode == 0, moved.stderr
    daemon = new_daemon("external", **external)
    daemon.token = embedded.token
    assert daemon.service("poller", "site-a")["status"] == "pending"
    assert daemon.redeem(token).status == 200
    # A restore that was cut off when only its mark was left to be removed.
    assert daemon.stop() == 0
    ledger = json.loads((daemon.state / "ledger.json").read_bytes())
    mark = {**ledger, "backup_created_at": "", "started_at": ""}
    (daemon.state / "restore.json").write_text(json.dumps(mark))
    done = daemon.command("restore", file)
    assert (done.returncode, "complete but for its mark" in done.stderr) == (1, True), done.stderr
    assert daemon.start().service("poller", "site-a")["package_id"]

    other = str(tmp_path / "other")
    refused = jetway("restore", file, JETWAY_STATE_DIR=other, **external)
    assert (refused.returncode, "there is a ledger at the server already" in refused.stderr) == (1, True)
    assert names_in(Path(other)) == {"daemon.lock"}


def names_in(folder: Path) -> set[str]:
    return {each.name for each in folder.iterdir()}
