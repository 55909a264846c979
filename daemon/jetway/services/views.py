"""What people see of a service."""

from __future__ import annotations

from dataclasses import dataclass

from jetway.core.liveness import Liveness
from jetway.core.record import ServiceRecord
from jetway.core.rows import Counts, Presence


@dataclass(frozen=True, slots=True)
class ServiceView:
    """A service as people see it: its record, and what heartbeats and the tree add."""

    record: ServiceRecord
    presence: Presence
    liveness: Liveness
    counts: Counts
    interval_seconds: int
    flapping: bool
    clones: tuple[str, ...]
    in_maintenance: bool
