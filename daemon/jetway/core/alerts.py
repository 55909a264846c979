"""Alerts: what is worth telling somebody outside, and how it is put."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from jetway.core.record import ServiceRecord
from jetway.core.times import rfc3339


class AlertKind(StrEnum):
    """What happened."""

    OFFLINE = "offline"
    FLAPPING = "flapping"
    STUCK_PENDING = "stuck_pending"
    QUARANTINE = "quarantine"
    REDEEM_REFUSED = "redeem_refused"
    REVOKED = "revoked"
    CLONE = "clone"


TEST = "test"
"""The kind of what `jetway alerts test` sends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """One alert about one service."""

    alert_id: str
    """The same for every attempt and every target."""
    kind: AlertKind
    record: ServiceRecord
    reason: str
    at: datetime


def encode_alert(alert: Alert, gateway: str) -> bytes:
    """What a target gets, as JSON."""
    record = alert.record
    service = {
        "service_type": record.service_type.value,
        "service_id": record.service_id,
        "label": record.label,
        "parent_id": record.parent_id,
        "poller_id": record.poller_id,
        "site": record.site,
        "status": record.status.value,
    }
    return _encode(alert.alert_id, alert.kind.value, alert.at, gateway, alert.reason, service)


def encode_test(alert_id: str, at: datetime, gateway: str) -> bytes:
    """The same about nothing, to try a target."""
    return _encode(alert_id, TEST, at, gateway, "somebody tries whether alerts arrive", None)


def _encode(
    alert_id: str, kind: str, at: datetime, gateway: str, reason: str, service: dict[str, str] | None
) -> bytes:
    told = {"id": alert_id, "kind": kind, "at": rfc3339(at), "gateway": gateway, "reason": reason}
    return json.dumps({**told, "service": service}, separators=(",", ":")).encode()
