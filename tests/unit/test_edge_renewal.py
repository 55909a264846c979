"""jetway run's renewals: when, from whom, and what may never be written."""

from __future__ import annotations

import base64
import json
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from jetway.core.creds import creds_text
from jetway.core.renewal import parse_request
from jetway.edge.exchange import Answer, ExchangeError
from jetway.edge.joined import load_joined
from jetway.edge.keys import HostKeys, complete_creds, keys_file, make
from jetway.edge.link import LinkError
from jetway.edge.renewal import Renewal, RenewalError, RevokedError
from support.fake_gateway import AGENT, OTHER_PACKAGE, PACKAGE, redeem_answer
from support.tls import authority

OURS = authority()
SPIFFE = "spiffe://jetway/agent/site-a/core-switch-room"
BEGUN = datetime.now(UTC).replace(microsecond=0)
MONTH = timedelta(days=30)


def jwt(key: str, begins: datetime = BEGUN, lifetime: timedelta = MONTH) -> str:
    """Unsigned: its signature is the server's to judge."""
    claims = {
        "sub": key,
        "iat": int(begins.timestamp()),
        "exp": int((begins + lifetime).timestamp()),
    }
    return f"e30.{base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b'=').decode()}.c2ln"


class FakeLink:
    """NATS, where one answer waits, or nobody."""

    def __init__(self, answer: dict[str, Any] | None = None) -> None:
        self.answer = answer
        self.asked: list[tuple[str, bytes]] = []

    async def request(self, subject: str, data: bytes = b"") -> Any:
        self.asked.append((subject, data))
        if self.answer is None:
            raise LinkError("nobody answers")
        return type("Message", (), {"data": json.dumps(self.answer).encode()})


class Host:
    """A joined folder, its time, and the gateway that it reaches over HTTPS."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.keys: HostKeys = make(PACKAGE, 1, "core-switch-room")
        self.now = BEGUN
        self.posted: list[bytes] = []
        self.reply: Answer | ExchangeError = ExchangeError("nobody is there")
        keys_file(folder, PACKAGE).write_text(json.dumps(asdict(self.keys)))
        (folder / "nats.creds").write_text(
            complete_creds(jwt(self.keys.nats_public_key), self.keys.nats_seed)
        )
        self.write_service(PACKAGE)
        self.renewal = Renewal(
            folder, load_joined(folder), lambda: 0.5, now=lambda: self.now, send=self._send
        )

    def write_service(self, package: str) -> None:
        answer = redeem_answer(package_id=package)
        answer["gateway"] = {"url": "http://127.0.0.1:1", "ca_pin": ""}
        (self.folder / "service.json").write_text(json.dumps(answer))

    def certify(self) -> str:
        issued = OURS.issue(self.keys.csr_pem, SPIFFE, BEGUN, MONTH)
        (self.folder / "key.pem").write_text(self.keys.key_pem)
        (self.folder / "certificate.pem").write_text(issued.pem)
        return issued.pem

    def answer(self, **more: str) -> dict[str, Any]:
        new = creds_text(jwt(self.keys.nats_public_key, self.now))
        return {"creds": new, "certificate_pem": "", "ca_pem": "", "expires_at": None, **more}

    @property
    def creds(self) -> str:
        return (self.folder / "nats.creds").read_text()

    def _send(self, *_: Any, body: bytes, **__: Any) -> Answer:
        self.posted.append(body)
        if isinstance(self.reply, ExchangeError):
            raise self.reply
        return self.reply


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_due_when_about_two_thirds_are_over(host: Host) -> None:
    due = host.renewal.due_in()
    assert due is not None
    assert 0.6 * MONTH.total_seconds() <= due <= 0.73 * MONTH.total_seconds()
    assert not host.renewal.expired
    host.now = BEGUN + MONTH
    assert host.renewal.expired


async def test_new_credentials_replace_the_old_ones_and_keep_the_seed(host: Host) -> None:
    host.now = BEGUN + timedelta(days=20)
    link = FakeLink(host.answer())
    assert await host.renewal.over_nats(link)  # type: ignore[arg-type]
    assert jwt(host.keys.nats_public_key, host.now) in host.creds
    assert host.keys.nats_seed in host.creds
    assert (host.folder / "nats.creds").stat().st_mode & 0o777 == 0o600
    ((subject, data),) = link.asked
    request = parse_request(data, subject)
    assert subject == "jetway.renew.agent.site-a.core-switch-room"
    assert (request.lineage, request.nats_public_key) == (AGENT, host.keys.nats_public_key)
    assert host.keys.nats_seed.encode() not in data
    assert host.renewal.just_renewed


async def test_where_nats_is_silent_the_gateway_is_asked(host: Host) -> None:
    host.now = BEGUN + timedelta(days=20)
    host.reply = Answer(200, {}, json.dumps(host.answer()).encode())
    await host.renewal.keep(FakeLink())  # type: ignore[arg-type]
    assert jwt(host.keys.nats_public_key, host.now) in host.creds
    assert len(host.posted) == 1


@pytest.mark.parametrize("wrong", ["key", "certificate", "nonsense", "folder"])
async def test_what_is_not_this_services_is_never_written(host: Host, wrong: str) -> None:
    certificate, before = host.certify(), host.creds
    stranger = make(OTHER_PACKAGE, 1, "core-switch-room")
    answer: dict[str, Any] = host.answer()
    if wrong == "key":
        answer["creds"] = creds_text(jwt(stranger.nats_public_key))
    elif wrong == "certificate":
        answer["certificate_pem"] = OURS.issue(stranger.csr_pem, SPIFFE, BEGUN, MONTH).pem
    elif wrong == "nonsense":
        answer["creds"] = "-----BEGIN SOMETHING-----"
    else:
        host.write_service(OTHER_PACKAGE)
    with pytest.raises(RenewalError) as caught:
        await host.renewal.over_nats(FakeLink(answer))  # type: ignore[arg-type]
    assert host.keys.nats_seed not in str(caught.value)
    assert host.creds == before
    assert (host.folder / "certificate.pem").read_text() == certificate


async def test_a_revoked_identity_is_told_over_either_way(host: Host) -> None:
    host.now = BEGUN + timedelta(days=20)
    refusal = {"error": "revoked", "detail": "this identity was revoked"}
    with pytest.raises(RevokedError):
        await host.renewal.keep(FakeLink(refusal))  # type: ignore[arg-type]
    assert not host.posted, "the gateway has spoken"
    host.reply = Answer(410, {}, json.dumps({"code": "revoked", "detail": "was revoked"}).encode())
    with pytest.raises(RevokedError):
        await host.renewal.over_https()
    host.reply = Answer(503, {}, b"")
    with pytest.raises(RenewalError) as caught:
        await host.renewal.over_https()
    assert not isinstance(caught.value, RevokedError)


async def test_a_certificate_that_is_refused_does_not_cost_the_credentials(host: Host) -> None:
    host.certify()
    host.now = BEGUN + timedelta(days=25)
    link = FakeLink({"error": "key_used_before", "detail": "make a new one"})
    with pytest.raises(RenewalError):
        await host.renewal.over_nats(link)  # type: ignore[arg-type]
    link.answer = host.answer()
    assert await host.renewal.over_nats(link)  # type: ignore[arg-type]
    asked = [json.loads(data)["csr_pem"] for _, data in link.asked]
    assert "CERTIFICATE REQUEST" in asked[0]
    assert asked[1] == ""


async def test_a_lost_certificate_is_mended(host: Host) -> None:
    pem = host.certify()
    (host.folder / "certificate.pem").write_text("damaged")
    due = host.renewal.due_in()
    assert due is not None and due <= 0
    answer = host.answer(creds="", certificate_pem=pem)
    assert not await host.renewal.over_nats(FakeLink(answer)), "the connection stands"  # type: ignore[arg-type]
    assert (host.folder / "certificate.pem").read_text() == pem


def test_without_a_key_there_is_nothing_to_do(host: Host) -> None:
    (host.folder / "nats.creds").unlink()
    keys_file(host.folder, PACKAGE).unlink()
    assert host.renewal.due_in() is None
    assert not host.renewal.expired
