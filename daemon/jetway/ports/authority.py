"""Who signs and encrypts: package tokens, certificates, NATS credentials, secrets at rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol

from jetway.core.identity import CertificateFacts, RevokedCertificate
from jetway.core.ids import Lineage
from jetway.core.tokens import Claims


class Authority(Protocol):
    """Signs and reads package tokens. Keys never leave it."""

    def issue_token(self, claims: Claims) -> str:
        """The token: the same claims give the same text, so that a retry can return it."""
        ...

    def read_token(self, token: str) -> Claims:
        """The claims of a token that this gateway signed.

        Raises RefusedError (`token_malformed`, `token_unknown`) before anything is looked up.
        """
        ...


@dataclass(frozen=True, slots=True)
class IssuedCertificate:
    """A certificate as it is handed out: leaf and intermediates, and what is kept of it."""

    pem: str
    facts: CertificateFacts


class CertificateAuthority(Protocol):
    """The gateway's own certificate authority. Its keys never leave it; every call is short and does no I/O."""

    @property
    def pin(self) -> str:
        """`sha256:` and the base64url SHA-256 of the root key's SubjectPublicKeyInfo."""
        ...

    @property
    def root_pem(self) -> str:
        """What trusts every certificate of this authority."""
        ...

    def read_request(self, csr_pem: str) -> str:
        """Check a certificate request; the SHA-256 of its key's SubjectPublicKeyInfo, hex.

        Raises RefusedError naming `csr_pem` for what is not a request that would be signed.
        """
        ...

    def issue(self, csr_pem: str, spiffe_id: str, now: datetime, lifetime: timedelta) -> IssuedCertificate:
        """A certificate for the request's key, under that name alone. Raises RefusedError as above."""
        ...

    def crl(self, revoked: Sequence[RevokedCertificate], now: datetime) -> str:
        """The certificate revocation list, PEM."""
        ...


@dataclass(frozen=True, slots=True)
class ServedCertificate:
    """What a TLS server shows: the files to read, and what is known of them."""

    certificate: Path
    """The certificate that is the server's own first, then those up to the root, as far as they are sent."""
    key: Path
    expires_at: datetime
    pem: str
    """What a program on this machine trusts it by: the root, or the certificate itself."""
    stamp: str
    """Tells this reading of the files from another."""
    alone: str = ""
    """The server's own certificate and no other, PEM: whoever knows it needs no name to know the server."""


class ServerCertificate(Protocol):
    """Where a TLS server has its certificate from. Both calls read files: not for the event loop."""

    def load(self) -> ServedCertificate:
        """The certificate to show from now on. Raises PortError with a sentence, naming setting and file."""
        ...

    def due(self, served: ServedCertificate) -> bool:
        """Whether another one should be loaded in the place of `served`."""
        ...


class NatsAuthority(Protocol):
    """Issues NATS user credentials. Its keys never leave it; every call is short and does no I/O."""

    @property
    def issues(self) -> bool:
        """Whether it can: not without a signing key, and not for a server that asks for no credentials."""
        ...

    @property
    def why_not(self) -> str:
        """A sentence for the answer and /readyz where it does not."""
        ...

    @property
    def why_no_watch(self) -> str:
        """A sentence where it cannot grant a KV watch consumer; empty where it can, or grants nothing at all."""
        ...

    def check_key(self, public_key: str) -> None:
        """Raise RefusedError naming `nats_public_key` for what is not the public key of a user."""
        ...

    def new_user(self) -> tuple[str, str]:
        """A user key made here: (public key, seed)."""
        ...

    def issue(
        self, *, public_key: str, lineage: Lineage, watch: bool, now: datetime, lifetime: timedelta
    ) -> str:
        """A user JWT that allows exactly what this service may do."""
        ...

    def verify(self, public_key: str, message: bytes, signature: bytes) -> bool:
        """Whether the holder of this key signed the message; False also for what is no key or signature."""
        ...


class NatsAccount(Protocol):
    """The NATS account that edge hosts belong to."""

    @property
    def can_revoke(self) -> bool:
        """Whether the server can be told; somebody else's server cannot."""
        ...

    async def publish_revocations(self, revoked: Mapping[str, datetime]) -> None:
        """Tell the server the whole set: user keys, and the moment up to which their credentials are void.

        Once this returns, connections of those users are being dropped. Raises PortError.
        """
        ...


class Vault(Protocol):
    """Encryption at rest."""

    def seal(self, plaintext: bytes, *, context: str) -> str:
        """Encrypt: `v1.<key id>.<base64url>`. `context` says what it is, and must be said again to open it."""
        ...

    def open(self, sealed: str, *, context: str) -> bytes:
        """The inverse. Raises PortError for an unknown key, another context or an altered text."""
        ...

    def is_current(self, sealed: str) -> bool:
        """Whether it is sealed with the key that is now written with."""
        ...
