"""A second daemon on the same ledger, documents and database: all in memory, so that both can be led astray."""

from __future__ import annotations

from jetway.services.index import follow_ledger
from support.house import House

_SHARED = (
    "clock",
    "identifiers",
    "ledger",
    "documents",
    "database",
    "idempotency",
    "audit",
    "api_token_store",
    "document_feed",
    "row_feed",
    "event_feed",
    "views",
    "job_store",
    "maintenance_store",
    "archive",
    "certificates",
    "nats_authority",
    "nats_account",
    "vault",
    "trail_reader",
    "shelf",
)


class SecondHouse(House):
    """Beside `first`, which projects. Its jobs run all the same: the worst that a lost lease can lead to."""

    def __init__(self, first: House) -> None:
        super().__init__(checkpoints=first.checkpoints)
        self.settings = first.settings
        for name in _SHARED:
            setattr(self, name, getattr(first, name))
        self._first = first

    async def start(self) -> None:
        """Read the ledger, hear how far the first one's projections are, and run."""
        self._build()
        self._run("index", follow_ledger(self.index, self.ledger))
        await self.index.ready.wait()
        for projector in self.projections.all:
            first = next(each for each in self._first.projections.all if each.name == projector.name)
            projector.progress.advance(first.progress.position)

        async def hear(projection: str, position: int) -> None:
            self.projections.heard(projection, position)

        self._first.projections.announce(hear)
        self._run("heartbeats", self.observer.run())
        self._run("revocations", self.revocations.run())
        self.presence.listening()
