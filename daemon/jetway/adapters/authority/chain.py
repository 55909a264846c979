"""The authority's own certificates and key: made at the first start, or the operator's, and checked."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    SECP384R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.hashes import SHA256, SHA384
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from jetway.adapters.authority.unreadable import UNREADABLE
from jetway.core.tokens import pin_of

LIFETIME = timedelta(days=20 * 365)
"""Of a root made here. What is pinned is its key, and hosts that trust it are hard to reach."""
MAX_BYTES = 64 * 1024
"""Of a file with a chain; a longer one is something else."""
_LONGEST_CHAIN = 5

AuthorityKey = EllipticCurvePrivateKey | RSAPrivateKey


class ChainError(Exception):
    """Certificates and key do not make an authority; the message says why, and never holds a key."""


@dataclass(frozen=True, slots=True)
class Chain:
    """Certificates from the one that signs up to the root, and the key of the first."""

    certificates: tuple[x509.Certificate, ...]
    key: AuthorityKey = field(repr=False)

    @property
    def issuer(self) -> x509.Certificate:
        """The certificate that signs."""
        return self.certificates[0]

    @property
    def root(self) -> x509.Certificate:
        """The certificate to be trusted."""
        return self.certificates[-1]

    @property
    def intermediates_pem(self) -> str:
        """What a holder of a certificate sends along: all but the root."""
        return _pem(self.certificates[:-1])

    @property
    def pem(self) -> str:
        """All of them, the root last."""
        return _pem(self.certificates)

    @property
    def root_pem(self) -> str:
        """The root alone."""
        return _pem(self.certificates[-1:])

    @property
    def pin(self) -> str:
        """What tokens name the root's key by."""
        return pin_of(_spki(self.root))

    @property
    def expires_at(self) -> datetime:
        """When the first of them expires."""
        return min(certificate.not_valid_after_utc for certificate in self.certificates)

    @property
    def issuer_key_id(self) -> x509.AuthorityKeyIdentifier:
        """The signing key's name in what it signs."""
        try:
            own = self.issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
        except x509.ExtensionNotFound:
            return x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own.value)

    @property
    def hash_algorithm(self) -> SHA256 | SHA384:
        """As strong as the key."""
        stronger = isinstance(self.key, EllipticCurvePrivateKey) and self.key.curve.key_size > 256
        return SHA384() if stronger else SHA256()


def make_key() -> AuthorityKey:
    """A new random key: EC P-256, which everything that speaks TLS can verify."""
    return generate_private_key(SECP256R1())


def key_to_pem(key: AuthorityKey) -> bytes:
    """The key, unencrypted: for its file alone."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def make_chain(key: AuthorityKey, now: datetime) -> Chain:
    """A root of this key that signs by itself. The same key gives the same name."""
    public = key.public_key()
    key_id = x509.SubjectKeyIdentifier.from_public_key(public)
    # The name tells two gateways' roots apart for people; software goes by the key.
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Jetway {key_id.digest.hex()[:12]}")])
    root = (
        x509.CertificateBuilder(name, name, public, x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(key_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(key_id, critical=False)
        .sign(key, SHA256())
    )
    return Chain((root,), key)


def read_chain(certificates: bytes, key: bytes, now: datetime) -> Chain:
    """An authority from PEM: the certificate that signs first, the root last. Raises ChainError."""
    chain = Chain(read_certificates(certificates), read_key(key))
    _check_key(chain)
    for beneath, certificate in enumerate(chain.certificates):
        _check_authority(certificate, beneath, now)
    for signed, signer in zip(chain.certificates, [*chain.certificates[1:], chain.root], strict=True):
        _check_signed(signed, signer)
    return chain


def read_certificates(pem: bytes) -> tuple[x509.Certificate, ...]:
    """The certificates in PEM text. Raises ChainError for none, for too many and for what is damaged."""
    if len(pem) > MAX_BYTES:
        raise ChainError(f"it is larger than {MAX_BYTES} bytes")
    try:
        found = x509.load_pem_x509_certificates(pem)
        for certificate in found:
            _look_through(certificate)
    except UNREADABLE:
        raise ChainError("it holds no readable PEM certificate") from None
    if len(found) > _LONGEST_CHAIN:
        raise ChainError(f"a chain of more than {_LONGEST_CHAIN} certificates")
    return tuple(found)


def _look_through(certificate: x509.Certificate) -> None:
    """The library reads these only when they are asked for: what is wrong with them shall show here."""
    if certificate.serial_number <= 0:
        raise ValueError("RFC 5280 asks for a positive serial number")
    certificate.public_key()
    certificate.subject.rfc4514_string()
    _ = certificate.not_valid_before_utc, certificate.not_valid_after_utc, certificate.extensions


def read_private_key(pem: bytes) -> PrivateKeyTypes:
    """A private key of any kind. Raises ChainError, which does not quote it."""
    try:
        return load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ChainError("it is no unencrypted private key in PEM form") from None


def key_usage(**uses: bool) -> x509.KeyUsage:
    """The extension with these uses and no other."""
    every = (
        "digital_signature content_commitment key_encipherment data_encipherment key_agreement key_cert_sign"
        " crl_sign encipher_only decipher_only"
    )
    return x509.KeyUsage(**{name: uses.get(name, False) for name in every.split()})


def sha256_hex(certificate: x509.Certificate) -> str:
    """The fingerprint of the DER."""
    return hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest()


def read_key(pem: bytes) -> AuthorityKey:
    """An authority's key. Raises ChainError."""
    key = read_private_key(pem)
    if isinstance(key, EllipticCurvePrivateKey) and isinstance(key.curve, SECP256R1 | SECP384R1):
        return key
    if isinstance(key, RSAPrivateKey) and key.key_size >= 2048:
        return key
    raise ChainError("the key must be EC P-256 or P-384, or RSA with at least 2048 bits")


def _check_key(chain: Chain) -> None:
    own = chain.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if own != _spki(chain.issuer):
        raise ChainError("the key is not that of the first certificate")


def _check_authority(certificate: x509.Certificate, beneath: int, now: datetime) -> None:
    name = certificate.subject.rfc4514_string()
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = _usage(certificate)
    except (x509.ExtensionNotFound, ValueError):
        raise ChainError(f"{name} is not the certificate of an authority") from None
    if not constraints.ca or not (usage is None or (usage.key_cert_sign and usage.crl_sign)):
        raise ChainError(f"{name} may not sign certificates and revocation lists")
    if constraints.path_length is not None and constraints.path_length < beneath:
        raise ChainError(f"{name} allows only {constraints.path_length} authorities beneath it")
    if not certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc:
        raise ChainError(
            f"{name} is valid from {certificate.not_valid_before_utc} to {certificate.not_valid_after_utc}"
        )


def _usage(certificate: x509.Certificate) -> x509.KeyUsage | None:
    try:
        return certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return None


def _check_signed(signed: x509.Certificate, signer: x509.Certificate) -> None:
    if not isinstance(signer.public_key(), EllipticCurvePublicKey | RSAPublicKey):
        raise ChainError("only EC and RSA keys are supported")
    try:
        signed.verify_directly_issued_by(signer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        what = "is not signed by the next one; the root comes last"
        raise ChainError(f"{signed.subject.rfc4514_string()} {what}") from None


def _spki(certificate: x509.Certificate) -> bytes:
    return certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _pem(certificates: Sequence[x509.Certificate]) -> str:
    return "".join(each.public_bytes(Encoding.PEM).decode() for each in certificates)
