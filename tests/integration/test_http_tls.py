"""HTTPS at the door: real handshakes, a certificate exchanged under open connections, strangers bounded."""

from __future__ import annotations

import asyncio
import http.client
import socket
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from jetway.adapters.authority.server_certificate import (
    RENEW_BEFORE,
    GivenServerCertificate,
    OwnServerCertificate,
    https_names,
    server_certificate,
)
from jetway.core.errors import PortError, StartupError
from jetway.entry.http import listener
from jetway.entry.http.server import HttpServer
from jetway.entry.http.tls import Tls
from support.builders import FakeClock
from support.http_world import World, http_settings, http_world
from support.tls import authority, server_file, shown_certificate
from support.tls_world import served_by

OURS = authority()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with http_world(tmp_path / "world") as made:
        yield made


def given(folder: Path, clock: FakeClock | None = None, **more: object) -> GivenServerCertificate:
    file = server_file(folder, OURS, **more)
    return GivenServerCertificate(file, file, clock or FakeClock(datetime.now(UTC)))


def port_of(server: HttpServer) -> int:
    return int(server.url.rpartition(":")[2])


def ask(port: int, path: str = "/healthz", trusted: str = OURS.root_pem) -> tuple[int, bytes]:
    connection = https(port, trusted)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def https(port: int, trusted: str = OURS.root_pem) -> http.client.HTTPSConnection:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=trusted)
    return http.client.HTTPSConnection("127.0.0.1", port, timeout=30, context=context)


async def test_it_speaks_https_and_shows_its_root(world: World, tmp_path: Path) -> None:
    async with served_by(OURS, world, tmp_path, given(tmp_path)) as (server, _):
        port = port_of(server)
        assert server.url == f"https://127.0.0.1:{port}"
        assert (await asyncio.to_thread(ask, port))[0] == 200
        assert (await asyncio.to_thread(ask, port, "/api/edge/ca.pem"))[1] == OURS.root_pem.encode()
        _, crl = await asyncio.to_thread(ask, port, "/api/edge/crl.pem")
        assert x509.load_pem_x509_crl(crl).is_signature_valid(OURS.chain.key.public_key())
        with pytest.raises(ssl.SSLCertVerificationError):
            await asyncio.to_thread(ask, port, "/healthz", authority().root_pem)


async def test_the_root_comes_with_the_certificate() -> None:
    certificate, _ = server_certificate(OURS, ["gw.example"], datetime.now(UTC))
    leaf, root = x509.load_pem_x509_certificates(certificate.encode())
    leaf.verify_directly_issued_by(root)
    assert root == OURS.chain.root


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_new_versions_are_spoken(world: World, tmp_path: Path, version: ssl.TLSVersion) -> None:
    async with served_by(OURS, world, tmp_path, given(tmp_path)) as (server, _):
        context = ssl.create_default_context(cadata=OURS.root_pem)
        context.minimum_version = context.maximum_version = version
        _, writer = await asyncio.open_connection("127.0.0.1", port_of(server), ssl=context)
        assert writer.get_extra_info("ssl_object").version() == version.name.replace("_", ".")
        writer.close()
        await writer.wait_closed()


async def test_old_versions_are_not(world: World, tmp_path: Path) -> None:
    async with served_by(OURS, world, tmp_path, given(tmp_path)) as (_, tls):
        assert tls.context.minimum_version is ssl.TLSVersion.TLSv1_2


async def test_a_new_certificate_is_shown_and_open_connections_live_on(world: World, tmp_path: Path) -> None:
    source = given(tmp_path)
    async with served_by(OURS, world, tmp_path, source) as (server, tls):
        port, old = port_of(server), https(port_of(server))
        assert await asyncio.to_thread(_again, old) == 200
        before = await asyncio.to_thread(shown_certificate, "127.0.0.1", port)
        server_file(tmp_path, OURS)
        changed = []
        tls.on_change.append(lambda: changed.append(tls.certificate_pem))
        await tls.look()
        after = await asyncio.to_thread(shown_certificate, "127.0.0.1", port)
        assert before != after == ssl.PEM_cert_to_DER_cert(changed[0])
        assert await asyncio.to_thread(_again, old) == 200, "the connection of before"
        old.close()
        assert (await asyncio.to_thread(ask, port))[0] == 200
        await tls.look()
        assert len(changed) == 1, "what has not changed is not loaded again"


async def test_a_full_disk_keeps_no_new_certificate_from_being_shown(world: World, tmp_path: Path) -> None:
    def full() -> None:
        raise OSError(28, "No space left on device")

    async with served_by(OURS, world, tmp_path, given(tmp_path)) as (server, tls):
        before = await asyncio.to_thread(shown_certificate, "127.0.0.1", port_of(server))
        server_file(tmp_path, OURS)
        tls.on_change.append(full)
        await tls.look()
        assert await asyncio.to_thread(shown_certificate, "127.0.0.1", port_of(server)) != before


def _again(connection: http.client.HTTPSConnection) -> int:
    connection.request("GET", "/healthz")
    answer = connection.getresponse()
    answer.read()
    return answer.status


@pytest.mark.parametrize("breakage", ["empty", "no key", "another key", "expired", "gone"])
async def test_a_broken_file_leaves_the_old_certificate(world: World, tmp_path: Path, breakage: str) -> None:
    source = given(tmp_path)
    async with served_by(OURS, world, tmp_path, source) as (server, tls):
        port = port_of(server)
        before = await asyncio.to_thread(shown_certificate, "127.0.0.1", port)
        _break(source.certificate, tmp_path, breakage)
        with capture_logs() as logs:
            await tls.look()
            await tls.look()
        told = [line for line in logs if line["action"] == "http_certificate_kept"]
        assert len(told) == 1, "told once"
        assert str(source.certificate) in told[0]["why"]
        assert "PRIVATE" not in str(logs)
        assert await asyncio.to_thread(shown_certificate, "127.0.0.1", port) == before
        server_file(tmp_path, OURS)
        assert await tls.reload()
        assert await asyncio.to_thread(shown_certificate, "127.0.0.1", port) != before


def _break(file: Path, folder: Path, breakage: str) -> None:
    if breakage == "empty":
        file.write_text("")
    elif breakage == "gone":
        file.unlink()
    elif breakage == "no key":
        file.write_text(OURS.root_pem)
    elif breakage == "expired":
        old = authority(datetime.now(UTC) - timedelta(days=200))
        server_file(folder, old, now=datetime.now(UTC) - timedelta(days=200))
    else:
        key = file.read_text().partition("-----BEGIN PRIVATE")
        server_file(folder, OURS)
        file.write_text(file.read_text().partition("-----BEGIN PRIVATE")[0] + key[1] + key[2])


async def test_a_broken_file_is_told_at_the_start(tmp_path: Path) -> None:
    source = given(tmp_path)
    source.certificate.write_text("")
    with pytest.raises(StartupError, match=r"http\.tls_cert: .*server\.pem"):
        await Tls(source, CollectorRegistry()).open()


async def test_our_own_certificate_is_renewed_before_it_expires(world: World, tmp_path: Path) -> None:
    clock = FakeClock(datetime.now(UTC))
    source = OwnServerCertificate(OURS, ("127.0.0.1",), tmp_path / "https.pem", clock)
    async with served_by(OURS, world, tmp_path, source) as (server, tls):
        port = port_of(server)
        assert source.file.stat().st_mode & 0o777 == 0o600
        before = await asyncio.to_thread(shown_certificate, "127.0.0.1", port)
        await tls.look()
        assert await asyncio.to_thread(shown_certificate, "127.0.0.1", port) == before
        clock.advance(2 * RENEW_BEFORE.total_seconds() + 3600)
        await tls.look()
        renewed = x509.load_der_x509_certificate(
            await asyncio.to_thread(shown_certificate, "127.0.0.1", port)
        )
        assert renewed.not_valid_after_utc > clock.now() + 2 * RENEW_BEFORE
        shown = server._registry.get_sample_value("jetway_http_certificate_expires_seconds")
        assert shown == renewed.not_valid_after_utc.timestamp()


async def test_a_stranger_who_says_nothing_takes_a_place_only_for_a_while(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "HANDSHAKE_SECONDS", 0.3)
    async with served_by(OURS, world, tmp_path, given(tmp_path), max_connections=2) as (server, _):
        port = port_of(server)
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
        third, writer = await asyncio.open_connection("127.0.0.1", port)
        async with asyncio.timeout(30):
            assert await third.read() == b"", "no place left: closed without a word"
            for reader, _ in silent:
                assert await reader.read() == b"", "given up after its time"
        monkeypatch.setattr(listener, "HANDSHAKE_SECONDS", 30.0)  # an honest one on a slow machine
        assert (await asyncio.to_thread(ask, port))[0] == 200
        for each in (writer, *(writer for _, writer in silent)):
            each.close()
            await each.wait_closed()


async def test_plain_http_to_the_https_port_is_closed(world: World, tmp_path: Path) -> None:
    async with served_by(OURS, world, tmp_path, given(tmp_path)) as (server, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(server))
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        async with asyncio.timeout(30):
            assert not (await reader.read()).startswith(b"HTTP")
        writer.close()
        await writer.wait_closed()
        assert (await asyncio.to_thread(ask, port_of(server)))[0] == 200


async def test_stopping_ends_handshakes_and_connections(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "HANDSHAKE_SECONDS", 600.0)
    async with served_by(OURS, world, tmp_path, given(tmp_path)) as (server, _):
        port = port_of(server)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        async with asyncio.timeout(30):
            await server.stop()
            assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
        with pytest.raises(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            pass


def test_the_names_are_those_by_which_it_is_called(tmp_path: Path) -> None:
    settings = http_settings(tmp_path, tls="own", listen="0.0.0.0:8443", public_url="https://gw.example:9/x")
    assert https_names(settings) == ("gw.example", "localhost", "127.0.0.1", "::1")
    settings = http_settings(tmp_path, tls="own", listen="[2001:db8::7]:8443")
    assert https_names(settings)[0] == "2001:db8::7"


@pytest.mark.parametrize("name", ["a b", "x" * 64 + ".example", "*", "$(x)", "-a", "é.example"])
def test_a_name_that_no_certificate_can_hold(name: str) -> None:
    with pytest.raises(PortError, match="no host name"):
        server_certificate(OURS, [name], datetime.now(UTC))
