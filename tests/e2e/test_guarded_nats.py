"""A daemon whose NATS server asks for credentials: hosts join, run, are cut off; the operator's tools get in."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.daemon import SERVICES, Daemon, environment, eventually, jetway
from support.internet import connect, let_go, lets_in
from support.ports import free_port

# nats-py leaves the socket of a connection that was refused to the collector, whenever that comes.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")

NewDaemon = Callable[..., Daemon]


def guarded(**more: str) -> dict[str, str]:
    return {"JETWAY_NATS__CREDENTIALS": "required", **more}


def beyond_loopback() -> dict[str, str]:
    """On all addresses, with TLS; reached by the loopback, which the certificate names too."""
    port = free_port()
    return {
        "JETWAY_NATS__LISTEN": f"0.0.0.0:{port}",
        "JETWAY_NATS__PUBLIC_URLS": json.dumps([f"tls://127.0.0.1:{port}"]),
    }


def join(daemon: Daemon, folder: Path, kind: str, name: str, **fields: str) -> dict[str, object]:
    """Create a package and redeem it as `jetway join` does; what it wrote."""
    token = daemon.create(kind, name, **fields)["token"]
    done = jetway("join", "--dir", str(folder), given=token)
    assert done.returncode == 0, done.stderr
    return dict(json.loads((folder / "service.json").read_text()))


@contextlib.contextmanager
def running(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "jetway", "run", "--dir", str(folder)],
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(60)


def status(daemon: Daemon, name: str) -> str:
    return str(daemon.call("GET", f"{SERVICES}/pollers/{name}").json["status"])


def nats_detail(daemon: Daemon) -> str:
    return str(daemon.call("GET", "/readyz").json["components"]["nats"]["detail"])


def require_detail(daemon: Daemon, words: str) -> None:
    """These words, or none at all; a server that does not answer for two seconds is told instead."""
    detail = nats_detail(daemon)
    assert words in detail and bool(words) == bool(detail)


def require_active(daemon: Daemon, name: str) -> None:
    assert status(daemon, name) == "active"


@pytest.mark.parametrize("settings", [guarded(), beyond_loopback()], ids=["loopback", "with TLS"])
async def test_a_host_joins_runs_and_is_cut_off(
    new_daemon: NewDaemon, tmp_path: Path, settings: dict[str, str]
) -> None:
    daemon = new_daemon(**settings)
    folder = tmp_path / "edge"
    answer = join(daemon, folder, "poller", "site-a")
    assert isinstance(answer["nats"], dict)
    url = answer["nats"]["urls"][0]
    ca = answer["nats"]["ca_pem"]
    assert bool(ca) == url.startswith("tls://")
    with running(folder):
        eventually(lambda: require_active(daemon, "site-a"))
        package = daemon.call("GET", f"{SERVICES}/pollers/site-a").json["package_id"]
        creds = folder / "nats.creds"
        client = await connect(url, creds, ca)
        revoked = daemon.call("POST", f"/api/admin/edge-packages/{package}/revoke", {"reason": "stolen"})
        assert revoked.status == 200, revoked.body
        async with asyncio.timeout(30):
            while not client.is_closed:  # noqa: ASYNC110 - there is nothing to wait on
                await asyncio.sleep(0.01)
        assert not await lets_in(url, creds, ca)
    assert not await lets_in(url, None, ca)
    del client
    await let_go()


async def test_the_operators_tools_get_in_and_local_commands_work(new_daemon: NewDaemon) -> None:
    daemon = new_daemon(**beyond_loopback())
    created = jetway("api-token", "create", "mine", "--local", **daemon.settings)
    assert created.returncode == 0, created.stderr
    nats_dir = daemon.state / "nats"
    url = json.loads((daemon.state / "daemon.json").read_text())["nats_urls"][0]
    client = await connect(url, nats_dir / "admin.creds", (nats_dir / "ca.pem").read_text())
    assert b"KV_registry" in (await client.request("$JS.API.STREAM.NAMES", timeout=30)).data
    await client.close()

    assert daemon.stop() == 0
    created = jetway("api-token", "create", "other", "--local", **daemon.settings)
    assert created.returncode == 0, created.stderr
    daemon.start()


def test_an_open_gateway_becomes_a_guarded_one_and_keeps_everything(
    new_daemon: NewDaemon, tmp_path: Path
) -> None:
    daemon = new_daemon()
    eventually(lambda: require_detail(daemon, "asks for no credentials"))
    daemon.create("poller", "site-a")
    require_proof(daemon, "site-a", "none")
    assert daemon.stop() == 0
    daemon.settings |= guarded()
    daemon.start()
    assert status(daemon, "site-a") == "pending"
    eventually(lambda: require_detail(daemon, ""))
    require_proof(daemon, "site-a", "jwt")
    with running_joined(daemon, tmp_path / "edge", "site-b"):
        eventually(lambda: require_active(daemon, "site-b"))


def require_proof(daemon: Daemon, name: str, proof: str) -> None:
    """What an operator sees of who may speak for whom."""
    assert daemon.call("GET", f"{SERVICES}/pollers/{name}").json["heartbeat_proof"] == proof
    part = daemon.call("GET", "/readyz").json["components"]["heartbeat_proof"]
    assert part["state"] == "ok" and part["detail"].startswith(f"{proof}: ")
    assert f'jetway_heartbeat_proof{{proof="{proof}"}} 1.0' in daemon.call("GET", "/metrics").body.decode()


@contextlib.contextmanager
def running_joined(daemon: Daemon, folder: Path, name: str) -> Iterator[None]:
    join(daemon, folder, "poller", name)
    with running(folder):
        yield


def test_lost_keys_are_not_made_anew(new_daemon: NewDaemon) -> None:
    daemon = new_daemon(**guarded())
    assert daemon.stop() == 0
    keys = daemon.state / "keys" / "nats.json"
    kept = keys.read_bytes()
    keys.unlink()
    done = jetway("serve", **daemon.settings)
    assert done.returncode == 1
    assert "nats.json is missing: restore it from a backup" in done.stderr
    keys.write_bytes(kept)
    keys.chmod(0o600)
    daemon.start()
