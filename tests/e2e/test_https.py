"""HTTPS as an operator and an edge host meet it: the installed command, with the gateway's own authority."""

from __future__ import annotations

import signal
import socket
import ssl
import stat
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from cryptography import x509

from jetway.core.tokens import split_token
from support.daemon import Daemon, eventually, jetway
from support.ports import free_port
from support.tls import authority, server_file, shown_certificate


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    made = Daemon(tmp_path, JETWAY_HTTP__TLS="own", JETWAY_HTTP__LISTEN=f"127.0.0.1:{free_port()}")
    try:
        yield made.start()
    finally:
        made.discard()


def create(daemon: Daemon, service_id: str) -> str:
    """A package by the command, which finds the daemon and knows it by its certificate; the token."""
    made = daemon.json_of("package", "create", "poller", service_id)
    return str(made["token"])


def join(folder: Path, token: str) -> tuple[int, str]:
    done = jetway("join", "--dir", str(folder), "--retry-for", "0s", given=token)
    return done.returncode, done.stdout + done.stderr


def place(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or 0


def test_from_the_first_contact_on(daemon: Daemon, tmp_path: Path) -> None:
    assert daemon.url.startswith("https://127.0.0.1:")
    token = create(daemon, "site-a")
    claims = split_token(token).claims
    assert "PRIVATE" not in (daemon.state / "daemon.json").read_text()
    assert claims.gateway == daemon.url
    assert claims.ca_pin.startswith("sha256:")

    status, said = join(tmp_path / "edge", token)

    assert status == 0, said
    folder = tmp_path / "edge"
    root = x509.load_pem_x509_certificate((folder / "identity-ca.pem").read_bytes())
    leaf = x509.load_pem_x509_certificates((folder / "certificate.pem").read_bytes())[0]
    leaf.verify_directly_issued_by(root)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == [x509.UniformResourceIdentifier("spiffe://jetway/poller/site-a")]
    modes = {name: stat.S_IMODE((folder / name).stat().st_mode) for name in ("key.pem", "certificate.pem")}
    assert modes == {"key.pem": 0o600, "certificate.pem": 0o644}
    context = ssl.create_default_context(cafile=str(folder / "identity-ca.pem"))
    with (
        socket.create_connection(place(daemon.url), timeout=30) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as connection,
    ):
        connection.sendall(b"GET /api/edge/crl.pem HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    crl = x509.load_pem_x509_crl(answer[answer.index(b"-----BEGIN") :])
    assert crl.is_signature_valid(root.public_key())  # type: ignore[arg-type]
    keys = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (daemon.state / "keys").iterdir()}
    assert {keys[name] for name in ("ca.pem", "ca-key.pem", "https.pem")} == {0o600}
    daemon.secrets |= {token, *_private_keys(daemon.state / "keys")}
    daemon.check_log()
    assert daemon.stop() == 0


def _private_keys(folder: Path) -> set[str]:
    """A line out of each private key: none of it may stand in a log."""
    texts = [path.read_text() for path in folder.glob("*.pem")]
    return {text.partition("PRIVATE KEY-----\n")[2].splitlines()[0] for text in texts if "PRIVATE" in text}


def test_two_gateways_do_not_take_each_others_tokens(daemon: Daemon, tmp_path: Path) -> None:
    """The second stands at the address of the first: by its authority it is known to be another."""
    token = create(daemon, "site-a")
    listen = daemon.url.removeprefix("https://")
    daemon.stop()
    other = Daemon(tmp_path / "other", JETWAY_HTTP__TLS="own", JETWAY_HTTP__LISTEN=listen)
    try:
        other.start()
        status, said = join(tmp_path / "edge", token)
        assert status == 1
        assert "does not have the authority that the token names" in said
        assert token not in other.log_text()
    finally:
        other.discard()


def test_another_authority_is_never_taken_up_in_silence(daemon: Daemon) -> None:
    create(daemon, "site-a")
    daemon.stop()
    for name in ("ca.pem", "ca-key.pem"):
        (daemon.state / "keys" / name).unlink()
    done = jetway("serve", **daemon.settings)
    assert done.returncode == 1
    assert "restore ca.pem and ca-key.pem from a backup" in done.stderr


def test_given_files_are_read_again_on_sighup(tmp_path: Path) -> None:
    owner, folder = authority(), tmp_path / "given"
    folder.mkdir()
    file = server_file(folder, owner, ("gw.example",))
    daemon = Daemon(
        tmp_path / "daemon",
        JETWAY_HTTP__TLS="files",
        JETWAY_HTTP__TLS_CERT=str(file),
        JETWAY_HTTP__TLS_KEY=str(file),
        JETWAY_HTTP__PUBLIC_URL="https://gw.example",
    )
    try:
        daemon.start()
        before = shown_certificate(*place(daemon.url))
        assert split_token(create(daemon, "site-a")).claims.ca_pin == ""
        server_file(folder, owner, ("gw.example",))
        assert daemon.process is not None
        daemon.process.send_signal(signal.SIGHUP)
        eventually(lambda: _differs(daemon, before))
        create(daemon, "site-b")
        file.write_text("nonsense")
        daemon.expected_errors.add("http_certificate_kept")
        shown = shown_certificate(*place(daemon.url))
        daemon.process.send_signal(signal.SIGHUP)
        eventually(lambda: _told(daemon, "http_certificate_kept"))
        assert shown_certificate(*place(daemon.url)) == shown
        create(daemon, "site-c")
        assert daemon.stop() == 0
        daemon.check_log()
    finally:
        daemon.discard()


def _differs(daemon: Daemon, before: bytes) -> None:
    assert shown_certificate(*place(daemon.url)) != before


def _told(daemon: Daemon, action: str) -> None:
    assert [line for line in daemon.log_lines() if line.action == action]


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"JETWAY_HTTP__LISTEN": "0.0.0.0:0"}, "http.allow_plain"),
        ({"JETWAY_HTTP__TLS": "own", "JETWAY_HTTP__PUBLIC_URL": "https://a$b"}, "a$b"),
        ({"JETWAY_IDENTITY__CA_CERT": "/nowhere", "JETWAY_IDENTITY__CA_KEY": "/nowhere"}, "/nowhere"),
    ],
)
def test_what_cannot_be_is_said_at_the_start(tmp_path: Path, settings: dict[str, str], why: str) -> None:
    done = jetway("serve", **{**Daemon(tmp_path).settings, **settings})
    assert done.returncode == 1
    assert why in done.stderr
    assert "Traceback" not in done.stderr
