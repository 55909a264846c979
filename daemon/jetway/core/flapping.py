"""Flapping: a service whose liveness turns again and again is one trouble, not a hundred."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class FlapRule:
    """More than `changes` of the verdict within `window` are flapping."""

    changes: int = 6
    window: timedelta = timedelta(minutes=10)


def is_flapping(changed_at: Sequence[float], now: float, rule: FlapRule, *, was_flapping: bool) -> bool:
    """Whether a service is flapping whose verdict changed at these moments, in seconds of any one clock.

    Whoever flaps goes on flapping until half as many are left in the window, or the state would flap itself.
    A change that lies ahead of `now` does not count: the clock was set back since.
    """
    begin = now - rule.window.total_seconds()
    recent = sum(1 for moment in changed_at if begin < moment <= now)
    return recent > (rule.changes // 2 if was_flapping else rule.changes)


def was_flapping(changed_at: Sequence[float], rule: FlapRule) -> bool:
    """Whether a service was flapping at the last of these moments, the oldest of which comes first."""
    if not changed_at or not is_flapping(changed_at, changed_at[-1], rule, was_flapping=True):
        return False  # that of nearly all, without going through the rest
    flapping = False
    for number, moment in enumerate(changed_at):
        flapping = flapping and is_flapping(changed_at[:number], moment, rule, was_flapping=True)
        flapping = flapping or is_flapping(changed_at[: number + 1], moment, rule, was_flapping=False)
    return flapping
