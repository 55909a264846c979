"""Rows and events with every field filled, to be varied by keyword."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from jetway.core.ids import ServiceType
from jetway.core.rows import Event, PackageRow, ServiceRow

MOMENT = datetime(2096, 11, 23, 9, 10, 11, 123_000, tzinfo=UTC)
"""Far ahead, because Proton drops events 90 days after their time, whatever the tests call now."""


def after(milliseconds: int) -> datetime:
    """That many milliseconds after MOMENT."""
    return MOMENT + timedelta(milliseconds=milliseconds)


def poller_row(service_id: str = "site-a", **changes: Any) -> ServiceRow:
    """A row of `pollers`."""
    values: dict[str, Any] = {"service_type": ServiceType.POLLER, "poller_id": service_id, "agent_id": ""}
    return _service_row(service_id, values | {"agent_count": 2, "checker_count": 5} | changes)


def agent_row(service_id: str = "switch-room", **changes: Any) -> ServiceRow:
    """A row of `agents`."""
    values: dict[str, Any] = {
        "service_type": ServiceType.AGENT,
        "poller_id": "site-a",
        "agent_id": service_id,
        "checker_count": 3,
    }
    return _service_row(service_id, values | changes)


def checker_row(service_id: str = "ping", **changes: Any) -> ServiceRow:
    """A row of `checkers`."""
    values: dict[str, Any] = {
        "service_type": ServiceType.CHECKER,
        "poller_id": "site-a",
        "agent_id": "switch-room",
        "checker_kind": "icmp",
    }
    return _service_row(service_id, values | changes)


def _service_row(service_id: str, changes: dict[str, Any]) -> ServiceRow:
    values: dict[str, Any] = {
        "service_id": service_id,
        "component_id": service_id,
        "label": "Core switch room",
        "site": "A",
        "labels": {"rack": "12"},
        "metadata": {"owner": "netops", "depth": [1, 2.5, None, {"deep": True}]},
        "checker_kind": "",
        "registration_source": "edge_onboarding",
        "status": "active",
        "status_reason": "first heartbeat",
        "approval": "none",
        "spiffe_identity": "spiffe://example.org/agent",
        "heartbeat_interval_seconds": 30,
        "first_registered": MOMENT,
        "first_seen": after(1000),
        "last_seen": after(2000),
        "is_healthy": True,
        "version": "1.2.3",
        "agent_count": 0,
        "checker_count": 0,
        "package_id": "0b0c9d64-6a39-4d4b-9d5e-5f2a4b1c7e11",
        "created_by": "admin",
        "updated_at": after(3000),
        "incarnation": 1,
        "epoch": 1,
        "revision": 3,
    }
    return ServiceRow(**(values | changes))


def package_row(package_id: str = "0b0c9d64-6a39-4d4b-9d5e-5f2a4b1c7e11", **changes: Any) -> PackageRow:
    """A row of `edge_packages`."""
    values: dict[str, Any] = {
        "package_id": package_id,
        "component_type": "agent",
        "component_id": "switch-room",
        "label": "Core switch room",
        "parent_type": "poller",
        "parent_id": "site-a",
        "poller_id": "site-a",
        "site": "A",
        "status": "activated",
        "generation": 1,
        "checker_kind": "",
        "metadata": {"owner": "netops"},
        "created_by": "admin",
        "created_at": MOMENT,
        "token_expires_at": after(86_400_000),
        "delivered_at": after(500),
        "delivered_to": "edge-7 (192.0.2.7)",
        "activated_at": after(1000),
        "activated_from": "192.0.2.7",
        "revoked_at": None,
        "deleted_at": None,
        "notes": "second shelf",
        "updated_at": after(1000),
        "epoch": 1,
        "revision": 3,
    }
    return PackageRow(**(values | changes))


def event(event_id: str = "e-1", **changes: Any) -> Event:
    """A row of `service_registration_events`."""
    values: dict[str, Any] = {
        "event_id": event_id,
        "event_type": "activated",
        "service_type": "agent",
        "service_id": "switch-room",
        "parent_id": "site-a",
        "package_id": "0b0c9d64-6a39-4d4b-9d5e-5f2a4b1c7e11",
        "registration_source": "edge_onboarding",
        "actor": "system",
        "timestamp": MOMENT,
        "source_ip": "192.0.2.7",
        "reason": "first heartbeat",
        "request_id": "r-1",
        "from_status": "pending",
        "to_status": "active",
        "epoch": 1,
        "revision": 3,
        "metadata": {"interval": 30},
    }
    return Event(**(values | changes))
