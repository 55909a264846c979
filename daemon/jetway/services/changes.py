"""The last changes of verdicts, for a strip of the last day: only of services that changed, and only so many."""

from __future__ import annotations

from collections import OrderedDict
from datetime import UTC, datetime, timedelta

from jetway.core.ids import ServiceKey
from jetway.core.liveness import Liveness
from jetway.core.turns import TURN_BYTES, Turn, pack, seconds, unpack
from jetway.services.liveness import LivenessChange

MOST_SERVICES = 100_000
"""With more the one goes whose last change is the longest ago."""
MOST_CHANGES = 48
"""Of one service. One that flaps all day has only its last hours here."""
KEPT = timedelta(days=7)
"""What is older is not kept over a restart, and nobody is shown it."""

_ALWAYS = datetime(1970, 1, 1, tzinfo=UTC)


class ChangeBook:
    """Changes by service. With the snapshot of who was heard they outlast the daemon: see `keeping`."""

    def __init__(self) -> None:
        # In the order of the last changes. Never without an entry that it had: another thread reads it.
        self._changes: OrderedDict[ServiceKey, bytes] = OrderedDict()
        self.complete_since = _ALWAYS
        """From then on no change is missing here, but of services with as many as are kept of one."""

    def __len__(self) -> int:
        return len(self._changes)

    def take(self, change: LivenessChange) -> None:
        """Remember it. A first heartbeat is no change: there was no verdict before it."""
        if change.before is Liveness.NEVER:
            return
        self._add(change.record.key, Turn(change.at, change.before, change.after))

    def forget(self, key: ServiceKey) -> None:
        """Who comes under this id later is somebody else."""
        self._changes.pop(key, None)

    def services(self) -> tuple[ServiceKey, ...]:
        """Those that have changes here."""
        return tuple(self._changes)

    def moments(self, key: ServiceKey) -> list[float]:
        """When its verdict turned, as Unix time, the oldest first."""
        return seconds(self._changes.get(key, b""))

    def of(self, key: ServiceKey) -> list[Turn]:
        """Its changes, the oldest first."""
        return unpack(self._changes.get(key, b""))

    def known_since(self, key: ServiceKey) -> datetime:
        """From when on all of its changes are here."""
        packed = self._changes.get(key, b"")
        if len(packed) < MOST_CHANGES * TURN_BYTES:
            return self.complete_since
        return max(self.complete_since, unpack(packed[:TURN_BYTES])[0].at)

    def turned_since(self, moment: datetime, limit: int) -> list[ServiceKey]:
        """Those whose verdict turned since then, at most the last `limit` of them, who turned last at the end."""
        found: list[ServiceKey] = []
        for key, packed in reversed(self._changes.items()):
            if len(found) >= limit or seconds(packed[-TURN_BYTES:])[0] < moment.timestamp():
                break
            found.append(key)
        return found[::-1]

    # --- over a restart

    def packed(self, key: ServiceKey) -> bytes:
        """Its changes as they are kept; empty where there are none. In any thread."""
        return self._changes.get(key, b"")

    def incomplete_until(self, moment: datetime) -> None:
        """Changes from before then may be missing."""
        self.complete_since = max(self.complete_since, moment)

    def restore(self, key: ServiceKey, packed: bytes, verdict: Liveness, ended: datetime | None) -> None:
        """Take in the changes that an earlier run kept, which judged the service so and heard all until `ended`.

        A change in the moment of saving may be in the verdict and not among them. Raises ValueError.
        """
        turns = unpack(packed)
        if not turns or (ended is not None and turns[-1].at < ended - KEPT):
            return
        self._put(key, packed[-MOST_CHANGES * TURN_BYTES :])
        last = turns[-1]
        if last.after is not verdict:
            self._add(key, Turn(max(last.at, ended or last.at), last.after, verdict))

    def _add(self, key: ServiceKey, turn: Turn) -> None:
        self._put(key, (self._changes.get(key, b"") + pack(turn))[-MOST_CHANGES * TURN_BYTES :])

    def _put(self, key: ServiceKey, packed: bytes) -> None:
        self._changes[key] = packed
        self._changes.move_to_end(key)
        if len(self._changes) > MOST_SERVICES:
            _, gone = self._changes.popitem(last=False)
            self.incomplete_until(unpack(gone[-TURN_BYTES:])[0].at)
