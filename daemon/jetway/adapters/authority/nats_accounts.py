"""What the embedded NATS server is told of its operator, its accounts, and the gateway's own users."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from jetway.adapters.authority.nats_jwt import sign
from jetway.adapters.authority.nats_keys import NatsKeys
from jetway.adapters.authority.nkeys import Kind, NatsKey
from jetway.core.creds import creds_text
from jetway.core.grants import Grant, GrantNames, heartbeat_echo, template
from jetway.core.ids import ServiceType

_NO_LIMIT = -1
_NOTHING = {"deny": [">"]}
_ACCOUNT_LIMITS = {
    "subs": _NO_LIMIT,
    "data": _NO_LIMIT,
    "payload": _NO_LIMIT,
    "imports": _NO_LIMIT,
    "exports": _NO_LIMIT,
    "wildcards": True,
    "conn": _NO_LIMIT,
    "leaf": 0,
}
_JETSTREAM_LIMITS = {
    "mem_storage": _NO_LIMIT,
    "disk_storage": _NO_LIMIT,
    "streams": _NO_LIMIT,
    "consumer": _NO_LIMIT,
    "max_ack_pending": _NO_LIMIT,
    "mem_max_stream_bytes": _NO_LIMIT,
    "disk_max_stream_bytes": _NO_LIMIT,
}
_ANSWERED_WITHIN = 120_000_000_000
"""Nanoseconds in which whoever asked is answered; later nobody waits any more."""
_SUBSCRIPTIONS = 32
"""Of one edge host: its inbox and a few subjects, twice over."""
_PAYLOADS = {ServiceType.POLLER: 1024 * 1024, ServiceType.AGENT: 64 * 1024, ServiceType.CHECKER: 64 * 1024}
"""Bytes of a message. A poller sends batches of up to 1,000 heartbeats."""
MOST_REVOCATIONS = 11_000
"""Of 94 bytes each: nats-server looks at no claims of more than 1 MB, and no setting of it changes that."""
EVERYBODY = "*"


def operator_jwt(keys: NatsKeys, now: datetime) -> str:
    """The root, in the server's configuration."""
    nats = {
        "type": "operator",
        "system_account": keys.system.public,
        "signing_keys": [keys.operator_signing.public],
    }
    return sign(keys.operator, keys.operator.public, "jetway", nats, now)


def system_jwt(keys: NatsKeys, now: datetime) -> str:
    """The account that may tell the server of new claims."""
    return _account(keys, keys.system, "system", {"limits": _ACCOUNT_LIMITS}, now)


def gateway_jwt(keys: NatsKeys, names: GrantNames, valid_since: datetime, now: datetime) -> str:
    """The account of the daemon and the operator's tools. Users issued before `valid_since` are refused."""
    exports = [{"name": name, "type": kind, "subject": subject} for name, kind, subject in _shared(names)]
    nats = {
        "limits": _ACCOUNT_LIMITS | _JETSTREAM_LIMITS,
        "exports": exports,
        "revocations": {"*": int(valid_since.timestamp()) - 1},
    }
    return _account(keys, keys.gateway, "gateway", nats, now)


def edge_jwt(keys: NatsKeys, names: GrantNames, revocations: Mapping[str, int], now: datetime) -> str:
    """The account of edge hosts. `revocations`: user keys, and until when in Unix seconds their JWTs are void.

    Of too many the oldest become one, for everybody: whoever has no newer credentials than that renews them.
    """
    account = keys.gateway.public
    imports = [
        {"name": name, "type": kind, "subject": subject, "account": account}
        for name, kind, subject in _shared(names)
    ]
    nats: dict[str, Any] = {
        "limits": _ACCOUNT_LIMITS,
        "imports": imports,
        "signing_keys": [_scope(keys, names, service_type) for service_type in ServiceType],
        "default_permissions": {"pub": _NOTHING, "sub": _NOTHING},
    }
    if revocations:
        nats["revocations"] = _at_most(MOST_REVOCATIONS, revocations)
    return _account(keys, keys.edge, "edge", nats, now)


def _at_most(count: int, revocations: Mapping[str, int]) -> dict[str, int]:
    if len(revocations) <= count:
        return dict(revocations)
    newest_first = sorted(revocations.items(), key=lambda item: item[1], reverse=True)
    kept = dict(newest_first[: count - 1])
    kept[EVERYBODY] = max(newest_first[count - 1][1], revocations.get(EVERYBODY, 0))
    return kept


def gateway_user_jwt(keys: NatsKeys, user: NatsKey, name: str, now: datetime) -> str:
    """Somebody who may do everything in the gateway's account."""
    return _user(keys.gateway, user, name, {}, {}, now)


def listener_jwt(keys: NatsKeys, names: GrantNames, user: NatsKey, now: datetime) -> str:
    """The daemon among the edge hosts: hears them, and answers those who ask.

    Whatever goes wrong in it, it speaks to nobody else there, and reads none of what is written for them.
    """
    publish = {"allow": [heartbeat_echo(names)]}
    subscribe = {"allow": [f"{names.heartbeat_prefix}.>", f"{names.renew_prefix}.>", "_INBOX.>"]}
    answers = {"max": 1, "ttl": _ANSWERED_WITHIN}
    return _user(keys.edge, user, "jetway", publish, subscribe, now, answers)


def messenger_jwt(keys: NatsKeys, user: NatsKey, now: datetime) -> str:
    """The daemon at the server itself: tells it of new claims."""
    publish, subscribe = {"allow": ["$SYS.REQ.CLAIMS.UPDATE"]}, {"allow": ["_INBOX.>"]}
    return _user(keys.system, user, "jetway", publish, subscribe, now)


def admin_creds(keys: NatsKeys, now: datetime) -> str:
    """A new user for the operator's own tools, as a .creds file."""
    user = NatsKey.generate(Kind.USER)
    return creds_text(gateway_user_jwt(keys, user, "admin", now), user.seed)


def limits(service_type: ServiceType) -> dict[str, int]:
    """What keeps one host from hurting the others."""
    return {"subs": _SUBSCRIPTIONS, "data": _NO_LIMIT, "payload": _PAYLOADS[service_type]}


def permissions(grant: Grant) -> dict[str, Any]:
    """A grant as claims have it; what is not allowed is denied."""
    return {"pub": {"allow": list(grant.publish)}, "sub": {"allow": list(grant.subscribe)}}


def _shared(names: GrantNames) -> tuple[tuple[str, str, str], ...]:
    """(name, type, subject) of what the edge account sees of the gateway's.

    Answers to a service come back into the edge account, whatever subject the question named. Heartbeats are
    shared for trusted senders: whoever is in the gateway's account may speak for any service.
    """
    return (
        ("documents", "service", f"{names.direct_get}.>"),
        ("changes", "stream", f"{names.live_prefix}.>"),
        ("heartbeats", "stream", f"{names.heartbeat_prefix}.>"),
    )


def _scope(keys: NatsKeys, names: GrantNames, service_type: ServiceType) -> dict[str, Any]:
    """A signing key whose users have the rights written here, whatever their credentials say.

    None for key-value watchers: a consumer needs JetStream in the account itself, and there an edge host could
    have the answer to a question of its own sent to JetStream's API, as a request to delete a stream.
    """
    grant = template(names, service_type)
    return {
        "kind": "user_scope",
        "key": keys.signing(service_type).public,
        "role": service_type.value,
        "template": {
            **permissions(grant),
            **limits(service_type),
            "allowed_connection_types": ["STANDARD"],
        },
    }


def _account(keys: NatsKeys, account: NatsKey, name: str, nats: Mapping[str, Any], now: datetime) -> str:
    claims = {"type": "account", "default_permissions": {"pub": {}, "sub": {}}, **nats}
    return sign(keys.operator_signing, account.public, name, claims, now)


def _user(
    account: NatsKey,
    user: NatsKey,
    name: str,
    publish: Mapping[str, Any],
    subscribe: Mapping[str, Any],
    now: datetime,
    answers: Mapping[str, int] | None = None,
) -> str:
    unlimited = {"subs": _NO_LIMIT, "data": _NO_LIMIT, "payload": _NO_LIMIT}
    nats: dict[str, Any] = {"type": "user", "pub": publish, "sub": subscribe, **unlimited}
    if answers:
        nats["resp"] = answers
    return sign(account, user.public, name, nats, now)
