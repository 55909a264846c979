"""Who is online, late, offline: derived from the time of receipt and the service's own interval, never stored.

No verdict over time not heard: silence counts only from the moment since which the daemon has been listening, and
only up to the moment for which that is proven. All times are seconds of a clock that never jumps, so that setting
the wall clock makes nobody late.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

GAP_SECONDS = 3.0
"""A longer stretch without proof was not heard: the daemon or the NATS server stood still, or the link did."""
PAUSE_SECONDS = 1.0
"""After a longer stretch without proof one proof is not enough: others' messages may still be on their way."""
BEFORE = float("-inf")
"""When a service was heard that only an earlier run of the daemon has heard."""


class Liveness(StrEnum):
    """What a service's silence says about it now."""

    NEVER = "never"
    ONLINE = "online"
    LATE = "late"
    OFFLINE = "offline"

    def is_worse_than(self, other: Liveness) -> bool:
        """Whether longer silence leads from `other` to this."""
        return _BADNESS[self] > _BADNESS[other]


_BADNESS = {Liveness.NEVER: 0, Liveness.ONLINE: 1, Liveness.LATE: 2, Liveness.OFFLINE: 3}


@dataclass(frozen=True, slots=True)
class Thresholds:
    """After how many of its own intervals a silent service is late, and offline."""

    late_after: float = 2.0
    offline_after: float = 3.0


@dataclass(frozen=True, slots=True)
class Hearing:
    """Everything that was sent from `since` until `until` has been heard."""

    since: float
    until: float
    newest: float = BEFORE
    """The newest proof. It is before its time where it came after a pause: the next one bears it out."""

    def proven(self, at: float, came_at: float | None = None) -> Hearing:
        """Everything that was sent until `at` has been heard, but for a stretch that was too long to be sure.

        After such a stretch hearing begins when the proof came, which may have waited for its end.
        """
        newest = max(self.until, self.newest)
        if at - newest > GAP_SECONDS:
            began = max(at, at if came_at is None else came_at)
            return Hearing(began, began, began)
        until = newest if at - newest > PAUSE_SECONDS else at
        return Hearing(self.since, max(self.until, until), max(newest, at))


def liveness(
    heard_at: float | None,
    *,
    interval_seconds: int,
    hearing: Hearing | None,
    stopping: bool = False,
    thresholds: Thresholds = Thresholds(),
) -> Liveness:
    """The verdict on a service that was last heard at `heard_at`; None: never.

    `hearing` None means that the daemon is deaf now, and a deaf daemon judges nobody: whoever was seen is given
    the benefit of the doubt.
    """
    if heard_at is None:
        return Liveness.NEVER
    if stopping:
        return Liveness.OFFLINE
    if hearing is None:
        return Liveness.ONLINE
    silence = hearing.until - max(heard_at, hearing.since)
    if silence >= interval_seconds * thresholds.offline_after:
        return Liveness.OFFLINE
    if silence >= interval_seconds * thresholds.late_after:
        return Liveness.LATE
    return Liveness.ONLINE


def judged_again_at(
    heard_at: float,
    verdict: Liveness,
    *,
    interval_seconds: int,
    hearing: Hearing,
    thresholds: Thresholds = Thresholds(),
) -> float:
    """Until when `hearing` must reach before a service that stays silent can get a verdict worse than `verdict`.

    Not to be asked of one that is offline: nothing is worse.
    """
    factor = thresholds.offline_after
    if verdict is not Liveness.LATE:
        factor = min(factor, thresholds.late_after)
    return max(heard_at, hearing.since) + interval_seconds * factor
