"""The daemon's way to NATS: embedded and guarded, with TLS by either authority, and somebody else's servers."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import nats
import pytest

from jetway.adapters.authority.ca import load_or_create_authority
from jetway.adapters.authority.nats_jwt import read
from jetway.adapters.authority.server_certificate import server_certificate
from jetway.adapters.clock import SystemClock
from jetway.adapters.nats.certificate import CertificateKeeper
from jetway.core.creds import creds_text
from jetway.core.errors import StartupError
from jetway.core.ids import Lineage, ServiceType
from jetway.nats_link import (
    NatsLink,
    external_nats,
    nats_certificate,
    open_nats,
    running_nats,
    start_embedded_nats,
    start_private_nats,
)
from jetway.settings import Settings
from jetway.tasks import Releases
from support.nats_server import settled
from support.ports import free_port
from support.secured_nats import CLOCK, SecuredNats, secured_nats

FLOOD = 20_000
AGENT = Lineage(ServiceType.AGENT, "p1", "a1")


@pytest.fixture
async def releases() -> Any:
    held = Releases()
    yield held
    await held.all()


def settings_of(state: Path, **nats: Any) -> Settings:
    return Settings.model_validate({"state_dir": state, "nats": nats})


async def embedded(settings: Settings, releases: Releases) -> NatsLink:
    way = await start_embedded_nats(settings, releases, nats_certificate(settings, SystemClock()))
    return await open_nats(settings, way, releases)


async def test_an_open_server_issues_nothing(tmp_path: Path, releases: Releases) -> None:
    link = await embedded(settings_of(tmp_path, listen="127.0.0.1:0"), releases)
    assert not link.way.authority.issues and "asks for no credentials" in link.way.authority.why_not
    assert not link.way.account.can_revoke
    assert not (tmp_path / "keys").exists()
    assert not (tmp_path / "nats" / "admin.creds").exists()


@pytest.mark.parametrize("credentials", ["none", "required"])
async def test_answers_of_the_ledger_do_not_wait_behind_heartbeats(
    tmp_path: Path, releases: Releases, credentials: str
) -> None:
    """However many there are, and however little time there is to handle them."""
    link = await embedded(settings_of(tmp_path, listen="127.0.0.1:0", credentials=credentials), releases)
    handled = 0

    def slow(_message: object) -> None:
        nonlocal handled
        handled += 1
        time.sleep(0.0005)

    await link.edge.subscribe("edge.heartbeat.>", slow)
    creds = tmp_path / "nats" / "admin.creds"
    sender = await nats.connect(link.urls[0], user_credentials=str(creds) if creds.exists() else None)
    for _ in range(FLOOD):
        await sender.publish("edge.heartbeat.poller.p1", b"x" * 100)
    await settled(sender)
    await link.jetstream.call("INFO")
    assert handled < FLOOD
    await sender.close()


async def test_each_connection_is_missed(tmp_path: Path, releases: Releases) -> None:
    """Without the one nothing is written, without the other nobody is heard: neither is ready."""
    link = await embedded(settings_of(tmp_path, listen="127.0.0.1:0"), releases)
    assert link.connected and not link.trouble
    await link.edge.close()
    assert not link.connected and "no heartbeat is heard" in link.trouble
    await link.connection.close()
    assert "writes are refused" in link.trouble


async def test_a_guarded_server_has_two_accounts(tmp_path: Path, releases: Releases) -> None:
    settings = settings_of(tmp_path, listen="127.0.0.1:0", credentials="required")
    link = await embedded(settings, releases)
    assert link.edge is not link.connection
    assert link.connected and link.way.authority.issues and link.way.account.can_revoke
    assert link.way.ca_pem == ""
    way = running_nats(settings, link.urls)
    local = await open_nats(settings, way, releases)
    assert local.meta == link.meta


async def test_tls_by_the_gateways_own_authority_and_exchanged(tmp_path: Path, releases: Releases) -> None:
    port = free_port()
    settings = settings_of(tmp_path, listen=f"0.0.0.0:{port}", public_urls=[f"tls://nats.example:{port}"])
    link = await embedded(settings, releases)
    root = load_or_create_authority(tmp_path / "keys", CLOCK.now()).root_pem
    assert link.way.ca_pem == root
    assert link.urls == (f"tls://127.0.0.1:{port}",)
    keeper, server = link.way.certificate, link.way.server
    assert keeper is not None and server is not None
    shown = await _shown(port, root)
    assert await keeper.reload(server)
    for _ in range(500):
        if (other := await _shown(port, root)) != shown:
            break
    assert other != shown
    assert link.connected and link.connection.reconnects == 0


async def test_tls_by_given_files(tmp_path: Path, releases: Releases) -> None:
    authority = load_or_create_authority(tmp_path / "elsewhere", CLOCK.now())
    certificate, key = server_certificate(authority, ["nats.example"], CLOCK.now())
    (tmp_path / "cert.pem").write_text(certificate)
    (tmp_path / "key.pem").write_text(key)
    (tmp_path / "ca.pem").write_text(authority.root_pem)
    port = free_port()
    settings = settings_of(
        tmp_path / "state",
        listen=f"0.0.0.0:{port}",
        public_urls=[f"tls://nats.example:{port}"],
        tls_cert=tmp_path / "cert.pem",
        tls_key=tmp_path / "key.pem",
        tls_ca=tmp_path / "ca.pem",
    )
    link = await embedded(settings, releases)
    assert link.way.ca_pem == authority.root_pem
    assert link.connected


async def test_without_a_daemon_the_same_ledger_is_reached_in_private(
    tmp_path: Path, releases: Releases
) -> None:
    settings = settings_of(tmp_path, listen="0.0.0.0:1", public_urls=["tls://nats.example:1"])
    link = await open_nats(settings, await start_private_nats(settings, releases), releases)
    assert link.urls[0].startswith("nats://127.0.0.1:")
    assert link.edge is not link.connection


async def test_a_certificate_that_cannot_be_loaded_is_told_at_the_start(
    tmp_path: Path, releases: Releases
) -> None:
    settings = settings_of(
        tmp_path, listen="127.0.0.1:0", tls_cert=tmp_path / "none.pem", tls_key=tmp_path / "none.pem"
    )
    with pytest.raises(StartupError, match=r"nats\.tls_cert"):
        await embedded(settings, releases)


async def test_a_broken_renewal_keeps_the_old_certificate(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, listen="192.0.2.1:4222")
    source = nats_certificate(settings, SystemClock())
    assert source is not None
    keeper = CertificateKeeper(source, tmp_path / "nats")
    await keeper.load()
    (tmp_path / "nats" / "ca.pem").unlink()
    (tmp_path / "nats" / "ca.pem").mkdir()
    assert not await keeper.reload(None)  # type: ignore[arg-type]  # it does not come so far


async def test_somebody_elses_servers_with_accounts_of_their_own(tmp_path: Path, releases: Releases) -> None:
    """The external servers are played by an embedded one; the signing key is its edge account's own."""
    async with secured_nats(tmp_path / "theirs") as theirs:
        settings = _theirs(tmp_path, theirs)
        way = external_nats(settings)
        assert way.authority.issues and not way.account.can_revoke
        link = await open_nats(settings, way, releases)
        assert link.edge is not link.connection
        public, seed = way.authority.new_user()
        jwt = way.authority.issue(
            public_key=public, lineage=AGENT, watch=False, now=CLOCK.now(), lifetime=timedelta(hours=1)
        )
        assert read(jwt)["iss"] == theirs.keys.edge.public
        heard: list[str] = []
        await link.edge.subscribe("edge.heartbeat.>", lambda message: heard.append(message.subject))
        await _caught_up(link)
        file = tmp_path / "a1.creds"
        file.write_text(creds_text(jwt, seed))
        host = await theirs.connect(file, "_INBOX_agent_p1_a1")
        for subject in ("edge.heartbeat.agent.p1.a1", "edge.heartbeat.agent.p1.a2"):
            await host.publish(subject)
        assert (await host.denied())["publish"] == {"edge.heartbeat.agent.p1.a2", "the.last.one"}
        await _caught_up(link)
        assert heard == ["edge.heartbeat.agent.p1.a1"]


def test_without_a_signing_key_nothing_is_issued_and_that_is_said(tmp_path: Path) -> None:
    way = external_nats(settings_of(tmp_path, mode="external", urls=["nats://192.0.2.1:4222"]))
    assert not way.authority.issues
    assert "account_signing_key_file is not set" in way.authority.why_not


def _theirs(tmp_path: Path, theirs: SecuredNats) -> Settings:
    """What their operator would hand out: two .creds files and a signing key."""
    listener = tmp_path / "listener.creds"
    user = theirs.accounts._user
    listener.write_text(creds_text(theirs.accounts.listener().jwt(), user.seed))
    key = tmp_path / "account.nk"
    key.touch(0o600)
    key.write_text(theirs.keys.edge.seed)
    return settings_of(
        tmp_path / "ours",
        mode="external",
        urls=[theirs.server.url],
        creds_file=tmp_path / "theirs" / "nats" / "admin.creds",
        edge_creds_file=listener,
        account=theirs.keys.edge.public,
        account_signing_key_file=key,
    )


async def _caught_up(link: NatsLink) -> None:
    """Whatever was sent to the daemon among edge hosts until now has come."""
    client = link.edge._client
    assert client is not None
    await settled(client)


async def _shown(port: int, root: str) -> bytes:
    """The certificate that a new connection sees. NATS begins TLS after its greeting."""
    context = ssl.create_default_context(cadata=root)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    greeting = await reader.readline()
    assert json.loads(greeting.removeprefix(b"INFO "))["tls_required"]
    await writer.start_tls(context, server_hostname="nats.example")
    shown: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return shown
