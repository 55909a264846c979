"""Maintenance windows: when silence is expected. They silence alerts, never facts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
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
            return self.service in _with_parents(record)
        if self.site:
            return record.site == self.site
        name, _, value = self.label.partition("=")
        return record.labels.get(name) == value


class WindowMap:
    """Windows by what they are of: how many of others there are costs a service nothing."""

    def __init__(self, windows: Iterable[MaintenanceWindow] = ()) -> None:
        self._services: dict[str, list[MaintenanceWindow]] = {}
        self._sites: dict[str, list[MaintenanceWindow]] = {}
        self._labels: dict[str, list[MaintenanceWindow]] = {}
        for window in windows:
            self._put(window)

    def _put(self, window: MaintenanceWindow) -> None:
        if window.service:
            self._services.setdefault(window.service, []).append(window)
        elif window.site:
            self._sites.setdefault(window.site, []).append(window)
        else:
            self._labels.setdefault(window.label, []).append(window)

    def of(self, record: ServiceRecord) -> Iterator[MaintenanceWindow]:
        """Those that concern this service, at whatever time."""
        if self._services:
            for name in _with_parents(record):
                yield from self._services.get(name, ())
        if self._sites:
            yield from self._sites.get(record.site, ())
        if self._labels:
            for name, value in record.labels.items():
                yield from self._labels.get(f"{name}={value}", ())


def _with_parents(record: ServiceRecord) -> tuple[str, ...]:
    """The service and what it stands beneath, as a window spells them."""
    poller = ServiceKey(ServiceType.POLLER, record.poller_id)
    agent = ServiceKey(ServiceType.AGENT, record.agent_id)
    return tuple({str(record.key): None, str(agent): None, str(poller): None})
