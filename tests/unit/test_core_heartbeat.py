"""Heartbeats on the wire: garbage is malformed, and a batch is judged entry by entry."""

from __future__ import annotations

import json

import pytest

from jetway.core.heartbeat import (
    BATCH_LIMIT,
    BATCH_PAYLOAD_LIMIT,
    EMPTY,
    PAYLOAD_LIMIT,
    Beat,
    MalformedError,
    parse_batch,
    parse_payload,
)
from support.builders import LINEAGES


def payload(**fields: object) -> bytes:
    return json.dumps(fields).encode()


def batch(*entries: object) -> bytes:
    return json.dumps({"heartbeats": list(entries)}).encode()


def test_an_empty_payload_says_nothing() -> None:
    assert parse_payload(b"") is EMPTY
    assert parse_payload(b"{}") == EMPTY
    assert (EMPTY.timestamp, EMPTY.healthy, EMPTY.interval_seconds, EMPTY.stopping) == (
        None,
        None,
        None,
        False,
    )


def test_all_fields_of_the_contract_are_taken() -> None:
    beat = parse_payload(
        payload(
            timestamp="2026-03-04T05:06:07.890Z",
            healthy=True,
            version="1.2",
            source_ip="192.0.2.1",
            interval_seconds=30,
            config_revision=4,
            stopping=True,
            metadata={"a": [1]},
            something_new={"x": 1},
        )
    )
    assert (beat.healthy, beat.version, beat.source_ip, beat.interval_seconds) == (
        True,
        "1.2",
        "192.0.2.1",
        30,
    )
    assert (beat.config_revision, beat.stopping, beat.metadata) == (4, True, {"a": [1]})
    assert beat.timestamp is not None


@pytest.mark.parametrize("timestamp", ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", 0, 1e9])
def test_a_sender_whose_clock_is_wrong_still_lives(timestamp: object) -> None:
    assert parse_payload(payload(timestamp=timestamp)).timestamp is not None


@pytest.mark.parametrize(
    "data",
    [
        b"garbage",
        b"null",
        b"[]",
        b"1",
        b"\xff\xfe\x00",
        b"\x00",
        b"{",
        b'{"healthy": }',
        payload(healthy="perhaps"),
        payload(timestamp="yesterday"),
        payload(timestamp="2026-03-04T05:06:07"),
        payload(timestamp=1e18),
        b'{"timestamp": NaN}',
        b'{"interval_seconds": NaN}',
        b'{"interval_seconds": Infinity}',
        b'{"interval_seconds": 1e400}',
        payload(interval_seconds=0),
        payload(interval_seconds=-1),
        payload(interval_seconds=86_401),
        payload(interval_seconds=1.5),
        payload(config_revision=-1),
        payload(version="x" * 129),
        payload(version=1),
        payload(source_ip="x" * 65),
        payload(metadata=[]),
        b'{"version": "\\ud800"}',
        b'{"metadata": {"a": ' + b"[" * 1000 + b"]" * 1000 + b"}}",
        b"[" * 60_000,
        b'{"interval_seconds": ' + b"9" * 5000 + b"}",
        b" " * (PAYLOAD_LIMIT + 1),
        b"{" + b" " * 1024 * 1024 + b"}",
    ],
    ids=lambda data: repr(data[:30]),
)
def test_garbage_is_malformed(data: bytes) -> None:
    with pytest.raises(MalformedError) as caught:
        parse_payload(data)
    assert len(str(caught.value)) < 300


def test_the_largest_payload_is_taken() -> None:
    data = payload(metadata={"x": ""})
    assert parse_payload(data + b" " * (PAYLOAD_LIMIT - len(data))).metadata == {"x": ""}


def test_a_batch_carries_the_pollers_own_subtree() -> None:
    beats = parse_batch(
        batch(
            {"service_type": "poller", "healthy": True},
            {"service_type": "agent", "agent_id": "a1"},
            {"service_type": "checker", "agent_id": "a1", "checker_id": "c1", "poller_id": "p1"},
        ),
        "p1",
    )
    assert [beat.lineage for beat in beats if isinstance(beat, Beat)] == list(LINEAGES.values())
    assert isinstance(beats[0], Beat)
    assert beats[0].payload.healthy is True


@pytest.mark.parametrize(
    "entry",
    [
        {"service_type": "agent", "agent_id": "a1", "poller_id": "p2"},
        {"service_type": "poller", "poller_id": "p2"},
        {"service_type": "agent"},
        {"service_type": "checker", "checker_id": "c1"},
        {"service_type": "checker", "agent_id": "a1"},
        {"service_type": "agent", "agent_id": "A1"},
        {"service_type": "agent", "agent_id": "a1", "healthy": 7},
        {"service_type": "robot"},
        {"agent_id": "a1"},
        {},
        None,
        [],
        "poller",
        7,
    ],
    ids=str,
)
def test_each_entry_of_a_batch_is_judged_alone(entry: object) -> None:
    """A batch is not a loop that swallows errors: the bad entry is told, the good ones count."""
    good = {"service_type": "poller"}
    first, bad, last = parse_batch(batch(good, entry, good), "p1")
    assert isinstance(bad, MalformedError)
    assert isinstance(first, Beat)
    assert isinstance(last, Beat)


def test_a_relay_names_every_parent_itself() -> None:
    whole, without = parse_batch(
        batch(
            {"service_type": "agent", "poller_id": "p1", "agent_id": "a1"},
            {"service_type": "agent", "agent_id": "a1"},
        ),
        None,
    )
    assert isinstance(whole, Beat)
    assert isinstance(without, MalformedError)


def test_a_thousand_entries_are_taken_and_one_more_refuses_the_batch() -> None:
    entry = {"service_type": "poller"}
    assert len(parse_batch(batch(*[entry] * BATCH_LIMIT), "p1")) == 1000
    with pytest.raises(MalformedError):
        parse_batch(batch(*[entry] * (BATCH_LIMIT + 1)), "p1")


def test_an_empty_batch_is_a_batch() -> None:
    assert parse_batch(batch(), "p1") == []


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b'{"heartbeats": null}',
        b'{"heartbeats": {}}',
        b'{"heartbeats": [NaN',
        b'{"heartbeats": ' + b"[" * 1000 + b"]" * 1000 + b"}",
        b" " * (BATCH_PAYLOAD_LIMIT + 1),
    ],
    ids=lambda data: repr(data[:30]),
)
def test_what_is_no_batch_is_malformed_as_a_whole(data: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_batch(data, "p1")
