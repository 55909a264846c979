"""The gateway's own keys: made once, at the first start, and never silently again.

A new key in the place of a lost one would turn every token that is out into an unknown one, without a word.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from jetway.adapters.authority.private import check_directory, read_private
from jetway.adapters.statedir import atomic_write
from jetway.core.errors import StartupError

SIGNING_FILE = "token-signing.pem"
SECRET_FILE = "token-secret.key"  # noqa: S105 - a file's name
_SECRET_BYTES = 32
_LOST = "without it no token that is out can be redeemed"


@dataclass(frozen=True, slots=True)
class TokenKeys:
    """What tokens are signed with (Ed25519), and what their secrets are derived from (32 bytes)."""

    signing: Ed25519PrivateKey = field(repr=False)
    secret: bytes = field(repr=False)

    @property
    def key_id(self) -> str:
        """16 hex digits that name the signing key: the same for the same key, and no secret."""
        raw = self.signing.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        return hashlib.sha256(raw).hexdigest()[:16]

    @property
    def secret_id(self) -> str:
        """16 hex digits that name the other key, likewise: of a random 256-bit key they tell nothing."""
        return hmac.digest(self.secret, b"jetway token secret id", "sha256").hex()[:16]


def load_or_create_keys(directory: Path, first_start: bool) -> TokenKeys:
    """The keys in `directory`; at the first start whichever file is missing is made.

    Raises StartupError, naming the file, for one that is missing later, damaged, or open to other users.
    """
    try:
        if first_start:
            _create_missing(directory)
        check_directory(directory)
        return TokenKeys(_load_signing(directory / SIGNING_FILE), _load_secret(directory / SECRET_FILE))
    except OSError as error:
        where = error.filename or directory
        raise StartupError(f"cannot read or make the key {where}: {error.strerror}") from error


def _create_missing(directory: Path) -> None:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    signing, secret = directory / SIGNING_FILE, directory / SECRET_FILE
    if not signing.exists():
        pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        atomic_write(signing, pem, 0o600)
    if not secret.exists():
        atomic_write(secret, base64.b64encode(secrets.token_bytes(_SECRET_BYTES)) + b"\n", 0o600)


def _load_signing(path: Path) -> Ed25519PrivateKey:
    pem = read_private(path, _LOST)
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # The cause could quote the key.
        raise StartupError(f"{path} is damaged: restore it from a backup") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise StartupError(f"{path} is not an Ed25519 key: restore it from a backup")
    return key


def _load_secret(path: Path) -> bytes:
    text = read_private(path, _LOST).strip()
    try:
        secret = base64.b64decode(text, validate=True)
    except binascii.Error:
        secret = b""
    if len(secret) != _SECRET_BYTES:
        raise StartupError(f"{path} is damaged: restore it from a backup")
    return secret
