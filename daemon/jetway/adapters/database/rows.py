"""What reading rows has in common, whichever database they come from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from jetway.adapters.database.tables import SERVICE_TABLES
from jetway.core.ids import ServiceKey, ServiceType
from jetway.core.rows import ServiceRow

PURGED = "purged"
"""The status of a row whose service is no more."""
_AT_ONCE = 500
"""Keys in one statement: fewer than any SQLite takes, and far fewer than Proton's longest statement holds."""


def by_type(keys: Sequence[ServiceKey]) -> Iterator[tuple[ServiceType, list[str]]]:
    """The ids of one type, as many as fit into a statement."""
    for kind in ServiceType:
        for chunk in chunks([key.service_id for key in keys if key.service_type is kind]):
            yield kind, chunk


def chunks(ids: Sequence[str]) -> Iterator[list[str]]:
    """As many as fit into a statement."""
    for start in range(0, len(ids), _AT_ONCE):
        yield list(ids[start : start + _AT_ONCE])


def purged_row(key: ServiceKey, now: datetime) -> ServiceRow:
    """What stays of a service where nothing can be deleted: its id, and that it is gone. Older than any row."""
    return ServiceRow(
        service_type=key.service_type,
        service_id=key.service_id,
        poller_id="",
        agent_id="",
        component_id="",
        label="",
        site="",
        labels={},
        metadata={},
        checker_kind="",
        registration_source="",
        status=PURGED,
        status_reason="",
        approval="",
        spiffe_identity="",
        heartbeat_interval_seconds=0,
        first_registered=now,
        first_seen=None,
        last_seen=None,
        is_healthy=None,
        version="",
        agent_count=0,
        checker_count=0,
        package_id="",
        created_by="",
        updated_at=now,
        incarnation=0,
        epoch=0,
        revision=0,
    )


def service_row(kind: ServiceType, values: dict[str, Any]) -> ServiceRow:
    """The row with what its table has no column for: a poller is its own poller, an agent its own agent."""
    service_id = values[SERVICE_TABLES[kind].key]
    absent: dict[str, Any] = {"agent_id": "", "checker_kind": "", "agent_count": 0, "checker_count": 0}
    if kind is ServiceType.CHECKER:
        del values["checker_id"]
    return ServiceRow(**(absent | values), service_type=kind, service_id=service_id)
