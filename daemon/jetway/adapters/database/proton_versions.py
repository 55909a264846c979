"""Which `_tp_time` a row is written with: of the rows of a key, Proton shows the one with the highest.

The time of a row is the moment when its revision was made: of two revisions the newer wins, whoever writes them
and in whatever order. A revision is written again when last_seen or a count has changed; each rewrite has to win
over those before it, and to lose to the next revision. So it moves the time on by a millisecond: rewrites come
once a minute, in a burst once in some milliseconds, and the next revision is made long after the last of them.

What is written shows up to 3 s later, so the table alone cannot tell what it holds. What was written from here
is remembered for a while; for all other keys the table is asked, and what it may not show yet is stepped over.
A row that loses all the same, to one of the same revision that another daemon wrote in the same seconds, wins
again at its next rewrite, or is found by the hourly comparison with the ledger.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from jetway.adapters.database.proton_streams import milliseconds
from jetway.core.gaps import Version
from jetway.ports import Clock

_UNSEEN = 16
"""Rewrites of a row, by a daemon that has just ended, that the table may not show yet."""
_KEPT = 120.0
"""Seconds that a written version is remembered: much longer than Proton takes to show it, and not so long that
what another daemon wrote meanwhile goes unseen."""

Name = tuple[str, str]
"""Table and primary key."""
_NONE: Version = (0, 0)


@dataclass(slots=True)
class _Known:
    """The newest version of a row."""

    version: Version
    next: int
    """The lowest time that a further one may have."""
    until: float


@dataclass(frozen=True, slots=True)
class Placed:
    """A row was given a time; kept in order to take it back."""

    name: Name
    version: Version
    before: Version


class RowVersions:
    """What was written and what the table holds. Used on the event loop only."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._known: dict[Name, _Known] = {}

    def find_unknown(self, names: Iterable[Name]) -> Sequence[Name]:
        """Those for which the table is to be asked."""
        self._forget()
        return [name for name in names if name not in self._known]

    def knows(self, name: Name) -> bool:
        """Whether there is such a row: written from here, or learnt from the table."""
        return name in self._known

    def learn(self, name: Name, version: Version, time: int) -> None:
        """What the table holds. What was written from here meanwhile stands."""
        self._known.setdefault(name, _Known(version, time + _UNSEEN, self._clock.monotonic() + _KEPT))

    def place(
        self, name: Name, version: Version, made_at: datetime | None, *, overwrite: bool
    ) -> tuple[int, Placed] | None:
        """The time of a row, or None for one that is older than the newest. `made_at`: of the revision.

        None for `made_at`: the present. For a stream of another product that is cut into parts by `_tp_time`,
        of which one write may touch a hundred at most.
        """
        known = self._known.pop(name, None)
        before = known.version if known else _NONE
        if known and version < before and not overwrite:
            self._known[name] = known
            return None
        time = milliseconds(made_at or self._clock.now())
        if known:
            time = max(time, known.next)
        # Put at the end, so that the first to be forgotten stands first.
        self._known[name] = _Known(version, time + 1, self._clock.monotonic() + _KEPT)
        return time, Placed(name, version, before)

    def take_back(self, placed: Iterable[Placed]) -> None:
        """These rows were not stored. Their times stay taken."""
        for each in placed:
            known = self._known.get(each.name)
            if known and known.version == each.version:
                known.version = each.before

    def _forget(self) -> None:
        now = self._clock.monotonic()
        while self._known:
            name = next(iter(self._known))
            if self._known[name].until > now:
                return
            del self._known[name]
