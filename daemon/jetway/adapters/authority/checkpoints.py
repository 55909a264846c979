"""The key that signs checkpoints of the audit trail: made once for a ledger, and never silently again.

A new key in the place of a lost one would let a forged trail pass for the real one.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from jetway.adapters.authority.private import check_directory, read_private
from jetway.adapters.statedir import atomic_write
from jetway.core.checkpoint import Signed
from jetway.core.errors import StartupError

KEY_FILE = "checkpoint-signing.pem"
_LOST = "without it nobody can tell whether the audit trail was changed"
_CONTEXT = b"jetway audit checkpoint\0"
"""Before the text that is signed, so that no signature of another kind can be one of these."""


class CheckpointVerifier:
    """Implements `ports.CheckpointVerifier`: the public half alone."""

    def __init__(self, key: Ed25519PublicKey) -> None:
        self._key = key
        raw = key.public_bytes(Encoding.Raw, PublicFormat.Raw)
        self.key_id = hashlib.sha256(raw).hexdigest()[:16]

    @property
    def public_pem(self) -> bytes:
        """What whoever keeps checkpoints elsewhere needs to check them."""
        return self._key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def verify(self, signed: Signed) -> bool:
        """Whether this key made the signature."""
        try:
            self._key.verify(base64.b64decode(signed.signature, validate=True), _message(signed.text))
        except (InvalidSignature, binascii.Error):
            return False
        return True


class CheckpointSigner(CheckpointVerifier):
    """Implements `ports.CheckpointSigner`."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        super().__init__(key.public_key())
        self._private = key

    def sign(self, text: str) -> Signed:
        """The text with its signature."""
        signature = base64.b64encode(self._private.sign(_message(text))).decode()
        return Signed(text, signature, self.key_id)


def open_signer(directory: Path, standing: str | None) -> CheckpointSigner:
    """The key in `directory`. `standing`: its id as the ledger remembers it, None where there was none yet.

    Raises StartupError, naming the file, for one that is missing, damaged, another one, or open to other users.
    """
    path = directory / KEY_FILE
    try:
        if standing is None and not path.exists():
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            pem = Ed25519PrivateKey.generate().private_bytes(
                Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
            )
            atomic_write(path, pem, 0o600)
        check_directory(directory)
        signer = CheckpointSigner(_load(path))
    except OSError as error:
        raise StartupError(f"cannot read or make the key {path}: {error.strerror}") from error
    if standing is not None and signer.key_id != standing:
        raise StartupError(
            f"{path}: the key is {signer.key_id}, this ledger's checkpoints are signed with {standing}: restore"
            " it from a backup, or copy keys/ from the daemon that made the ledger"
        )
    return signer


def open_verifier(path: Path) -> CheckpointVerifier:
    """The public key in a PEM file. Raises StartupError."""
    try:
        key = load_pem_public_key(path.read_bytes())
    except OSError as error:
        raise StartupError(f"cannot read the key {path}: {error.strerror}") from error
    except (ValueError, UnsupportedAlgorithm):
        raise StartupError(f"{path} is no public key in PEM") from None
    if not isinstance(key, Ed25519PublicKey):
        raise StartupError(f"{path} is not an Ed25519 key")
    return CheckpointVerifier(key)


def _load(path: Path) -> Ed25519PrivateKey:
    pem = read_private(path, _LOST)
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # The cause could quote the key.
        raise StartupError(f"{path} is damaged: restore it from a backup") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise StartupError(f"{path} is not an Ed25519 key: restore it from a backup")
    return key


def _message(text: str) -> bytes:
    return _CONTEXT + text.encode()
