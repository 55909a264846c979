"""NATS keys: Ed25519 with a prefix that says what for, a checksum, and a spelling in base32.

Written from the description of nkeys (https://github.com/nats-io/nkeys); needs nothing but `cryptography`.
"""

from __future__ import annotations

import base64
import binascii
import os
from dataclasses import dataclass, field
from enum import IntEnum

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

PUBLIC_LENGTH = 56
"""Characters of a public key."""
SEED_LENGTH = 58
_SEED_PREFIX = 18 << 3


class Kind(IntEnum):
    """What a key is for; the value is the prefix byte of its public half."""

    ACCOUNT = 0
    OPERATOR = 14 << 3
    USER = 20 << 3

    @property
    def letter(self) -> str:
        """The first letter of a public key, and the second of a seed."""
        return self.name[0]


@dataclass(frozen=True, slots=True)
class NatsKey:
    """A private key. Its seed does not show in its repr."""

    kind: Kind
    private: Ed25519PrivateKey = field(repr=False)
    public: str
    """`U…`, `A…` or `O…`."""
    seed: str = field(repr=False)
    """`SU…`, `SA…` or `SO…`: the secret."""

    @classmethod
    def generate(cls, kind: Kind) -> NatsKey:
        """A new random key."""
        return cls._of(kind, os.urandom(32))

    @classmethod
    def from_seed(cls, seed: str, kind: Kind) -> NatsKey:
        """The key that `seed` spells. Raises ValueError, which does not quote it, for anything else."""
        raw = _decode(seed, SEED_LENGTH)
        if raw[0] & 0xF8 != _SEED_PREFIX or (raw[0] & 7) << 5 | raw[1] >> 3 != kind:
            raise ValueError(f"is not the seed of a NATS {kind.name.lower()} key (S{kind.letter}…)")
        return cls._of(kind, raw[2:])

    @classmethod
    def _of(cls, kind: Kind, secret: bytes) -> NatsKey:
        private = Ed25519PrivateKey.from_private_bytes(secret)
        public = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        head = bytes([_SEED_PREFIX | kind >> 5, (kind & 31) << 3])
        return cls(kind, private, _encode(bytes([kind]) + public), _encode(head + secret))

    def sign(self, message: bytes) -> bytes:
        """The signature, 64 bytes."""
        return self.private.sign(message)


def read_public(text: str, kind: Kind) -> Ed25519PublicKey:
    """The public key that `text` spells. Raises ValueError with a reason for anything else."""
    raw = _decode(text, PUBLIC_LENGTH)
    if raw[0] != kind:
        raise ValueError(f"is not the public half of a NATS {kind.name.lower()} key ({kind.letter}…)")
    return Ed25519PublicKey.from_public_bytes(raw[1:])


def verify(public_key: str, kind: Kind, message: bytes, signature: bytes) -> bool:
    """Whether this key made this signature. Raises ValueError for what is no such key."""
    try:
        read_public(public_key, kind).verify(signature, message)
    except InvalidSignature:
        return False
    return True


def _encode(raw: bytes) -> str:
    return base64.b32encode(raw + _checksum(raw)).rstrip(b"=").decode()


def _decode(text: str, length: int) -> bytes:
    """What is spelled, without its checksum. Only the one spelling that `_encode` gives is accepted."""
    if len(text) != length:
        raise ValueError(f"is not a NATS key: {length} characters are expected")
    try:
        data = base64.b32decode(text + "=" * (-length % 8))
    except (binascii.Error, ValueError):
        raise ValueError("is not a NATS key: it is not base32") from None
    raw, checksum = data[:-2], data[-2:]
    if _checksum(raw) != checksum or _encode(raw) != text:
        raise ValueError("is not a NATS key: its checksum is wrong")
    return raw


def _checksum(data: bytes) -> bytes:
    """CRC-16/XMODEM, the low byte first."""
    return binascii.crc_hqx(data, 0).to_bytes(2, "little")
