"""Credentials at a real embedded server: expiry, revocation, restarts, TLS, and the way from open to guarded."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import stat
import time
from base64 import b32encode
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from nats.errors import Error as NatsError

from jetway.adapters.authority import nats_accounts as claims
from jetway.adapters.authority.nats_jwt import read
from jetway.adapters.authority.nats_keys import load_or_create_nats_keys
from jetway.adapters.nats.accounts import Accounts
from jetway.adapters.nats.connection import Connection, ConnectionOptions
from jetway.adapters.nats.jetstream import JetStream
from jetway.adapters.nats.server import EmbeddedServer
from jetway.adapters.nats.storedir import OPEN_ACCOUNT
from jetway.core.creds import creds_text
from jetway.core.errors import PortError, StartupError
from jetway.core.grants import GrantNames
from jetway.core.ids import Lineage, ServiceType
from support.builders import FakeClock
from support.internet import require_turned_away
from support.nats_server import settled
from support.ports import free_port
from support.secured_nats import CLOCK, Host, SecuredNats, secured_nats

AGENT = Lineage(ServiceType.AGENT, "p1", "a1")
OTHER = Lineage(ServiceType.AGENT, "p1", "a2")
SECOND = timedelta(seconds=1)


@pytest.fixture
async def secured(tmp_path: Path) -> AsyncIterator[SecuredNats]:
    async with secured_nats(tmp_path) as server:
        yield server


async def gone(host: Host) -> None:
    """Until the server has dropped it."""
    async with asyncio.timeout(30):
        while not host.client.is_closed:  # noqa: ASYNC110 - there is nothing to wait on
            await asyncio.sleep(0.01)


async def dropped_within_a_second(secured: SecuredNats, told: dict[str, datetime]) -> Path:
    """Revoke a host that is connected, beside those `told`; its credentials.

    A machine that is busy may keep this process waiting for longer: then another host is revoked, and so on, and
    one of three is dropped in time.
    """
    took: list[float] = []
    for _ in range(3):
        key, file = secured.write_creds(AGENT)
        host = await secured.connect(file)
        told[key] = CLOCK.now()
        await secured.account.publish_revocations(told)
        began = time.monotonic()
        await gone(host)
        took.append(time.monotonic() - began)
        if took[-1] < 1.0:
            return file
    raise AssertionError(f"each was dropped only after {took} s")


async def refused(secured: SecuredNats, file: Path | None) -> None:
    with pytest.raises((NatsError, OSError)) as caught:
        await secured.connect(file)
    require_turned_away(caught.value)


def some_keys(count: int, revoked_at: datetime) -> dict[str, datetime]:
    """Public keys of users that never were."""
    return {"U" + b32encode(secrets.token_bytes(35)).decode()[:55]: revoked_at for _ in range(count)}


async def until_it_runs_again(secured: SecuredNats) -> None:
    async with asyncio.timeout(60):
        while not (  # noqa: ASYNC110 - there is nothing to wait on
            secured.server.restarts and secured.server.running and secured.gateway.connected
        ):
            await asyncio.sleep(0.02)


async def test_nobody_gets_in_without_credentials(secured: SecuredNats, tmp_path: Path) -> None:
    await refused(secured, None)
    async with secured_nats(tmp_path / "another") as another:
        _, foreign = another.write_creds(AGENT)
        await refused(secured, foreign)


async def test_credentials_that_have_expired_let_nobody_in_and_keep_nobody_in(secured: SecuredNats) -> None:
    _, expired = secured.write_creds(AGENT, now=CLOCK.now() - timedelta(days=2))
    await refused(secured, expired)

    _, short = secured.write_creds(OTHER, lifetime=10 * SECOND)
    host = await secured.connect(short)
    await gone(host)
    await asyncio.sleep(1.1)  # within the very second of their end it lets somebody in, and drops him at once
    await refused(secured, short)


async def test_a_revoked_host_is_dropped_within_a_second_and_stays_out_over_restarts(
    secured: SecuredNats,
) -> None:
    bystander = await secured.host(OTHER)

    file = await dropped_within_a_second(secured, {})

    await refused(secured, file)
    assert bystander.client.is_connected
    assert secured.gateway.reconnects == secured.edge.reconnects == 0

    assert secured.server.pid is not None
    os.kill(secured.server.pid, signal.SIGKILL)
    await until_it_runs_again(secured)
    await refused(secured, file)

    await secured.server.stop()
    await secured.server.start()  # as a new daemon does: the claims are written anew
    await refused(secured, file)
    await secured.host(OTHER)


async def test_a_key_whose_revocation_is_taken_back_or_older_is_welcome(secured: SecuredNats) -> None:
    key, file = secured.write_creds(AGENT)
    await secured.account.publish_revocations({key: CLOCK.now() - timedelta(hours=1)})
    await secured.connect(file)
    await secured.account.publish_revocations({key: CLOCK.now()})
    await refused(secured, file)
    await secured.account.publish_revocations({})  # in the same second as the one before
    await secured.connect(file)


async def test_thousands_of_revocations_are_told_at_once(secured: SecuredNats) -> None:
    revoked = {secured.users.new_user()[0]: CLOCK.now() for _ in range(3000)}
    await dropped_within_a_second(secured, revoked)


async def test_as_many_revocations_as_can_be_named_are_taken_and_stand_after_a_restart(
    secured: SecuredNats,
) -> None:
    now = CLOCK.now()
    key, file = secured.write_creds(AGENT)
    host, bystander = await secured.connect(file), await secured.host(OTHER)
    await secured.account.publish_revocations({**some_keys(claims.MOST_REVOCATIONS - 1, now), key: now})
    await gone(host)
    assert bystander.client.is_connected

    await secured.server.stop()
    await secured.server.start()
    await refused(secured, file)
    await secured.host(OTHER)


async def test_many_more_are_taken_and_void_what_is_older_for_all(secured: SecuredNats) -> None:
    now = CLOCK.now()
    before, long_before = now - timedelta(days=1), now - timedelta(days=2)
    key, file = secured.write_creds(AGENT, now=long_before, lifetime=timedelta(days=9))
    host, renewed = await secured.connect(file), await secured.host(OTHER)
    many = {**some_keys(10_000, now), **some_keys(300_000, before)}
    await secured.account.publish_revocations({**many, key: before})
    await gone(host)
    await refused(secured, file)
    assert renewed.client.is_connected


async def test_beyond_the_most_that_can_be_told_older_credentials_are_void_altogether(
    secured: SecuredNats, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "MOST_REVOCATIONS", 3)
    now = CLOCK.now()
    old, older = now - timedelta(days=2), now - timedelta(days=3)
    first, early = secured.write_creds(AGENT, now=older, lifetime=timedelta(days=9))
    _, unrevoked_and_old = secured.write_creds(OTHER, now=older, lifetime=timedelta(days=9))
    new, more = ({secured.users.new_user()[0]: at for _ in range(2)} for at in (now, old))

    await secured.account.publish_revocations({**new, **more, first: old})

    await refused(secured, early)
    await refused(secured, unrevoked_and_old)
    await secured.host(OTHER)  # renewed since


async def test_a_server_that_is_away_cannot_be_told(secured: SecuredNats) -> None:
    account = secured.account
    await secured.server.stop()
    with pytest.raises(PortError):
        await account.publish_revocations({})


async def test_claims_that_the_server_does_not_take_are_an_error(
    secured: SecuredNats, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(secured.accounts, "edge_jwt", lambda revoked: "no.jwt.this")
    with pytest.raises(PortError, match="refused"):
        await secured.account.publish_revocations({})


async def test_the_operators_tools_get_in_and_a_deleted_file_locks_its_copies_out(
    secured: SecuredNats, tmp_path: Path
) -> None:
    file = tmp_path / "nats" / "admin.creds"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    admin = await secured.connect(file)
    assert b"KV_registry" in (await admin.client.request("$JS.API.STREAM.NAMES", timeout=30)).data
    first = file.read_bytes()
    copy = tmp_path / "copy.creds"
    copy.write_bytes(first)

    await secured.server.stop()
    await secured.server.start()
    assert file.read_bytes() == first
    await secured.server.stop()
    file.unlink()
    await asyncio.sleep(1.1)  # JWTs count in seconds
    await secured.server.start()
    await secured.connect(file)
    await refused(secured, copy)


def test_a_clock_that_was_ahead_when_the_tools_file_was_made_keeps_nobody_out(tmp_path: Path) -> None:
    keys, clock = load_or_create_nats_keys(tmp_path / "keys", first_time=True), FakeClock()
    accounts = Accounts(tmp_path / "nats", keys, GrantNames(), clock)
    clock.advance(3600)
    accounts.prepare()
    clock.advance(-3600)
    accounts.prepare()
    gateway = read((tmp_path / "nats" / "accounts" / f"{keys.gateway.public}.jwt").read_text())
    assert gateway["nats"]["revocations"]["*"] < clock.now().timestamp()


async def test_the_daemon_gets_in_again_where_the_tools_file_was_deleted_while_it_ran(
    secured: SecuredNats, tmp_path: Path
) -> None:
    (tmp_path / "nats" / "admin.creds").unlink()
    await asyncio.sleep(1.1)  # JWTs count in seconds
    assert secured.server.pid is not None
    os.kill(secured.server.pid, signal.SIGKILL)
    async with asyncio.timeout(60):
        while not (  # noqa: ASYNC110 - there is nothing to wait on
            secured.gateway.reconnects and secured.edge.reconnects and secured.gateway.connected
        ):
            await asyncio.sleep(0.02)
    assert (tmp_path / "nats" / "admin.creds").exists()


async def test_trusted_senders_are_heard_with_the_edge_hosts(secured: SecuredNats, tmp_path: Path) -> None:
    heard: list[str] = []
    await secured.edge.subscribe("edge.heartbeat.>", lambda message: heard.append(message.subject))
    await secured.edge.publish("edge.heartbeat.echo")
    admin = await secured.connect(tmp_path / "nats" / "admin.creds")
    host = await secured.host(AGENT)
    await admin.publish("edge.heartbeat.relay")
    await admin.client.flush()
    await host.publish("edge.heartbeat.agent.p1.a1")
    await host.client.flush()
    async with asyncio.timeout(30):
        while len(heard) < 3:  # noqa: ASYNC110 - there is nothing to wait on
            await asyncio.sleep(0.01)
    assert set(heard) == {"edge.heartbeat.echo", "edge.heartbeat.relay", "edge.heartbeat.agent.p1.a1"}


async def test_the_daemon_among_edge_hosts_hears_them_answers_them_and_no_more(secured: SecuredNats) -> None:
    """One mistake in it is not yet the right to speak as anybody to anybody there."""
    file = secured.folder / "listener.creds"
    file.write_text(creds_text(secured.accounts.listener().jwt(), secured.accounts._user.seed))
    listener = await secured.connect(file, "_INBOX")
    host = await secured.host(AGENT)
    heard = await listener.client.subscribe("edge.heartbeat.>")
    await listener.client.subscribe("jetway.renew.>")
    await settled(listener.client)
    inbox = "_INBOX_agent_p1_a1.1"
    answers = await host.client.subscribe(inbox)
    await host.publish("edge.heartbeat.agent.p1.a1", inbox)
    message = await heard.next_msg(timeout=30)
    await message.respond(b"heard")
    assert (await answers.next_msg(timeout=30)).data == b"heard"
    await listener.publish("edge.heartbeat.echo")
    for subject in (
        inbox,  # it was answered already
        "_INBOX_poller_p1.1",
        "edge.heartbeat.agent.p1.a1",
        "edge.config.pollers.p1",
        "$JS.API.DIRECT.GET.KV_config_watch.$KV.config_watch.config.pollers.p1",
    ):
        await listener.publish(subject)
    for subject in (">", "edge.config.>", "_INBOX_agent_p1_a1.>"):
        await listener.subscribe(subject)
    denied = await listener.denied()
    assert {subject.lower() for subject in denied["publish"]} == {
        inbox.lower(),
        "_inbox_poller_p1.1",
        "edge.heartbeat.agent.p1.a1",
        "edge.config.pollers.p1",
        "$js.api.direct.get.kv_config_watch.$kv.config_watch.config.pollers.p1",
        "the.last.one",
    }
    assert {subject.lower() for subject in denied["subscription"]} == {
        ">",
        "edge.config.>",
        "_inbox_agent_p1_a1.>",
    }


async def test_one_host_has_only_so_many_subscriptions(secured: SecuredNats) -> None:
    host = await secured.host(AGENT)
    for _ in range(40):
        await host.client.subscribe("edge.config.pollers.p1.agents.a1")
    await gone(host)
    assert "maximum subscriptions" in str(host.client.last_error)


async def test_one_host_that_sends_a_message_beyond_its_size_is_dropped(secured: SecuredNats) -> None:
    heard: list[int] = []
    await secured.edge.subscribe("edge.heartbeat.>", lambda message: heard.append(len(message.data)))
    await secured.edge.request("$JS.API.DIRECT.GET.KV_config_watch.$KV.config_watch.config.x", timeout=30)
    host = await secured.host(AGENT)
    await host.client.publish("edge.heartbeat.agent.p1.a1", bytes(64 * 1024))
    await host.client.publish("edge.heartbeat.agent.p1.a1", bytes(64 * 1024 + 1))
    await gone(host)
    await secured.edge.publish("edge.heartbeat.echo")
    async with asyncio.timeout(30):
        while 0 not in heard:  # noqa: ASYNC110 - there is nothing to wait on
            await asyncio.sleep(0.01)
    assert heard == [64 * 1024, 0], "what came after is the echo"


async def test_the_data_go_along_from_open_to_guarded_and_back(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path, f"127.0.0.1:{free_port()}", CLOCK)
    await server.start()
    connection = Connection(ConnectionOptions((server.url,)), CLOCK)
    await connection.connect()
    stream = {"name": "KV_x", "subjects": ["$KV.x.>"], "storage": "file", "allow_direct": True}
    await JetStream(connection).call("STREAM.CREATE.KV_x", stream)
    for number in range(100):
        await JetStream(connection).publish(f"$KV.x.{number}", b"before")
    await JetStream(connection).call(
        "CONSUMER.CREATE.KV_x.d",
        {"stream_name": "KV_x", "config": {"durable_name": "d", "ack_policy": "all"}},
    )
    await connection.close()
    await server.stop()

    async with secured_nats(tmp_path) as secured:
        stored = await secured.jetstream.read_last("KV_x", "$KV.x.99")
        assert stored is not None
        assert (stored.sequence, stored.data) == (100, b"before")
        assert (await secured.jetstream.call("CONSUMER.INFO.KV_x.d"))["num_pending"] == 100
        assert await secured.jetstream.publish("$KV.x.99", b"after", expected=100) == 101
    assert not (tmp_path / "nats" / "jetstream" / OPEN_ACCOUNT).exists()

    await server.start()
    connection = Connection(ConnectionOptions((server.url,)), CLOCK)
    await connection.connect()
    stored = await JetStream(connection).read_last("KV_x", "$KV.x.99")
    assert stored is not None and stored.data == b"after"
    assert not (tmp_path / "nats" / "admin.creds").exists()
    await connection.close()
    await server.stop()


async def test_data_of_two_accounts_are_not_mixed(tmp_path: Path) -> None:
    for account in (OPEN_ACCOUNT, "A" * 56):
        (tmp_path / "nats" / "jetstream" / account / "streams" / "KV_x").mkdir(parents=True)
    secured = SecuredNats(tmp_path)
    with pytest.raises(StartupError, match="several NATS accounts have data"):
        await secured.server.start()
    assert len(list((tmp_path / "nats" / "jetstream").glob("*/streams/KV_x"))) == 2
