"""TLS to Proton: the chain, the name and the dates are verified before the password is sent, or nothing is."""

from __future__ import annotations

import asyncio
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from jetway.adapters.database.proton_client import ProtonClient, Target, verifying_context
from jetway.core.errors import StartupError, UnavailableError
from support.certificates import Issuer, ServerFiles
from support.proton_database import opened, target_of
from support.proton_standin import ProtonStandin

SECRET = "s3cret"


@pytest.fixture
def authority(tmp_path: Path) -> Issuer:
    return Issuer(tmp_path / "authority")


def _standin(files: ServerFiles) -> ProtonStandin:
    return ProtonStandin(user="ann", password=SECRET, certificate=files.certificate, key=files.key)


def _target(standin: ProtonStandin, trusted: Path | None) -> Target:
    return target_of(standin.url.replace("proton://", "protons://"), authority=trusted)


async def _refused(standin: ProtonStandin, trusted: Path | None, reason: str) -> None:
    async with opened(_target(standin, trusted)) as database:
        with pytest.raises(UnavailableError, match=reason) as caught:
            await database.migrate()
    assert SECRET not in str(caught.value)
    assert await asyncio.to_thread(lambda: standin.statements) == [], "something was sent"


async def test_a_server_that_proves_itself_is_used(authority: Issuer) -> None:
    with _standin(authority.issue("127.0.0.1")) as standin:
        async with opened(_target(standin, authority.certificate)) as database:
            assert list(await database.migrate()) == ["0001_registry.sql", "0002_count_samples.sql"]
            await database.check()


async def test_another_hosts_certificate_is_refused(authority: Issuer) -> None:
    with _standin(authority.issue("db.example")) as standin:
        await _refused(standin, authority.certificate, "certificate verify failed: IP address mismatch")


async def test_an_expired_certificate_is_refused(authority: Issuer) -> None:
    with _standin(authority.issue("127.0.0.1", expires=datetime.now(UTC) - timedelta(minutes=5))) as standin:
        await _refused(standin, authority.certificate, "certificate verify failed: certificate has expired")


async def test_a_certificate_of_another_authority_is_refused(authority: Issuer, tmp_path: Path) -> None:
    other = Issuer(tmp_path / "other", "another authority")
    with _standin(authority.issue("127.0.0.1")) as standin:
        await _refused(standin, other.certificate, "certificate verify failed: unable to get local issuer")
        await _refused(standin, None, "certificate verify failed")


async def test_a_server_without_tls_is_refused() -> None:
    with ProtonStandin(user="ann", password=SECRET) as standin:
        async with opened(_target(standin, None)) as database:
            with pytest.raises(UnavailableError, match="does not answer"):
                await database.check()
        assert standin.statements == []


def test_a_context_that_verifies_nothing_sends_nothing(authority: Issuer) -> None:
    """Whoever weakens the context, or a driver that makes its own: the connection is closed before the hello."""
    weak = ssl.create_default_context(cafile=authority.certificate)
    weak.check_hostname = False
    weak.verify_mode = ssl.CERT_NONE
    with _standin(authority.issue("db.example")) as standin:
        good = _target(standin, authority.certificate)
        client = ProtonClient(
            Target(good.label, good.host, good.port, good.database, good.user, good.password, tls=weak)
        )
        with pytest.raises(UnavailableError, match="was not verified, so nothing was sent"):
            client.select("SELECT 1")
        client.close()
        assert standin.statements == []


def test_old_tls_is_not_spoken_and_an_unreadable_authority_is_named(tmp_path: Path) -> None:
    assert verifying_context(None).minimum_version is ssl.TLSVersion.TLSv1_2
    with pytest.raises(StartupError, match=r"database.tls_ca: .*none.pem cannot be used"):
        verifying_context(tmp_path / "none.pem")
