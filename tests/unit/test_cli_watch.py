"""`jetway service watch`: what it prints, where it goes on after a cut, and how it ends."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jetway.cli import run_command, service_watch
from jetway.cli.server_events import EventReader
from support.fake_gateway import FakeGateway, Reply, fake_gateway

HEAD = b"retry: 2000\n\n"
DENIED = Reply(401, {"detail": "the token was revoked"})


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeGateway]:
    for name in [name for name in os.environ if name.startswith("JETWAY_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "state"))
    monkeypatch.setattr(service_watch, "_FIRST_PAUSE", 0.0)
    with fake_gateway() as running:
        monkeypatch.setenv("JETWAY_URL", running.url)
        monkeypatch.setenv("JETWAY_TOKEN", "jwa_test")
        yield running


def service(name: str, **fields: Any) -> dict[str, Any]:
    return {
        "service_type": "agent",
        "service_id": name,
        "parent_id": "site-a",
        "status": "active",
        "status_reason": "",
        "approval": "none",
        "liveness": "online",
        "healthy": True,
    } | fields


def event(name: str, data: Any, number: str = "") -> bytes:
    told = f"id: {number}\n" if number else ""
    return f"{told}event: {name}\ndata: {json.dumps(data)}\n\n".encode()


def told(*services: dict[str, Any], at: str) -> bytes:
    """One batch, with the position behind it."""
    return b"".join([event("service", each) for each in services]) + event("position", {}, at)


def stream(*pieces: bytes) -> Reply:
    return Reply(body=HEAD + b"".join(pieces), headers={"Content-Type": "text/event-stream"})


def test_a_change_is_a_line(api: FakeGateway, capfd: pytest.CaptureFixture[str]) -> None:
    one = service("a1", approval="required", healthy=False, status_reason="slow\x1b[2J")
    api.queue(
        stream(told(one, at="1-5"), b": nothing new\n\n", event("gone", service("a2")), event("reset", {})),
        DENIED,
    )
    assert run_command(["service", "watch"]) == 1
    shown = capfd.readouterr()
    first, second = shown.out.splitlines()
    assert first.endswith(
        "agent   a1  active  online  under site-a  approval required  unhealthy  (slow [2J)"
    )
    assert second.split()[1:] == ["agent", "a2", "purged"]
    assert "jetway service list" in shown.err
    assert "\x1b" not in shown.out


def test_as_json_an_event_is_a_line(api: FakeGateway, capfd: pytest.CaptureFixture[str]) -> None:
    api.queue(stream(told(service("a1"), at="1-5"), event("reset", {})), DENIED)
    assert run_command(["service", "watch", "--json"]) == 1
    lines = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert lines == [{"event": "service", "data": service("a1")}, {"event": "reset", "data": {}}]


def test_the_types_are_the_routes_filter(api: FakeGateway) -> None:
    api.queue(DENIED)
    assert run_command(["service", "watch", "agents", "poller", "agent"]) == 1
    assert api.requests[0].path == "/api/admin/services/watch?service_type=agent&service_type=poller"
    assert run_command(["service", "watch", "router"]) == 2
    assert len(api.requests) == 1


def test_after_a_cut_it_goes_on_where_it_was(api: FakeGateway, capfd: pytest.CaptureFixture[str]) -> None:
    cut_in_the_middle = told(service("a2"), at="1-6")[:-20]
    api.queue(
        stream(told(service("a1"), at="1-5"), cut_in_the_middle),
        Reply(drop=True),
        Reply(503, {"detail": "the daemon stops"}),
        stream(told(service("a2"), at="1-6")),
        DENIED,
    )
    assert run_command(["service", "watch"]) == 1
    asked_from = [request.headers.get("Last-Event-ID") for request in api.requests]
    assert asked_from == [None, "1-5", "1-5", "1-5", "1-6"]
    shown = capfd.readouterr()
    assert [line.split()[2] for line in shown.out.splitlines()] == ["a1", "a2", "a2"]
    assert "the daemon stops: connecting again" in shown.err
    assert shown.err.count("connected again\n") == 1
    assert "the token was revoked" in shown.err.splitlines()[-1]


def test_before_the_first_position_it_says_that_something_may_be_missing(
    api: FakeGateway, capfd: pytest.CaptureFixture[str]
) -> None:
    api.queue(stream(), stream(), DENIED)
    assert run_command(["service", "watch"]) == 1
    assert "connected again; what changed meanwhile is not shown" in capfd.readouterr().err


@pytest.mark.parametrize("status", [401, 403, 422])
def test_a_refusal_ends_it(api: FakeGateway, capfd: pytest.CaptureFixture[str], status: int) -> None:
    api.queue(Reply(status, {"detail": "not for you"}))
    assert run_command(["service", "watch"]) == 1
    assert len(api.requests) == 1
    assert "not for you" in capfd.readouterr().err


def test_a_daemon_that_is_not_there_to_begin_with_ends_it(
    api: FakeGateway, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("JETWAY_URL", "http://127.0.0.1:1")
    assert run_command(["service", "watch"]) == 1
    assert "nobody listens" in capfd.readouterr().err


def test_too_many_watchers_are_let_in_later(api: FakeGateway) -> None:
    api.queue(Reply(429, {"detail": "1000 watch already"}), DENIED)
    assert run_command(["service", "watch"]) == 1
    assert len(api.requests) == 2


def test_ctrl_c_ends_it_well(api: FakeGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(service_watch.time, "sleep", interrupt)
    api.queue(stream())
    assert run_command(["service", "watch"]) == 0


BATCH = told(service("a1"), service("ä2"), at="1-5") + b"data: a\r\ndata: b\r\n\r\nevent: none\n\n: x\n\n"


@given(cuts=st.lists(st.integers(0, len(BATCH)), max_size=20))
def test_events_may_come_in_any_pieces(cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(BATCH)]
    reader = EventReader()
    pieces = [BATCH[a:b] for a, b in pairwise(places)]
    events = [event for piece in pieces for event in reader.feed(piece)]
    assert [(e.name, e.id) for e in events] == [
        ("service", ""),
        ("service", ""),
        ("position", "1-5"),
        ("message", ""),
    ]
    assert json.loads(events[1].data)["service_id"] == "ä2"
    assert events[-1].data == "a\nb"


def test_a_line_without_end_is_not_kept() -> None:
    reader = EventReader()
    with pytest.raises(ValueError, match="without end"):
        for _ in range(100):
            list(reader.feed(b"x" * 100_000))
