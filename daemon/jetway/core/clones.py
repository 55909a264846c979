"""Clones: two hosts that beat as one service, told from one that was restarted or has moved.

Every heartbeat may say which instance speaks (new at each start of the program), or from which address. When a
service has another one than before, that is a restart or a move, unless the earlier one speaks again before it has
been silent for long: then both are alive.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

MOST_REMEMBERED = 4
"""Instances of one service that are remembered: with more clones than that the trouble is plain as well."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """An instance or an address, and when it was heard last, in seconds of a clock that never jumps."""

    who: str
    at: float


@dataclass(frozen=True, slots=True)
class Instances:
    """Who has spoken for one service, the newest last, and whether two are suspected to speak at one time."""

    sightings: tuple[Sighting, ...] = ()
    suspects: tuple[str, str] | None = None
    returned_at: float = 0.0
    """When one of the suspects spoke again last."""


def follow(known: Instances, before: Sighting, who: str, now: float, *, alive_seconds: float) -> Instances:
    """`who` speaks now, and somebody else spoke last: `before`, at its time.

    Whoever was silent for less than `alive_seconds` when it speaks again had not stopped.
    """
    others = tuple(_others(known.sightings, before.who, who))
    sightings = (*others, before, Sighting(who, now))[-MOST_REMEMBERED:]
    earlier = next((one for one in known.sightings if one.who == who), None)
    if earlier is not None and now - earlier.at <= alive_seconds:
        first, second = sorted((before.who, who))
        return Instances(sightings, (first, second), now)
    return Instances(sightings, known.suspects, known.returned_at)


def is_over(known: Instances, since: float, until: float, *, alive_seconds: float) -> bool:
    """Whether nobody has spoken in turns with another for `alive_seconds`, as far as was heard."""
    return until - max(known.returned_at, since) > alive_seconds


def _others(sightings: tuple[Sighting, ...], *left_out: str) -> Iterator[Sighting]:
    return (one for one in sightings if one.who not in left_out)
