"""Redeeming a token: who may have the package, and why not."""

from __future__ import annotations

from dataclasses import replace

from pydantic import JsonValue

from jetway.core import commands as c
from jetway.core.errors import Code, Refused
from jetway.core.record import (
    EventType,
    Package,
    PackageStatus,
    ServiceRecord,
)
from jetway.core.times import to_milliseconds
from jetway.core.transitions.identities import end_identity, key_refused, may_retry
from jetway.core.transitions.renewing import identity_facts
from jetway.core.transitions.revision import Outcome, next_revision


def redeem(record: ServiceRecord, command: c.Redeem, context: c.Context) -> Outcome:
    """Hand the package out, to one installer; the same one may ask again. An identity of before ends here."""
    package = record.find_package(command.package_id)
    if package is None:
        return Refused(Code.TOKEN_UNKNOWN, "this token belongs to no package of this gateway")
    refused = _not_redeemable(record, package, command, context)
    if refused:
        return refused
    if package.status is not PackageStatus.ISSUED:
        return record
    identity = command.identity
    used = key_refused(record, identity.nats_public_key, identity.certificate_key) if identity else None
    if used:
        return used
    return _delivered(record, package, command, context)


def _delivered(record: ServiceRecord, package: Package, command: c.Redeem, context: c.Context) -> Outcome:
    now, identity = to_milliseconds(context.now), command.identity
    delivered = replace(
        package,
        status=PackageStatus.DELIVERED,
        delivered_at=now,
        delivered_to=_who(command.hostname, context.source_ip),
        bound_keys=command.bound_keys,
        server_made=bool(identity and identity.server_made),
    )
    facts: dict[str, JsonValue] = {"hostname": command.hostname}
    return next_revision(
        record,
        context,
        EventType.DELIVERED,
        metadata=facts | (identity_facts(identity) if identity else {}),
        **end_identity(record, now)
        | {
            "package": delivered,
            "identity": identity,
            "spiffe_identity": record.spiffe_identity or (identity.spiffe_id if identity else ""),
        },
    )


def _not_redeemable(
    record: ServiceRecord, package: Package, command: c.Redeem, context: c.Context
) -> Refused | None:
    """Why this package cannot be handed out to this installer, if it cannot."""
    over = {
        PackageStatus.REVOKED: (Code.REVOKED, "this package was revoked"),
        PackageStatus.SUPERSEDED: (Code.SUPERSEDED, "a newer package was issued for this service"),
        PackageStatus.EXPIRED: (Code.EXPIRED, "this package expired before it was used"),
    }
    if package.status in over:
        return Refused(*over[package.status])
    same_keys = bool(command.bound_keys) and command.bound_keys == package.bound_keys
    spent = package.status is not PackageStatus.ISSUED
    over_now = package.status is PackageStatus.ACTIVATED and not may_retry(record, context.now)
    if spent and (over_now or not same_keys):
        return Refused(Code.ALREADY_REDEEMED, _already_redeemed(package))
    if context.now >= package.token_expires_at:
        return Refused(Code.EXPIRED, "this token's time is up: ask for a reissue")
    return None


def _already_redeemed(package: Package) -> str:
    at = package.delivered_at.isoformat(timespec="seconds") if package.delivered_at else "an unknown time"
    return f"this token was already redeemed by {package.delivered_to or 'an unknown host'} at {at}"


def _who(hostname: str, address: str) -> str:
    return f"{hostname} ({address})" if hostname and address else hostname or address or "unknown"
