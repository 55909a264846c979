"""Reconcile and reproject over a real NATS server and a real SQLite file, both tampered with from outside."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.js.kv import KeyValue

from jetway.core.drift import Drift
from jetway.core.ids import document_key
from jetway.services.findings import ReconcileReport
from jetway.services.house import House
from support.builders import LINEAGES
from support.real_house import RealHouse, real_house

PATHS = {lineage.service_id: document_key(lineage) for lineage in LINEAGES.values()}
SECONDS = 60


@dataclass
class Site:
    """p1, a1 beneath it, c1 beneath that, and the tools of a person who changes things by hand."""

    real: RealHouse
    bucket: KeyValue

    @property
    def house(self) -> House:
        return self.real.house

    async def reconcile(self) -> ReconcileReport:
        async with asyncio.timeout(SECONDS):
            report = await self.house.reconciler.run()
        assert report.errors == ()
        return report

    async def whole(self) -> bool:
        """Whether a run finds nothing."""
        report = await self.reconcile()
        return (report.findings, report.documents_mended, report.rows_mended) == ((), 0, 0)

    async def document(self, service_id: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((await self.bucket.get(PATHS[service_id])).value or b"")
        return found

    async def edit(self, service_id: str, **changes: Any) -> None:
        document = await self.document(service_id)
        await self.bucket.put(PATHS[service_id], json.dumps({**document, **changes}).encode())

    @contextlib.contextmanager
    def sql(self) -> Iterator[sqlite3.Connection]:
        with contextlib.closing(sqlite3.connect(self.real.database_path, timeout=30)) as connection:
            yield connection
            connection.commit()

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with self.sql() as connection:
            return connection.execute(query).fetchall()

    def drift(self, kind: Drift) -> int:
        return int(self.house.metrics.drift.labels(kind.value)._value.get())


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with real_house(tmp_path) as real:
        client = await nats.connect(real.nats_url)
        try:
            await real.activate_tree()
            bucket = await client.jetstream(timeout=30).key_value("config")
            yield Site(real, bucket)
        finally:
            await client.close()


async def test_a_site_in_order_is_left_alone(site: Site) -> None:
    assert await site.whole()


async def test_documents_are_mended(site: Site) -> None:
    before = {name: await site.document(name) for name in PATHS}
    await site.edit("p1", status="revoked", label="by hand")
    await site.edit("a1", revision=999)
    await site.edit("c1", checker_config={"by": "hand"})
    await site.bucket.put("config/pollers/foreign.json", b'{"theirs": true}')
    left = json.dumps({**before["a1"], "component_id": "left"}).encode()
    await site.bucket.put("config/pollers/p1/agents/left.json", left)

    report = await site.reconcile()

    assert report.documents_mended == 3
    assert [site.drift(kind) for kind in (Drift.DOCUMENT_CHANGED, Drift.DOCUMENT_ORPHANED)] == [2, 1]
    assert {name: await site.document(name) for name in ("p1", "a1")} == {n: before[n] for n in ("p1", "a1")}
    assert (await site.document("c1"))["checker_config"] == {"by": "hand"}
    assert (await site.bucket.get("config/pollers/foreign.json")).value == b'{"theirs": true}'
    assert "config/pollers/p1/agents/left.json" not in await site.bucket.keys()
    assert await site.whole()


async def test_deleted_documents_are_written_again(site: Site) -> None:
    before = {name: await site.document(name) for name in PATHS}
    await site.bucket.delete(PATHS["p1"])
    await site.bucket.purge(PATHS["a1"])

    assert (await site.reconcile()).documents_mended == 2
    assert {name: await site.document(name) for name in PATHS} == before
    assert await site.whole()


async def test_rows_are_mended(site: Site) -> None:
    before = {table: site.rows(f"SELECT * FROM {table}") for table in ("pollers", "agents", "checkers")}
    packages = sorted(site.rows("SELECT * FROM edge_packages"))
    with site.sql() as connection:
        connection.execute("UPDATE pollers SET label = 'by hand', revision = 999")
        connection.execute("UPDATE agents SET labels = 'not JSON', first_registered = 'yesterday'")
        connection.execute("DELETE FROM checkers")
        connection.execute("DELETE FROM edge_packages WHERE component_type = 'agent'")

    assert (await site.reconcile()).rows_mended == 3
    for table, rows in before.items():
        assert site.rows(f"SELECT * FROM {table}") == rows
    assert sorted(site.rows("SELECT * FROM edge_packages")) == packages
    assert await site.whole()


async def test_a_row_of_a_stranger_is_named_and_left(site: Site) -> None:
    with site.sql() as connection:
        connection.execute("CREATE TEMP TABLE copy AS SELECT * FROM agents")
        connection.execute("UPDATE copy SET agent_id = 'stranger'")
        connection.execute("INSERT INTO agents SELECT * FROM copy")

    report = await site.reconcile()

    assert (report.orphans, report.findings) == (1, ("row unknown: agent.stranger",))
    assert site.rows("SELECT count(*) FROM agents") == [(2,)]


async def test_lost_entries_of_the_trail_are_made_again_and_told_once(site: Site) -> None:
    query = "SELECT * FROM service_registration_events WHERE event_type <> 'audit_gap' ORDER BY event_id"
    before = site.rows(query)
    with site.sql() as connection:
        connection.execute("DELETE FROM service_registration_events WHERE revision = 2")

    report = await site.reconcile()

    assert (report.gaps_found, report.gaps_mended, report.gaps_open) == (3, 3, 0)
    assert site.rows(query) == before
    assert await site.whole()
    await site.real.settle()
    told = site.rows("SELECT service_id FROM service_registration_events WHERE event_type = 'audit_gap'")
    assert sorted(told) == [("a1",), ("c1",), ("p1",)]


async def test_a_database_that_was_lost_is_filled_again(site: Site) -> None:
    tables = ("pollers", "agents", "checkers", "edge_packages")
    before = {table: sorted(site.rows(f"SELECT * FROM {table}")) for table in tables}
    with site.sql() as connection:
        for table in (*tables, "service_registration_events"):
            connection.execute(f"DELETE FROM {table}")

    report = await site.reconcile()

    assert (report.rows_mended, report.gaps_mended, report.gaps_open) == (3, 9, 0)
    assert {table: sorted(site.rows(f"SELECT * FROM {table}")) for table in tables} == before
    assert await site.whole()


async def test_nothing_is_taken_for_drift_while_everything_changes(site: Site) -> None:
    stop = asyncio.Event()

    async def change() -> None:
        number = 0
        while not stop.is_set():
            await site.real.create_agent(f"busy-{number}")
            number += 1

    changing = asyncio.create_task(change())
    try:
        for _ in range(5):
            await site.reconcile()
    finally:
        stop.set()
        await changing

    assert [kind for kind in Drift if site.drift(kind)] == []
    assert await site.whole()


async def test_a_reproject_writes_everything_anew(site: Site) -> None:
    before = {name: await site.document(name) for name in PATHS}
    rows = site.rows("SELECT * FROM agents")
    await site.edit("c1", checker_config={"by": "hand"}, status="revoked")
    await site.bucket.put(PATHS["a1"], b"not JSON")
    with site.sql() as connection:
        connection.execute("UPDATE agents SET revision = 999, status = 'revoked'")

    await site.real.reproject()

    assert site.house.reprojector.state.state == "done"
    assert await site.document("a1") == before["a1"]
    assert await site.document("c1") == {**before["c1"], "checker_config": {"by": "hand"}}
    assert site.rows("SELECT * FROM agents") == rows
    await site.real.settle()
    assert site.rows("SELECT actor FROM service_registration_events WHERE event_type = 'reprojected'") == [
        ("alice",)
    ]
    assert await site.whole()
