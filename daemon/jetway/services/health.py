"""Health: is it alive, can it serve, and what ails it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from jetway.core.errors import PortError
from jetway.ports import Clock, Ledger, RegistryDatabase, Views
from jetway.services.documents_aside import DocumentsAside
from jetway.services.health_parts import (
    ANSWER_SECONDS,
    PROOFS,
    Component,
    DatabaseWatch,
    State,
    ViewWatch,
    indexed,
    projected,
    reconciled,
    refused,
    unwritten,
)
from jetway.services.hearing import HearingWatch
from jetway.services.index import Index
from jetway.services.project import Projections
from jetway.services.reconcile import Reconciler
from jetway.services.revocations import Revocations
from jetway.services.set_aside import SetAside
from jetway.services.views import Proof
from jetway.services.write_watch import WriteWatch

__all__ = ["Component", "Health", "HealthReport", "State"]


@dataclass(frozen=True, slots=True)
class HealthReport:
    """The whole. `ready`: requests can be served; `degraded`: some of it lags behind."""

    ready: bool
    status: Literal["ok", "degraded", "unavailable"]
    components: dict[str, Component] = field(default_factory=dict)


class Health:
    """Asks the parts how they are. `nats` answers with the connection's state."""

    def __init__(
        self,
        index: Index,
        projections: Projections,
        database: RegistryDatabase,
        nats: Callable[[], Component],
        clock: Clock,
        reconciler: Reconciler | None = None,
        views: Views | None = None,
        ledger: Ledger | None = None,
        hearing: HearingWatch | None = None,
        set_aside: SetAside | None = None,
        leader: Callable[[], Component] | None = None,
        revocations: Revocations | None = None,
        documents_aside: DocumentsAside | None = None,
        index_age: Callable[[], float] | None = None,
        writes: WriteWatch | None = None,
        heartbeat_proof: Proof | None = None,
    ) -> None:
        self._index = index
        self._projections = projections
        self.database = DatabaseWatch(database, clock)
        self._nats = nats
        self._clock = clock
        self._reconciler = reconciler
        self._views = ViewWatch(views, clock) if views else None
        self._ledger = ledger
        self._hearing = hearing
        self._set_aside = set_aside
        self._leader = leader
        self._revocations = revocations
        self._documents_aside = documents_aside
        self._index_age = index_age
        self._writes = writes
        self._proof = heartbeat_proof
        self.failed_task: str = ""
        """The name of an eternal task that ended, which is an incident."""

    def live(self) -> bool:
        """Whether the process does what it is for; False asks for a restart."""
        return not self.failed_task

    async def report(self) -> HealthReport:
        """The state of every part, bounded in time."""
        nats, end = await self._ask_nats()
        components = {
            "nats": nats,
            "index": indexed(self._index, end, self._index_age() if self._index_age else 0.0),
            "database": await self.database.look(),
            **await self._ask_projections(nats.state),
        }
        if self._set_aside is not None and len(self._set_aside):
            components["rows_set_aside"] = refused(self._set_aside)
        if self._documents_aside is not None and len(self._documents_aside):
            components["documents_set_aside"] = unwritten(self._documents_aside)
        if self._writes is not None and (trouble := self._writes.trouble()):
            components["writes"] = Component("degraded", trouble)
        if self._leader is not None:
            components["leader"] = self._leader()
        if self._views is not None:
            components |= await self._views.look(nats.state)
        if self._hearing is not None and self._hearing.trouble:
            components["heartbeats"] = Component("degraded", self._hearing.trouble)
        if self._revocations is not None:
            trouble = self._revocations.trouble()
            components["revocations"] = Component("degraded" if trouble else "ok", trouble)
        if self._proof is not None:
            components["heartbeat_proof"] = Component("ok", PROOFS[self._proof])
        if self._reconciler is not None:
            components["reconcile"] = reconciled(self._reconciler)
        if self.failed_task:
            components["tasks"] = Component("down", f"the task {self.failed_task} ended")
        ready = all(components[name].state != "down" for name in ("nats", "index")) and self.live()
        if not ready:
            return HealthReport(False, "unavailable", components)
        degraded = any(component.state != "ok" for component in components.values())
        return HealthReport(True, "degraded" if degraded else "ok", components)

    async def _ask_nats(self) -> tuple[Component, int]:
        """A link that stands is not enough: the ledger must answer. Its end, 0 where that is not known."""
        nats = self._nats()
        if nats.state == "down" or self._ledger is None:
            return nats, 0
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return nats, await self._ledger.last_sequence()
        except TimeoutError:
            return Component("down", "connected, but the ledger does not answer: writes are refused"), 0
        except PortError as error:
            return Component("down", f"connected, but the ledger cannot be reached: {error}"), 0

    async def _ask_projections(self, nats: State) -> dict[str, Component]:
        projectors = self._projections.all
        names = [f"projection_{projector.name}" for projector in projectors]
        if nats == "down":
            return dict.fromkeys(names, Component("degraded", "unknown while NATS is away"))
        answers = await asyncio.gather(*(projected(projector, self._clock) for projector in projectors))
        return dict(zip(names, answers, strict=True))
