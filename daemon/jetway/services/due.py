"""Due: which services somebody has to see to before a date, or should have: what the overview asks for.

One pass over all records, on a thread that lets others go first, kept for a while: however many look, it costs a
small share of a processor.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from jetway.core.record import Approval, PackageStatus, ServiceRecord
from jetway.ports import Clock
from jetway.services.census import CensusTerms, expiring, is_stuck, pending_since
from jetway.services.index import Index

MOST_NAMED = 100
"""Of each matter; all are counted."""
TOKEN_WARNING = timedelta(days=1)
_SLICE = 2000
_BREATH_SECONDS = 0.001
_KEPT_SECONDS = 0.5
"""Shorter than pages wait before they follow a change, so that what was seen to is gone from them."""
_SHARE = 0.05
"""Of one processor: a pass over very many services is kept for longer."""


class Matter(StrEnum):
    """Why a service is due."""

    CREDENTIALS = "credentials"
    """Its NATS credentials or its certificate end soon, or have ended."""
    TOKENS = "tokens"
    """Its package was not redeemed, and the token ends soon."""
    STUCK = "stuck"
    """It has been pending for longer than it should."""


@dataclass(frozen=True, slots=True)
class DueService:
    """One service that is due."""

    record: ServiceRecord
    at: datetime
    """When it ends or ended; of one that is stuck, since when it waits."""
    what: str = ""
    """Of credentials: `certificate` or `nats`."""


@dataclass(slots=True)
class DueReport:
    """Who is due."""

    counts: Counter[Matter] = field(default_factory=Counter)
    ended: int = 0
    """How many credentials have ended already."""
    named: dict[Matter, list[DueService]] = field(default_factory=dict)
    """The first of each, by their time."""


class DueReader:
    """Finds who is due."""

    def __init__(self, index: Index, clock: Clock, terms: CensusTerms) -> None:
        self._index = index
        self._clock = clock
        self._terms = terms
        self._reading = asyncio.Lock()
        self._report = DueReport()
        self._fresh_until = float("-inf")

    async def report(self) -> DueReport:
        """Who is due: now, or some seconds ago."""
        async with self._reading:
            if self._clock.monotonic() >= self._fresh_until:
                now, records = self._clock.now(), tuple(self._index.records.values())
                self._report, taken = await asyncio.to_thread(self._read, records, now)
                self._fresh_until = self._clock.monotonic() + max(_KEPT_SECONDS, taken / _SHARE)
        return self._report

    def _read(self, records: Sequence[ServiceRecord], now: datetime) -> tuple[DueReport, float]:
        began = time.thread_time()
        report = DueReport()
        found: dict[Matter, list[DueService]] = {matter: [] for matter in Matter}
        for start in range(0, len(records), _SLICE):
            for record in records[start : start + _SLICE]:
                if record.live:
                    self._look(record, now, found)
            for matter, due in found.items():
                report.counts[matter] += len(due)
                report.ended += sum(1 for one in due if matter is Matter.CREDENTIALS and one.at <= now)
                first = heapq.nsmallest(MOST_NAMED, [*report.named.get(matter, ()), *due], key=_when)
                report.named[matter] = first
                due.clear()
            time.sleep(_BREATH_SECONDS)
        return report, time.thread_time() - began

    def _look(self, record: ServiceRecord, now: datetime, found: dict[Matter, list[DueService]]) -> None:
        for what, end in expiring(record, now, self._terms):
            found[Matter.CREDENTIALS].append(DueService(record, end, what))
        ends = _unredeemed_until(record)
        if ends is not None and now < ends <= now + _warned_before(record):
            found[Matter.TOKENS].append(DueService(record, ends))
        # Who waits for approval is told as that.
        if record.approval is not Approval.REQUIRED and is_stuck(record, now, self._terms.stuck_after):
            found[Matter.STUCK].append(DueService(record, pending_since(record)))


def _when(due: DueService) -> tuple[datetime, str]:
    return due.at, str(due.record.key)


def _unredeemed_until(record: ServiceRecord) -> datetime | None:
    package = record.package
    return package.token_expires_at if package and package.status is PackageStatus.ISSUED else None


def _warned_before(record: ServiceRecord) -> timedelta:
    """A day, or the last quarter of what a token lasts where that is less."""
    package = record.package
    lasts = package.token_expires_at - package.created_at if package else timedelta()
    return min(TOKEN_WARNING, lasts / 4)
