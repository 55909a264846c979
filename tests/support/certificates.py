"""Certificate authorities and server certificates for tests: good ones, and ones that must be refused."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class ServerFiles:
    """PEM files of a server."""

    certificate: Path
    key: Path


class Issuer:
    """Issues server certificates; who trusts its file `certificate` trusts them."""

    def __init__(self, folder: Path, name: str = "test authority") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _named(name)
        constraints = x509.BasicConstraints(ca=True, path_length=0)
        builder = _builder(self._name, self._name, self._key.public_key(), datetime.now(UTC) + 30 * _DAY)
        self._certificate = builder.add_extension(constraints, critical=True).sign(self._key, hashes.SHA256())
        self.certificate = folder / "ca.pem"
        self.certificate.write_bytes(self._certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, *hosts: str, expires: datetime | None = None) -> ServerFiles:
        """A certificate for these names and addresses, good for a day unless told when it expires."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(
            _named(hosts[0]), self._name, key.public_key(), expires or datetime.now(UTC) + _DAY
        )
        names = x509.SubjectAlternativeName([_general_name(host) for host in hosts])
        certificate = builder.add_extension(names, critical=False).sign(self._key, hashes.SHA256())
        stem = f"server-{certificate.serial_number}"
        files = ServerFiles(self._folder / f"{stem}.pem", self._folder / f"{stem}.key")
        files.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        files.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return files


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, expires: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(expires - 60 * _DAY)
        .not_valid_after(expires)
    )


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
