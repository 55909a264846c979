"""The system's clock and identifiers."""

from __future__ import annotations

import time
import uuid
from datetime import UTC, datetime, timedelta

import pytest

from jetway.adapters.clock import RandomIdentifiers, SystemClock
from jetway.core.times import parse_rfc3339, rfc3339


def test_now_is_utc_and_survives_being_stored() -> None:
    now = SystemClock().now()
    assert now.tzinfo is UTC
    assert parse_rfc3339(rfc3339(now)) == now
    assert abs(now - datetime.now(UTC)) < timedelta(minutes=1)


def test_now_is_the_millisecond_in_which_it_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SystemClock()
    told = []
    for nanoseconds in (1_999_999, 1_000_001, 2_000_000, 500_000):  # set back, too
        monkeypatch.setattr(time, "time_ns", lambda now=nanoseconds: now)
        told.append(clock.now() - datetime(1970, 1, 1, tzinfo=UTC))
    assert told == [timedelta(milliseconds=each) for each in (1, 1, 2, 0)]


def test_monotonic_never_goes_back() -> None:
    clock = SystemClock()
    readings = [clock.monotonic() for _ in range(1000)]
    assert readings == sorted(readings)


def test_ids_are_canonical_and_differ() -> None:
    ids = {RandomIdentifiers().new_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert all(str(uuid.UUID(text)) == text for text in ids)
