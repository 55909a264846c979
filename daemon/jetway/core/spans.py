"""Spans: what a service's liveness was when, as far as that is known.

A verdict stands until it turns. Time in which the gateway could not hear is nobody's silence and nobody's life:
whatever verdict stood then, it is `not_heard`. And what the gateway did not keep is `unknown`: neither is ever
shown as online.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from itertools import pairwise

from jetway.core.heard import Interval
from jetway.core.liveness import Liveness
from jetway.core.turns import Turn


class SpanState(StrEnum):
    """What was known of a service for a while."""

    NEVER = "never"
    ONLINE = "online"
    LATE = "late"
    OFFLINE = "offline"
    NOT_HEARD = "not_heard"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Span:
    """From `since` to `until` the liveness was `state`."""

    state: SpanState
    since: datetime
    until: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """What is known of one service's past."""

    registered: datetime
    first_seen: datetime | None
    """None: no heartbeat of it has come yet."""
    known_since: datetime
    """From then on every turn is among `turns`."""
    turns: Sequence[Turn]
    """The oldest first."""
    verdict: Liveness
    """As it stands now."""
    heard: Sequence[Interval]
    """When heartbeats could be heard, the oldest first, none touching another."""


def spans_of(past: Past, since: datetime, until: datetime) -> list[Span]:
    """The spans from `since`, or from the registration if that was later, to `until`: no two alike in a row."""
    begin = max(since, past.registered)
    verdicts = [_cut(span, begin, until) for span in _verdicts(past, until)]
    joined: list[Span] = []
    for span in _only_heard([span for span in verdicts if span.since < span.until], past.heard):
        if joined and joined[-1].state is span.state:
            joined[-1] = Span(span.state, joined[-1].since, span.until)
        else:
            joined.append(span)
    return joined


def _verdicts(past: Past, until: datetime) -> Iterator[Span]:
    """The verdicts that stood, from the registration to `until`, whether anything could be heard or not."""
    if past.first_seen is None and past.verdict is Liveness.NEVER:
        yield Span(SpanState.NEVER, past.registered, until)
        return
    begin = past.first_seen or past.registered
    yield Span(SpanState.NEVER, past.registered, begin)
    known = max(begin, past.known_since)
    yield Span(SpanState.UNKNOWN, begin, known)
    turns = _in_order(past.turns, known)
    if not turns:
        yield Span(_state(past.verdict), known, until)
        return
    yield Span(SpanState(turns[0].before), known, turns[0].at)
    for turn, following in pairwise(turns):
        missed = turn.after is not following.before
        yield Span(SpanState.UNKNOWN if missed else SpanState(turn.after), turn.at, following.at)
    last = turns[-1]
    yield Span(SpanState(last.after) if last.after is past.verdict else SpanState.UNKNOWN, last.at, until)


def _state(verdict: Liveness) -> SpanState:
    """Of one that was heard once: a verdict that is lost with a restart says nothing of the past."""
    return SpanState.UNKNOWN if verdict is Liveness.NEVER else SpanState(verdict)


def _in_order(turns: Sequence[Turn], known: datetime) -> list[Turn]:
    """Turns since `known`. None is before the one it followed: the wall clock was set back in between."""
    found: list[Turn] = []
    for turn in turns:
        if turn.at >= known or found:
            at = max(turn.at, found[-1].at) if found else turn.at
            found.append(Turn(at, turn.before, turn.after))
    return found


def _only_heard(spans: Sequence[Span], heard: Sequence[Interval]) -> Iterator[Span]:
    """The same spans, and between the intervals that were heard nothing but that they were not."""
    place = 0
    for span in spans:
        at = span.since
        while at < span.until:
            while place < len(heard) and heard[place].until <= at:
                place += 1
            if place == len(heard) or heard[place].since >= span.until:
                yield Span(SpanState.NOT_HEARD, at, span.until)
                break
            if heard[place].since > at:
                yield Span(SpanState.NOT_HEARD, at, heard[place].since)
                at = heard[place].since
            end = min(span.until, heard[place].until)
            yield Span(span.state, at, end)
            at = end


def _cut(span: Span, since: datetime, until: datetime) -> Span:
    return Span(span.state, max(span.since, since), min(span.until, until))
