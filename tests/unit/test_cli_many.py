"""Commands about many services: bulk creation from a file, and the quarantine."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jetway.cli import run_command
from support.fake_gateway import FakeGateway, Reply, fake_gateway

ROW = {"component_type": "poller", "label": "Site A"}


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeGateway]:
    for name in [name for name in os.environ if name.startswith("JETWAY_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "state"))
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr("jetway.cli.client._RETRY_PAUSE", 0)
    with fake_gateway() as running:
        monkeypatch.setenv("JETWAY_URL", running.url)
        monkeypatch.setenv("JETWAY_TOKEN", "jwa_test")
        yield running


def report(**more: Any) -> dict[str, Any]:
    row = {"row": 1, "outcome": "created", "service_id": "site-a", "token": "jw1.secret", "detail": ""}
    return {"dry_run": False, "created": 1, "planned": 0, "refused": 0, "failed": 0, "rows": [row]} | more


@pytest.mark.parametrize("suffix", ["csv", "json"])
def test_tokens_go_into_a_private_file_and_nowhere_else(
    api: FakeGateway, tmp_path: Path, capfd: pytest.CaptureFixture[str], suffix: str
) -> None:
    source, output = tmp_path / "rows.json", tmp_path / f"out.{suffix}"
    source.write_text(json.dumps([ROW]))
    api.queue(Reply(body=report()))
    assert run_command(["package", "bulk", str(source), "--output", str(output)]) == 0
    assert stat.S_IMODE(output.stat().st_mode) == 0o600
    assert "jw1.secret" in output.read_text()
    shown = capfd.readouterr()
    assert "jw1.secret" not in shown.out + shown.err
    assert "1 created" in shown.out
    assert api.requests[0].body == {"rows": [ROW]}


def test_the_same_file_is_sent_under_the_same_key_also_after_a_lost_answer(
    api: FakeGateway, tmp_path: Path
) -> None:
    source, output = tmp_path / "rows.csv", tmp_path / "out.csv"
    source.write_text("component_type,label\npoller,Site A\n")
    api.queue(Reply(drop=True), Reply(body=report()), Reply(body=report()))
    for _ in range(2):
        assert run_command(["package", "bulk", str(source), "-o", str(output)]) == 0
    keys = {request.headers["Idempotency-Key"] for request in api.requests}
    assert (len(api.requests), len(keys)) == (3, 1)
    assert api.requests[0].headers["Content-Type"] == "text/csv"


def test_refused_rows_are_named_and_fail_the_command(
    api: FakeGateway, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "rows.json"
    source.write_text(json.dumps({"rows": [ROW]}))
    row = {"row": 1, "outcome": "refused", "service_id": "", "token": "", "detail": "the id is taken"}
    api.queue(Reply(body=report(created=0, refused=1, rows=[row])))
    assert run_command(["package", "bulk", str(source), "-o", str(tmp_path / "o.json"), "--dry-run"]) == 1
    assert "row 1: the id is taken" in capfd.readouterr().err
    assert "dry_run=true" in api.requests[0].path


def test_nothing_is_created_where_the_tokens_could_not_be_kept(api: FakeGateway, tmp_path: Path) -> None:
    source = tmp_path / "rows.json"
    source.write_text(json.dumps([ROW]))
    for output in (tmp_path / "nowhere" / "out.json", tmp_path, source):
        assert run_command(["package", "bulk", str(source), "-o", str(output)]) == 1
    source.write_text("not json")
    assert run_command(["package", "bulk", str(source), "-o", str(tmp_path / "out.json")]) == 1
    assert api.requests == []


def test_the_quarantine_is_listed_and_adopted_from(
    api: FakeGateway, capfd: pytest.CaptureFixture[str]
) -> None:
    item = {
        "service_type": "agent", "service_id": "a1", "parent_id": "p1", "source_ip": "192.0.2.7",
        "version": "2.1", "registered_at": None, "last_heartbeat": None,
    }  # fmt: skip
    api.queue(Reply(body={"items": [item], "next_cursor": None, "total": 1}))
    assert run_command(["service", "quarantine", "list"]) == 0
    assert "192.0.2.7" in capfd.readouterr().out
    api.queue(Reply(body={"service_type": "agent", "service_id": "a1", "label": "Core"}))
    package = "0b9f3c1e-8f5e-4c55-9a3f-0d3a4f2f9f10"
    assert run_command(["service", "quarantine", "adopt", "agent", "a1", package]) == 0
    assert api.requests[-1].path == "/api/admin/quarantine/agents/a1/adopt"
    assert "adopted: agent a1 is Core" in capfd.readouterr().out
