"""How far a change has come: what it reached while the caller waited, and what is left to be done."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from jetway.core.record import ServiceRecord
from jetway.services.project import Projections
from jetway.services.revocations import Left, Revocations

SECONDS = 1.0
"""How long an answer waits: a revocation cuts within a second, or says what it could not cut."""


Step = Literal["status", "document", "row", "nats", "crl"]


@dataclass(frozen=True, slots=True)
class Reached:
    """`reached` of status, document, row, nats (credentials revoked), crl (certificates on the list)."""

    reached: list[Step] = field(default_factory=list)
    left: tuple[Left, ...] = ()


class Reach:
    """Waits for what follows from a change."""

    def __init__(self, projections: Projections, revocations: Revocations) -> None:
        self._projections = projections
        self._revocations = revocations

    async def of(self, records: Sequence[ServiceRecord], sequence: int) -> Reached:
        """How far these records have come. `sequence` is that of the last of them in the ledger."""
        projected, told = await asyncio.gather(
            self._projections.settled(sequence, SECONDS, [record.key for record in records]),
            self._told(records),
        )
        reached: list[Step] = ["status"]
        left: list[Left] = []
        steps: tuple[Step, ...] = ("document", "row")
        for what in steps:
            if projected[what] == "written":
                reached.append(what)
            else:
                left.append(Left(what, "waits for its projection, which goes on by itself; see /readyz"))
        if isinstance(told, Left):
            left.append(told)
        elif told:
            reached.append("nats")
        if any(each.certificates for record in records for each in record.revoked_identities):
            reached.append("crl")
        return Reached(reached, tuple(left))

    async def _told(self, records: Sequence[ServiceRecord]) -> Left | bool:
        """False where no NATS credentials were revoked."""
        left = self._revocations.cannot_tell(records)
        if left:
            return left
        if not any(each.nats_expires_at for record in records for each in record.revoked_identities):
            return False
        if await self._revocations.told(SECONDS):
            return True
        return Left("nats", "the NATS server has not been told yet, which goes on by itself")
