"""What was uploaded and is not done with: kept in memory, of one session, bounded, for an hour."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from jetway.entry.http.bulk import BulkReport
from jetway.entry.web.sessions import Session
from jetway.entry.web.shelf import Shelf, is_busy

_MOST = 20
_MOST_BYTES = 64 * 1024 * 1024
_MOST_ROWS = 50_000
_GONE = "this upload is not kept any more: upload the file again, with its key if packages were made of it"


class Stage(StrEnum):
    """How far a draft is."""

    CHECKING = "checking"
    CHECKED = "checked"
    CREATING = "creating"
    DONE = "done"
    BROKEN = "broken"


@dataclass(slots=True)
class Row:
    """One row and what becomes of it; a report's row in less memory."""

    number: int
    outcome: str
    kind: str
    service_id: str
    package_id: str
    where: str
    detail: str
    token: str = field(default="", repr=False)


@dataclass(slots=True)
class Draft:
    """An upload between its preview and its tokens."""

    draft_id: str
    owner: Session = field(repr=False)
    key: str
    """The idempotency key, from the preview to the last try again."""
    data: bytes = field(repr=False)
    """The CSV."""
    length: int
    """How many rows it has."""
    used_at: datetime
    stage: Stage = Stage.CHECKING
    is_checked: bool = False
    """Whether there was a preview."""
    repeats: bool = False
    """Whether the key was given: packages may have been made with it before, whose rows a preview finds taken."""
    rows: Sequence[Row] = field(default=(), repr=False)
    counts: Counter[str] = field(default_factory=Counter)
    work: asyncio.Task[None] | None = field(default=None, repr=False)
    handed_over: set[int] = field(default_factory=set, repr=False)
    """Rows whose tokens were given out: they are not given again."""

    @property
    def is_busy(self) -> bool:
        """Whether something is being done with it now."""
        return is_busy(self)

    def take_in(self, report: BulkReport) -> None:
        """Keep what became of the rows."""
        self.rows = [
            Row(
                row.row,
                row.outcome,
                row.service_type.value if row.service_type else "",
                row.service_id,
                row.package_id,
                row.field,
                row.detail,
                "" if row.row in self.handed_over else row.token,
            )
            for row in report.rows
        ]
        self.counts = Counter(row.outcome for row in self.rows)

    def take_tokens(self) -> list[tuple[Row, str]]:
        """The rows with their tokens, which are forgotten here with that."""
        taken = [(row, row.token) for row in self.rows if row.token]
        for row, _ in taken:
            self.handed_over.add(row.number)
            row.token = ""
        return taken


def new_shelf() -> Shelf[Draft]:
    """Room for all uploads."""
    full = "other uploads are being worked on: try again in a moment"
    return Shelf(_has_room, full=full, gone=_GONE)


def _has_room(drafts: Sequence[Draft]) -> bool:
    return (
        len(drafts) <= _MOST
        and sum(len(each.data) for each in drafts) <= _MOST_BYTES
        and sum(each.length for each in drafts) <= _MOST_ROWS
    )
