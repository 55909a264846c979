"""`jetway backup` and `jetway restore` with the real command: what was acknowledged before is there again."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from nats.js.errors import KeyNotFoundError

from support.daemon import COMMAND_SECONDS, Daemon, environment, eventually, jetway, processes_with
from support.daemon_state import eventually_async

NewDaemon = Callable[..., Daemon]
_OF_A_REVISION = ("epoch", "revision", "updated_at")


async def documents(daemon: Daemon) -> dict[str, Any]:
    """All config documents and templates, but for what changes with every revision."""
    found = {}
    async with daemon.nats() as client:
        bucket = await client.jetstream(timeout=30).key_value("config")
        for key in await bucket.keys():
            try:
                document = json.loads((await bucket.get(key)).value or b"")
            except KeyNotFoundError as error:
                raise AssertionError(f"{key} went meanwhile") from error
            found[key] = {name: value for name, value in document.items() if name not in _OF_A_REVISION}
    return found


async def documents_without(daemon: Daemon, service_id: str) -> dict[str, Any]:
    """All of them, once none names this service any more."""
    found = await documents(daemon)
    assert f'"{service_id}"' not in json.dumps(found)
    return found


async def edit(daemon: Daemon, key: str, config: dict[str, Any]) -> None:
    async with daemon.nats() as client:
        bucket = await client.jetstream(timeout=30).key_value("config")
        document = json.loads((await bucket.get(key)).value or b"")
        await bucket.put(key, json.dumps({**document, "checker_config": config}).encode())


def services(daemon: Daemon) -> dict[str, Any]:
    """Every service, but for what changes with every revision."""
    found = {}
    for kind in ("pollers", "agents", "checkers"):
        for each in daemon.get(f"/api/admin/services/{kind}?limit=500&with_deleted=true")["items"]:
            key = f"{kind}/{each['service_id']}"
            found[key] = {name: value for name, value in each.items() if name not in _OF_A_REVISION}
    return found


def events(daemon: Daemon, kind: str = "") -> set[str]:
    where = f"WHERE event_type = '{kind}'" if kind else "WHERE event_type != 'restored'"
    return {
        row["event_id"] for row in daemon.rows(f"SELECT event_id FROM service_registration_events {where}")
    }


def populate(daemon: Daemon) -> tuple[str, str]:
    """Three services, one more that is revoked and deleted; a token that is still out, an API token."""
    daemon.create("poller", "p1")
    daemon.create("agent", "a1", "p1", labels={"rack": "12"})
    token = str(daemon.create("checker", "c1", "a1")["token"])
    gone = daemon.create("agent", "gone", "p1")["package"]["package_id"]
    daemon.call("POST", f"/api/admin/edge-packages/{gone}/revoke", {"reason": "test"})
    assert daemon.call("DELETE", "/api/admin/services/agents/gone").status == 204
    viewer = daemon.json_of("api-token", "create", "viewer", "--role", "viewer")["token"]
    daemon.secrets |= {token, viewer}
    return token, viewer


def lose(daemon: Daemon) -> Path:
    """The state directory is gone."""
    lost = daemon.state.with_name("lost")
    daemon.state.rename(lost)
    return lost


async def test_what_was_acknowledged_before_a_backup_is_there_after_a_restore(new_daemon: NewDaemon) -> None:
    daemon = new_daemon()
    token, viewer = populate(daemon)
    key = "config/agents/a1/checkers/c1.json"
    await edit(daemon, key, {"targets": ["192.0.2.77"], "by": "hand"})
    eventually(lambda: _must(len(events(daemon, "deleted")) == 1))
    papers = await eventually_async(lambda: documents_without(daemon, "gone"))
    before, trail = services(daemon), events(daemon)
    epoch = daemon.service("poller", "p1")["epoch"]
    file = daemon.state.parent / "backup.tar.gz"

    report = daemon.json_of("backup", str(file))

    assert report["keys"]["registry"] == len(before) == 4
    assert file.stat().st_mode & 0o777 == 0o600
    # Newer than the backup, in a database that outlives the ledger.
    daemon.create("poller", "later")
    package = daemon.service("poller", "p1")["package_id"]
    for _ in range(3):
        package = daemon.call("POST", f"/api/admin/edge-packages/{package}/reissue", {}).json["package"][
            "package_id"
        ]
    newer = eventually(lambda: _row(daemon, "p1", package_id=package))
    assert daemon.stop() == 0
    lost = lose(daemon)

    restored = daemon.json_of("restore", str(file))
    shutil.copy(lost / "registry.db", daemon.state / "registry.db")
    daemon.start()

    assert restored["keys"]["registry"] == 4
    assert restored["epoch"] > epoch
    after = services(daemon)
    after.pop("pollers/later", None)
    assert after == before
    row = eventually(lambda: _row(daemon, "p1", package_id=before["pollers/p1"]["package_id"]))
    assert (row["epoch"], row["revision"]) > (newer["epoch"], newer["revision"])
    assert row["epoch"] == restored["epoch"]
    eventually(lambda: _must(len(events(daemon, "restored")) == 5))
    assert trail <= events(daemon)
    # A document is written before the events are told, or soon after: reconcile waits for both.
    assert daemon.json_of("reconcile")["gaps_open"] == 0
    assert await documents(daemon) == papers
    assert papers[key]["checker_config"] == {"targets": ["192.0.2.77"], "by": "hand"}
    assert daemon.redeem(token).status == 200
    assert daemon.call("GET", "/api/admin/services/stats", token=viewer).status == 200
    assert daemon.call("GET", "/api/admin/api-tokens").status == 200
    shutil.rmtree(lost)


def _row(daemon: Daemon, poller: str, **wanted: str) -> dict[str, Any]:
    (row,) = daemon.rows(f"SELECT * FROM pollers WHERE poller_id = '{poller}'")
    assert {name: row[name] for name in wanted} == wanted
    return row


def _must(condition: bool) -> None:
    assert condition


def test_nothing_that_stands_there_is_restored_over_unasked(new_daemon: NewDaemon) -> None:
    daemon = new_daemon()
    daemon.create("poller", "p1")
    file = str(daemon.state.parent / "backup.tar.gz")
    ledger = daemon.json_of("backup", file)["ledger_id"]
    again = daemon.command("backup", file)
    assert (again.returncode, "exists already" in again.stderr) == (1, True)
    running = daemon.command("restore", file)
    assert (running.returncode, "in use by another daemon" in running.stderr) == (1, True)
    daemon.create("poller", "later")
    assert daemon.stop() == 0

    refused = daemon.command("restore", file)
    assert (refused.returncode, f"--in-place-of {ledger}" in refused.stderr) == (1, True)
    assert daemon.start().service("poller", "later")["status"] == "pending"
    assert daemon.stop() == 0

    report = daemon.json_of("restore", file, "--in-place-of", ledger)
    assert {each.name for each in Path(report["set_aside"]).iterdir()} >= {"keys", "nats", "ledger.json"}
    daemon.start()
    assert [each["service_id"] for each in daemon.get("/api/admin/services/pollers")["items"]] == ["p1"]


def test_a_backup_needs_no_running_daemon_and_a_ledger(new_daemon: NewDaemon, tmp_path: Path) -> None:
    file = str(tmp_path / "backup.tar.gz")
    nothing = jetway("backup", file, JETWAY_STATE_DIR=str(tmp_path / "nothing"))
    assert (nothing.returncode, "nothing to back up" in nothing.stderr) == (1, True)
    daemon = new_daemon()
    daemon.create("poller", "p1")
    assert daemon.stop() == 0
    assert daemon.json_of("backup", file)["keys"]["registry"] == 1


def test_a_damaged_file_is_refused_before_anything_is_written(new_daemon: NewDaemon, tmp_path: Path) -> None:
    daemon = new_daemon()
    daemon.create("poller", "p1")
    file = tmp_path / "backup.tar.gz"
    daemon.json_of("backup", str(file))
    whole = file.read_bytes()
    for name, data in (("cut", whole[:-900]), ("other", b"not a backup")):
        damaged = tmp_path / name
        damaged.write_bytes(data)
        done = jetway("restore", str(damaged), JETWAY_STATE_DIR=str(tmp_path / "new"))
        assert done.returncode == 1, name
        assert str(damaged) in done.stderr
        assert not (tmp_path / "new").exists(), name


@contextmanager
def restoring(daemon: Daemon, file: Path) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "jetway", "restore", str(file)],
        env=environment(**daemon.settings),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.mark.slow
def test_a_restore_killed_anywhere_says_so_and_can_be_done_again(
    new_daemon: NewDaemon, tmp_path: Path
) -> None:
    daemon = new_daemon()
    rows = [{"service_type": "poller", "service_id": f"p{number}"} for number in range(300)]
    listed = tmp_path / "rows.json"
    listed.write_text(json.dumps(rows))
    assert daemon.command("import", str(listed)).returncode == 0
    file = tmp_path / "backup.tar.gz"
    assert daemon.json_of("backup", str(file))["keys"]["registry"] == 300
    assert daemon.stop() == 0
    shutil.rmtree(lose(daemon))

    started = time.monotonic()
    with restoring(daemon, file) as process:
        assert process.wait(COMMAND_SECONDS) == 0
    whole = time.monotonic() - started
    shutil.rmtree(daemon.state)

    unfinished = 0
    # The first three anyway; the others where a machine that is busy let each of those come to its end.
    for number, part in enumerate((0.1, 0.3, 0.5, 0.2, 0.05, 0.02, 0.0, 0.0)):
        if number >= 3 and unfinished:
            break
        with restoring(daemon, file) as process:
            eventually(lambda: _must((daemon.state / "restore.json").exists()), COMMAND_SECONDS)
            time.sleep(whole * part)
            process.kill()
            process.wait()
        if (daemon.state / "restore.json").exists():
            unfinished += 1
            serve = daemon.command("serve")
            assert (serve.returncode, "run `jetway restore` again" in serve.stderr) == (1, True), serve.stderr
        else:
            # Killed when all was done: its server may still be writing.
            eventually(lambda: _must(not processes_with(str(daemon.state))))
            shutil.rmtree(daemon.state)
    assert unfinished

    done = daemon.command("restore", str(file))
    assert done.returncode == 0, done.stderr
    daemon.start()
    assert daemon.get("/api/admin/services/pollers?limit=1")["total"] == 300


def test_no_secret_of_a_backup_is_printed(new_daemon: NewDaemon, tmp_path: Path) -> None:
    daemon = new_daemon()
    file = tmp_path / "backup.tar.gz"
    done = daemon.command("backup", str(file))
    assert done.returncode == 0, done.stderr
    with tarfile.open(file) as tar:
        held = [tar.extractfile(member) for member in tar if member.name.startswith("files/")]
        secrets = [stream.read().decode().strip() for stream in held if stream]
    assert len(secrets) >= 3
    for secret in secrets:
        assert secret not in done.stdout + done.stderr
