"""What people see of a service."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jetway.core.liveness import Liveness
from jetway.core.record import ServiceRecord
from jetway.core.rows import Counts, Presence

Proof = Literal["jwt", "none"]
"""What shows that a heartbeat is by who it says: credentials to speak for oneself alone, or nothing."""


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
    heartbeat_proof: Proof = "none"
