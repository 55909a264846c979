"""Renewal on a real gateway whose NATS asks for credentials: over NATS, and over HTTP for who was off."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client

from jetway.adapters.authority.nats_jwt import read
from jetway.adapters.authority.nkeys import Kind, NatsKey
from jetway.core.ids import Lineage, ServiceType
from jetway.core.renewal import RenewalAnswer, RenewalRefusal, make_request, parse_answer, renewal_subject
from support.daemon import SERVICES, Daemon, eventually, jetway
from support.nats_server import settled

SITE = Lineage(ServiceType.POLLER, "site-a")


class Host:
    """A joined host: its folder, and the keys that it made."""

    def __init__(self, folder: Path) -> None:
        (file,) = folder.glob("keys-*.json")
        made = json.loads(file.read_text())
        self.key = NatsKey.from_seed(made["nats_seed"], Kind.USER)
        self.csr_pem: str = made["csr_pem"]
        self.folder = folder
        self.url: str = json.loads((folder / "service.json").read_text())["nats"]["urls"][0]

    def request(self, signer: NatsKey | None = None) -> bytes:
        return make_request(
            SITE,
            nats_public_key=self.key.public,
            now=datetime.now(UTC),
            sign=(signer or self.key).sign,
            csr_pem=self.csr_pem,
        )

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[Client]:
        client = Client()
        await client.connect(
            self.url,
            user_credentials=str(self.folder / "nats.creds"),
            allow_reconnect=False,
            connect_timeout=30,
            inbox_prefix=SITE.inbox_prefix.removesuffix(".").encode(),
        )
        try:
            yield client
        finally:
            await client.close()


@pytest.fixture
def daemon(new_daemon: Callable[..., Daemon]) -> Daemon:
    return new_daemon(JETWAY_NATS__CREDENTIALS="required")


@pytest.fixture
def host(daemon: Daemon, tmp_path: Path) -> Host:
    folder = tmp_path / "edge"
    token = daemon.create("poller", "site-a")["token"]
    done = jetway("join", "--dir", str(folder), given=token)
    assert done.returncode == 0, done.stderr
    return Host(folder)


def jwt_of(creds: str) -> dict[str, Any]:
    return read(creds.split("-----")[2].strip())


async def test_a_host_renews_over_nats_and_the_new_credentials_work(daemon: Daemon, host: Host) -> None:
    await asyncio.sleep(1.1)  # JWTs count in seconds
    async with host.connected() as client:
        reply = await client.request(renewal_subject(SITE), host.request(), timeout=30)
        answer = parse_answer(reply.data)
        assert isinstance(answer, RenewalAnswer)
        assert "BEGIN CERTIFICATE" in answer.certificate_pem
        stranger = await client.request(
            renewal_subject(SITE), host.request(NatsKey.generate(Kind.USER)), timeout=30
        )
        assert parse_answer(stranger.data) == RenewalRefusal(
            error="proof_invalid",
            detail="this is not the key of a service that may renew its credentials",
        )
        await client.publish(renewal_subject(SITE), host.request(), reply="$KV.registry.poller.site-a")
        await settled(client)
    old = (host.folder / "nats.creds").read_text()
    new = answer.creds + old[old.index("-----BEGIN USER NKEY SEED") :]
    before, after = jwt_of(old), jwt_of(new)
    assert after != before
    assert after["exp"] >= before["exp"]
    assert (after["sub"], after["nats"]) == (before["sub"], before["nats"])
    (host.folder / "nats.creds").write_text(new)
    async with host.connected() as client:
        await client.publish(SITE.subject("edge.heartbeat"), b"")
        await settled(client)

    def told(event_type: str) -> int:
        return int(daemon.get(f"{SERVICES}/pollers/site-a/events?type={event_type}")["total"])

    def all_done() -> None:
        """What was asked for elsewhere was turned away, and what was done after it is in the trail."""
        assert daemon.metric("jetway_renewals_total", outcome="foreign_reply") == 1
        assert told("activated") == 1

    eventually(all_done)
    assert told("renewed") == 1, "one renewal, and none for a reply elsewhere"
    assert daemon.metric("jetway_renewals_total", outcome="renewed") == 1


async def test_a_host_that_was_off_renews_over_http_until_it_is_revoked(daemon: Daemon, host: Host) -> None:
    body = json.loads(host.request())
    answer = daemon.call("POST", "/api/edge/renew", body)
    assert answer.status == 200, answer.json
    assert answer.json["creds"]
    async with host.connected() as client:

        def revoked() -> list[str]:
            """On a busy machine the first answer may leave something, which is done when it is asked again."""
            path = f"{SERVICES}/pollers/site-a/status"
            told = daemon.call("POST", path, {"status": "revoked", "reason": "stolen"}).json
            assert told["left"] == []
            return list(told["reached"])

        assert {"nats", "crl"} <= set(await asyncio.to_thread(eventually, revoked))
        async with asyncio.timeout(30):
            while not client.is_closed:  # noqa: ASYNC110 - the library tells it in no other way
                await asyncio.sleep(0.05)
    again = daemon.call("POST", "/api/edge/renew", json.loads(host.request()))
    assert (again.status, again.json["code"]) == (410, "revoked")
