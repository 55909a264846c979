"""Admission: is this poller known? Answered from memory alone; no database and no ledger is asked.

A core server asks this for every report that it gets, so an answer costs two look-ups. In the mode `observe`
everybody is known, and what would be refused is counted and logged, to see what `enforce` would do.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import structlog

from jetway.core.errors import PortError
from jetway.core.ids import ServiceKey, ServiceType
from jetway.core.record import Approval, ServiceRecord, Source
from jetway.ports import Clock, Ledger
from jetway.services.index import Index
from jetway.services.metrics import Metrics

log = structlog.get_logger()

Mode = Literal["enforce", "observe", "off"]

LONGEST_NAME = 253
"""Characters of a name that is asked about: that of a DNS name, more than any id has."""
_MENTION_SECONDS = 60.0
_MENTIONED = 20
_CATCH_UP_SECONDS = 1.0
_REASONS = ("unknown", "revoked", "deleted", "approval_required", "rejected")


@dataclass(frozen=True, slots=True)
class Admitted:
    """The answer: whether the poller is known, and what the registry has of it (empty: nothing)."""

    known: bool
    status: str = ""
    source: str = ""


class Admission:
    """Answers whether a poller may report."""

    def __init__(
        self, index: Index, clock: Clock, metrics: Metrics, *, mode: Mode, known_pollers: Iterable[str]
    ) -> None:
        self._index = index
        self._mode = mode
        self._given = frozenset(known_pollers)
        self._mentions = _Mentions(clock)
        self._refusals = {reason: metrics.admission_refusals.labels(reason, mode) for reason in _REASONS}
        self._hits = {place: metrics.admission_hits.labels(place) for place in ("registry", "settings")}

    def ask(self, poller_id: str) -> Admitted:
        """Whether this poller is known. Any text may be asked about; one that is no id is unknown."""
        record = self._index.get(ServiceKey(ServiceType.POLLER, poller_id))
        reason = self._reason(record, poller_id)
        answer = _answer(record, poller_id in self._given)
        if self._mode == "off":
            return Admitted(True, answer.status, answer.source)
        if not reason:
            self._hits["registry" if record else "settings"].inc()
            return answer
        self._refusals[reason].inc()
        self._mentions.mention(poller_id, reason, self._mode)
        return Admitted(self._mode == "observe", answer.status, answer.source)

    def _reason(self, record: ServiceRecord | None, poller_id: str) -> str:
        """Why it is not known; empty if it is. The registry's word goes before that of the settings."""
        if record is None:
            return "" if poller_id in self._given else "unknown"
        if not record.live:
            return record.status.value
        if record.approval is Approval.REQUIRED:
            return "approval_required"
        return "rejected" if record.approval is Approval.REJECTED else ""


def _answer(record: ServiceRecord | None, given: bool) -> Admitted:
    if record is not None:
        return Admitted(True, record.status.value, record.registration_source.value)
    return Admitted(given, "", Source.CONFIG.value if given else "")


class _Mentions:
    """Log lines about refusals: each poller once a minute, and no more of them than can be read."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._since = clock.monotonic()
        self._named: set[str] = set()
        self._unnamed = 0

    def mention(self, poller_id: str, reason: str, mode: Mode) -> None:
        self._turn_over()
        if poller_id in self._named:
            return
        if len(self._named) >= _MENTIONED:
            self._unnamed += 1
            return
        self._named.add(poller_id)
        what = "a poller would be refused" if mode == "observe" else "a poller was refused"
        log.warning(what, action="admission_refused", poller=poller_id[:64], reason=reason, mode=mode)

    def _turn_over(self) -> None:
        now = self._clock.monotonic()
        if now - self._since < _MENTION_SECONDS:
            return
        if self._unnamed:
            log.warning("more refusals than are named", action="admission_refused_more", calls=self._unnamed)
        self._since, self._unnamed = now, 0
        self._named.clear()


class IndexAge:
    """How old what the index knows may be, in seconds."""

    def __init__(self, index: Index, ledger: Ledger, clock: Clock) -> None:
        self._index = index
        self._ledger = ledger
        self._clock = clock
        self._fresh_at = clock.monotonic()

    @property
    def seconds(self) -> float:
        """Since it was last proven that everything written until then is known here."""
        return max(0.0, self._clock.monotonic() - self._fresh_at)

    async def prove(self) -> None:
        """Compare the index with the ledger's end. Never raises: while NATS is away the age grows."""
        began = self._clock.monotonic()
        try:
            end = await self._ledger.last_sequence()
        except PortError:
            return
        if await self._index.progress.reached(end, _CATCH_UP_SECONDS):
            self._fresh_at = began
