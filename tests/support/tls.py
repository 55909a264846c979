"""Authorities and servers for tests of TLS: real certificates, real sockets on loopback."""

from __future__ import annotations

import http.client
import ssl
from datetime import UTC, datetime
from pathlib import Path

from jetway.adapters.authority.ca import OwnAuthority
from jetway.adapters.authority.chain import make_chain, make_key
from jetway.adapters.authority.server_certificate import LOOPBACK, server_certificate


def authority(now: datetime | None = None) -> OwnAuthority:
    """A gateway's authority, made anew."""
    return OwnAuthority(make_chain(make_key(), now or datetime.now(UTC)))


def server_file(
    folder: Path,
    owner: OwnAuthority,
    names: tuple[str, ...] = LOOPBACK,
    now: datetime | None = None,
    file: str = "server.pem",
) -> Path:
    """Certificate and key of a server in one file."""
    certificate, key = server_certificate(owner, names, now or datetime.now(UTC))
    path = folder / file
    path.write_text(certificate + key)
    return path


def server_context(file: Path) -> ssl.SSLContext:
    """What a server of such a file listens with."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context


def shown_certificate(host: str, port: int) -> bytes:
    """The certificate that a server shows to a new connection, DER; nothing is verified."""
    pem = ssl.get_server_certificate((host, port), timeout=30)
    return ssl.PEM_cert_to_DER_cert(pem)


def https(port: int, trusted: str | None = None) -> http.client.HTTPSConnection:
    """A connection to loopback that trusts this root alone."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=trusted)
    return http.client.HTTPSConnection("127.0.0.1", port, timeout=30, context=context)
