"""jetway join: what reaches the gateway, what stands on the disk, and what never appears anywhere."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from jetway.edge.errors import EdgeError, NotJoinedError
from jetway.edge.exchange import Answer, ExchangeError, UntrustedError
from jetway.edge.join import JoinOptions, Outcome, World, join
from jetway.edge.joined import load_joined
from support.fake_gateway import (
    OTHER_PACKAGE,
    PACKAGE,
    FakeGateway,
    Reply,
    Request,
    fake_gateway,
    make_token,
    redeem_answer,
)
from support.tls import authority

OURS = authority()
SPIFFE = "spiffe://jetway/agent/site-a/core-switch-room"
JWT = "eyJh.eyJi.c2ln"
CREDS = (
    f"-----BEGIN NATS USER JWT-----\n{JWT}\n------END NATS USER JWT------\n\n"
    "-----BEGIN USER NKEY SEED-----\nSUAGC3DPAN\n------END USER NKEY SEED------\n"
)


@pytest.fixture
def gateway() -> Iterator[FakeGateway]:
    with fake_gateway() as running:
        running.queue(Reply(200, redeem_answer()))
        yield running


class Clock:
    """Time that passes when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def attempt(
    token: str, folder: Path, *, clock: Clock | None = None, **options: Any
) -> tuple[Outcome, list[str]]:
    said: list[str] = []
    clock = clock or Clock()
    world = World(sleep=clock.sleep, monotonic=lambda: clock.now, chance=lambda: 0.5)
    return join(token, JoinOptions(folder=folder, **options), said.append, world), said


def modes(folder: Path) -> dict[str, str]:
    return {path.name: oct(path.stat().st_mode & 0o777) for path in folder.iterdir()}


def test_a_token_becomes_a_joined_folder(gateway: FakeGateway, tmp_path: Path) -> None:
    folder = tmp_path / "edge"
    answer = redeem_answer(creds=CREDS)
    answer["nats"]["ca_pem"] = "-----BEGIN CERTIFICATE-----\nnats"
    answer["identity"] = {"certificate_pem": "", "ca_pem": OURS.root_pem, "spiffe_id": "x"}
    answer["from_a_newer_gateway"] = {"kept": True}

    def certified(request: Request) -> Reply:
        issued = OURS.issue(request.body["csr_pem"], SPIFFE, datetime.now(UTC), timedelta(days=1))
        answer["identity"]["certificate_pem"] = issued.pem
        return Reply(200, answer)

    gateway.answer = certified

    outcome, _ = attempt(make_token(gateway.url), folder, hostname="edge-7")

    assert not outcome.already and outcome.joined.name == "agent core-switch-room"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert modes(folder) == {
        ".join.lock": "0o600",
        f"keys-{PACKAGE}.json": "0o600",
        "service.json": "0o600",
        "nats.creds": "0o600",
        "ca.pem": "0o644",
        "identity-ca.pem": "0o644",
        "certificate.pem": "0o644",
        "key.pem": "0o600",
    }
    stored = json.loads((folder / "service.json").read_text())
    assert stored["from_a_newer_gateway"] == {"kept": True}
    assert "creds" not in stored["nats"]
    assert (folder / "nats.creds").read_text() == CREDS
    assert "PRIVATE KEY" in (folder / "key.pem").read_text()
    request = gateway.requests[0].body
    assert request["host"]["hostname"] == "edge-7" and request["host"]["os"] and request["host"]["arch"]
    assert request["nats_public_key"].startswith("U") and "CERTIFICATE REQUEST" in request["csr_pem"]


@pytest.mark.parametrize("pem", ["nonsense", OURS.root_pem, OURS.root_pem[:200]])
def test_a_certificate_for_another_key_is_not_kept(gateway: FakeGateway, tmp_path: Path, pem: str) -> None:
    answer = redeem_answer()
    answer["identity"] = {"certificate_pem": pem, "ca_pem": OURS.root_pem, "spiffe_id": SPIFFE}
    gateway.queue(Reply(200, answer))
    with pytest.raises(EdgeError, match="not one for this host's key"):
        attempt(make_token(gateway.url), tmp_path)
    assert not (tmp_path / "service.json").exists()


def test_without_credentials_there_are_no_empty_files(gateway: FakeGateway, tmp_path: Path) -> None:
    attempt(make_token(gateway.url), tmp_path)
    assert sorted(modes(tmp_path)) == [".join.lock", f"keys-{PACKAGE}.json", "service.json"]


def test_the_own_seed_completes_a_bare_jwt(gateway: FakeGateway, tmp_path: Path) -> None:
    gateway.queue(Reply(200, redeem_answer(creds=JWT)))
    attempt(make_token(gateway.url), tmp_path)
    seed = json.loads((tmp_path / f"keys-{PACKAGE}.json").read_text())["nats_seed"]
    creds = (tmp_path / "nats.creds").read_text()
    assert JWT in creds and seed in creds


def test_a_lost_reply_is_asked_for_again_with_the_same_keys(gateway: FakeGateway, tmp_path: Path) -> None:
    gateway.queue(Reply(drop=True), Reply(200, redeem_answer()))
    _, said = attempt(make_token(gateway.url), tmp_path)
    first, second = (request.body for request in gateway.requests)
    assert first == second
    assert len(said) == 1 and "next attempt in 1 s" in said[0]


def test_keys_outlive_an_attempt_that_gave_up(gateway: FakeGateway, tmp_path: Path) -> None:
    gateway.queue(Reply(503, {"detail": "NATS is away"}))
    token = make_token(gateway.url)
    with pytest.raises(EdgeError, match=r"NATS is away\. Gave up after 5 attempts"):
        attempt(token, tmp_path, retry_for=20.0)
    with pytest.raises(NotJoinedError):
        load_joined(tmp_path)
    gateway.queue(Reply(200, redeem_answer()))
    attempt(token, tmp_path)
    assert gateway.requests[0].body == gateway.requests[-1].body


def test_again_with_the_same_token_does_nothing(gateway: FakeGateway, tmp_path: Path) -> None:
    token = make_token(gateway.url)
    attempt(token, tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    outcome, _ = attempt(f"  {token}\n", tmp_path)
    assert outcome.already
    assert len(gateway.requests) == 1
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_another_token_joins_anew_and_keeps_a_backup(gateway: FakeGateway, tmp_path: Path) -> None:
    gateway.queue(Reply(200, redeem_answer(creds=CREDS)), Reply(200, redeem_answer(package_id=OTHER_PACKAGE)))
    attempt(make_token(gateway.url), tmp_path)
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "old.json").write_text("{}")

    outcome, _ = attempt(make_token(gateway.url, package_id=OTHER_PACKAGE), tmp_path)

    assert outcome.backup is not None and outcome.backup.parent == tmp_path
    assert outcome.backup.stat().st_mode & 0o777 == 0o700
    assert sorted(path.name for path in outcome.backup.iterdir()) == [
        "config",
        f"keys-{PACKAGE}.json",
        "nats.creds",
        "service.json",
    ]
    assert (outcome.backup / "nats.creds").stat().st_mode & 0o777 == 0o600
    assert load_joined(tmp_path).package_id == OTHER_PACKAGE
    assert not (tmp_path / "nats.creds").exists() and not (tmp_path / "config").exists()
    assert gateway.requests[0].body["nats_public_key"] != gateway.requests[1].body["nats_public_key"]


def test_a_refused_token_leaves_the_earlier_service_alone(gateway: FakeGateway, tmp_path: Path) -> None:
    attempt(make_token(gateway.url), tmp_path)
    gateway.queue(Reply(410, {"detail": "the token expired"}))
    with pytest.raises(EdgeError, match=r"^the token expired$"):
        attempt(make_token(gateway.url, package_id=OTHER_PACKAGE), tmp_path)
    assert load_joined(tmp_path).package_id == PACKAGE
    assert not list(tmp_path.glob("backup-*"))


def test_retry_after_is_honoured(gateway: FakeGateway, tmp_path: Path) -> None:
    gateway.queue(Reply(429, {"detail": "slow down"}, {"Retry-After": "17"}), Reply(200, redeem_answer()))
    clock = Clock()
    _, said = attempt(make_token(gateway.url), tmp_path, clock=clock)
    assert clock.slept == [17.0]
    assert "slow down" in said[0]


def test_a_longer_retry_after_than_the_time_left_is_not_waited_for(
    gateway: FakeGateway, tmp_path: Path
) -> None:
    gateway.queue(Reply(429, {"detail": "slow down"}, {"Retry-After": "3600"}))
    clock = Clock()
    with pytest.raises(EdgeError, match="Gave up after 1 attempt;"):
        attempt(make_token(gateway.url), tmp_path, clock=clock)
    assert clock.slept == []


def test_pauses_grow_and_stay_bounded(tmp_path: Path) -> None:
    clock = Clock()

    def away(*_: object, **__: object) -> Answer:
        raise ExchangeError("nobody there")

    world = World(send=away, sleep=clock.sleep, monotonic=lambda: clock.now, chance=lambda: 0.5)
    with pytest.raises(EdgeError, match="nobody there"):
        join(make_token("http://127.0.0.1:1"), JoinOptions(folder=tmp_path), [].append, world)
    assert clock.slept[:6] == [1, 2, 4, 8, 16, 30]
    assert max(clock.slept) == 30 and clock.now <= 300


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (
            Reply(400, {"detail": "bad", "errors": [{"field": "csr_pem", "detail": "not PEM"}]}),
            "bad; csr_pem: not PEM",
        ),
        (Reply(409, {"detail": "somebody\x1b[31m else\nhas it"}), "somebody [31m else has it"),
        (Reply(418, b"<html>"), "the answer was 418 I'm a Teapot"),
        (Reply(302, b"", {"Location": "http://evil.example/"}), "redirects to http://evil.example/"),
        (Reply(200, b"hello"), "the gateway's answer makes no sense"),
        (Reply(200, redeem_answer(package_id=OTHER_PACKAGE)), "which is not what the token is for"),
    ],
)
def test_refusals_are_one_sentence(gateway: FakeGateway, tmp_path: Path, reply: Reply, message: str) -> None:
    gateway.queue(reply)
    with pytest.raises(EdgeError) as caught:
        attempt(make_token(gateway.url), tmp_path)
    assert message in str(caught.value)
    assert str(caught.value).isprintable()
    assert len(gateway.requests) == 1


def test_an_endless_answer_is_cut(gateway: FakeGateway, tmp_path: Path) -> None:
    gateway.queue(Reply(200, b"x" * (1024 * 1024 + 1)))
    with pytest.raises(EdgeError, match="larger than 1048576 bytes"):
        attempt(make_token(gateway.url), tmp_path, retry_for=0)


def test_an_untrusted_certificate_is_not_asked_again(tmp_path: Path) -> None:
    def untrusted(*_: object, **__: object) -> Answer:
        raise UntrustedError("its certificate cannot be verified")

    world = World(send=untrusted, sleep=lambda _: pytest.fail("no second attempt"))
    with pytest.raises(EdgeError, match="cannot be verified"):
        join(make_token("https://gw.example"), JoinOptions(folder=tmp_path), [].append, world)


@pytest.mark.parametrize(
    "url", ["http://gw.example:8080", "http://10.0.0.7", "http://localhost.evil.example"]
)
def test_plain_http_across_a_network_needs_a_word(tmp_path: Path, url: str) -> None:
    with pytest.raises(EdgeError, match="--allow-plain-http"):
        attempt(make_token(url), tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "url", ["ftp://gw", "http://", "http://user:pw@127.0.0.1", "http://127.0.0.1:x", "nonsense"]
)
def test_odd_gateways_are_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(EdgeError, match="names no usable gateway"):
        attempt(make_token(url), tmp_path)


@pytest.mark.parametrize("token", ["", "jw1.x.y", "hello", "jw1." + "a" * 5000])
def test_what_is_no_token_is_refused_and_not_shown(tmp_path: Path, token: str) -> None:
    with pytest.raises(EdgeError, match="not a Jetway token") as caught:
        attempt(token, tmp_path)
    assert len(token) < 3 or token not in str(caught.value)


def test_a_package_id_cannot_leave_the_folder(tmp_path: Path) -> None:
    with pytest.raises(EdgeError, match="no UUID"):
        attempt(make_token("http://127.0.0.1:1", package_id="../../etc/x"), tmp_path)


def test_the_token_is_nowhere(gateway: FakeGateway, tmp_path: Path) -> None:
    token = make_token(gateway.url)
    gateway.queue(Reply(503, {"detail": f"what is {token}?"}), Reply(400, {"detail": f"no: {token}"}))
    said: list[str] = []
    clock = Clock()
    world = World(sleep=clock.sleep, monotonic=lambda: clock.now)
    with pytest.raises(EdgeError) as caught:
        join(token, JoinOptions(folder=tmp_path), said.append, world)
    files = [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    assert len(said) == 1
    assert not any(token in text for text in [str(caught.value), *said, *files])


def test_two_joins_at_once_do_not_mix(gateway: FakeGateway, tmp_path: Path) -> None:
    token = make_token(gateway.url)

    def meanwhile(request: object) -> Reply:
        with pytest.raises(EdgeError, match="another jetway join"):
            attempt(token, tmp_path)
        return Reply(200, redeem_answer())

    gateway.answer = meanwhile
    attempt(token, tmp_path)
    assert len(gateway.requests) == 1


def test_an_unusable_folder_is_said_plainly(gateway: FakeGateway, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EdgeError, match="cannot use the folder"):
        attempt(make_token(gateway.url), tmp_path / "file")
