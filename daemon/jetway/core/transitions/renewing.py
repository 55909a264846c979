"""Renewing an identity by its own key, and sealing what is kept of it under another key."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from pydantic import JsonValue

from jetway.core import commands as c
from jetway.core.errors import Code, Refused
from jetway.core.identity import CertificateFacts, Identity, RevokedIdentity, unexpired_certificates
from jetway.core.record import EventType, ServiceRecord
from jetway.core.transitions.revision import Outcome, next_revision

CERTIFICATES_AT_ONCE = 16
"""Unexpired certificates of one identity. Each must be kept to be revoked one day, so that more are refused."""


def renew(record: ServiceRecord, command: c.Renew, context: c.Context) -> Outcome:
    """New expiry dates for the same identity, on the word of its own key."""
    identity = record.identity
    if identity is None or identity.nats_public_key != command.nats_public_key:
        return _unproven(record, command)
    certificates = unexpired_certificates(identity.certificates, context.now)
    if command.certificate:
        refused = _refused_certificate(record, command.certificate, len(certificates))
        if refused:
            return refused
        certificates = (command.certificate, *certificates)
    renewed = replace(
        identity,
        nats_expires_at=_last_end(identity, command),
        spiffe_id=command.spiffe_id or identity.spiffe_id,
        certificates=certificates,
        proven=True,
    )
    return next_revision(
        record, context, EventType.RENEWED, metadata=identity_facts(renewed), identity=renewed
    )


def _last_end(identity: Identity, command: c.Renew) -> datetime | None:
    """When the last credentials for this key end: earlier ones may outlive the new, and are revoked with them."""
    return max((end for end in (identity.nats_expires_at, command.nats_expires_at) if end), default=None)


def renew_gone(record: ServiceRecord, command: c.Renew, context: c.Context) -> Outcome:
    """No key renews what was taken out."""
    return _unproven(record, command)


def _unproven(record: ServiceRecord, command: c.Renew) -> Refused:
    """Only who holds a key that was once the service's learns that it was revoked."""
    if any(_has_key(each, command.nats_public_key) for each in record.revoked_identities):
        return Refused(Code.REVOKED, "this identity was revoked")
    return Refused(Code.PROOF_INVALID, "this is not the key of a service that may renew its credentials")


def _has_key(revoked: RevokedIdentity, nats_public_key: str) -> bool:
    return bool(nats_public_key) and revoked.nats_public_key == nats_public_key


def _refused_certificate(record: ServiceRecord, facts: CertificateFacts, valid: int) -> Refused | None:
    revoked = {each.key_sha256 for identity in record.revoked_identities for each in identity.certificates}
    revoked |= {*record.former_keys}
    if facts.key_sha256 and facts.key_sha256 in revoked:
        why = "this key belonged to an identity of this service that was revoked: make a new one"
        return Refused(Code.KEY_USED_BEFORE, why, "csr_pem")
    if valid >= CERTIFICATES_AT_ONCE:
        why = f"this service has {valid} certificates that have not expired: wait until one has"
        return Refused(Code.TOO_MANY_RENEWALS, why, "csr_pem")
    return None


def identity_facts(identity: Identity) -> dict[str, JsonValue]:
    """What the audit trail says of an identity that was handed out or renewed."""
    facts: dict[str, JsonValue] = {}
    if identity.nats_public_key:
        facts["nats_public_key"] = identity.nats_public_key
        facts["server_made"] = identity.server_made
    if identity.certificates:
        facts["certificate_serial"] = identity.certificates[0].serial
        facts["certificate_sha256"] = identity.certificates[0].sha256
    return facts


def reseal(record: ServiceRecord, command: c.Reseal, context: c.Context) -> Outcome:
    """The same secret under another key; nothing to do where it is not there any more."""
    identity = record.identity
    if identity is None or not identity.sealed_seed or identity.sealed_seed != command.sealed_before:
        return record
    return next_revision(
        record, context, EventType.RESEALED, identity=replace(identity, sealed_seed=command.sealed_after)
    )
