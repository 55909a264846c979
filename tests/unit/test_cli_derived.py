"""`jetway reconcile` and `jetway reproject` against prepared answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from jetway.cli import run_command
from support.fake_gateway import FakeGateway, Reply, fake_gateway

REPORT: dict[str, Any] = {
    "checked": 3,
    "documents_mended": 1,
    "rows_mended": 0,
    "orphans": 0,
    "gaps_found": 0,
    "gaps_mended": 0,
    "gaps_open": 0,
    "started_at": "2026-03-04T05:06:07.890Z",
    "finished_at": "2026-03-04T05:06:08.890Z",
    "findings": ["document changed: agent.a1"],
    "errors": [],
}


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGateway]:
    monkeypatch.setattr("jetway.cli.derived._POLL_SECONDS", 0.0)
    with fake_gateway() as running:
        monkeypatch.setenv("JETWAY_URL", running.url)
        monkeypatch.setenv("JETWAY_TOKEN", "jwa_test")
        yield running


def state(name: str, done: int = 0, **more: Any) -> dict[str, Any]:
    return {"state": name, "total": 3, "done": done, "written": done, "error": "", **more}


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = run_command(list(arguments))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_a_reconcile_shows_what_it_found(api: FakeGateway, capsys: pytest.CaptureFixture[str]) -> None:
    api.queue(Reply(200, REPORT))
    code, out, _ = run(capsys, "reconcile")
    assert code == 0
    assert "documents mended" in out and out.rstrip().endswith("document changed: agent.a1")
    assert [(request.method, request.path) for request in api.requests] == [("POST", "/api/admin/reconcile")]


@pytest.mark.parametrize("wrong", [{"gaps_open": 1}, {"errors": ["the database is away"]}], ids=str)
def test_what_is_not_mended_is_a_failure(
    api: FakeGateway, capsys: pytest.CaptureFixture[str], wrong: dict[str, Any]
) -> None:
    api.queue(Reply(200, REPORT | wrong))
    code, out, _ = run(capsys, "reconcile")
    assert code == 1
    assert all(f"error: {error}" in out for error in wrong.get("errors", ()))


def test_a_reconcile_as_json(api: FakeGateway, capsys: pytest.CaptureFixture[str]) -> None:
    api.queue(Reply(200, REPORT))
    code, out, _ = run(capsys, "reconcile", "--json")
    assert (code, json.loads(out)) == (0, REPORT)


def test_a_reproject_waits_for_its_end(api: FakeGateway, capsys: pytest.CaptureFixture[str]) -> None:
    api.queue(Reply(202, state("running")), Reply(200, state("running", 1)), Reply(200, state("done", 3)))
    code, out, _ = run(capsys, "reproject")
    assert (code, out) == (0, "rewrote 3 services: 3 rows and documents written\n")
    assert [request.method for request in api.requests] == ["POST", "GET", "GET"]


def test_a_reproject_as_json(api: FakeGateway, capsys: pytest.CaptureFixture[str]) -> None:
    api.queue(Reply(202, state("running")), Reply(200, state("done", 3)))
    code, out, _ = run(capsys, "reproject", "--json")
    assert (code, json.loads(out)) == (0, state("done", 3))


@pytest.mark.parametrize(
    ("last", "reason"),
    [
        (state("failed", 1, error="the database is away"), "1 of 3 services: the database is away"),
        (state("idle"), "the daemon was restarted meanwhile"),
    ],
    ids=["failed", "restarted"],
)
def test_a_reproject_that_ends_early_is_a_failure(
    api: FakeGateway, capsys: pytest.CaptureFixture[str], last: dict[str, Any], reason: str
) -> None:
    api.queue(Reply(202, state("running")), Reply(200, last))
    code, _, err = run(capsys, "reproject")
    assert code == 1
    assert reason in " ".join(err.split())


def test_one_that_runs_already_is_told(api: FakeGateway, capsys: pytest.CaptureFixture[str]) -> None:
    api.queue(Reply(409, {"detail": "a reconcile is running: try again when it is done"}))
    code, _, err = run(capsys, "reproject")
    assert code == 1
    assert "a reconcile is running" in " ".join(err.split())
