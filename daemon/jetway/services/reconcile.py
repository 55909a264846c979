"""Reconcile: compare all that is derived with the ledger, and mend what differs.

Documents, rows and the trail, as a table and as a stream, are each compared by itself, so that one target's outage
hides no other's fault.
What is on its way is no difference: whatever looks wrong is looked at again once the projections have dealt
with everything that was in the ledger, and is mended only if it then still looks the same.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

import structlog

from jetway.core.errors import PortError
from jetway.ports import Clock
from jetway.services.compare_documents import DocumentComparison
from jetway.services.compare_rows import RowComparison
from jetway.services.compare_stream import StreamComparison
from jetway.services.compare_trail import TrailComparison
from jetway.services.findings import Findings, ReconcileReport
from jetway.services.index import Index
from jetway.services.metrics import Metrics
from jetway.services.settling import Settling
from jetway.services.turn import Turn

log = structlog.get_logger()

NAME = "reconcile"


class Reconciler:
    """Runs the comparisons, one run at a time."""

    def __init__(
        self,
        index: Index,
        documents: DocumentComparison,
        rows: RowComparison,
        trail: TrailComparison,
        stream: StreamComparison,
        settling: Settling,
        clock: Clock,
        metrics: Metrics,
        turn: Turn,
    ) -> None:
        self._index = index
        self._comparisons: tuple[Callable[[Findings], Awaitable[None]], ...] = (
            documents.run,
            rows.run,
            trail.run,
            stream.run,
        )
        self._settling = settling
        self._clock = clock
        self._metrics = metrics
        self._turn = turn
        self.last: ReconcileReport | None = None
        """What the last run that came to its end said."""
        self.failure = ""
        """Why the last run did not."""

    async def run(self) -> ReconcileReport:
        """Compare and mend everything. Raises RefusedError where a run is under way, or another daemon leads."""
        with self._turn.take(NAME):
            self.failure = "it was interrupted"
            try:
                report = await self._compare()
            except Exception as error:
                self.failure = f"a mistake of the daemon ({type(error).__name__}): see its log"
                raise
            self.last, self.failure = report, ""
            return report

    async def rehearse(self) -> Findings:
        """Compare everything and mend nothing. Raises RefusedError as `run` does."""
        with self._turn.take(NAME):
            findings = Findings(self._metrics, mends=False)
            await self._compare_all(findings)
            return findings

    async def run_by_itself(self) -> None:
        """What the job does: nothing, where somebody else is at it."""
        if not self._turn.holder and self._turn.leads():
            await self.run()

    async def _compare(self) -> ReconcileReport:
        started_at, began = self._clock.now(), time.perf_counter()
        findings = Findings(self._metrics)
        await self._compare_all(findings)
        report = findings.report(started_at, self._clock.now())
        self._metrics.audit_gaps.set(report.gaps_open)
        log.info(
            "compared with the ledger",
            action="reconciled",
            checked=report.checked,
            documents_mended=report.documents_mended,
            rows_mended=report.rows_mended,
            orphans=report.orphans,
            gaps_found=report.gaps_found,
            gaps_open=report.gaps_open,
            errors=report.errors,
            seconds=round(time.perf_counter() - began, 2),
        )
        return report

    async def _compare_all(self, findings: Findings) -> None:
        try:
            await self._settling.index()
        except PortError as error:
            findings.failed(error)
            return
        findings.checked = len(self._index.records)
        for compare in self._comparisons:
            try:
                await compare(findings)
            except PortError as error:
                findings.failed(error)
