"""NATS credentials of edge hosts: for their own keys, in the gateway's own account or in somebody else's."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Protocol

from jetway.adapters.authority.nats_accounts import limits, permissions
from jetway.adapters.authority.nats_jwt import sign
from jetway.adapters.authority.nats_keys import NatsKeys
from jetway.adapters.authority.nkeys import Kind, NatsKey, read_public, verify
from jetway.core.errors import Code, PortError, refuse
from jetway.core.grants import GrantNames, grant, tags
from jetway.core.ids import Lineage

_NO_WATCH = (
    "edge hosts of the embedded NATS server have no JetStream of their own, so no consumer; subscribe to"
    " the live subjects and read by direct get, or use servers of your own (nats.mode = external)"
)


class Signer(Protocol):
    """Who signs, and what the JWT must then say of the host's rights."""

    why_no_watch: str

    def sign(
        self, public_key: str, lineage: Lineage, watch: bool, now: datetime, expires_at: datetime
    ) -> str:
        """The user JWT."""
        ...


class OwnSigner:
    """The embedded server's edge account: the rights follow from the signing key and the tags."""

    why_no_watch = _NO_WATCH

    def __init__(self, keys: NatsKeys) -> None:
        self._keys = keys

    def sign(
        self, public_key: str, lineage: Lineage, watch: bool, now: datetime, expires_at: datetime
    ) -> str:
        """The user JWT."""
        if watch:
            raise refuse(Code.INVALID, f"watch: {_NO_WATCH}", "watch")
        key = self._keys.signing(lineage.service_type)
        nats = {"type": "user", "issuer_account": self._keys.edge.public, "tags": list(tags(lineage))}
        return sign(key, public_key, _name(lineage), nats, now, expires_at)


class GivenSigner:
    """Somebody else's account: its signing key may have any scope or none, so the JWT says every right."""

    why_no_watch = ""

    def __init__(self, key: NatsKey, account: str, names: GrantNames) -> None:
        self._key = key
        self._account = account
        self._names = names

    def sign(
        self, public_key: str, lineage: Lineage, watch: bool, now: datetime, expires_at: datetime
    ) -> str:
        """The user JWT."""
        nats: dict[str, Any] = {
            "type": "user",
            "tags": list(tags(lineage)),
            **permissions(grant(self._names, lineage, watch=watch)),
            **limits(lineage.service_type),
            "allowed_connection_types": ["STANDARD", "WEBSOCKET"],  # where `nats.public_urls` say wss://
        }
        if self._key.public != self._account:
            nats["issuer_account"] = self._account
        return sign(self._key, public_key, _name(lineage), nats, now, expires_at)


class NatsUsers:
    """Implements `ports.NatsAuthority`. Without a signer it issues nothing, and says why."""

    def __init__(self, signer: Signer | None, why_not: str = "") -> None:
        self._signer = signer
        self.why_not = why_not

    @property
    def issues(self) -> bool:
        """Whether it can."""
        return self._signer is not None

    @property
    def why_no_watch(self) -> str:
        """Why no KV watch consumer can be granted; empty where it can, or nothing is granted at all."""
        return self._signer.why_no_watch if self._signer else ""

    def check_key(self, public_key: str) -> None:
        """Raise RefusedError naming `nats_public_key` for what is not the public key of a user."""
        try:
            read_public(public_key, Kind.USER)
        except ValueError as error:
            raise refuse(Code.INVALID, f"nats_public_key: {error}", "nats_public_key") from None

    def new_user(self) -> tuple[str, str]:
        """A user key made here: (public key, seed)."""
        key = NatsKey.generate(Kind.USER)
        return key.public, key.seed

    def issue(
        self, *, public_key: str, lineage: Lineage, watch: bool, now: datetime, lifetime: timedelta
    ) -> str:
        """A user JWT that allows exactly what this service may do. Raises PortError where it issues none."""
        if self._signer is None:
            raise PortError(self.why_not)
        self.check_key(public_key)
        return self._signer.sign(public_key, lineage, watch, now, now + lifetime)

    def verify(self, public_key: str, message: bytes, signature: bytes) -> bool:
        """Whether the holder of this key signed the message; False also for what is no key or signature."""
        try:
            return verify(public_key, Kind.USER, message, signature)
        except ValueError:
            return False


def _name(lineage: Lineage) -> str:
    """What the server's log and its connection list show."""
    return ".".join((lineage.service_type.value, *lineage.ids))
