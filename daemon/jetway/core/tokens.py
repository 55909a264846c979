"""What a package's token says. It is signed, so a forged or altered one is refused before anything is looked up.

Its secret is an HMAC of a server key over package and generation: nothing stores it, and an idempotent retry
can return it. The text has three parts, `jw1.<claims>.<signature>`, the last two in base64url without padding.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from jetway.core.errors import Code, refuse
from jetway.core.ids import ServiceId, ServiceType

PREFIX = "jw1"
MAX_LENGTH = 2048
"""Characters; a longer text is refused before it is decoded."""
LAST_SECOND = 253_402_300_799
"""The end of the year 9999: no clock counts further."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """The contents of a token."""

    gateway: str
    """The URL at which to redeem."""
    package_id: str
    generation: int
    service_type: ServiceType
    service_id: ServiceId
    expires_at: Annotated[int, Field(ge=0, lt=LAST_SECOND)]
    """Seconds since 1970, UTC, cut; the package's own time decides to the millisecond."""
    secret: str = field(default="", repr=False)
    ca_pin: str = ""
    """`sha256:` and the base64url hash of the gateway's root key; empty where the system's trust is used."""

    def expired(self, now: datetime) -> bool:
        """Whether the whole second in which the token expires is over."""
        return now >= datetime.fromtimestamp(self.expires_at + 1, UTC)


@dataclass(frozen=True, slots=True)
class TokenParts:
    """A token taken apart, nothing verified yet."""

    claims: Claims
    signed: bytes
    signature: bytes


_CLAIMS: TypeAdapter[Claims] = TypeAdapter(Claims)


def signing_input(claims: Claims) -> bytes:
    """What is signed: the prefix and the claims, one text for one set of claims."""
    text = json.dumps(asdict(claims), sort_keys=True, separators=(",", ":"))
    return f"{PREFIX}.{encode64(text.encode())}".encode()


def join_token(signed: bytes, signature: bytes) -> str:
    """The token's text."""
    return f"{signed.decode()}.{encode64(signature)}"


def split_token(token: str) -> TokenParts:
    """Take a token apart. Raises RefusedError (`token_malformed`) for anything that is not one."""
    malformed = refuse(
        Code.TOKEN_MALFORMED, "this is not a Jetway token: copy it whole, from jw1. to its end", "token"
    )
    if len(token) > MAX_LENGTH:
        raise malformed
    prefix, _, rest = token.partition(".")
    body, _, signature = rest.partition(".")
    if prefix != PREFIX or not body or not signature:
        raise malformed
    try:
        claims = _CLAIMS.validate_json(decode64(body))
        return TokenParts(claims, f"{prefix}.{body}".encode(), decode64(signature))
    except (ValidationError, ValueError):
        raise malformed from None


def pin_of(public_key_info: bytes) -> str:
    """What names a root's key in a token, made of its SubjectPublicKeyInfo in DER."""
    return f"sha256:{encode64(hashlib.sha256(public_key_info).digest())}"


def encode64(data: bytes) -> str:
    """base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decode64(text: str) -> bytes:
    """The strict inverse of encode64. Raises ValueError."""
    if not text.isascii():
        raise ValueError("not base64url")
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except binascii.Error as error:
        raise ValueError("not base64url") from error
    if encode64(data) != text:
        raise ValueError("not canonical base64url")
    return data
