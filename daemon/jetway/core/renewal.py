"""A renewal on the wire: a host asks for new credentials, with a signature by the NATS key that it has.

The subject says who asks, `jetway.renew.agent.<poller>.<agent>`; over HTTP it stands in the body, for a host whose
credentials ran out while it was off. The signature covers the subject, the time and the certificate request, so
that nothing of it can be exchanged, and what was listened in on is worth nothing after five minutes. Before that
its replay gains nothing either: what is answered is of use to the key's holder alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Annotated

from pydantic import Field, JsonValue, TypeAdapter, ValidationError

from jetway.core.grants import RENEW_PREFIX
from jetway.core.heartbeat import MalformedError, parse_subject
from jetway.core.ids import Lineage
from jetway.core.times import Timestamp, parse_rfc3339, rfc3339
from jetway.core.tokens import decode64, encode64

FRESH = timedelta(minutes=5)
"""How far a host's clock may be off."""
MAX_BYTES = 24 * 1024
"""Of a request; a longer one is not looked at."""
_LONGEST_CSR = 16 * 1024
_VERSION = "jetway-renewal-v1"

Sign = Callable[[bytes], bytes]
"""Signs with the host's NATS key: 64 bytes, Ed25519."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RenewalRequest:
    """A request taken apart. Nothing of it is verified yet."""

    lineage: Lineage
    timestamp: datetime
    nats_public_key: str
    csr_pem: str
    signed: bytes
    signature: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class RenewalAnswer:
    """New credentials. `creds` holds the JWT alone: the host has the seed."""

    creds: str = ""
    certificate_pem: str = ""
    ca_pem: str = ""
    expires_at: Timestamp | None = None
    """When the first of them expires."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RenewalRefusal:
    """Why there are none: `error` is for programs, `detail` for people."""

    error: Annotated[str, Field(min_length=1)]
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Body:
    timestamp: Annotated[str, Field(max_length=64)]
    nats_public_key: Annotated[str, Field(max_length=128)]
    signature: Annotated[str, Field(max_length=128, repr=False)]
    csr_pem: Annotated[str, Field(max_length=_LONGEST_CSR)] = ""
    subject: Annotated[str, Field(max_length=512)] = ""


_BODY: TypeAdapter[_Body] = TypeAdapter(_Body)
_ANSWER: TypeAdapter[RenewalAnswer] = TypeAdapter(RenewalAnswer)
_REFUSAL: TypeAdapter[RenewalRefusal] = TypeAdapter(RenewalRefusal)
_OBJECT: TypeAdapter[dict[str, JsonValue]] = TypeAdapter(dict[str, JsonValue])


def renewal_subject(lineage: Lineage) -> str:
    """Where this service asks."""
    return lineage.subject(RENEW_PREFIX)


def make_request(
    lineage: Lineage, *, nats_public_key: str, now: datetime, sign: Sign, csr_pem: str = ""
) -> bytes:
    """The request, for NATS and HTTP alike."""
    subject, timestamp = renewal_subject(lineage), rfc3339(now)
    signature = sign(_signed(subject, timestamp, csr_pem))
    body = {
        "subject": subject,
        "timestamp": timestamp,
        "nats_public_key": nats_public_key,
        "csr_pem": csr_pem,
        "signature": encode64(signature),
    }
    return json.dumps(body).encode()


def parse_request(data: bytes, subject: str = "") -> RenewalRequest:
    """Take a request apart; `subject` is that on which it came, if it came over NATS. Raises MalformedError."""
    if len(data) > MAX_BYTES:
        raise MalformedError(f"the request has {len(data)} bytes, over {MAX_BYTES}")
    try:
        body = _BODY.validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise MalformedError(f"{where}: {first['msg']}" if where else str(first["msg"])) from None
    if subject and body.subject and body.subject != subject:
        raise MalformedError("subject: is not the one on which the request came")
    asked = subject or body.subject
    return RenewalRequest(
        lineage=_lineage(asked),
        timestamp=_moment(body.timestamp),
        nats_public_key=body.nats_public_key,
        csr_pem=body.csr_pem,
        signed=_signed(asked, body.timestamp, body.csr_pem),
        signature=_bytes(body.signature),
    )


def encode_answer(answer: RenewalAnswer | RenewalRefusal) -> bytes:
    """The answer as JSON."""
    return _ANSWER.dump_json(answer) if isinstance(answer, RenewalAnswer) else _REFUSAL.dump_json(answer)


def parse_answer(data: bytes) -> RenewalAnswer | RenewalRefusal:
    """The inverse. Raises MalformedError for anything else."""
    try:
        said = _OBJECT.validate_json(data)
        return _REFUSAL.validate_python(said) if "error" in said else _ANSWER.validate_json(data)
    except ValidationError:
        raise MalformedError("this is no answer to a renewal") from None


def _signed(subject: str, timestamp: str, csr_pem: str) -> bytes:
    digest = hashlib.sha256(csr_pem.encode()).hexdigest()
    return f"{_VERSION}\n{subject}\n{timestamp}\n{digest}".encode()


def _lineage(subject: str) -> Lineage:
    try:
        return parse_subject(subject, RENEW_PREFIX)
    except MalformedError:
        raise MalformedError(f"subject: is not {RENEW_PREFIX}.<type>.<ids> of a service") from None


def _moment(text: str) -> datetime:
    try:
        return parse_rfc3339(text)
    except ValueError:
        raise MalformedError("timestamp: is not a time in RFC 3339") from None


def _bytes(text: str) -> bytes:
    try:
        return decode64(text)
    except ValueError:
        raise MalformedError("signature: is not base64url") from None
