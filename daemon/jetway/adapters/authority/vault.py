"""Encryption at rest: AES-256-GCM with a key from a file, a systemd credential, or made at the first start.

The file has one key a line, 32 bytes in base64; what begins with # is a comment. All of them open what they have
sealed; the ledger remembers which one writes. A key's id is made of the key, so it cannot be given to another.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from jetway.adapters.authority.private import check_directory, read_private
from jetway.adapters.statedir import atomic_write
from jetway.core.errors import PortError, StartupError
from jetway.core.tokens import decode64, encode64

KEY_FILE = "vault.keys"
"""In the state directory's `keys/`."""
CREDENTIAL = "jetway-vault.keys"
"""The same as a systemd credential: `LoadCredential=jetway-vault.keys:/path`."""
LOST = "without it the secrets in the ledger cannot be read"
_COPY = "copy the directory keys/ from the daemon that made the ledger"
_VERSION = "v1"
_KEY_BYTES = 32
_NONCE_BYTES = 12
"""96 bits, random: safe for 2^32 texts under one key (NIST SP 800-38D, 8.3), and here they are some thousand."""


@dataclass(frozen=True, slots=True)
class VaultKeys:
    """Keys in the order of the file: the newest last."""

    by_id: Mapping[str, bytes] = field(repr=False)

    @property
    def ids(self) -> tuple[str, ...]:
        """In order."""
        return tuple(self.by_id)


class AesVault:
    """Implements `ports.Vault`."""

    def __init__(self, keys: VaultKeys, current: str) -> None:
        self._ciphers = {key_id: AESGCM(key) for key_id, key in keys.by_id.items()}
        self.current = current

    def seal(self, plaintext: bytes, *, context: str) -> str:
        """Encrypt with the current key."""
        nonce = os.urandom(_NONCE_BYTES)
        sealed = self._ciphers[self.current].encrypt(nonce, plaintext, _bound_to(self.current, context))
        return f"{_VERSION}.{self.current}.{encode64(nonce + sealed)}"

    def open(self, sealed: str, *, context: str) -> bytes:
        """The inverse, with whichever key it was. Raises PortError."""
        key_id, data = _take_apart(sealed)
        cipher = self._ciphers.get(key_id)
        if cipher is None:
            raise PortError(f"a secret is sealed with the key {key_id}, which is not among the vault's keys")
        try:
            return cipher.decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], _bound_to(key_id, context))
        except InvalidTag:
            raise PortError("a sealed secret was altered, or belongs elsewhere") from None

    def is_current(self, sealed: str) -> bool:
        """Whether the current key sealed it."""
        return sealed.startswith(f"{_VERSION}.{self.current}.")


def _bound_to(key_id: str, context: str) -> bytes:
    return f"jetway {_VERSION}|{key_id}|{context}".encode()


def _take_apart(sealed: str) -> tuple[str, bytes]:
    version, _, rest = sealed.partition(".")
    key_id, _, body = rest.partition(".")
    try:
        data = decode64(body)
    except ValueError:
        data = b""
    if version != _VERSION or len(data) <= _NONCE_BYTES:
        raise PortError("this is no sealed secret")
    return key_id, data


# --- the file


@dataclass(frozen=True, slots=True)
class VaultFile:
    """Where the keys stand. `own`: the gateway made the file, and may change it."""

    path: Path
    own: bool

    def open(self, standing: str | None) -> AesVault:
        """The vault, writing with the key that the ledger remembers; `standing` is its id, None for none yet.

        Raises StartupError, naming the file: a missing or wrong key is never replaced by a new one.
        """
        if self.own and standing is None and not self.path.exists():
            self.write([new_key()])
        if self.own and not self.path.exists():
            raise StartupError(f"{self.path} is missing: restore it from a backup, or {_COPY}; {LOST}")
        keys = self.read()
        current = standing or keys.ids[-1]
        if current not in keys.by_id:
            have = ", ".join(keys.ids)
            raise StartupError(
                f"{self.path}: the ledger's secrets are sealed with the key {current}, the file has {have}: "
                f"restore the right one from a backup, or {_COPY}"
            )
        return AesVault(keys, current)

    def read(self) -> VaultKeys:
        """The keys. Raises StartupError."""
        try:
            if self.own:
                check_directory(self.path.parent)
            text = read_private(self.path, LOST) if self.own else _read_given(self.path)
        except OSError as error:
            raise StartupError(f"cannot read the key {self.path}: {error.strerror}") from error
        return _parse(text, self.path)

    def write(self, keys: Sequence[bytes]) -> None:
        """Replace the file. Raises StartupError."""
        lines = b"".join(base64.b64encode(key) + b"\n" for key in keys)
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            atomic_write(self.path, lines, 0o600)
        except OSError as error:
            raise StartupError(f"cannot write the key {self.path}: {error.strerror}") from error


def find_vault(state_dir: Path, given: Path | None, environment: Mapping[str, str]) -> VaultFile:
    """The file that the setting names, else systemd's credential, else the one in the state directory."""
    if given is not None:
        return VaultFile(given, own=False)
    folder = environment.get("CREDENTIALS_DIRECTORY", "")
    if folder and (credential := Path(folder) / CREDENTIAL).exists():
        return VaultFile(credential, own=False)
    return VaultFile(state_dir / "keys" / KEY_FILE, own=True)


def new_key() -> bytes:
    """A random key."""
    return secrets.token_bytes(_KEY_BYTES)


def key_id(key: bytes) -> str:
    """16 hex digits that name a key. Of a random 256-bit key they tell nothing."""
    return hmac.digest(key, b"jetway vault key id", "sha256").hex()[:16]


def _read_given(path: Path) -> bytes:
    """Whoever gives the file answers for its mode: systemd's credentials may show a group that is none."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise StartupError(f"vault.key_file: {path} is missing: {LOST}") from None


def _parse(text: bytes, path: Path) -> VaultKeys:
    found: dict[str, bytes] = {}
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if not stripped or stripped.startswith(b"#"):
            continue
        try:
            key = base64.b64decode(stripped, validate=True)
        except binascii.Error:
            key = b""
        if len(key) != _KEY_BYTES:
            # The line itself may be a key with a typing error in it.
            raise StartupError(f"{path}, line {number}: is not a key, 32 bytes in base64")
        found[key_id(key)] = key
    if not found:
        raise StartupError(f"{path} has no key: restore it from a backup; {LOST}")
    return VaultKeys(found)
