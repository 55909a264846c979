"""A service's identity: what it can prove itself with, and what must no longer be believed.

An identity is part of the record. What other places must know of it (the revocations of the NATS account, the
certificate revocation list) is derived from the records, so that a crash can lose none of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

from jetway.core.ids import Lineage
from jetway.core.times import Timestamp

if TYPE_CHECKING:
    from jetway.core.record import ServiceRecord


FORMER_KEYS_KEPT = 64
"""Of each service; with more the oldest is forgotten."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateFacts:
    """What is kept of a certificate that was handed out."""

    serial: str
    """Lower-case hex."""
    sha256: str
    """Fingerprint of the DER, hex."""
    expires_at: Timestamp
    key_sha256: str = ""
    """Of the key's SubjectPublicKeyInfo, hex; the same key in another request has the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """The service's current identity. Holds no secret but a sealed one, and that only for a retry."""

    package_id: str
    issued_at: Timestamp
    nats_public_key: str = ""
    """The host's user nkey, `U…`; empty where it has none."""
    nats_expires_at: Timestamp | None = None
    """None: no NATS credentials were issued for the key; it only proves who asks for a renewal."""
    server_made: bool = False
    """The gateway made the NATS key, because the installer could not."""
    watch: bool = False
    """The credentials allow a standard KV watch on the service's own documents."""
    spiffe_id: str = ""
    """What the certificate says; empty without one."""
    certificates: tuple[CertificateFacts, ...] = ()
    """Newest first; only those that have not expired."""
    nats_jwt: str = ""
    """Kept for an identical retry; erased once nobody may retry (see `may_retry`)."""
    certificate_pem: str = ""
    """Leaf and intermediates, likewise."""
    sealed_seed: str = ""
    """The server-made key's seed, encrypted, likewise."""
    proven: bool = False
    """The key itself has asked for a renewal: whoever redeemed the package has it."""

    @property
    def certificate_key(self) -> str:
        """SHA-256 of the newest certificate's key; empty without one."""
        return self.certificates[0].key_sha256 if self.certificates else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RevokedIdentity:
    """An identity that must not be believed any more, until everything of it has expired by itself."""

    package_id: str
    nats_public_key: str = ""
    nats_expires_at: Timestamp | None = None
    certificates: tuple[CertificateFacts, ...] = ()
    revoked_at: Timestamp

    @property
    def expires_at(self) -> datetime | None:
        """When the last of it has expired by itself; None where nothing was issued that could be used."""
        ends = [certificate.expires_at for certificate in self.certificates]
        return max([*ends, *([self.nats_expires_at] if self.nats_expires_at else [])], default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class RevokedCertificate:
    """An entry of the certificate revocation list."""

    serial: str
    revoked_at: datetime


def spiffe_id(trust_domain: str, lineage: Lineage) -> str:
    """`spiffe://<trust domain>/agent/<poller>/<agent>`: the service's name in a certificate."""
    return f"spiffe://{trust_domain}/" + "/".join((lineage.service_type.value, *lineage.ids))


def revoke_identity(identity: Identity, at: datetime) -> RevokedIdentity:
    """The identity, no longer to be believed."""
    return RevokedIdentity(
        package_id=identity.package_id,
        nats_public_key=identity.nats_public_key,
        nats_expires_at=identity.nats_expires_at,
        certificates=identity.certificates,
        revoked_at=at,
    )


def erase_answer(identity: Identity | None) -> Identity | None:
    """The identity without what was kept for a retry of the redemption."""
    if identity is None or not (identity.nats_jwt or identity.certificate_pem or identity.sealed_seed):
        return identity
    return replace(identity, nats_jwt="", certificate_pem="", sealed_seed="")


def unexpired_certificates(
    certificates: Iterable[CertificateFacts], now: datetime
) -> tuple[CertificateFacts, ...]:
    """Those that have not expired by themselves, in their order."""
    return tuple(certificate for certificate in certificates if certificate.expires_at > now)


def unexpired_identities(revoked: tuple[RevokedIdentity, ...], now: datetime) -> tuple[RevokedIdentity, ...]:
    """Those of which something could still be used, were it not revoked; the same tuple if that is all."""
    kept = tuple(each for each in revoked if each.expires_at is not None and each.expires_at > now)
    return revoked if len(kept) == len(revoked) else kept


def former_keys(known: tuple[str, ...], ended: Iterable[RevokedIdentity]) -> tuple[str, ...]:
    """The keys of all identities that ended, the newest first; the same tuple if these brought no new ones.

    NATS keys as they are, of certificates the keys' fingerprints. They stay when everything that was issued for
    them has expired: a key that was lost once is not to be trusted later.
    """
    new = [key for each in ended for key in _keys_of(each) if key not in known]
    return tuple(dict.fromkeys((*new, *known)))[:FORMER_KEYS_KEPT] if new else known


def _keys_of(ended: RevokedIdentity) -> list[str]:
    keys = [ended.nats_public_key, *(certificate.key_sha256 for certificate in ended.certificates)]
    return [key for key in keys if key]


def must_be_kept(record: ServiceRecord, now: datetime) -> bool:
    """Whether purging the record would let a revoked identity work again."""
    return bool(unexpired_identities(record.revoked_identities, now))


def revoked_nats_keys(records: Iterable[ServiceRecord], now: datetime) -> dict[str, datetime]:
    """The NATS user keys that must be refused, and since when: credentials of before that moment are void."""
    revoked: dict[str, datetime] = {}
    for record in records:
        for each in record.revoked_identities:
            if each.nats_expires_at and each.nats_expires_at > now:
                latest = revoked.get(each.nats_public_key)
                revoked[each.nats_public_key] = max(each.revoked_at, latest) if latest else each.revoked_at
    return revoked


def revoked_certificates(records: Iterable[ServiceRecord], now: datetime) -> list[RevokedCertificate]:
    """The certificates that belong on the revocation list, by serial."""
    return sorted(
        (
            RevokedCertificate(serial=certificate.serial, revoked_at=each.revoked_at)
            for record in records
            for each in record.revoked_identities
            for certificate in unexpired_certificates(each.certificates, now)
        ),
        key=lambda revoked: revoked.serial,
    )
