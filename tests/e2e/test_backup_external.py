"""Restoring into a NATS that is not the daemon's own: moving there, and what is refused."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from jetway import backups
from jetway.core.errors import StartupError
from jetway.settings import load_settings
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
    server: NatsServer, new_daemon: NewDaemon, tmp_path: Path
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


async def test_a_restore_that_is_refused_leaves_a_working_installation_as_it_is(
    server: NatsServer, new_daemon: NewDaemon, tmp_path: Path
) -> None:
    external = {"JETWAY_NATS__MODE": "external", "JETWAY_NATS__URLS": json.dumps([server.url])}
    daemon = new_daemon("standing", **external)
    package = daemon.create("poller", "site-a")["package"]["package_id"]
    file = str(tmp_path / "backup.tar.gz")
    report = daemon.json_of("backup", file)
    assert daemon.stop() == 0
    before = {path: path.read_bytes() for path in daemon.state.rglob("*") if path.is_file()}

    refused = daemon.command("restore", file, "--in-place-of", report["ledger_id"])

    assert (refused.returncode, "there is a ledger at the server already" in refused.stderr) == (1, True)
    after = {path: path.read_bytes() for path in daemon.state.rglob("*") if path.is_file()}
    assert after == before
    assert daemon.start().service("poller", "site-a")["package_id"] == package


def test_a_restore_that_fails_later_says_where_it_moved_what_stood_there(
    new_daemon: NewDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon = new_daemon("embedded")
    daemon.create("poller", "site-a")
    file = tmp_path / "backup.tar.gz"
    ledger = daemon.json_of("backup", str(file))["ledger_id"]
    assert daemon.stop() == 0
    epoch = json.loads((daemon.state / "ledger.json").read_bytes())["epoch"]
    aside = daemon.state / f"replaced-{ledger}-{epoch}"

    async def refuse(*_: object) -> None:
        raise StartupError("nats: the server did not start")

    monkeypatch.setattr(backups, "start_private_nats", refuse)
    settings = load_settings(overrides={"state_dir": daemon.state})
    with pytest.raises(StartupError, match=f"did not start; what stood there before is in {aside}"):
        asyncio.run(backups._restore(settings, file, ledger, lambda *_: None))
    assert names_in(aside) >= {"keys", "nats", "ledger.json"}
    assert daemon.command("restore", str(file)).returncode == 0


def names_in(folder: Path) -> set[str]:
    return {each.name for each in folder.iterdir()}
