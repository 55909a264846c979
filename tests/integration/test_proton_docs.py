"""What docs/proton.md tells people to type, typed."""

from __future__ import annotations

import contextlib
import re
import sqlite3
import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from jetway.adapters.database.proton_client import ProtonClient
from jetway.adapters.database.sqlite import SqliteDatabase
from jetway.core.times import parse_rfc3339
from jetway.ports import RegistryDatabase
from jetway.settings import load_settings
from support.database_rows import agent_row, checker_row, poller_row
from support.proton_database import opened, own_database
from support.proton_standin import ProtonStandin

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "proton.md").read_text(encoding="utf-8")
LONG_AGO = datetime.now(UTC).replace(microsecond=0) - timedelta(days=3)
EXPECTED = [
    ("A", "agent", 2, LONG_AGO - timedelta(hours=1)),
    ("A", "poller", 1, LONG_AGO),
    ("B", "checker", 1, LONG_AGO),
]


def _query(name: str) -> str:
    (found,) = re.findall(rf"<!-- query: {name} -->\n```sql\n(.*?)```", PAGE, re.DOTALL)
    return str(found)


async def _fill(database: RegistryDatabase) -> None:
    def waiting(**changes: Any) -> dict[str, Any]:
        return {"status": "pending", "first_registered": LONG_AGO} | changes

    recently = datetime.now(UTC) - timedelta(hours=23)
    rows = [
        poller_row("p-1", **waiting()),
        poller_row("p-2", **waiting(first_registered=recently)),
        poller_row("p-3", **waiting(status="active")),
        agent_row("a-1", **waiting()),
        agent_row("a-2", **waiting(first_registered=LONG_AGO - timedelta(hours=1))),
        agent_row("a-3", **waiting(status="revoked", site="B")),
        checker_row("c-1", **waiting(site="B")),
    ]
    await database.write_rows(rows, [])


async def test_of_a_stream_with_a_row_a_day_the_newest_is_found() -> None:
    with (
        ProtonStandin() as standin,
        own_database(standin.url) as target,
        contextlib.closing(ProtonClient(target)) as client,
    ):
        client.command(
            "CREATE STREAM pollers (poller_id string, status string) PRIMARY KEY (poller_id)"
            " SETTINGS mode='versioned_kv', version_column='_tp_time'"
        )
        into = "INSERT INTO pollers (poller_id, status, _tp_time) VALUES"
        day = 86_400_000
        for number, status in ((1, "active"), (2, "inactive"), (3, "deleted")):
            client.insert(into, [("p-1", status, number * day), ("p-2", "active", number * day)])
        assert client.select("SELECT count() FROM table(pollers)") == [(6,)]
        assert client.select(_query("newest-rows")) == [("p-2", "active")]


async def test_who_has_been_pending_for_more_than_a_day_on_proton() -> None:
    with ProtonStandin() as standin, own_database(standin.url) as target:
        async with opened(target) as database:
            await database.migrate()
            await _fill(database)
        with contextlib.closing(ProtonClient(target)) as client:
            assert client.select(_query("pending-by-site proton")) == EXPECTED


async def test_who_has_been_pending_for_more_than_a_day_on_sqlite(tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    database = SqliteDatabase(path, ROOT / "migrations" / "sqlite")
    await database.open()
    await database.migrate()
    await _fill(database)
    await database.close()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        rows = connection.execute(_query("pending-by-site sqlite")).fetchall()
    assert [(*row[:3], parse_rfc3339(row[3])) for row in rows] == EXPECTED


def test_the_settings_on_the_page_are_accepted(tmp_path: Path) -> None:
    (text,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    settings = load_settings(overrides={"state_dir": tmp_path, **tomllib.loads(text)})
    assert settings.database_url == "proton://jetway@proton.example:8463/default"


def test_the_image_is_pinned() -> None:
    images = re.findall(r"timeplus-io/proton:(\S+)", PAGE)
    assert images and all(re.fullmatch(r"\d+\.\d+\.\d+", tag) for tag in images)
