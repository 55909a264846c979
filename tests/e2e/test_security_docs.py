"""What docs/security.md tells people to type when something was stolen, typed."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from support.daemon import PACKAGES, SERVICES, Daemon, eventually

NewDaemon = Callable[..., Daemon]
ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
SECRET_KEYS = ("vault.keys", "https.pem", "ca-key.pem", "token-signing.pem", "token-secret.key", "nats.json")


def commands(name: str) -> list[list[str]]:
    """The commands of the blocks of that name, without a prompt and without variables before them.

    Those of the gateway's own user are this user's here, and the settings are the shipped ones.
    """
    blocks = re.findall(rf"<!-- run: {name} -->\n```console\n(.*?)```", PAGE, re.DOTALL)
    assert blocks, name
    shown = "".join(blocks).replace("sudo -u jetway /opt/jetway/bin/jetway", "jetway")
    shown = shown.replace("/etc/jetway/jetway.toml", str(ROOT / "config" / "jetway.toml"))
    lines = [line.lstrip("$# ") for line in shown.splitlines()]
    return [[word for word in shlex.split(line) if not word.startswith("JETWAY_")] for line in lines]


def typed(daemon: Daemon, name: str, **settings: str) -> list[str]:
    """What they print; every one must succeed."""
    said = []
    for program, *arguments in commands(name):
        assert program == "jetway"
        done = daemon.command(*arguments, **settings)
        assert done.returncode == 0, (arguments, done.stderr)
        said.append(done.stdout)
    return said


@pytest.fixture
def daemon(new_daemon: NewDaemon) -> Daemon:
    made = new_daemon(JETWAY_NATS__CREDENTIALS="required")
    made.create("poller", "site-a")
    return made


def _told(daemon: Daemon, package: str, what: str) -> None:
    events = daemon.get(f"{PACKAGES}/{package}/events")["items"]
    assert what in [event["event_type"] for event in events]


def test_a_stolen_token(daemon: Daemon) -> None:
    created = daemon.create("agent", "core-switch-room", "site-a")
    stolen, package = created["token"], created["package"]["package_id"]
    assert daemon.redeem(stolen).status == 200
    eventually(lambda: _told(daemon, package, "delivered"))
    history, token = typed(daemon, "token")
    assert "delivered" in history
    daemon.secrets.add(token.strip())
    assert daemon.redeem(stolen).status == 410
    assert daemon.redeem(token.strip()).status == 200


def test_a_stolen_host(daemon: Daemon) -> None:
    stolen = daemon.create("agent", "core-switch-room", "site-a")["token"]
    daemon.create("checker", "uplink", "core-switch-room")
    assert daemon.redeem(stolen).status == 200
    preview, done, revoked, token = typed(daemon, "host")
    assert "uplink" in preview
    assert "uplink" in done + revoked
    assert daemon.service("checker", "uplink")["status"] == "revoked"
    assert daemon.service("agent", "core-switch-room")["status"] == "pending"
    assert daemon.redeem(token.strip()).status == 200


def test_a_stolen_api_token(daemon: Daemon) -> None:
    made = daemon.call("POST", "/api/admin/api-tokens", {"name": "alice", "role": "operator"})
    stolen = made.json["token"]
    assert daemon.call("GET", f"{SERVICES}/tree", token=stolen).status == 200
    listed, _, text = typed(daemon, "api-token")
    assert "alice" in listed
    assert "LAST USED" in listed
    assert daemon.call("GET", f"{SERVICES}/tree", token=stolen).status == 401
    assert daemon.call("GET", f"{SERVICES}/tree", token=text.strip()).status == 200


def test_the_first_token_is_exchanged(daemon: Daemon) -> None:
    create, revoke, remove = commands("admin-token")
    made = daemon.command(*create[1:])
    assert made.returncode == 0, made.stderr
    keeper = made.stdout.strip()
    assert daemon.command(*revoke[1:], JETWAY_TOKEN=keeper, JETWAY_URL=daemon.url).returncode == 0
    assert remove == ["rm", "/var/lib/jetway/admin.token"]
    (daemon.state / "admin.token").unlink()
    assert daemon.call("GET", f"{SERVICES}/tree").status == 401
    daemon.stop()
    daemon.start()
    assert not (daemon.state / "admin.token").exists(), "there are tokens, so none is made"
    assert daemon.call("GET", f"{SERVICES}/tree", token=keeper).status == 200


def test_the_vaults_key_is_rotated_and_admin_creds_are_made_anew(daemon: Daemon) -> None:
    token = daemon.create("agent", "core-switch-room", "site-a")["token"]
    vault, creds = daemon.state / "keys" / "vault.keys", daemon.state / "nats" / "admin.creds"
    before = vault.read_bytes(), creds.read_bytes()
    daemon.stop()
    typed(daemon, "vault")
    creds.unlink()
    daemon.start()
    assert vault.read_bytes() != before[0]
    assert creds.read_bytes() != before[1]
    assert daemon.redeem(token).status == 200


def test_a_deleted_https_certificate_is_made_anew(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path, JETWAY_HTTP__TLS="own")
    try:
        file = daemon.start().state / "keys" / "https.pem"
        before = file.read_bytes()
        daemon.stop()
        file.unlink()
        daemon.start()
        assert file.read_bytes() != before
        assert daemon.stop() == 0
    finally:
        daemon.discard()


def test_every_key_is_in_the_table(daemon: Daemon) -> None:
    """A key that is made and not told of here is one that nobody knows how to exchange."""
    table = PAGE.partition("## Rotating keys")[2]
    for file in (daemon.state / "keys").iterdir():
        assert f"keys/{file.name.replace('ca.pem', 'ca-key.pem')}" in table, file.name
    for name in SECRET_KEYS:
        assert name in table
    assert json.loads((daemon.state / "keys" / "nats.json").read_text())
