"""What a joined folder holds to prove who the service is, and when that ends by itself."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from jetway.edge.errors import EdgeError
from jetway.edge.joined import CERTIFICATE_FILE, CREDS_FILE, KEY_FILE, Joined
from jetway.edge.keys import certificate_dates, load_keys, public_nkey, read_creds, request_for

_LONG_AGO = datetime.fromtimestamp(0, UTC)


@dataclass(frozen=True, slots=True)
class Lifetime:
    """From when to when something is valid, by the clock of who issued it."""

    begins: datetime
    ends: datetime

    @property
    def length(self) -> timedelta:
        """How long that is."""
        return self.ends - self.begins

    def part(self, fraction: float) -> datetime:
        """The moment at which so much of it is over."""
        return self.begins + self.length * fraction


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """The proofs of one service."""

    seed: str = field(repr=False)
    """Of its NATS key; empty where it has none, and can renew nothing."""
    public_key: str
    nats: Lifetime | None
    """None: no NATS credentials, or such as never end."""
    certificate: Lifetime | None
    csr_pem: str
    """For the certificate's own key; empty without one."""


def read_held(folder: Path, joined: Joined) -> Held:
    """What stands in the folder now. Raises EdgeError where a part of it is damaged."""
    creds = _text(folder / CREDS_FILE)
    credentials = read_creds(creds) if creds else None
    keys = None if credentials else load_keys(folder, joined.package_id)
    seed = credentials.seed if credentials else keys.nats_seed if keys else ""
    csr = _request(folder, joined.service.service_id)
    return Held(
        seed=seed,
        public_key=public_nkey(seed) if seed else "",
        nats=_of_jwt(jwt_claims(credentials.jwt)) if credentials else None,
        certificate=_of_certificate(folder / CERTIFICATE_FILE) if csr else None,
        csr_pem=csr,
    )


def jwt_claims(jwt: str) -> dict[str, object]:
    """What a NATS JWT says; its signature is the server's to judge. Raises EdgeError."""
    try:
        part = jwt.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (ValueError, IndexError, RecursionError):
        claims = None
    if not isinstance(claims, dict):
        raise EdgeError("the NATS credentials are damaged: join again with a new token")
    return claims


def _of_jwt(claims: dict[str, object]) -> Lifetime | None:
    begins, ends = claims.get("iat"), claims.get("exp")
    if not isinstance(begins, int) or not isinstance(ends, int) or ends <= begins:
        return None
    try:
        return Lifetime(datetime.fromtimestamp(begins, UTC), datetime.fromtimestamp(ends, UTC))
    except (ValueError, OverflowError, OSError):
        return None


def _request(folder: Path, service_id: str) -> str:
    """Without a key of its own that can be read, a service lives on without a certificate."""
    try:
        key = _text(folder / KEY_FILE)
        return request_for(key, service_id) if key else ""
    except EdgeError:
        return ""


def _of_certificate(path: Path) -> Lifetime:
    """From when it was written here. One that is lost or damaged has ended long ago: a renewal mends it."""
    try:
        begins, ends = certificate_dates(_text(path))
        written = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    except (EdgeError, OSError):
        return Lifetime(_LONG_AGO, _LONG_AGO)
    # Its own beginning lies before its issue, so that a clock that is behind takes it.
    return Lifetime(min(max(begins, written), ends), ends)


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise EdgeError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError:
        raise EdgeError(f"{path} is damaged: join again with a new token") from None
