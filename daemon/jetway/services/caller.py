"""Who asks."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Caller:
    """The one on whose word something happens: it stands in records and in the audit trail."""

    actor: str
    source_ip: str = ""
    request_id: str = ""


SYSTEM = Caller("system")
"""The daemon itself: jobs, cascades, compensation."""

OWN_NAMES = frozenset({"system", "jetway", "settings", "local", "restore", "stranger"})
"""Under these the daemon itself acts, or tells of those it does not know: nobody else may be called so."""
