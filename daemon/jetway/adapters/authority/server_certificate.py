"""Certificates that servers of the gateway show: made by its own authority, or given by the operator."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID

from jetway.adapters.authority.ca import OwnAuthority
from jetway.adapters.authority.chain import (
    ChainError,
    key_to_pem,
    read_certificates,
    read_private_key,
)
from jetway.adapters.statedir import atomic_write
from jetway.core.errors import PortError
from jetway.ports import Clock, ServedCertificate
from jetway.setting_types import split_address
from jetway.settings import Settings

HTTPS_FILE = "https.pem"
LIFETIME = timedelta(days=90)
"""Made by ourselves and renewed by ourselves; what is pinned is the root, so a new one costs nobody anything."""
_END = "-----END CERTIFICATE-----\n"
RENEW_BEFORE = LIFETIME / 3
LOOPBACK = ("localhost", "127.0.0.1", "::1")
"""The daemon's own host reaches it so, whatever its public name is."""
_EVERY_ADDRESS = ("0.0.0.0", "::")  # noqa: S104 - compared, not bound
_DNS_NAME = re.compile(
    r"(?!.{254})(\*\.)?[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*"
)


def server_certificate(authority: OwnAuthority, names: Sequence[str], now: datetime) -> tuple[str, str]:
    """(certificate, key) as PEM for a server with these host names and addresses; the root comes last.

    Raises PortError for a name that no certificate can hold.
    """
    key = generate_private_key(SECP256R1())
    unique = list(dict.fromkeys(name.lower() for name in names))
    alternative = x509.SubjectAlternativeName([_general_name(name) for name in unique])
    common_name = next((name for name in unique if len(name) <= 64), "")
    uses = (ExtendedKeyUsageOID.SERVER_AUTH,)
    leaf = authority.sign(key.public_key(), common_name, alternative, uses, now, LIFETIME)
    pem = leaf.public_bytes(Encoding.PEM).decode() + authority.chain.pem
    return pem, key_to_pem(key).decode()


def expires_at(certificate_pem: str) -> datetime:
    """When the first certificate in the text expires. Raises PortError for what is none."""
    try:
        return read_certificates(certificate_pem.encode())[0].not_valid_after_utc
    except ChainError as error:
        raise PortError(f"the certificate cannot be read: {error}") from None


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        pass
    if not _DNS_NAME.fullmatch(name):
        raise PortError(f"{name!r} is no host name that a certificate can hold")
    return x509.DNSName(name)


@dataclass(frozen=True, slots=True)
class OwnServerCertificate:
    """Implements `ports.ServerCertificate`: by the gateway's own authority, renewed before it expires."""

    authority: OwnAuthority
    names: tuple[str, ...]
    file: Path
    """Where certificate and key are kept, together, for the TLS library, which reads files."""
    clock: Clock

    def load(self) -> ServedCertificate:
        """A new certificate. Raises PortError."""
        certificate, key = server_certificate(self.authority, self.names, self.clock.now())
        try:
            atomic_write(self.file, (certificate + key).encode(), 0o600)
        except OSError as error:
            raise PortError(f"cannot write {self.file}: {error.strerror}") from error
        alone = certificate[: certificate.index(_END) + len(_END)]
        ends, root = expires_at(certificate), self.authority.root_pem
        return ServedCertificate(self.file, self.file, ends, root, "own", alone)

    def due(self, served: ServedCertificate) -> bool:
        """Whether the last third of its life has begun."""
        return served.expires_at - self.clock.now() < RENEW_BEFORE


@dataclass(frozen=True, slots=True)
class GivenServerCertificate:
    """Implements `ports.ServerCertificate`: two files that somebody else keeps up to date."""

    certificate: Path
    key: Path
    clock: Clock
    section: str = "http"
    """Where the settings `tls_cert` and `tls_key` stand that name the files."""

    def load(self) -> ServedCertificate:
        """What the files hold now, checked. Raises PortError, naming the file."""
        stamp = self._stamp()
        pem = self._read(self.certificate)
        try:
            first = read_certificates(pem)[0]
        except ChainError as error:
            raise PortError(f"{self.section}.tls_cert: {self.certificate}: {error}") from None
        self._check(first)
        alone = first.public_bytes(Encoding.PEM).decode()
        ends, text = first.not_valid_after_utc, pem.decode("ascii", "ignore")
        return ServedCertificate(self.certificate, self.key, ends, text, stamp, alone)

    def due(self, served: ServedCertificate) -> bool:
        """Whether one of the files is another than when it was read."""
        return self._stamp() != served.stamp

    def _check(self, certificate: x509.Certificate) -> None:
        try:
            key = read_private_key(self._read(self.key))
        except ChainError as error:
            raise PortError(f"{self.section}.tls_key: {self.key}: {error}") from None
        if _public_bytes(key) != _public_bytes(certificate):
            raise PortError(
                f"{self.section}.tls_key: {self.key} is not the key of the certificate in {self.certificate}"
            )
        if certificate.not_valid_after_utc <= self.clock.now():
            ended = certificate.not_valid_after_utc.isoformat()
            raise PortError(f"{self.section}.tls_cert: {self.certificate} has expired ({ended})")

    def _read(self, path: Path) -> bytes:
        try:
            return path.read_bytes()
        except OSError as error:
            raise PortError(
                f"{self.section}.tls_cert, tls_key: cannot read {path}: {error.strerror}"
            ) from error

    def _stamp(self) -> str:
        """Differs when a file was replaced or written; also where a symbolic link now leads elsewhere."""
        try:
            found = [path.stat() for path in (self.certificate, self.key)]
        except OSError:
            return "missing"
        return " ".join(f"{each.st_ino}:{each.st_size}:{each.st_mtime_ns}" for each in found)


def https_certificate(
    settings: Settings, authority: OwnAuthority, clock: Clock
) -> OwnServerCertificate | GivenServerCertificate | None:
    """What the HTTP door shows; None where it speaks plain HTTP."""
    http = settings.http
    if http.tls == "files" and http.tls_cert is not None and http.tls_key is not None:
        return GivenServerCertificate(http.tls_cert, http.tls_key, clock)
    if http.tls == "own":
        file = settings.state_dir / "keys" / HTTPS_FILE
        return OwnServerCertificate(authority, https_names(settings), file, clock)
    return None


def https_names(settings: Settings) -> tuple[str, ...]:
    """How the HTTP door is called: by its public name, by the address it listens at, on its own host."""
    public = urlsplit(settings.public_url).hostname or ""
    listen, _ = split_address(settings.http.listen)
    return tuple(name for name in (public, listen, *LOOPBACK) if name and name not in _EVERY_ADDRESS)


def _public_bytes(holder: x509.Certificate | PrivateKeyTypes) -> bytes:
    return holder.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
