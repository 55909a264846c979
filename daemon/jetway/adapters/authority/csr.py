"""Certificate requests: what is taken from them is the key, and nothing else."""

from __future__ import annotations

import hashlib
import re

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, SECP384R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from jetway.adapters.authority.unreadable import UNREADABLE
from jetway.core.errors import Code, RefusedError, refuse

MAX_LENGTH = 8 * 1024
"""Characters. A request for the largest key taken, with a subject and some extensions, has 2,000."""

_ONE_BLOCK = re.compile(
    r"\s*-----BEGIN (?P<kind>(NEW )?CERTIFICATE REQUEST)-----\r?\n"
    r"[A-Za-z0-9+/=\r\n]+-----END (?P=kind)-----\s*",
    re.ASCII,
)
_RSA_BITS = range(2048, 4097)
"""NIST SP 800-131A forbids less; the cost of checking more would be ours."""
_LARGEST_EXPONENT = 2**32
"""65537 is what everybody uses; an enormous one makes checking the signature slow."""

RequestKey = EllipticCurvePublicKey | Ed25519PublicKey | RSAPublicKey


def read_request(csr_pem: str) -> RequestKey:
    """The key of a request whose sender holds its private half.

    Raises RefusedError naming `csr_pem`: too long, not one PEM request, a key of another kind than EC P-256 or
    P-384, Ed25519 or RSA with 2048 to 4096 bits, a signature that is not by that key. Subject, extensions and
    attributes are not looked at: what a certificate says is the gateway's to decide.
    """
    if len(csr_pem) > MAX_LENGTH:
        raise _refused(f"a certificate request has at most {MAX_LENGTH} characters")
    if not _ONE_BLOCK.fullmatch(csr_pem):
        raise _refused("this is not one certificate request in PEM form")
    try:
        request = x509.load_pem_x509_csr(csr_pem.encode("ascii"))
        key = request.public_key()
    except UNREADABLE:
        raise _refused("this certificate request cannot be read") from None
    checked = _checked_key(key)
    if not _signed_by_its_key(request):
        raise _refused("the certificate request is not signed by its own key")
    return checked


def key_sha256(key: RequestKey) -> str:
    """SHA-256 of the key's SubjectPublicKeyInfo, hex."""
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def _checked_key(key: object) -> RequestKey:
    match key:
        case Ed25519PublicKey():
            return key
        case EllipticCurvePublicKey(curve=SECP256R1() | SECP384R1()):
            return key
        case RSAPublicKey():
            if key.key_size in _RSA_BITS and key.public_numbers().e < _LARGEST_EXPONENT:
                return key
    raise _refused("the key must be EC P-256 or P-384, Ed25519, or RSA with 2048 to 4096 bits")


def _signed_by_its_key(request: x509.CertificateSigningRequest) -> bool:
    try:
        return request.is_signature_valid
    except (*UNREADABLE, InvalidSignature):
        return False


def _refused(why: str) -> RefusedError:
    return refuse(Code.INVALID, why, "csr_pem")
