"""`jetway maintenance` against prepared answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from jetway.cli import run_command
from jetway.core.times import parse_rfc3339
from support.fake_gateway import FakeGateway, Reply, fake_gateway

PATH = "/api/admin/maintenance"
WINDOW = {
    "window_id": "0f8b7a3e-0000-4000-8000-000000000001",
    "service": "",
    "site": "",
    "label": "rack=12",
    "since": "2026-11-24T10:00:00.000Z",
    "until": "2026-11-24T12:00:00.000Z",
    "reason": "new switch",
    "created_by": "alice",
    "created_at": "2026-11-24T09:00:00.000Z",
}
Captured = pytest.CaptureFixture[str]


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGateway]:
    with fake_gateway() as running:
        monkeypatch.setenv("JETWAY_URL", running.url)
        monkeypatch.setenv("JETWAY_TOKEN", "jwa_test")
        yield running


def run(*arguments: str) -> int:
    return run_command(["maintenance", *arguments])


def test_a_window_is_asked_for_with_its_times(api: FakeGateway, capsys: Captured) -> None:
    api.queue(Reply(201, WINDOW))
    now = datetime.now(UTC)
    assert run("add", "--label", "rack=12", "--in", "8h", "--for", "30m", "--reason", "new switch") == 0
    (request,) = api.requests
    assert (request.method, request.path) == ("POST", PATH)
    since, until = (parse_rfc3339(request.body.pop(name)) for name in ("since", "until"))
    assert request.body == {"label": "rack=12", "reason": "new switch"}
    assert timedelta(hours=8) <= since - now + timedelta(seconds=1)
    assert until - since == timedelta(minutes=30)
    assert "label rack=12" in capsys.readouterr().out


def test_without_a_beginning_it_begins_at_once(api: FakeGateway, capsys: Captured) -> None:
    api.queue(Reply(201, WINDOW))
    assert run("add", "--site", "north", "--json") == 0
    assert set(api.requests[0].body) == {"site", "until"}
    assert json.loads(capsys.readouterr().out) == WINDOW


@pytest.mark.parametrize("whom", [(), ("--site", "x", "--label", "a=b")], ids=str)
def test_it_is_of_one_thing(api: FakeGateway, whom: tuple[str, ...]) -> None:
    assert run("add", *whom) == 2
    assert api.requests == []


def test_windows_are_listed(api: FakeGateway, capsys: Captured) -> None:
    api.queue(Reply(200, {"items": [WINDOW], "next_cursor": None, "total": 1}))
    assert run("list") == 0
    assert "rack=12" in capsys.readouterr().out


def test_one_is_ended(api: FakeGateway, capsys: Captured) -> None:
    api.queue(Reply(204))
    assert run("end", WINDOW["window_id"]) == 0
    assert (api.requests[0].method, api.requests[0].path) == ("DELETE", f"{PATH}/{WINDOW['window_id']}")
