"""What a reconcile finds, counted and named."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

import structlog

from jetway.core.drift import Drift
from jetway.core.errors import PortError
from jetway.services.metrics import Metrics

log = structlog.get_logger()

T = TypeVar("T")
R = TypeVar("R")

_NAMED = 50
_AT_ONCE = 16
_STEP = 25
BATCH = 500
"""Services that are compared at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReconcileReport:
    """What one run compared, found and mended. Gaps are revisions; `findings` names the first of everything."""

    checked: int
    documents_mended: int
    rows_mended: int
    orphans: int
    """Rows of services that the ledger does not know: named, never deleted."""
    gaps_found: int
    gaps_mended: int
    gaps_open: int
    started_at: datetime
    finished_at: datetime
    findings: Sequence[str]
    errors: Sequence[str]
    """Why something could not be compared or mended; the rest was."""


class Findings:
    """Filled while a run goes on."""

    def __init__(self, metrics: Metrics, *, mends: bool = True) -> None:
        self._metrics = metrics
        self.mends = mends
        """Whether what differs is mended, and told; else it is only looked at."""
        self.counts: Counter[Drift] = Counter()
        self.named: list[str] = []
        self.errors: list[str] = []
        self.checked = 0
        self.documents_mended = 0
        self.rows_mended = 0
        self.orphans = 0
        self.gaps_found = 0
        self.gaps_mended = 0

    def note(self, drift: Drift, what: str, *, known: bool = False) -> None:
        """Something differs. `known`: an earlier run has counted it."""
        self.counts[drift] += 1
        known = known or not self.mends
        if not known:
            self._metrics.drift.labels(drift.value).inc()
        sentence = f"{drift.value.replace('_', ' ')}: {what}"
        if len(self.named) < _NAMED:
            self.named.append(sentence)
            if not known:
                log.warning("a difference from the ledger", action="drift", kind=drift.value, what=what)

    def failed(self, error: PortError) -> None:
        """Something could not be compared or mended."""
        if len(self.errors) < _NAMED:
            self.errors.append(str(error))

    def report(self, started_at: datetime, finished_at: datetime) -> ReconcileReport:
        """The whole."""
        return ReconcileReport(
            checked=self.checked,
            documents_mended=self.documents_mended,
            rows_mended=self.rows_mended,
            orphans=self.orphans,
            gaps_found=self.gaps_found,
            gaps_mended=self.gaps_mended,
            gaps_open=self.gaps_found - self.gaps_mended,
            started_at=started_at,
            finished_at=finished_at,
            findings=tuple(self.named),
            errors=tuple(self.errors),
        )


async def for_each(items: Iterable[T], act: Callable[[T], Awaitable[R]]) -> list[R]:
    """`act` on all of them, a few at a time; results in order.

    The first PortError is raised when those under way have ended; none begins after it.
    """
    gate = asyncio.Semaphore(_AT_ONCE)
    failed: list[PortError] = []
    results: dict[int, R] = {}

    async def guarded(number: int, item: T) -> None:
        async with gate:
            if failed:
                return
            try:
                results[number] = await act(item)
            except PortError as error:
                failed.append(error)

    async with asyncio.TaskGroup() as group:
        for number, item in enumerate(items):
            group.create_task(guarded(number, item))
    if failed:
        raise failed[0]
    return [results[number] for number in sorted(results)]


def batches(items: Sequence[T], size: int = BATCH) -> Iterable[Sequence[T]]:
    """`size` at a time."""
    return (items[start : start + size] for start in range(0, len(items), size))


async def paced(items: Iterable[T]) -> AsyncIterator[T]:
    """All of them, the event loop given to others every few: comparing takes its time."""
    for number, item in enumerate(items, 1):
        yield item
        if number % _STEP == 0:
            await asyncio.sleep(0)
