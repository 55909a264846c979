"""`jetway import` with the real command and a running daemon."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from support.daemon import Daemon, eventually, fresh

SAMPLES = Path(__file__).parents[2] / "docs" / "samples"


def report(daemon: Daemon, file: Path, *arguments: str, code: int = 0) -> dict[str, Any]:
    done = daemon.command("import", str(file), *arguments, "--json")
    assert done.returncode == code, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


async def test_the_samples_come_in_once_and_live_at_their_first_heartbeat(daemon: Daemon) -> None:
    tried = report(daemon, SAMPLES / "services.csv", "--dry-run")
    assert tried["counts"] == {"created": 4, "unchanged": 0, "kept": 0, "refused": 0}
    assert daemon.get("/api/admin/services/pollers")["total"] == 0

    done = report(daemon, SAMPLES / "services.csv")

    assert {**done, "dry_run": True} == tried
    assert report(daemon, SAMPLES / "services.json")["counts"]["unchanged"] == 4
    made = daemon.service("checker", "uplink-ping")
    assert (made["status"], made["registration_source"], made["created_by"]) == ("pending", "config", "admin")
    assert (made["poller_id"], made["revision"]) == ("site-a", 1)
    async with daemon.nats() as client:
        for subject in ("poller.site-a", "agent.site-a.core-switch-room"):
            await client.publish(f"edge.heartbeat.{subject}")
        await client.flush()
    eventually(lambda: _must(daemon.service("poller", "site-a")["status"] == "active"))
    eventually(lambda: _must(daemon.service("agent", "core-switch-room")["status"] == "active"))
    assert report(daemon, SAMPLES / "services.csv")["counts"]["unchanged"] == 4


def test_each_row_is_told_by_its_line_and_field(daemon: Daemon, tmp_path: Path) -> None:
    known, poller = fresh("known"), fresh("p")
    daemon.create("poller", known)
    file = tmp_path / "rows.csv"
    lines = [
        "service_type,service_id,parent_id,site,heartbeat_interval_seconds",
        f"agent,{fresh('a')},nobody,,",
        f"poller,{'a' * 64},,,",
        f"poller,{known},,elsewhere,",
        f"poller,{poller},,,soon",
        f"poller,{poller},,,30",
        f"poller,{poller},,,30",
        f"agent,{fresh('a')},{poller},,86401",
    ]
    file.write_bytes("\n".join(lines).encode() + b"\npoller," + fresh("q").encode() + b",,\xff,\n")

    for arguments in (["--dry-run"], []):
        rows = report(daemon, file, *arguments, code=1)["rows"]
        assert [(row["place"], row["outcome"], row["field"]) for row in rows] == [
            ("line 2", "refused", "parent_id"),
            ("line 3", "refused", "service_id"),
            ("line 4", "kept", ""),
            ("line 5", "refused", "heartbeat_interval_seconds"),
            ("line 6", "created", ""),
            ("line 7", "refused", "service_id"),
            ("line 8", "refused", "heartbeat_interval_seconds"),
            ("line 9", "refused", "site"),
        ]
    assert daemon.service("poller", known)["site"] == ""


def test_a_file_that_cannot_be_understood_brings_nothing_in(daemon: Daemon, tmp_path: Path) -> None:
    poller = fresh("p")
    file = tmp_path / "rows.csv"
    file.write_text(f"service_type,service_id,colour\npoller,{poller},red\n")
    done = daemon.command("import", str(file))
    assert (done.returncode, "line 1: there is no column 'colour'" in done.stderr) == (1, True)
    assert daemon.call("GET", f"/api/admin/services/pollers/{poller}").status == 404
    assert daemon.command("import").returncode == 2


def test_more_rows_than_one_call_takes_in_any_order(daemon: Daemon, tmp_path: Path) -> None:
    poller, file = fresh("many"), tmp_path / "rows.json"
    rows = [
        {"service_type": "agent", "service_id": f"{poller}-{number}", "parent_id": poller}
        for number in range(450)
    ]
    file.write_text(json.dumps([*rows, {"service_type": "poller", "service_id": poller}]))
    assert report(daemon, file, "--dry-run")["counts"]["created"] == 451
    assert report(daemon, file)["counts"]["created"] == 451
    assert report(daemon, file)["counts"]["unchanged"] == 451
    assert daemon.service("poller", poller)["agent_count"] == 450


def test_a_viewer_imports_nothing(daemon: Daemon) -> None:
    viewer = daemon.json_of("api-token", "create", fresh("viewer"), "--role", "viewer")["token"]
    daemon.secrets.add(viewer)
    body = {"rows": [{"service_type": "poller", "service_id": fresh("p")}]}
    assert daemon.call("POST", "/api/admin/services/import", body, token=viewer).status == 403


def _must(condition: bool) -> None:
    assert condition
