"""What is derived from a record with its surroundings: its row and its document, from the newest version."""

from __future__ import annotations

from jetway.core.documents import Document, render
from jetway.core.ids import ServiceKey
from jetway.core.record import ServiceRecord
from jetway.core.rows import ServiceRow, service_row
from jetway.services.index import Index
from jetway.services.presence import PresenceTable


class Rendering:
    """Derives rows and documents from the index and the presence table."""

    def __init__(self, index: Index, presence: PresenceTable, *, default_interval: int) -> None:
        self.index = index
        self.presence = presence
        self.default_interval = default_interval

    def row(self, key: ServiceKey) -> ServiceRow | None:
        """The current row, None for a service that is not there."""
        record = self.index.get(key)
        if record is None:
            return None
        return service_row(
            record,
            self.presence.presence(key),
            self.index.counts(key),
            default_interval=self.default_interval,
        )

    def document(self, record: ServiceRecord, stored: Document | None) -> Document:
        """The current document, keeping a person's edits of `stored`."""
        children = self.index.child_keys(record.key)
        return render(record, children, default_interval=self.default_interval, stored=stored)
