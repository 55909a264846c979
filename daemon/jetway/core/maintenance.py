"""Maintenance windows: when silence is expected. They silence alerts, never facts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from jetway.core.ids import ServiceKey, ServiceType
from jetway.core.record import ServiceRecord
from jetway.core.times import Timestamp


@dataclass(frozen=True, slots=True, kw_only=True)
class MaintenanceWindow:
    """From `since` to `until`, of one service with all beneath it, of a site, or of whoever carries a label.

    Exactly one of `service`, `site` and `label` is set.
    """

    window_id: str
    service: str = ""
    """`agent.core-switch-room`."""
    site: str = ""
    label: str = ""
    """`key=value`."""
    since: Timestamp
    until: Timestamp
    reason: str = ""
    created_by: str
    created_at: Timestamp

    def is_open(self, now: datetime) -> bool:
        """Whether it is now."""
        return self.since <= now < self.until

    def concerns(self, record: ServiceRecord) -> bool:
        """Whether it is about this service, at whatever time."""
        if self.service:
            return ServiceKey.parse(self.service) in _with_parents(record)
        if self.site:
            return record.site == self.site
        name, _, value = self.label.partition("=")
        return record.labels.get(name) == value


def _with_parents(record: ServiceRecord) -> tuple[ServiceKey, ...]:
    poller = ServiceKey(ServiceType.POLLER, record.poller_id)
    agent = ServiceKey(ServiceType.AGENT, record.agent_id)
    return (record.key, poller, agent)
