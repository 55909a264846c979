"""NATS JWTs: claims of operators, accounts and users, signed with nkeys.

Own code, for the package of that name drops the revocations of an account without a word. The claims are those
of version 2 (https://github.com/nats-io/jwt).
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from cryptography.hazmat.primitives.hashes import SHA512_256, Hash
from pydantic_core import to_json

from jetway.adapters.authority.nkeys import Kind, NatsKey, verify

MAX_BYTES = 8 * 1024 * 1024
"""A longer token is not looked at. A server takes 1 MB: an account with 11,000 revocations."""
_HEADER = {"typ": "JWT", "alg": "ed25519-nkey"}
_KINDS = {kind.letter: kind for kind in Kind}

Claims = dict[str, Any]


def sign(
    issuer: NatsKey,
    subject: str,
    name: str,
    nats: Mapping[str, Any],
    now: datetime,
    expires_at: datetime | None = None,
) -> str:
    """The token. `subject` is a public key, `nats` says what it is granted."""
    claims: Claims = {
        "iat": int(now.timestamp()),
        "iss": issuer.public,
        "name": name,
        "sub": subject,
        "nats": {**nats, "version": 2},
    }
    if expires_at is not None:
        claims["exp"] = int(expires_at.timestamp())
    claims["jti"] = _digest(_compact(claims))
    signed = f"{_base64(_compact(_HEADER))}.{_base64(_compact(claims))}"
    return f"{signed}.{_base64(issuer.sign(signed.encode()))}"


def read(token: str) -> Claims:
    """The claims of a token whose signature is right; whether its issuer is to be trusted is not judged here.

    Raises ValueError for anything else.
    """
    if len(token) > MAX_BYTES:
        raise ValueError("is too long for a NATS JWT")
    parts = token.split(".")
    if len(parts) != 3:
        raise ValueError("is not a NATS JWT: three parts are expected")
    header, claims = _object(parts[0]), _object(parts[1])
    if header.get("alg") != _HEADER["alg"]:
        raise ValueError("is not a NATS JWT: its algorithm is another")
    issuer = claims.get("iss")
    kind = _KINDS.get(issuer[:1]) if isinstance(issuer, str) else None
    if not isinstance(issuer, str) or kind is None:
        raise ValueError("is not a NATS JWT: it names no issuer")
    if not verify(issuer, kind, f"{parts[0]}.{parts[1]}".encode(), _bytes(parts[2])):
        raise ValueError("is not signed by its issuer")
    return claims


def _object(part: str) -> Claims:
    try:
        value = json.loads(_bytes(part))
    except (ValueError, RecursionError):
        raise ValueError("is not a NATS JWT: a part is not JSON in base64") from None
    if not isinstance(value, dict):
        raise ValueError("is not a NATS JWT: a part is not a JSON object")
    return value


def _bytes(part: str) -> bytes:
    try:
        return base64.b64decode(part.encode("ascii") + b"=" * (-len(part) % 4), b"-_", validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise ValueError("is not a NATS JWT: a part is not base64") from None


def _compact(value: Mapping[str, Any]) -> bytes:
    return to_json(value)  # in a burst of revocations ten thousand are written anew several times a second


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _digest(data: bytes) -> str:
    digest = Hash(SHA512_256())
    digest.update(data)
    return base64.b32encode(digest.finalize()).rstrip(b"=").decode()
