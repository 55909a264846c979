"""What is said of services beside their records, over ports in memory."""

from __future__ import annotations

from jetway.core.flapping import FlapRule
from jetway.ports import Clock, RegistryDatabase
from jetway.services.catalogue import Catalogue
from jetway.services.changes import ChangeBook
from jetway.services.fence import Fence
from jetway.services.index import Index
from jetway.services.liveness import Verdicts
from jetway.services.maintenance import Maintenance
from jetway.services.metrics import Metrics
from jetway.services.presence import PresenceTable
from jetway.services.trail import Trail
from jetway.services.troubles import Troubles
from support.builders import CountingIdentifiers
from support.memory import MemoryAuditLog, MemoryMaintenanceStore


class Watched:
    """Verdicts, troubles and maintenance of services. To be built before the index has any."""

    def __init__(self, index: Index, presence: PresenceTable, clock: Clock) -> None:
        self.audit = MemoryAuditLog()
        self.fence = Fence()
        trail = Trail(self.audit, clock, CountingIdentifiers())
        self.verdicts = Verdicts(index, presence, clock, Metrics())
        self.changes = ChangeBook()
        self.troubles = Troubles(index, presence, self.changes, trail, clock, self.fence, FlapRule())
        self.windows = MemoryMaintenanceStore()
        self.maintenance = Maintenance(self.windows, index, trail, clock, CountingIdentifiers())
        self.verdicts.on_change(self.changes.take)
        self.verdicts.on_change(self.troubles.changed)
        self.verdicts.on_forget(self.changes.forget)
        self.verdicts.on_forget(self.troubles.forget)
        self._index = index
        self._presence = presence

    def catalogue(self, database: RegistryDatabase) -> Catalogue:
        """What people look at."""
        return Catalogue(
            self._index, self._presence, self.verdicts, self.troubles, self.maintenance, database
        )

    @property
    def events(self) -> list[str]:
        """The audit entries so far."""
        return [event.event_type for event in self.audit.events]
