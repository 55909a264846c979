"""This host's own keys: a NATS user key (nkey) and a key for an X.509 identity.

They are made and stored before the token is shown to anyone, so that asking again after a lost reply shows
the same public keys and gets the identical answer. The private halves never leave the host.
"""

from __future__ import annotations

import base64
import json
import os
import re
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from jetway.core.creds import creds_text
from jetway.edge.errors import EdgeError
from jetway.edge.files import write_file

DAMAGED: Final = (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion)
"""What the library raises for a certificate, request or key that it cannot read."""

_SEED_PREFIX = 18 << 3
_USER_PREFIX = 20 << 3
_UUID = re.compile(r"\A[0-9a-f-]{36}\Z")
_JWT = re.compile(r"-----BEGIN NATS USER JWT-----\s*([A-Za-z0-9_.-]+)\s*-{5,}END NATS USER JWT-{5,}")
_SEED = re.compile(r"-----BEGIN USER NKEY SEED-----\s*(SU[A-Z2-7]+)\s*-{5,}END USER NKEY SEED-{5,}")


@dataclass(frozen=True, slots=True)
class HostKeys:
    """One package's keys on this host."""

    package_id: str
    generation: int
    nats_public_key: str
    csr_pem: str
    nats_seed: str = field(repr=False)
    key_pem: str = field(repr=False)


def keys_file(folder: Path, package_id: str) -> Path:
    """Where the keys of a package stand. `package_id` must have been checked to be a UUID."""
    return folder / f"keys-{package_id}.json"


def load_keys(folder: Path, package_id: str) -> HostKeys | None:
    """The keys of this package, where this host made some."""
    if not _UUID.match(package_id):
        return None
    stored = _load(keys_file(folder, package_id))
    return stored if stored is not None and stored.package_id == package_id else None


def load_or_make(folder: Path, package_id: str, generation: int, service_id: str) -> HostKeys:
    """The keys of this package: those of an earlier attempt, else new ones, already on the disk."""
    path = keys_file(folder, package_id)
    stored = _load(path)
    if stored is not None and (stored.package_id, stored.generation) == (package_id, generation):
        return stored
    keys = make(package_id, generation, service_id)
    write_file(path, json.dumps(asdict(keys), indent=2).encode())
    return keys


def make(package_id: str, generation: int, service_id: str) -> HostKeys:
    """New random keys."""
    seed = os.urandom(32)
    private = ec.generate_private_key(ec.SECP256R1())
    return HostKeys(
        package_id=package_id,
        generation=generation,
        nats_public_key=_public_nkey(Ed25519PrivateKey.from_private_bytes(seed)),
        csr_pem=_request(private, service_id),
        nats_seed=_seed_nkey(seed),
        key_pem=private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
    )


def complete_creds(creds: str, seed: str) -> str:
    """The text of a .creds file: where the gateway sent the JWT alone, this host's seed is added."""
    if not creds.strip() or _SEED.search(creds):
        return creds
    found = _JWT.search(creds)
    jwt = found[1] if found else creds.strip()
    if jwt.count(".") != 2 or "-----" in jwt:
        raise EdgeError("the gateway's NATS credentials make no sense: neither a JWT nor a .creds file")
    return creds_text(jwt, seed)


def check_certificate(pem: str, csr_pem: str) -> None:
    """Raise EdgeError where a certificate is not for the key of the request; none at all is nothing to check."""
    if not pem.strip():
        return
    try:
        theirs = x509.load_pem_x509_certificates(pem.encode())[0].public_key()
        ours = x509.load_pem_x509_csr(csr_pem.encode()).public_key()
        fits = theirs == ours
    except DAMAGED:
        fits = False
    if not fits:
        raise EdgeError("the gateway's certificate is not one for this host's key: ask for a new token")


@dataclass(frozen=True, slots=True)
class Credentials:
    """A .creds file, read: what a NATS connection needs of it."""

    jwt: str = field(repr=False)
    seed: str = field(repr=False)

    def user_jwt(self) -> bytes:
        """The JWT that says who connects."""
        return self.jwt.encode()

    def sign(self, nonce: str) -> bytes:
        """The server's nonce, signed to prove that the key is held here."""
        return base64.b64encode(_private_key(self.seed).sign(nonce.encode()))


def sign_with(seed: str, message: bytes) -> bytes:
    """A message signed with a NATS key: 64 bytes. Raises EdgeError for a damaged seed."""
    return _private_key(seed).sign(message)


def public_nkey(seed: str) -> str:
    """The public half of a seed, `U…`. Raises EdgeError for a damaged one."""
    return _public_nkey(_private_key(seed))


def request_for(key_pem: str, service_id: str) -> str:
    """A certificate request by a key that is there already. Raises EdgeError."""
    try:
        private = load_pem_private_key(key_pem.encode(), password=None)
    except DAMAGED:
        private = None
    if not isinstance(private, ec.EllipticCurvePrivateKey):
        raise EdgeError("key.pem holds no key on an elliptic curve: join again with a new token")
    return _request(private, service_id)


def certificate_dates(pem: str) -> tuple[datetime, datetime]:
    """From when to when the first of these certificates is valid. Raises EdgeError."""
    try:
        leaf = x509.load_pem_x509_certificates(pem.encode())[0]
    except DAMAGED:
        raise EdgeError("certificate.pem is damaged: join again with a new token") from None
    return leaf.not_valid_before_utc, leaf.not_valid_after_utc


def read_creds(text: str) -> Credentials:
    """Take a .creds file apart. Raises EdgeError."""
    jwt, seed = _JWT.search(text), _SEED.search(text)
    if jwt is None or seed is None:
        raise EdgeError("nats.creds is damaged: join again with a new token")
    return Credentials(jwt[1], seed[1])


def _load(path: Path) -> HostKeys | None:
    try:
        return HostKeys(**json.loads(path.read_bytes()))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise EdgeError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, TypeError):
        return None


def _request(private: ec.EllipticCurvePrivateKey, service_id: str) -> str:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, service_id)])
    csr = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(private, SHA256())
    return csr.public_bytes(Encoding.PEM).decode()


def _public_nkey(private: Ed25519PrivateKey) -> str:
    public = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return _encode(bytes([_USER_PREFIX]) + public)


def _seed_nkey(seed: bytes) -> str:
    # The seed's own prefix takes 5 bits, the kind of key the next 8.
    head = bytes([_SEED_PREFIX | (_USER_PREFIX >> 5), (_USER_PREFIX & 31) << 3])
    return _encode(head + seed)


def _private_key(nkey: str) -> Ed25519PrivateKey:
    try:
        raw = base64.b32decode(nkey + "=" * (-len(nkey) % 8))
    except ValueError:
        raw = b""
    if len(raw) != 36 or _crc16(raw[:-2]) != int.from_bytes(raw[-2:], "little"):
        raise EdgeError("the NATS key is damaged: join again with a new token")
    return Ed25519PrivateKey.from_private_bytes(raw[2:-2])


def _encode(raw: bytes) -> str:
    return base64.b32encode(raw + _crc16(raw).to_bytes(2, "little")).rstrip(b"=").decode()


def _crc16(data: bytes) -> int:
    """CRC-16/XMODEM, as nkeys use it."""
    crc = 0
    for byte in data:
        crc ^= byte << 8
        for _ in range(8):
            crc = ((crc << 1) ^ 0x1021) & 0xFFFF if crc & 0x8000 else (crc << 1) & 0xFFFF
    return crc
