"""Gaps in the audit trail: revisions of a record whose events are missing.

Every revision carries the transition that made it, so every one must have left its events. Revisions count on
from 1, over epochs and incarnations alike, so a missing one shows. What is older than the trail is kept does
not count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from jetway.core.record import ServiceRecord

Version = tuple[int, int]
"""(epoch, revision)."""


@dataclass(frozen=True, slots=True)
class EventSpan:
    """The revisions of one epoch that have events: how many, and the first and the last of them."""

    epoch: int
    count: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Gap:
    """A revision without its events, and what they can be made of again, where the ledger still has it."""

    revision: int
    source: ServiceRecord | None = None


def may_have_gaps(record: ServiceRecord, spans: Sequence[EventSpan], since: datetime) -> bool:
    """Whether a closer look is worth it. `since`: how far back the trail is kept."""
    if record.updated_at < since:
        return False
    if not spans:
        return True
    # Of a later incarnation the sums do not tell whether the first ones aged out.
    expected = 1 if record.incarnation > 1 or _all_kept(record, since) else spans[0].first
    for span in spans:
        # Epochs overlap where a restored ledger went on from before the trail's end: told apart one by one.
        if span.first != expected or span.count != span.last - span.first + 1:
            return True
        expected = span.last + 1
    return (spans[-1].epoch, spans[-1].last) != record.version


def find_gaps(
    record: ServiceRecord,
    present: Mapping[Version, datetime],
    history: Sequence[ServiceRecord],
    since: datetime,
) -> Sequence[Gap]:
    """The missing revisions, in order. `present` has events; `history` is what the ledger still has."""
    kept = {version.revision: version for version in (*history, record)}
    times = {revision: moment for (_, revision), moment in present.items()}
    gaps: list[Gap] = []
    moment = record.updated_at
    for revision in range(record.revision, _first(record, kept, times, since) - 1, -1):
        source = kept.get(revision)
        if source is not None:
            moment = source.updated_at
            found = source.version in present or not source.transition.events
        else:
            # When a lost revision was made is not known, but that was before the one after it.
            moment = times.get(revision, moment)
            found = revision in times
        if moment < since:
            break
        if not found:
            gaps.append(Gap(revision, source))
    return gaps[::-1]


def _first(
    record: ServiceRecord, kept: Mapping[int, ServiceRecord], times: Mapping[int, datetime], since: datetime
) -> int:
    """The first revision that must have its events: what is before the oldest of all may have aged out."""
    if _all_kept(record, since):
        return 1
    return min([*times, *(number for number, version in kept.items() if version.updated_at >= since)])


def _all_kept(record: ServiceRecord, since: datetime) -> bool:
    return record.incarnation == 1 and record.first_registered >= since
