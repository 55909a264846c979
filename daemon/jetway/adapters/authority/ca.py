"""The gateway's own certificate authority: signs what edge services, and the gateway itself, show.

A new key in the place of a lost one would make every certificate and every pinned token worthless, without a
word: it is made at the first start, and never silently again.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

import structlog
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from jetway.adapters.authority.chain import (
    Chain,
    ChainError,
    key_to_pem,
    key_usage,
    make_chain,
    make_key,
    read_chain,
    read_key,
    sha256_hex,
)
from jetway.adapters.authority.crl import SKEW, CrlNumber, build_crl
from jetway.adapters.authority.csr import RequestKey, key_sha256, read_request
from jetway.adapters.authority.private import check_directory, read_private
from jetway.adapters.statedir import atomic_write
from jetway.core.errors import PortError, StartupError
from jetway.core.identity import CertificateFacts, RevokedCertificate
from jetway.ports import IssuedCertificate
from jetway.settings import Settings

log = structlog.get_logger()

CERTIFICATE_FILE = "ca.pem"
KEY_FILE = "ca-key.pem"
GIVEN_FILE = "ca-given.pin"
"""Remembers that the operator's authority was in use: the gateway's own is not made in its place."""
_LOST = "without it no host trusts this gateway any more"
_WARN = timedelta(days=365)
_SPIFFE = re.compile(r"spiffe://[a-z0-9._-]{1,255}(/[A-Za-z0-9._-]+)+", re.ASCII)
"""What the SPIFFE standard (SPIFFE-ID, section 2) allows."""
_LONGEST_NAME = 64
"""Characters of a common name, by RFC 5280."""


class OwnAuthority:
    """Implements `ports.CertificateAuthority`. Signing takes well under a millisecond and does no I/O."""

    def __init__(self, chain: Chain) -> None:
        self.chain = chain
        self.pin = chain.pin
        self.root_pem = chain.root_pem
        self._number = CrlNumber()

    def read_request(self, csr_pem: str) -> str:
        """Check a certificate request; the SHA-256 of its key's SubjectPublicKeyInfo, hex.

        Raises RefusedError naming `csr_pem` for what is not a request that would be signed.
        """
        return key_sha256(read_request(csr_pem))

    def issue(self, csr_pem: str, spiffe_id: str, now: datetime, lifetime: timedelta) -> IssuedCertificate:
        """A certificate for the request's key under that name alone, good for `lifetime` or as long as ours is.

        Raises RefusedError for the request, PortError for a name that is no SPIFFE ID.
        """
        if len(spiffe_id) > 2048 or not _SPIFFE.fullmatch(spiffe_id):
            raise PortError("a certificate's name must be a SPIFFE ID: spiffe://<trust domain>/<path>")
        key = read_request(csr_pem)
        # For people. With a space in it: many a TLS library takes a common name that could be a host's for one.
        name = "service " + spiffe_id.rpartition("/")[2][: _LONGEST_NAME - len("service ")]
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(spiffe_id)])
        uses = (ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH)
        leaf = self.sign(key, name, names, uses, now, lifetime)
        facts = CertificateFacts(
            serial=f"{leaf.serial_number:x}",
            sha256=sha256_hex(leaf),
            expires_at=leaf.not_valid_after_utc,
            key_sha256=key_sha256(key),
        )
        pem = leaf.public_bytes(Encoding.PEM).decode() + self.chain.intermediates_pem
        return IssuedCertificate(pem, facts)

    def crl(self, revoked: Sequence[RevokedCertificate], now: datetime) -> str:
        """The certificate revocation list, PEM. A list of 10,000 takes a tenth of a second."""
        return build_crl(self.chain, revoked, now, self._number.next(now))

    def sign(
        self,
        key: RequestKey,
        name: str,
        names: x509.SubjectAlternativeName,
        uses: tuple[x509.ObjectIdentifier, ...],
        now: datetime,
        lifetime: timedelta,
    ) -> x509.Certificate:
        """A leaf certificate, signed. Ends no later than what it is signed with.

        An edge service is a client to some and a server to others, so its certificate has both uses, as SPIFFE's
        X.509-SVID (section 4.4) has it; without a host name in it, it passes for no web server.
        """
        ends = min(now + lifetime, self.chain.expires_at)
        if ends <= now:
            raise PortError("the authority's certificate has expired: nothing can be signed with it")
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)] if name else [])
        return (
            x509.CertificateBuilder(self.chain.issuer.subject, subject, key, x509.random_serial_number())
            .not_valid_before(max(now - SKEW, self.chain.issuer.not_valid_before_utc))
            .not_valid_after(ends)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(key_usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
            .add_extension(names, critical=not name)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(self.chain.issuer_key_id, critical=False)
            .sign(self.chain.key, self.chain.hash_algorithm)
        )


def open_authority(settings: Settings, now: datetime) -> OwnAuthority:
    """The authority that the settings name: the operator's, else the gateway's own. Raises StartupError.

    Once the operator has given one, it is asked for: nothing is made in its place.
    """
    certificate, key = settings.identity.ca_cert, settings.identity.ca_key
    directory = settings.state_dir / "keys"
    memory = directory / GIVEN_FILE
    try:
        if certificate is None or key is None:
            if not memory.exists():
                return load_or_create_authority(directory, now)
            own = own_if_given(directory, memory.read_text().strip(), now)
            memory.unlink()
            return own
        given = load_given_authority(certificate, key, now)
        if not memory.exists() or memory.read_text() != given.pin:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            atomic_write(memory, given.pin.encode(), 0o600)
        return given
    except OSError as error:
        raise StartupError(f"cannot read or write {memory}: {error.strerror}") from error


def own_if_given(directory: Path, pin: str, now: datetime) -> OwnAuthority:
    """The gateway's own, where it was that one that the settings named last. Raises StartupError."""
    if (directory / CERTIFICATE_FILE).exists():
        own = load_or_create_authority(directory, now)
        if own.pin == pin:
            return own
    raise _no_longer_given(pin, directory)


def _no_longer_given(pin: str, directory: Path) -> StartupError:
    has_own = (directory / CERTIFICATE_FILE).exists()
    back = f". To go back to the gateway's own, name its files in {directory} there once" if has_own else ""
    return StartupError(
        f"identity.ca_cert, ca_key: not set, but this gateway's certificates are by the authority {pin}, which was"
        f" given there: set them again{back}"
    )


def load_or_create_authority(directory: Path, now: datetime) -> OwnAuthority:
    """The authority in `directory`; where there is no trace of one, a new one is made.

    That is right at the first start, and for a state directory from before there was an authority. Otherwise the
    ledger knows another one, and whoever starts the daemon compares the two before anything is signed.

    Raises StartupError, naming the file, where one is missing, damaged, expired, or open to other users.
    """
    certificate, key = directory / CERTIFICATE_FILE, directory / KEY_FILE
    try:
        check_directory(directory)
        if not key.exists() and not certificate.exists():
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            atomic_write(key, key_to_pem(make_key()), 0o600)
        if not certificate.exists():
            _certify(certificate, key, now)
        return _load(certificate, key, "restore both from a backup", now)
    except OSError as error:
        where = error.filename or directory
        raise StartupError(f"cannot read or make {where}: {error.strerror}") from error


def load_given_authority(certificate: Path, key: Path, now: datetime) -> OwnAuthority:
    """The operator's authority: `certificate` holds the one that signs, then those up to the root.

    Raises StartupError, naming the settings and the file.
    """
    try:
        return _load(certificate, key, "see identity.ca_cert and identity.ca_key", now)
    except OSError as error:
        where = f"identity.ca_cert, ca_key: cannot read {error.filename}"
        raise StartupError(f"{where}: {error.strerror}") from error


def _certify(certificate: Path, key: Path, now: datetime) -> None:
    """Make the root's certificate of its key: after the first start was cut short, and where the file got lost.

    It is the key that is pinned, and that what was signed refers to: nothing changes for anybody.
    """
    try:
        chain = make_chain(read_key(read_private(key, _LOST)), now)
    except ChainError as error:
        raise StartupError(f"{key} is damaged: {error}; restore it from a backup") from None
    atomic_write(certificate, chain.pem.encode(), 0o600)


def _load(certificate: Path, key: Path, advice: str, now: datetime) -> OwnAuthority:
    key_pem = read_private(key, _LOST)
    try:
        chain = read_chain(certificate.read_bytes(), key_pem, now)
    except ChainError as error:
        # The cause could quote the key.
        raise StartupError(f"{certificate} and {key.name} are no authority: {error}; {advice}") from None
    if chain.expires_at - now < _WARN:
        ends = chain.expires_at.isoformat()
        log.warning("the authority expires soon", action="authority_expires", file=str(certificate), at=ends)
    return OwnAuthority(chain)
