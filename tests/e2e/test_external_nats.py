"""A daemon on a NATS server that is not its own."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import nats
import pytest
from nats.aio.client import Client

from support.daemon import PACKAGES, SERVICES, Daemon, eventually, jetway, nats_key
from support.daemon_state import documents, eventually_async, history, require_all_equal
from support.nats_server import NatsServer

NewDaemon = Callable[..., Daemon]


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[NatsServer]:
    """A server that somebody else runs."""
    external = NatsServer(tmp_path / "nats")
    await external.start()
    yield external
    await external.stop()


def on(server: NatsServer, **settings: str) -> dict[str, str]:
    return {"JETWAY_NATS__MODE": "external", "JETWAY_NATS__URLS": json.dumps([server.url]), **settings}


async def test_a_service_comes_to_life_on_somebody_elses_server(
    server: NatsServer, new_daemon: NewDaemon
) -> None:
    daemon = new_daemon(**on(server))
    assert not (daemon.state / "nats").exists()
    answer = daemon.redeem(daemon.create("poller", "site-a")["token"]).json
    assert answer["nats"]["urls"] == [server.url]
    async with daemon.nats(inbox="_INBOX_poller_site-a") as client:
        told = json.loads((await client.request(answer["heartbeat"]["subject"], timeout=30)).data)
        assert told["status"] == "active"
        await eventually_async(lambda: require_all_equal(daemon, client))


async def test_a_restart_of_the_server_is_an_outage_and_loses_nothing(
    server: NatsServer, new_daemon: NewDaemon
) -> None:
    daemon = new_daemon(**on(server))
    key = nats_key()
    created = daemon.create("poller", "site-a")
    first = daemon.redeem(created["token"], nats_public_key=key)
    await server.kill()

    def refused() -> None:
        assert daemon.call("POST", PACKAGES, {"component_type": "poller", "label": "b"}).status == 503
        assert daemon.call("GET", "/readyz", token="").status == 503

    eventually(refused)
    assert daemon.service("poller", "site-a")["status"] == "pending"
    await server.start()

    def ready() -> None:
        assert daemon.call("GET", "/readyz", token="").status == 200

    eventually(ready)
    again = daemon.redeem(created["token"], nats_public_key=key)
    assert (again.status, again.body) == (200, first.body)
    async with daemon.nats(inbox="_INBOX_poller_site-a") as client:

        async def heard() -> None:
            await client.publish(first.json["heartbeat"]["subject"])
            await client.flush()
            assert daemon.service("poller", "site-a")["status"] == "active"

        await eventually_async(heard)
        daemon.create("agent", "a1", "site-a")
        await eventually_async(lambda: require_all_equal(daemon, client), 90)


async def test_a_restart_of_the_daemon_finds_all_of_it_again(
    server: NatsServer, new_daemon: NewDaemon
) -> None:
    daemon = new_daemon(**on(server))
    token = daemon.create("poller", "site-a")["token"]
    process = daemon.process
    assert process is not None
    process.kill()
    daemon.wait()
    daemon.start()
    assert daemon.redeem(token).status == 200
    async with daemon.nats() as client:
        await eventually_async(lambda: require_all_equal(daemon, client))


async def test_two_gateways_with_prefixes_share_a_server_and_see_nothing_of_each_other(
    server: NatsServer, new_daemon: NewDaemon
) -> None:
    east, west = (
        new_daemon(
            name,
            **on(
                server, JETWAY_NATS__BUCKET_PREFIX=f"{name}_", JETWAY_HEARTBEAT__SUBJECT_PREFIX=f"{name}.beat"
            ),
        )
        for name in ("east", "west")
    )
    created = east.create("poller", "site-a", site="East")
    answer = east.redeem(created["token"]).json
    east.require_written(created)
    west.require_written(west.create("poller", "site-a", site="West"))
    assert answer["config"]["bucket"] == "east_config"
    assert answer["config"]["live_subjects"][0].startswith("east_edge.config.")
    async with east.nats(inbox="_INBOX_poller_site-a") as client:
        live = await client.subscribe("east_edge.config.>")
        foreign = await client.subscribe("west_edge.config.>")
        told = json.loads((await client.request(answer["heartbeat"]["subject"], timeout=30)).data)
        assert told["status"] == "active"
        assert json.loads((await live.next_msg(timeout=30)).data)["site"] == "East"
        for prefix, site in (("east_", "East"), ("west_", "West")):
            assert {record["site"] for record in await history(client, prefix)} == {site}
            assert [d["site"] for d in (await documents(client, prefix)).values()] == [site]
        assert foreign.pending_msgs == 0
        names = set(await _stream_names(client))
    assert names == {name for name in names if name.removeprefix("KV_").startswith(("east_", "west_"))}
    assert west.service("poller", "site-a")["status"] == "pending"
    assert east.get(f"{SERVICES}/tree")["total"] == west.get(f"{SERVICES}/tree")["total"] == 1
    foreign_token = west.redeem(east.create("poller", "site-b")["token"])
    assert (foreign_token.status, foreign_token.json["code"]) == (401, "token_unknown")


async def _stream_names(client: Client) -> list[str]:
    answer = await client.request("$JS.API.STREAM.NAMES", b"", timeout=30)
    return list(json.loads(answer.data)["streams"] or [])


@asynccontextmanager
async def nats_client(url: str) -> AsyncIterator[Client]:
    client = await nats.connect(url)
    try:
        yield client
    finally:
        await client.close()


async def test_a_server_with_another_ledger_is_refused(
    server: NatsServer, new_daemon: NewDaemon, tmp_path: Path
) -> None:
    daemon = new_daemon(**on(server))
    daemon.create("poller", "site-a")
    daemon.stop()
    other = NatsServer(tmp_path / "other")
    await other.start()
    try:
        done = jetway("serve", **{**daemon.settings, **on(other)})
        assert done.returncode == 1
        line = done.stderr.strip().splitlines()[-1]
        assert "no ledger" in line
        assert json.loads((daemon.state / "ledger.json").read_bytes())["ledger_id"] in line
        async with nats_client(other.url) as client:
            assert await _stream_names(client) == []  # no new world was begun there
    finally:
        await other.stop()
    daemon.start()
    assert daemon.service("poller", "site-a")["status"] == "pending"


async def test_a_stream_that_somebody_made_otherwise_is_refused_with_the_difference(
    server: NatsServer, new_daemon: NewDaemon
) -> None:
    daemon = new_daemon(**on(server))
    daemon.stop()
    async with daemon.nats() as client:
        config = (await client.jetstream(timeout=30).stream_info("KV_registry")).config
        await client.jetstream(timeout=30).update_stream(config, max_msgs_per_subject=1)
    done = jetway("serve", **daemon.settings)
    assert done.returncode == 1
    line = done.stderr.strip().splitlines()[-1]
    for name in ("KV_registry", "max_msgs_per_subject", "64", "1"):
        assert name in line
    async with daemon.nats() as client:
        await client.jetstream(timeout=30).update_stream(config, max_msgs_per_subject=64)
    daemon.start()
