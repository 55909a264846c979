"""The audit trail as it is verified and signed."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Protocol

from jetway.core.checkpoint import Signed, TrailEntry
from jetway.core.record import EventType
from jetway.core.rows import Event


@dataclass(frozen=True, slots=True)
class StoredRevision:
    """A value of the ledger as it is stored. `data` is None where the key was purged."""

    key: str
    data: bytes | None
    sequence: int


class AuditReader(Protocol):
    """The audit trail and the ledger as they are stored, byte by byte. Close what walks when done."""

    ledger_id: str
    epoch: int

    async def last_sequence(self) -> int:
        """Of the newest entry."""
        ...

    async def entry(self, sequence: int) -> TrailEntry | None:
        """The entry at that place."""
        ...

    def entries(self, after: int = 0, until: int = 0) -> AsyncGenerator[Sequence[TrailEntry], None]:
        """All after the place `after`, up to `until` or to where the trail ended when it was asked for."""
        ...

    async def happened(self, kind: EventType) -> Sequence[Event]:
        """All events of a kind that happens outside records and is rare, the oldest first."""
        ...

    def revisions(self) -> AsyncGenerator[Sequence[StoredRevision], None]:
        """Every revision that the ledger still keeps, in the order in which they were written, and purges."""
        ...

    async def settle(self, seconds: float) -> int:
        """Wait until the trail has what the ledger holds now; how many changes it lacks after `seconds`."""
        ...


class CheckpointVerifier(Protocol):
    """Tells whether the gateway signed a checkpoint."""

    def verify(self, signed: Signed) -> bool:
        """Whether it did."""
        ...


class CheckpointSigner(CheckpointVerifier, Protocol):
    """Signs checkpoints. The key never leaves it."""

    @property
    def public_pem(self) -> bytes:
        """The public key."""
        ...

    def sign(self, text: str) -> Signed:
        """The text with its signature."""
        ...


class CheckpointShelf(Protocol):
    """Where checkpoints are kept beside the trail."""

    async def store(self, signed: Signed, public_pem: bytes) -> None:
        """Durable when this returns. Raises PortError."""
        ...
