"""Identities: made for an installer, told again for a retry, renewed for who holds the key.

Whatever is made here is worth nothing before it stands in the record: the caller writes it there with the same
compare-and-swap that spends the token.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TypeVar

from jetway.core import commands as c
from jetway.core.creds import creds_text
from jetway.core.errors import Code, RefusedError, refuse
from jetway.core.identity import CertificateFacts, Identity, spiffe_id
from jetway.core.ids import ServiceKey
from jetway.core.record import Package, ServiceRecord
from jetway.core.times import to_milliseconds
from jetway.ports import CertificateAuthority, NatsAuthority, Vault
from jetway.services.key_owners import KeyOwners

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityTerms:
    """What every identity of this gateway has in common."""

    trust_domain: str
    credentials_lifetime: timedelta
    """Of NATS credentials."""
    certificate_lifetime: timedelta


@dataclass(frozen=True, slots=True)
class HostKeys:
    """The public keys that a host showed, checked."""

    nats_public_key: str = ""
    csr_pem: str = ""
    csr_key: str = ""
    """SHA-256 of the SubjectPublicKeyInfo in the request, hex."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 over both keys, empty where there is none: the same for the same keys, however they are sent."""
        if not self.nats_public_key and not self.csr_key:
            return ""
        return hashlib.sha256(f"{self.nats_public_key}\n{self.csr_key}".encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """An identity as it is handed out. `creds` may hold a seed."""

    creds: str = field(default="", repr=False)
    certificate_pem: str = ""
    ca_pem: str = ""
    spiffe_id: str = ""
    note: str = ""
    """Why there are no NATS credentials, where there are none."""


@dataclass(frozen=True, slots=True)
class Renewal:
    """New credentials, and the command that makes them part of the record."""

    command: c.Renew
    credentials: Credentials
    expires_at: datetime | None
    """When the first of them expires; None where there are none."""


class Identities:
    """Makes identities with the authorities."""

    def __init__(
        self,
        certificates: CertificateAuthority,
        nats: NatsAuthority,
        vault: Vault,
        owners: KeyOwners,
        terms: IdentityTerms,
    ) -> None:
        self._certificates = certificates
        self._nats = nats
        self._vault = vault
        self._owners = owners
        self._terms = terms

    @property
    def shortest_lifetime(self) -> timedelta:
        """Of what is issued: so often something has to be renewed at the least."""
        return min(self._terms.credentials_lifetime, self._terms.certificate_lifetime)

    def read_keys(self, nats_public_key: str, csr_pem: str, key: ServiceKey) -> HostKeys:
        """Check what a host of that service sent. Raises RefusedError (malformed, key_used_before)."""
        if nats_public_key:
            _checked(self._nats.check_key, nats_public_key, "nats_public_key")
            if self._owners.is_of_another(nats_public_key, key):
                raise refuse(Code.KEY_USED_BEFORE, "this key is another service's", "nats_public_key")
        csr_key = _checked(self._certificates.read_request, csr_pem, "csr_pem") if csr_pem else ""
        return HostKeys(nats_public_key, csr_pem, csr_key)

    def issue(self, record: ServiceRecord, package: Package, keys: HostKeys, now: datetime) -> Identity:
        """The identity of the service that this package brings in, ready to be stored. Raises PortError."""
        public_key, sealed = keys.nats_public_key, ""
        server_made = not public_key and self._nats.issues
        if server_made:
            public_key, seed = self._nats.new_user()
            sealed = self._vault.seal(seed.encode(), context=seed_context(package.package_id))
        jwt = self._jwt(record, public_key, package.watch, now)
        name, pem, facts = self._certificate(record, keys, now)
        return Identity(
            package_id=package.package_id,
            issued_at=to_milliseconds(now),
            nats_public_key=public_key,
            nats_expires_at=to_milliseconds(now + self._terms.credentials_lifetime) if jwt else None,
            server_made=server_made,
            watch=package.watch,
            spiffe_id=name,
            certificates=(facts,) if facts else (),
            nats_jwt=jwt,
            certificate_pem=pem,
            sealed_seed=sealed,
        )

    def tell(self, record: ServiceRecord, package_id: str) -> Credentials:
        """What the record has for the installer of this package. Raises PortError."""
        identity = record.identity
        if identity is None or identity.package_id != package_id:
            return Credentials(spiffe_id=record.spiffe_identity, note=self._why_none())
        creds = ""
        if identity.nats_jwt:
            seed = self._open(identity.sealed_seed, package_id) if identity.sealed_seed else ""
            creds = creds_text(identity.nats_jwt, seed)
        return Credentials(
            creds=creds,
            certificate_pem=identity.certificate_pem,
            ca_pem=self._certificates.root_pem if identity.certificate_pem else "",
            # Of the certificate that is told here: one that a renewal has brought since changes no retry's answer.
            spiffe_id=(identity.certificate_pem and identity.spiffe_id) or record.spiffe_identity,
            note="" if creds else self._why_none(),
        )

    def renew(self, record: ServiceRecord, identity: Identity, keys: HostKeys, now: datetime) -> Renewal:
        """New credentials for the keys of this identity. Raises PortError."""
        jwt = self._jwt(record, identity.nats_public_key, identity.watch, now)
        expires = to_milliseconds(now + self._terms.credentials_lifetime) if jwt else None
        name, pem, facts = self._certificate(record, keys, now)
        command = c.Renew(
            nats_public_key=identity.nats_public_key,
            nats_expires_at=expires,
            certificate=facts,
            spiffe_id=name,
        )
        credentials = Credentials(
            creds=creds_text(jwt) if jwt else "",
            certificate_pem=pem,
            ca_pem=self._certificates.root_pem if pem else "",
            spiffe_id=name or identity.spiffe_id,
            note="" if jwt else self._why_none(),
        )
        ends = [end for end in (expires, facts.expires_at if facts else None) if end]
        return Renewal(command, credentials, min(ends, default=None))

    def _jwt(self, record: ServiceRecord, public_key: str, watch: bool, now: datetime) -> str:
        if not public_key or not self._nats.issues:
            return ""
        return self._nats.issue(
            public_key=public_key,
            lineage=record.lineage,
            watch=watch,
            now=now,
            lifetime=self._terms.credentials_lifetime,
        )

    def _certificate(
        self, record: ServiceRecord, keys: HostKeys, now: datetime
    ) -> tuple[str, str, CertificateFacts | None]:
        """Its name, its text, and what is kept of it; all empty where none was asked for."""
        if not keys.csr_pem:
            return "", "", None
        name = spiffe_id(self._terms.trust_domain, record.lineage)
        issued = self._certificates.issue(keys.csr_pem, name, now, self._terms.certificate_lifetime)
        return name, issued.pem, replace(issued.facts, key_sha256=keys.csr_key)

    def _open(self, sealed: str, package_id: str) -> str:
        return self._vault.open(sealed, context=seed_context(package_id)).decode()

    def _why_none(self) -> str:
        return "" if self._nats.issues else self._nats.why_not


def seed_context(package_id: str) -> str:
    """What a sealed seed is bound to."""
    return f"{package_id}|nats_seed"


def _checked(check: Callable[[str], T], text: str, name: str) -> T:
    """What is wrong with a key is told as malformed, under the name of its field."""
    try:
        return check(text)
    except RefusedError as error:
        raise refuse(Code.MALFORMED, error.refused.why, name) from None
