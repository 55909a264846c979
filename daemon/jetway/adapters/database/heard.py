"""What rows remember of heartbeats, as far as it can be read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import structlog

from jetway.core.ids import ServiceKey, ServiceType
from jetway.core.rows import Presence
from jetway.core.times import parse_rfc3339

log = structlog.get_logger()

_NAMED = 10


def readable_presence(rows: Iterable[tuple[Any, ...]]) -> Mapping[ServiceKey, Presence]:
    """Of rows of (type, id, last_seen, healthy, version); those that cannot be read are counted and named."""
    found: dict[ServiceKey, Presence] = {}
    unreadable: list[str] = []
    for kind, service_id, last_seen, healthy, version in rows:
        try:
            found[ServiceKey(ServiceType(kind), service_id)] = Presence(
                last_seen=None if last_seen is None else parse_rfc3339(last_seen),
                healthy=None if healthy is None else bool(healthy),
                version=_text(version),
            )
        except (TypeError, ValueError):
            unreadable.append(f"{kind}.{service_id}")
    if unreadable:
        log.warning(
            "rows hold a last_seen, is_healthy or version that cannot be read: begun anew",
            action="presence_unreadable",
            count=len(unreadable),
            services=unreadable[:_NAMED],
        )
    return found


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("must be text")
    return value
