"""`jetway reconcile` and `jetway reproject` on a running daemon whose data somebody changed by hand."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from support.daemon import Daemon, eventually, fresh


@contextlib.contextmanager
def written_to(daemon: Daemon) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(daemon.state / "registry.db", timeout=30)) as database:
        yield database
        database.commit()


@pytest.fixture(scope="module")
def daemon(daemon: Daemon) -> Daemon:
    """One that has just compared everything: by itself it does so an hour later, and no sooner after its start."""
    run = daemon.call("POST", "/api/admin/jobs/reconcile/runs", {"dry_run": False})
    assert (run.status, run.json["outcome"]) == (200, "done"), run.body
    daemon.restart()
    soon = datetime.now(UTC) + timedelta(minutes=30)
    assert datetime.fromisoformat(daemon.get("/api/admin/jobs/reconcile")["next_run"]) > soon
    return daemon


@pytest.fixture
def poller(daemon: Daemon) -> str:
    name = fresh("p")
    daemon.require_written(daemon.create("poller", name))
    return name


def events(daemon: Daemon, event_type: str, poller: str = "") -> list[dict[str, object]]:
    where = f" AND service_id = '{poller}'" if poller else ""
    return daemon.rows(f"SELECT * FROM service_registration_events WHERE event_type = '{event_type}'{where}")


async def test_reconcile_mends_what_was_changed_by_hand(daemon: Daemon, poller: str) -> None:
    eventually(lambda: _must(len(events(daemon, "registered", poller)) == 1))
    path, (row,) = (
        f"config/pollers/{poller}.json",
        daemon.rows(f"SELECT * FROM pollers WHERE poller_id = '{poller}'"),
    )
    async with daemon.nats() as client:
        bucket = await client.jetstream(timeout=30).key_value("config")
        before = (await bucket.get(path)).value or b""
        await bucket.put(path, json.dumps({**json.loads(before), "status": "revoked"}).encode())
        with written_to(daemon) as database:
            database.execute("UPDATE pollers SET label = 'by hand' WHERE poller_id = ?", (poller,))
            database.execute("DELETE FROM service_registration_events WHERE service_id = ?", (poller,))

        report = daemon.json_of("reconcile")

        assert (report["documents_mended"], report["rows_mended"]) == (1, 1)
        assert (report["gaps_found"], report["gaps_open"], report["errors"]) == (1, 0, [])
        assert (await bucket.get(path)).value == before
    assert daemon.rows(f"SELECT * FROM pollers WHERE poller_id = '{poller}'") == [row]
    assert len(events(daemon, "registered", poller)) == 1
    eventually(lambda: _must(len(events(daemon, "audit_gap", poller)) == 1))
    assert daemon.metric("jetway_drift_total", kind="document_changed") >= 1
    again = daemon.json_of("reconcile")
    assert (again["findings"], again["documents_mended"], again["rows_mended"]) == ([], 0, 0)
    eventually(lambda: _require_ok(daemon, "reconcile"))


def test_reconcile_says_what_it_found(daemon: Daemon, poller: str) -> None:
    with written_to(daemon) as database:
        database.execute("DELETE FROM pollers WHERE poller_id = ?", (poller,))
    done = daemon.command("reconcile")
    assert done.returncode == 0, done.stderr
    assert f"row missing: poller.{poller}" in done.stdout


def test_readyz_shows_the_views(daemon: Daemon, poller: str) -> None:
    eventually(lambda: _require_ok(daemon, "view_events", "view_config_watch"))


def _require_ok(daemon: Daemon, *names: str) -> None:
    found = daemon.get("/readyz")["components"]
    assert {name: found.get(name, {}).get("state") for name in names} == dict.fromkeys(names, "ok")


def test_reproject_writes_everything_anew(daemon: Daemon, poller: str) -> None:
    with written_to(daemon) as database:
        database.execute(
            "UPDATE pollers SET status = 'revoked', revision = 999 WHERE poller_id = ?", (poller,)
        )

    state = daemon.json_of("reproject")

    assert (state["state"], state["done"], state["error"]) == ("done", state["total"], "")
    (row,) = daemon.rows(f"SELECT status, revision FROM pollers WHERE poller_id = '{poller}'")
    assert row == {"status": "pending", "revision": 1}
    eventually(lambda: _must(bool(events(daemon, "reprojected"))))
    done = daemon.command("reproject")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("rewrote ")


def _must(holds: bool) -> None:
    assert holds
