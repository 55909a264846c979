"""Deeds over many that are under way or done: kept in memory, of one session, bounded, for an hour."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import datetime

from jetway.entry.web.choices import Choice
from jetway.entry.web.sessions import Session
from jetway.entry.web.shelf import Shelf, is_busy
from jetway.services.actions import Result

FAILURES_KEPT = 1000
_MOST = 20
_GONE = "this result is not kept any more; what was done stands in the audit trail"


@dataclass(slots=True)
class Run:
    """One deed."""

    run_id: str
    owner: Session = field(repr=False)
    choice: Choice
    again: str
    """The address of its preview."""
    table: str
    """Where its selection was made."""
    expected: int
    used_at: datetime
    done: int = 0
    beneath: int = 0
    unchanged: int = 0
    failed: int = 0
    refused: int = 0
    failures: list[Result] = field(default_factory=list, repr=False)
    """The first of those that were refused or failed."""
    wrong: str = ""
    """Why the whole was not done, or not to its end."""
    work: asyncio.Task[None] | None = field(default=None, repr=False)

    @property
    def is_busy(self) -> bool:
        """Whether it is under way."""
        return is_busy(self)

    @property
    def dealt_with(self) -> int:
        """How many services it has come to."""
        return self.done + self.unchanged + self.failed + self.refused

    def take(self, result: Result) -> None:
        """Count what became of one."""
        self.done += result.changed
        self.beneath += result.beneath
        self.failed += bool(result.failure)
        self.refused += result.refused is not None
        bad = bool(result.failure) or result.refused is not None
        self.unchanged += not (bad or result.changed)
        if bad and len(self.failures) < FAILURES_KEPT:
            self.failures.append(result)


def new_shelf() -> Shelf[Run]:
    """Room for all deeds."""
    full = "other actions are under way: try again in a moment"
    return Shelf(lambda runs: len(runs) <= _MOST, full=full, gone=_GONE)
