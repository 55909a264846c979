"""Credentials that last for seconds: `jetway run` renews them, over and over, and nobody lifts a hand."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from support.daemon import Daemon, eventually
from support.internet import EdgeHost, internet, is_let_in
from support.ports import free_port

# nats-py leaves the socket of a connection that was refused to the collector, whenever that comes.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")

NewDaemon = Callable[..., Daemon]

LIFETIME = 30
"""Seconds: the renewal at two thirds of it has some left on a slow machine."""
SETTINGS = {
    "JETWAY_IDENTITY__CREDENTIALS_LIFETIME": f"{LIFETIME}s",
    "JETWAY_IDENTITY__CERTIFICATE_LIFETIME": f"{LIFETIME}s",
}


def newcomer(daemon: Daemon, tmp_path: Path, name: str = "site-a") -> EdgeHost:
    token = daemon.json_of("package", "create", "poller", name, "--heartbeat-interval", "1s")["token"]
    return EdgeHost(tmp_path / name).joined(token)


def require(condition: bool, why: str = "") -> None:
    assert condition, why


async def test_credentials_are_renewed_before_they_end(new_daemon: NewDaemon, tmp_path: Path) -> None:
    daemon = new_daemon(**internet(**SETTINGS))
    host = newcomer(daemon, tmp_path)
    first = shutil.copy(host.creds, tmp_path / "first.creds")
    first_certificate = host.certificate
    key = (host.folder / "key.pem").read_bytes()
    assert await is_let_in(host, first)

    with host.running():
        await asyncio.to_thread(eventually, lambda: require(len(host.said("credentials_renewed")) >= 2), 120)
        await asyncio.to_thread(eventually, lambda: require(len(host.said("connected")) >= 3))
        seen = daemon.service("poller", "site-a")["last_seen"]
        await asyncio.to_thread(
            eventually, lambda: require(daemon.service("poller", "site-a")["liveness"] == "online")
        )
        await asyncio.to_thread(
            eventually, lambda: require(daemon.service("poller", "site-a")["last_seen"] > seen)
        )
        # JWTs count in seconds: within the second of its end one is let in, and dropped at once.
        ended = first_certificate.not_valid_after_utc + timedelta(seconds=2)
        await asyncio.to_thread(eventually, lambda: require(datetime.now(UTC) > ended))
        assert await is_let_in(host), "a renewed credential works"
        assert not await is_let_in(host, first), "an expired one does not"
        assert (
            first_certificate.not_valid_after_utc < datetime.now(UTC) < host.certificate.not_valid_after_utc
        )
        assert host.certificate.public_key() == first_certificate.public_key()
    assert (host.folder / "key.pem").read_bytes() == key
    assert not host.said("renewal_failed")
    unreachable = [line["reason"] for line in host.said("nats_unreachable")]
    assert not [reason for reason in unreachable if "timeout" not in reason.lower()], (
        "it was never turned away"
    )

    def told() -> None:
        path = "/api/admin/services/pollers/site-a/events"
        events = [each["event_type"] for each in daemon.get(path)["items"]]
        assert events.count("renewed") >= 2
        assert "deactivated" not in events

    eventually(told)


async def test_a_host_that_was_off_for_longer_comes_back_over_https(
    new_daemon: NewDaemon, tmp_path: Path
) -> None:
    daemon = new_daemon(**internet(**SETTINGS))
    host = newcomer(daemon, tmp_path)
    await asyncio.to_thread(time.sleep, LIFETIME + 2)
    assert not await is_let_in(host)
    with host.running():
        await asyncio.to_thread(
            eventually, lambda: require(daemon.service("poller", "site-a")["status"] == "active")
        )
    assert await is_let_in(host)


async def test_an_open_gateway_gives_credentials_once_it_asks_for_them(
    new_daemon: NewDaemon, tmp_path: Path
) -> None:
    """Hosts that joined when it asked nobody have none: with their keys they get some."""
    settings = internet(JETWAY_NATS__LISTEN=f"127.0.0.1:{free_port()}", JETWAY_NATS__PUBLIC_URLS="[]")
    daemon = new_daemon(**settings)
    host = newcomer(daemon, tmp_path)
    assert not host.creds.exists()
    with host.running():
        await asyncio.to_thread(
            eventually, lambda: require(daemon.service("poller", "site-a")["status"] == "active")
        )
        assert daemon.stop() == 0
        daemon.settings["JETWAY_NATS__CREDENTIALS"] = "required"
        daemon.start()
        # It tries ever more seldom, up to once a minute, and the restart may have taken a while.
        await asyncio.to_thread(eventually, lambda: require(host.creds.exists()), 240)
        restarted = datetime.now(UTC).isoformat()
        await asyncio.to_thread(
            eventually, lambda: require(daemon.service("poller", "site-a")["last_seen"] > restarted), 120
        )


def test_a_revoked_host_says_so_and_falls_silent(new_daemon: NewDaemon, tmp_path: Path) -> None:
    daemon = new_daemon(**internet())
    host = newcomer(daemon, tmp_path)
    with host.running():
        eventually(lambda: require(daemon.service("poller", "site-a")["status"] == "active"))
        package = daemon.service("poller", "site-a")["package_id"]
        daemon.json_of("package", "revoke", package, "--reason", "stolen", "--yes")
        eventually(lambda: require(bool(host.said("service_revoked"))), 60)
        assert len(host.said("service_revoked")) == 1
        token = daemon.json_of("package", "reissue", package)["token"]
        host.joined(token)
        # The program that runs takes up what the new join wrote.
        eventually(lambda: require(daemon.service("poller", "site-a")["status"] == "active"), 60)
    once = EdgeHost(next(host.folder.glob("backup-*"))).once()
    assert once.returncode == 1
    assert "revoked this identity" in once.stderr
