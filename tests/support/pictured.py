"""What makes the documentation's pictures show something: a past, an outage, somebody who waits."""

from __future__ import annotations

import contextlib
import sqlite3
from datetime import UTC, datetime, timedelta

from jetway.core.times import rfc3339
from support.browser import announce
from support.daemon import Daemon

_INSERT = "INSERT OR REPLACE INTO service_count_samples VALUES (?, ?, ?, ?)"
_STEP = timedelta(minutes=5)


def seed(daemon: Daemon) -> None:
    """A day of samples, a poller that is missed and one that nobody knows. Before the first page is opened."""
    for name, label in (("harbour", "Harbour"), ("depot", "Depot")):
        body = {"service_id": name, "label": label, "site": label}
        assert daemon.call("POST", "/api/admin/services/pollers", body).status == 201
        path = f"/api/admin/services/pollers/{name}/status"
        assert daemon.call("POST", path, {"status": "active"}).status == 200
    announce(daemon, "depot", b'{"interval_seconds": 3600}')
    announce(daemon, "harbour", b'{"stopping": true}')
    announce(daemon, "kiosk-17", b'{"version": "1.4.0"}')
    now = datetime.now(UTC)
    newest = now.replace(minute=now.minute - now.minute % 5, second=0, microsecond=0) - _STEP
    rows = [
        (rfc3339(newest - number * _STEP), "poller", status, count)
        for number in range(24 * 12)
        for status, count in _counts(number / 12)
    ]
    with contextlib.closing(sqlite3.connect(daemon.state / "registry.db", timeout=30)) as database, database:
        database.executemany(_INSERT, rows)


def _counts(hours_ago: float) -> list[tuple[str, int]]:
    active = 1 + sum(hours_ago < since for since in (20, 14, 8, 3))
    pending = 1 + (14 < hours_ago < 16) + (3 < hours_ago < 5.5)
    return [("active", active), ("pending", pending), ("inactive", int(9 < hours_ago < 12)), ("revoked", 0)]
