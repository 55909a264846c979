"""Turns: past changes of one service's verdict, kept as eight bytes each, for there are many after an outage."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from jetway.core.liveness import Liveness

TURN_BYTES = 8
_TURN = struct.Struct("<Q")
_CODES = (Liveness.NEVER, Liveness.ONLINE, Liveness.LATE, Liveness.OFFLINE)
_NUMBERS = {verdict: number for number, verdict in enumerate(_CODES)}


@dataclass(frozen=True, slots=True)
class Turn:
    """A verdict turned from one to another."""

    at: datetime
    before: Liveness
    after: Liveness


def pack(turn: Turn) -> bytes:
    """Milliseconds since 1970, which nothing is before, and two bits for each verdict."""
    moment = max(0, round(turn.at.timestamp() * 1000))
    return _TURN.pack(moment << 4 | _NUMBERS[turn.before] << 2 | _NUMBERS[turn.after])


def unpack(packed: bytes) -> list[Turn]:
    """What `pack` made, one after another. Raises ValueError for what it cannot have made."""
    return [_turn(number) for number in _numbers(packed)]


def seconds(packed: bytes) -> list[float]:
    """When the turns were, as Unix time."""
    return [(number >> 4) / 1000 for number in _numbers(packed)]


def _numbers(packed: bytes) -> Sequence[int]:
    if len(packed) % TURN_BYTES:
        raise ValueError("these are not whole turns")
    return [number for (number,) in _TURN.iter_unpack(packed)]


def _turn(number: int) -> Turn:
    try:
        at = datetime.fromtimestamp((number >> 4) / 1000, UTC)
    except (OverflowError, OSError) as error:
        raise ValueError("a turn is of no time that there is") from error
    return Turn(at, _CODES[number >> 2 & 3], _CODES[number & 3])
