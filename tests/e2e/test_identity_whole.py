"""Nobody speaks for another: from the first contact to a stolen folder, with the installed commands."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from support.daemon import Answer, Daemon, eventually
from support.internet import (
    EdgeHost,
    connected,
    internet,
    is_let_in,
    revoked_serials,
    seconds_until_closed,
)

# nats-py leaves the socket of a connection that was refused to the collector, whenever that comes.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")

NewDaemon = Callable[..., Daemon]
SERVICES = {
    "site-a": ("poller",),
    "core": ("agent", "--parent", "site-a"),
    "ping": ("checker", "--parent", "core", "--checker-kind", "icmp", "--metadata", "targets=192.0.2.1"),
}
KINDS = {name: how[0] for name, how in SERVICES.items()}


def create(daemon: Daemon, name: str) -> str:
    """A package by the command; its token."""
    kind, *more = SERVICES[name]
    made = daemon.json_of("package", "create", kind, name, "--heartbeat-interval", "1s", *more)
    return str(made["token"])


def require_active(daemon: Daemon, *names: str) -> None:
    for name in names:
        assert daemon.service(KINDS[name], name)["status"] == "active", name


def require_copies(host: EdgeHost, *keys: str) -> None:
    assert host.copies() == sorted(keys)


async def test_from_a_token_to_a_stolen_folder(new_daemon: NewDaemon, tmp_path: Path) -> None:
    daemon = new_daemon(**internet())
    tokens = {name: create(daemon, name) for name in SERVICES}
    hosts = {name: EdgeHost(tmp_path / name).joined(token) for name, token in tokens.items()}
    with ExitStack() as stack:
        for name in ("site-a", "ping"):
            stack.enter_context(hosts[name].running())
        own = stack.enter_context(ExitStack())
        own.enter_context(hosts["core"].running())
        await asyncio.to_thread(eventually, lambda: require_active(daemon, *SERVICES), 40)
        await asyncio.to_thread(eventually, lambda: _require_configs(hosts))
        assert not [host.said("nats_error") for host in hosts.values() if host.said("nats_error")]

        # What it is writing at the moment may be gone when it is copied.
        unwritten = shutil.ignore_patterns(".tmp-*")
        folder = shutil.copytree(hosts["core"].folder, tmp_path / "stolen", ignore=unwritten)
        stolen = EdgeHost(Path(folder))
        serial = stolen.certificate.serial_number
        own.close()
        status = {"status": "inactive", "reason": "its folder was stolen"}
        assert daemon.call("POST", "/api/admin/services/agents/core/status", status).status == 200
        package = daemon.service("agent", "core")["package_id"]
        token = daemon.json_of("package", "reissue", package)["token"]
        assert await is_let_in(stolen), "the old identity goes when the new one comes"
        own.enter_context(hosts["core"].joined(token).running())
        await asyncio.to_thread(eventually, lambda: require_active(daemon, "core"), 40)
        await asyncio.to_thread(eventually, lambda: _require_on_list(daemon, serial))
        assert not await is_let_in(stolen)
        assert await is_let_in(hosts["core"])
    _require_refused(stolen, tokens["core"], tmp_path)


def _require_configs(hosts: dict[str, EdgeHost]) -> None:
    poller, agent = "config.pollers.site-a", "config.pollers.site-a.agents.core"
    checker = "config.agents.core.checkers.ping"
    require_copies(hosts["site-a"], poller, agent)
    require_copies(hosts["core"], agent, checker)
    require_copies(hosts["ping"], checker)


def _require_on_list(daemon: Daemon, serial: int) -> None:
    assert serial in revoked_serials(daemon)


def _require_refused(stolen: EdgeHost, token: str, tmp_path: Path) -> None:
    once = stolen.once()
    assert once.returncode == 1
    assert "revoked this identity" in once.stdout + once.stderr
    again = EdgeHost(tmp_path / "again").join(token)
    assert again.returncode == 1
    assert not (tmp_path / "again" / "service.json").exists()


async def test_a_revoked_agent_is_cut_off_and_refused_everywhere(
    new_daemon: NewDaemon, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    daemon = new_daemon(**internet())
    poller = EdgeHost(tmp_path / "site-a").joined(create(daemon, "site-a"))
    token = create(daemon, "core")
    agent = EdgeHost(tmp_path / "core").joined(token)
    checker_token = create(daemon, "ping")
    async with connected(poller) as mine, connected(agent) as client:
        subject = agent.service["heartbeat"]["subject"]
        await client.publish(subject, b"")
        await asyncio.to_thread(eventually, lambda: require_active(daemon, "core"))
        package = daemon.service("agent", "core")["package_id"]
        path = f"/api/admin/edge-packages/{package}/revoke"
        cut = asyncio.create_task(seconds_until_closed(client, 30))
        answer = await asyncio.to_thread(daemon.call, "POST", path, {"reason": "stolen"})
        seconds = await cut
        record_property("seconds from the call until the connection was closed", round(seconds, 3))
        print(f"the connection was closed {seconds * 1000:.0f} ms after the call began")
        assert answer.status == 200
        reached = await asyncio.to_thread(eventually, lambda: require_whole(daemon, path, answer))
        assert {"status", "document", "nats", "crl"} <= set(reached)
        assert not await is_let_in(agent)
        assert agent.certificate.serial_number in revoked_serials(daemon)
        refused = daemon.metric("jetway_heartbeats_refused_total", reason="revoked")
        beat = {"heartbeats": [{"service_type": "agent", "agent_id": "core"}]}
        await mine.publish("edge.heartbeat.batch.site-a", json.dumps(beat).encode())
        await mine.flush()
        await asyncio.to_thread(eventually, lambda: _require_refused_more(daemon, refused))
    for spent in (token, checker_token):
        assert daemon.redeem(spent).status == 410
    assert daemon.service("agent", "core")["status"] == "revoked"
    assert daemon.service("checker", "ping")["status"] == "revoked"
    assert agent.once().returncode == 1


def require_whole(daemon: Daemon, path: str, answer: Answer) -> list[str]:
    """What was reached, once nothing is left: on a busy machine the first answer may leave something."""
    if answer.json["left"]:
        answer = daemon.call("POST", path, {"reason": "stolen"})
    assert answer.status == 200, answer.body
    assert answer.json["left"] == []
    return list(answer.json["reached"])


def _require_refused_more(daemon: Daemon, before: float) -> None:
    assert daemon.metric("jetway_heartbeats_refused_total", reason="revoked") > before


@pytest.mark.parametrize("what", ["token", "credentials"])
async def test_two_gateways_do_not_take_each_others(new_daemon: NewDaemon, tmp_path: Path, what: str) -> None:
    mine, other = new_daemon("mine", **internet()), new_daemon("other", **internet())
    token = create(mine, "site-a")
    if what == "token":
        assert other.redeem(token).status == 401
        assert mine.redeem(token).status == 200
        return
    host = EdgeHost(tmp_path / "edge").joined(token)
    foreign = EdgeHost(tmp_path / "foreign").joined(create(other, "site-a"))
    assert await is_let_in(foreign)
    assert not await is_let_in(foreign, host.creds)
    assert foreign.service["gateway"]["ca_pin"] != host.service["gateway"]["ca_pin"]
    # A renewal asked of the other gateway: not one that this one signed in, though the name is the same.
    told = host.service
    told["gateway"], told["nats"] = foreign.service["gateway"], foreign.service["nats"]
    (host.folder / "service.json").write_text(json.dumps(told))
    before = host.creds.read_bytes()
    with host.running():
        await asyncio.to_thread(eventually, lambda: _require_not_renewed(host), 60)
    assert host.creds.read_bytes() == before


def _require_not_renewed(host: EdgeHost) -> None:
    assert any("not the key" in line["reason"] for line in host.said("renewal_failed"))
