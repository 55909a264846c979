"""Past: when a service was online, late, offline, or nobody could know."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from jetway.core.errors import RefusedError
from jetway.core.heard import Interval
from jetway.core.ids import ServiceKey
from jetway.core.liveness import GAP_SECONDS, Liveness
from jetway.core.policy import unknown_service
from jetway.core.record import ServiceRecord
from jetway.core.spans import Past, Span, spans_of
from jetway.ports import Clock
from jetway.services.changes import KEPT, ChangeBook
from jetway.services.index import Index
from jetway.services.liveness import Verdicts
from jetway.services.presence import PresenceTable

MOST_HOURS = round(KEPT / timedelta(hours=1))
_JUST_NOW = timedelta(seconds=GAP_SECONDS)
"""What was sent within it may not be proven to be heard yet; a longer stretch was not heard."""


@dataclass(frozen=True, slots=True)
class LivenessPast:
    """A service's liveness between `since` and `until`."""

    record: ServiceRecord
    since: datetime
    until: datetime
    liveness: Liveness
    """As it stands now."""
    spans: list[Span]
    """The oldest first, one after another without a hole; they begin with the service where that is later."""

    def lasted(self) -> dict[str, timedelta]:
        """How long each state lasted in all; states that did not occur are left out."""
        sums: dict[str, timedelta] = {}
        for span in self.spans:
            sums[span.state.value] = sums.get(span.state.value, timedelta()) + span.until - span.since
        return sums


class PastReader:
    """Reads the past of a service, as far as this daemon heard and kept it."""

    def __init__(
        self, index: Index, presence: PresenceTable, verdicts: Verdicts, book: ChangeBook, clock: Clock
    ) -> None:
        self._index = index
        self._presence = presence
        self._verdicts = verdicts
        self._book = book
        self._clock = clock

    def read(self, key: ServiceKey, hours: int = 24) -> LivenessPast:
        """Its liveness of the last `hours`, at most MOST_HOURS. Raises RefusedError (not_found)."""
        record = self._index.get(key)
        if record is None:
            raise RefusedError(unknown_service(key))
        until = self._clock.now()
        since = until - timedelta(hours=hours)
        verdict = self._verdicts.of(key)
        past = Past(
            registered=record.first_registered,
            first_seen=record.first_seen,
            known_since=self._book.known_since(key),
            turns=self._book.of(key),
            verdict=verdict,
            heard=self._heard(since, until),
        )
        return LivenessPast(record, since, until, verdict, spans_of(past, since, until))

    def _heard(self, since: datetime, until: datetime) -> list[Interval]:
        self._presence.remember_hearing()
        heard = [interval for interval in self._presence.heard.intervals if interval.until > since]
        if heard and self._presence.hearing and timedelta() < until - heard[-1].until <= _JUST_NOW:
            heard[-1] = Interval(heard[-1].since, until)
        return heard
