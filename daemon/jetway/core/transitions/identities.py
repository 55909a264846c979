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
    identity, revoked = record.identity, unexpired_identities(record.revoked_identities, now)
    if identity is not None and _is_out(record):
        ended = (revoke_identity(identity, now), *revoked)
        identity, revoked = None, unexpired_identities(ended, now)
    elif identity is not None and not _may_retry(record, identity):
        identity = erase_answer(identity)
    if identity is record.identity and revoked is record.revoked_identities:
        return record
    return replace(record, identity=identity, revoked_identities=revoked)


def end_identity(record: ServiceRecord, now: datetime) -> dict[str, Any]:
    """The fields of a record whose identity ends, whatever becomes of the service itself."""
    if record.identity is None:
        return {}
    ended = revoke_identity(record.identity, to_milliseconds(now))
    return {"identity": None, "revoked_identities": (ended, *record.revoked_identities)}


def _is_out(record: ServiceRecord) -> bool:
    return record.status in GONE or record.approval is Approval.REJECTED


def _may_retry(record: ServiceRecord, identity: Identity) -> bool:
    package = record.package
    if package is None or package.package_id != identity.package_id:
        return False
    return package.status is PackageStatus.DELIVERED


def key_refused(record: ServiceRecord, nats_public_key: str, certificate_key: str) -> Refused | None:
    """Why a new identity may not have these keys: one that this service had before never works again."""
    before: list[Identity | RevokedIdentity] = [*record.revoked_identities]
    before += [record.identity] if record.identity else []
    why = "this key belonged to an identity of this service that was revoked or is replaced: make a new one"
    if nats_public_key and any(each.nats_public_key == nats_public_key for each in before):
        return Refused(Code.KEY_USED_BEFORE, why, "nats_public_key")
    used = {certificate.key_sha256 for each in before for certificate in each.certificates}
    if certificate_key and certificate_key in used:
        return Refused(Code.KEY_USED_BEFORE, why, "csr_pem")
    return None
