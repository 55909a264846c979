"""What becomes of a service's identity when the service changes."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

from jetway.core.errors import Code, Refused
from jetway.core.identity import (
    Identity,
    RevokedIdentity,
    erase_answer,
    former_keys,
    revoke_identity,
    unexpired_identities,
)
from jetway.core.policy import GONE
from jetway.core.record import Approval, PackageStatus, ServiceRecord
from jetway.core.times import to_milliseconds


def settle_identity(record: ServiceRecord, now: datetime) -> ServiceRecord:
    """The record with its identity as its status demands, and without what has expired by itself.

    A service that is out has no identity any more; what was kept for a retry goes once nobody may retry.
    """
    identity, ended = record.identity, record.revoked_identities
    if identity is not None and _is_out(record):
        ended = (revoke_identity(identity, now), *ended)
        identity = None
    elif identity is not None and not may_retry(record, now):
        identity = erase_answer(identity)
    former, revoked = former_keys(record.former_keys, ended), unexpired_identities(ended, now)
    if identity is record.identity and revoked is record.revoked_identities and former is record.former_keys:
        return record
    return replace(record, identity=identity, revoked_identities=revoked, former_keys=former)


def end_identity(record: ServiceRecord, now: datetime) -> dict[str, Any]:
    """The fields of a record whose identity ends, whatever becomes of the service itself."""
    if record.identity is None:
        return {}
    ended = revoke_identity(record.identity, to_milliseconds(now))
    return {"identity": None, "revoked_identities": (ended, *record.revoked_identities)}


def _is_out(record: ServiceRecord) -> bool:
    return record.status in GONE or record.approval is Approval.REJECTED


def may_retry(record: ServiceRecord, now: datetime) -> bool:
    """Whether whoever redeemed the current package may ask once more: until the service is active.

    Where another host had a package before, its heartbeats cannot be told from the new one's until NATS has cut it
    off, if it ever does: then being active proves nothing, and the answer is kept until the token expires, or
    until the new key itself has asked for a renewal.
    """
    package, identity = record.package, record.identity
    if package is None or identity is None or package.package_id != identity.package_id:
        return False
    if package.status is not PackageStatus.ACTIVATED:
        return package.status is PackageStatus.DELIVERED
    had_another = any(earlier.delivered_at for earlier in record.earlier_packages)
    return had_another and not identity.proven and now < package.token_expires_at and _is_whole(identity)


def _is_whole(identity: Identity) -> bool:
    """Whether all that was handed out is still there: an earlier version of this program erased it sooner."""
    has_credentials = bool(identity.nats_jwt) or identity.nats_expires_at is None
    return has_credentials and (bool(identity.certificate_pem) or not identity.certificates)


def key_refused(record: ServiceRecord, nats_public_key: str, certificate_key: str) -> Refused | None:
    """Why a new identity may not have these keys: one that this service had before never works again."""
    used = {*record.former_keys}
    before: list[Identity | RevokedIdentity] = [*record.revoked_identities]
    before += [record.identity] if record.identity else []
    for each in before:
        used |= {each.nats_public_key, *(certificate.key_sha256 for certificate in each.certificates)}
    why = "this key belonged to an identity of this service that was revoked or is replaced: make a new one"
    if nats_public_key and nats_public_key in used:
        return Refused(Code.KEY_USED_BEFORE, why, "nats_public_key")
    if certificate_key and certificate_key in used:
        return Refused(Code.KEY_USED_BEFORE, why, "csr_pem")
    return None
