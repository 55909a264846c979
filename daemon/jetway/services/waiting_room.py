"""The quarantine's room: how many services may wait for approval, in all and of one sender.

A sender is whom the NATS server vouches for: a poller, by its credentials, with all that it names beneath itself.
Where no credentials are asked for, names prove nothing; there it is the address that a heartbeat tells, as far as
it tells one. That can be made up as well, so there the limit on all of them is what holds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from jetway.core.errors import Code, Refused
from jetway.core.ids import ServiceKey
from jetway.core.record import Approval, ServiceRecord

FULL = Refused(Code.TOO_MANY_FAILURES, "too many services wait for approval")
SHARE_USED = Refused(Code.TOO_MANY_FAILURES, "too many services of this sender wait for approval")


@dataclass(frozen=True, slots=True, kw_only=True)
class RoomTerms:
    """How large the room is."""

    limit: int
    """Services that may wait in all."""
    per_sender: int
    """Of those, how many may be one sender's."""
    proven: bool
    """Whether the NATS server lets a poller speak for itself alone."""


class WaitingRoom:
    """Counts who waits. Those who are being written count as well: a burst does not overfill it."""

    def __init__(self, terms: RoomTerms) -> None:
        self._terms = terms
        self._waiting: dict[ServiceKey, str] = {}
        self._entering: Counter[str] = Counter()
        self._of: Counter[str] = Counter()

    def sender(self, poller_id: str, source_ip: str) -> str:
        """Whose share somebody of this poller, heard from there, takes."""
        if self._terms.proven or not source_ip:
            return f"poller {poller_id}"
        return f"address {source_ip}"

    def why_not(self, sender: str) -> Refused | None:
        """Why nobody more of this sender may come in."""
        if len(self._waiting) + self._entering.total() >= self._terms.limit:
            return FULL
        taken = self._of[sender] + self._entering[sender]
        return SHARE_USED if taken >= self._terms.per_sender else None

    @contextmanager
    def entering(self, sender: str) -> Iterator[None]:
        """While one more is being written."""
        self._entering[sender] += 1
        try:
            yield
        finally:
            _take_one(self._entering, sender)

    def follow(self, record: ServiceRecord) -> None:
        """A record changed: it waits, or it no longer does."""
        if record.approval is not Approval.REQUIRED or not record.live:
            self.leave(record.key)
        elif record.key not in self._waiting:
            # Known of what was heard before a restart, too: while it waits, its registration is the last change.
            sender = self.sender(record.poller_id, record.transition.source_ip)
            self._waiting[record.key] = sender
            self._of[sender] += 1

    def leave(self, key: ServiceKey) -> None:
        """It does not wait any more."""
        sender = self._waiting.pop(key, None)
        if sender is not None:
            _take_one(self._of, sender)


def _take_one(counts: Counter[str], name: str) -> None:
    """One less; nothing is kept of who has none."""
    counts[name] -= 1
    if counts[name] <= 0:
        del counts[name]
