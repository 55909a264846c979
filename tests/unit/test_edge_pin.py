"""The first contact: whom `jetway join` believes, and what leaves the host before it does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from jetway.adapters.authority.ca import OwnAuthority
from jetway.edge import keys
from jetway.edge.errors import EdgeError
from jetway.edge.join import JoinOptions, World, join
from jetway.edge.joined import load_joined
from jetway.edge.pin import ROOT_PATH, find_root
from support.fake_gateway import FakeGateway, Reply, Request, fake_gateway, make_token, redeem_answer
from support.tls import authority, server_context, server_file

OURS = authority()


@contextmanager
def gateway(
    folder: Path, shows: OwnAuthority, root_pem: str, names: tuple[str, ...] = ("127.0.0.1",), **more: Any
) -> Iterator[FakeGateway]:
    """A server with a certificate by `shows` that says `root_pem` is its authority."""
    with fake_gateway(server_context(server_file(folder, shows, names, **more))) as running:

        def answer(request: Request) -> Reply:
            if request.path == ROOT_PATH:
                return Reply(200, root_pem.encode())
            return Reply(200, redeem_answer())

        running.answer = answer
        yield running


def attempt(running: FakeGateway, folder: Path, *, pin: str = OURS.pin, url: str = "") -> None:
    world = World(sleep=lambda _: pytest.fail("no second attempt"))
    token = make_token(url or running.url, ca_pin=pin)
    join(token, JoinOptions(folder=folder / "edge", retry_for=0), lambda _: None, world)


def told(running: FakeGateway) -> list[str]:
    """What was asked, and whether a token came with it."""
    return [
        f"{each.path}{' with a token' if 'jw1.' in json.dumps([each.body, each.headers]) else ''}"
        for each in running.requests
    ]


REDEEM = "/api/edge/redeem with a token"


def test_the_pinned_gateway_is_believed(tmp_path: Path) -> None:
    with gateway(tmp_path, OURS, OURS.root_pem) as running:
        attempt(running, tmp_path)
    assert told(running) == [ROOT_PATH, REDEEM]
    assert load_joined(tmp_path / "edge").name == "agent core-switch-room"


def test_a_man_in_the_middle_never_sees_the_token(tmp_path: Path) -> None:
    """He has a certificate of his own making, and may pass on the true root."""
    his = authority()
    for root_pem in (his.root_pem, OURS.root_pem, OURS.root_pem + his.root_pem, his.root_pem + OURS.root_pem):
        with gateway(tmp_path, his, root_pem) as running, pytest.raises(EdgeError) as caught:
            attempt(running, tmp_path)
        assert told(running) == [ROOT_PATH]
        assert "jw1." not in str(caught.value)


def test_another_gateways_token_is_not_taken_there(tmp_path: Path) -> None:
    other = authority()
    with (
        gateway(tmp_path, OURS, OURS.root_pem) as running,
        pytest.raises(EdgeError, match="not the gateway that made the token"),
    ):
        attempt(running, tmp_path, pin=other.pin)
    assert told(running) == [ROOT_PATH]


def test_a_certificate_for_another_host_is_refused(tmp_path: Path) -> None:
    with (
        gateway(tmp_path, OURS, OURS.root_pem, names=("gw.example", "10.0.0.7")) as running,
        pytest.raises(EdgeError, match="certificate cannot be verified"),
    ):
        attempt(running, tmp_path)
    assert told(running) == [ROOT_PATH]


def test_an_expired_certificate_is_refused(tmp_path: Path) -> None:
    before = datetime.now(UTC) - timedelta(days=200)
    old = authority(before)
    with (
        gateway(tmp_path, old, old.root_pem, now=before) as running,
        pytest.raises(EdgeError, match="expired"),
    ):
        attempt(running, tmp_path, pin=old.pin)
    assert told(running) == [ROOT_PATH]


def test_a_services_certificate_makes_no_gateway(tmp_path: Path) -> None:
    """A host with a stolen service's certificate, good for servers too, is not the gateway."""
    made = keys.make("package", 1, "localhost")
    name = "spiffe://jetway/poller/localhost"
    issued = OURS.issue(made.csr_pem, name, datetime.now(UTC), timedelta(days=1))
    file = tmp_path / "stolen.pem"
    file.write_text(issued.pem + OURS.root_pem + made.key_pem)
    with fake_gateway(server_context(file)) as running:
        running.queue(Reply(200, OURS.root_pem.encode()))
        url = running.url.replace("127.0.0.1", "localhost")
        with pytest.raises(EdgeError, match="certificate cannot be verified"):
            attempt(running, tmp_path, url=url)
    assert told(running) == [ROOT_PATH]


def test_a_pin_with_a_plain_address_is_refused(tmp_path: Path) -> None:
    with fake_gateway() as running, pytest.raises(EdgeError, match="plain address"):
        attempt(running, tmp_path)
    assert running.requests == []


def test_without_a_pin_the_systems_trust_decides(tmp_path: Path) -> None:
    with (
        gateway(tmp_path, OURS, OURS.root_pem) as running,
        pytest.raises(EdgeError, match="SSL_CERT_FILE"),
    ):
        attempt(running, tmp_path, pin="")
    assert running.requests == []


@pytest.mark.parametrize("status", [404, 301])
def test_a_server_without_an_authority_is_refused(tmp_path: Path, status: int) -> None:
    with fake_gateway(server_context(server_file(tmp_path, OURS))) as running:
        running.queue(Reply(status, b""))
        with pytest.raises(EdgeError, match="does not have the authority"):
            attempt(running, tmp_path)
    assert told(running) == [ROOT_PATH]


def test_a_gateway_that_is_busy_is_asked_again(tmp_path: Path) -> None:
    with gateway(tmp_path, OURS, OURS.root_pem) as running:
        ready, refused = running.answer, [Reply(503, {"detail": "busy"})]
        running.answer = lambda request: refused.pop() if refused else ready(request)
        said: list[str] = []
        world = World(sleep=lambda _: None, chance=lambda: 0.0)
        token = make_token(running.url, ca_pin=OURS.pin)
        join(token, JoinOptions(folder=tmp_path / "edge"), said.append, world)
    assert told(running) == [ROOT_PATH, ROOT_PATH, REDEEM]
    assert len(said) == 1 and "503" in said[0]


def test_the_root_is_found_among_others_and_alone() -> None:
    others = [authority().root_pem, authority().root_pem]
    text = others[0] + OURS.root_pem + others[1]
    assert find_root(text.encode(), OURS.pin) == OURS.root_pem


def test_a_certificate_with_the_pinned_key_that_the_key_has_not_signed_is_not_it() -> None:
    name = OURS.chain.root.subject
    public = OURS.chain.key.public_key()
    now = datetime.now(UTC)
    forged = (
        x509.CertificateBuilder(name, name, public, 1)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=36_500))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(generate_private_key(SECP256R1()), SHA256())
    )
    assert find_root(forged.public_bytes(Encoding.PEM), OURS.pin) is None


@given(st.binary(max_size=400) | st.text(max_size=200).map(str.encode))
def test_anything_else_is_no_root(data: bytes) -> None:
    assert find_root(data, OURS.pin) is None


# A damaged serial number may be one that cryptography will refuse some day, and warns of now.
@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
@given(st.data())
def test_a_damaged_root_is_none(data: st.DataObject) -> None:
    pem = bytearray(OURS.root_pem.encode())
    position = data.draw(st.integers(0, len(pem) - 1))
    pem[position] ^= data.draw(st.integers(1, 255))
    found = find_root(bytes(pem), OURS.pin)
    if found is not None:
        # The signature has a byte of its own that the library does not look at.
        certificate = x509.load_pem_x509_certificate(found.encode())
        assert certificate.tbs_certificate_bytes == OURS.chain.root.tbs_certificate_bytes


def test_a_certificate_of_another_version_is_damaged() -> None:
    """What the library raises for it is no ValueError."""
    pem = OURS.root_pem.encode()
    another = (pem[:44] + b"B" + pem[45:]).decode()
    with pytest.raises(x509.InvalidVersion):
        x509.load_pem_x509_certificates(another.encode())
    assert find_root(another.encode(), OURS.pin) is None
    with pytest.raises(EdgeError, match="is damaged"):
        keys.certificate_dates(another)
    with pytest.raises(EdgeError, match="not one for this host's key"):
        keys.check_certificate(another, keys.make("", 0, "service").csr_pem)
