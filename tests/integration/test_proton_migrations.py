"""Migrations on Proton: noted down once, never changed, and streams of another product kept with all they hold."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from jetway.adapters.database.proton_client import ProtonClient, Target
from jetway.adapters.database.tables import ALL_TABLES
from jetway.core.errors import PortError, StartupError, UnavailableError
from jetway.core.ids import ServiceKey, ServiceType
from jetway.core.rows import Presence
from jetway.ports import EventQuery
from support.database_rows import MOMENT, after, agent_row, checker_row, event, package_row, poller_row
from support.proton_database import PROTON_MIGRATIONS, opened, own_database
from support.proton_standin import Fault, ProtonStandin

SHIPPED = ["0001_registry.sql", "0002_count_samples.sql"]

# What the earlier product makes: no zone in its times, is_healthy and last_seen never null.
_SHARED = """
  component_id string DEFAULT '', registration_source string DEFAULT 'implicit', status string DEFAULT 'active',
  spiffe_identity string DEFAULT '', first_registered datetime64(3) DEFAULT now64(),
  first_seen nullable(datetime64(3)), last_seen datetime64(3) DEFAULT now64(),
  metadata string DEFAULT '{}', created_by string DEFAULT 'system'
"""
_KEYED = "SETTINGS mode='versioned_kv', version_column='_tp_time'"
EARLIER_PRODUCT = (
    f"CREATE STREAM pollers (poller_id string, {_SHARED}, is_healthy bool DEFAULT true,"
    f" agent_count uint32 DEFAULT 0, checker_count uint32 DEFAULT 0) PRIMARY KEY (poller_id) {_KEYED}",
    f"CREATE STREAM agents (agent_id string, poller_id string, {_SHARED},"
    f" checker_count uint32 DEFAULT 0) PRIMARY KEY (agent_id) {_KEYED}",
    "CREATE STREAM checkers (checker_id string, agent_id string, poller_id string, checker_kind string,"
    f" {_SHARED}) PRIMARY KEY (checker_id) {_KEYED}",
    "CREATE STREAM service_registration_events (event_id string, event_type string, service_id string,"
    " service_type string, parent_id string DEFAULT '', registration_source string, actor string,"
    " timestamp datetime64(3) DEFAULT now64(), metadata string DEFAULT '{}')"
    " PARTITION BY to_start_of_day(timestamp) ORDER BY (timestamp, service_id)"
    " TTL to_start_of_day(coalesce(timestamp, _tp_time)) + INTERVAL 90 DAY",
    "CREATE STREAM schema_migrations (version string)",
)
OLD = ServiceKey(ServiceType.POLLER, "old-poller")
IMPLICIT = ServiceKey(ServiceType.AGENT, "old-agent")
SEEN = datetime(2025, 11, 3, 8, 0, 0, 250_000, tzinfo=UTC)


@pytest.fixture(scope="module")
def server() -> Iterator[ProtonStandin]:
    with ProtonStandin() as running:
        yield running


@pytest.fixture
def target(server: ProtonStandin) -> Iterator[Target]:
    with own_database(server.url) as made:
        yield made
    server.faults.clear()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return Path(shutil.copytree(PROTON_MIGRATIONS, tmp_path / "migrations"))


def _run(target: Target, *statements: str) -> None:
    with contextlib.closing(ProtonClient(target)) as client:
        for statement in statements:
            client.command(statement)


def _select(target: Target, sql: str) -> Any:
    with contextlib.closing(ProtonClient(target)) as client:
        return client.select(sql)


def _insert(target: Target, sql: str, *rows: tuple[Any, ...]) -> None:
    with contextlib.closing(ProtonClient(target)) as client:
        client.insert(sql, rows)


class TestRunner:
    async def test_a_second_run_has_nothing_to_do_even_from_another_process(self, target: Target) -> None:
        for expected in (SHIPPED, []):
            async with opened(target) as database:
                assert list(await database.migrate()) == expected

    async def test_it_returns_once_what_it_noted_down_can_be_read(
        self, server: ProtonStandin, target: Target
    ) -> None:
        server.visible_after = 0.5
        try:
            async with opened(target) as database:
                await database.migrate()
                assert list(await database.migrate()) == []
        finally:
            server.visible_after = 0.0

    async def test_a_changed_file_is_refused(self, target: Target, directory: Path) -> None:
        async with opened(target, migrations=directory) as database:
            await database.migrate()
            file = directory / "0001_registry.sql"
            file.write_text(file.read_text() + "-- a remark\n")
            for call in (database.migrate, database.migration_status):
                with pytest.raises(
                    StartupError, match=r"0001_registry\.sql: was changed after it was applied"
                ):
                    await call()

    async def test_a_newer_database_is_refused(self, target: Target, directory: Path) -> None:
        (directory / "0003_more.sql").write_text("CREATE STREAM IF NOT EXISTS more (x int64);")
        async with opened(target, migrations=directory) as database:
            assert list(await database.migrate()) == [*SHIPPED, "0003_more.sql"]
        async with opened(target) as database:
            with pytest.raises(StartupError, match=r"0003_more\.sql: .*newer program"):
                await database.migrate()

    async def test_one_that_proton_refuses_is_named_and_those_before_stay(
        self, target: Target, directory: Path
    ) -> None:
        (directory / "0003_wrong.sql").write_text("CREATE NONSENSE;")
        async with opened(target, migrations=directory) as database:
            with pytest.raises(StartupError, match=r"0003_wrong\.sql: "):
                await database.migrate()
            assert list((await database.migration_status()).applied) == SHIPPED

    @pytest.mark.parametrize("code", [241, 159])
    async def test_an_error_that_passes_is_no_fault_of_the_file(
        self, server: ProtonStandin, target: Target, code: int
    ) -> None:
        server.faults.error(code, matching="CREATE STREAM IF NOT EXISTS checkers")
        async with opened(target) as database:
            with pytest.raises(PortError, match=f"code {code}") as caught:
                await database.migrate()
            assert not isinstance(caught.value, StartupError)
            await database.check()
            assert list((await database.migration_status()).applied) == SHIPPED

    async def test_one_that_was_cut_off_is_run_again(self, server: ProtonStandin, target: Target) -> None:
        server.faults.add(Fault("drop", matching="CREATE STREAM IF NOT EXISTS checkers"))
        async with opened(target) as database:
            with pytest.raises(UnavailableError):
                await database.migrate()
            assert list(await database.migrate()) == SHIPPED
            await database.check()

    async def test_two_at_the_same_time_end_well(self, target: Target) -> None:
        async with opened(target) as one, opened(target) as other:
            await asyncio.gather(one.migrate(), other.migrate())
            assert list(await one.migrate()) == []

    async def test_columns_are_those_of_the_tables(self, target: Target) -> None:
        async with opened(target) as database:
            await database.migrate()
            assert await database.find_adopted() == {}
        for table in ALL_TABLES:
            names = [row[0] for row in _select(target, f"DESCRIBE {table.name}")]
            assert names == [*table.names, "_tp_time"]

    async def test_counts_are_read_like_a_table(self, target: Target) -> None:
        async with opened(target) as database:
            await database.migrate()
            await database.write_rows([poller_row("a"), poller_row("b"), agent_row(status="deleted")], [])
        sql = "SELECT service_type, status, registration_source, service_count FROM service_counts"
        assert set(_select(target, sql)) == {
            ("poller", "active", "edge_onboarding", 2),
            ("agent", "deleted", "edge_onboarding", 1),
        }


class TestAdoption:
    @pytest.fixture
    async def adopted(self, target: Target) -> AsyncIterator[Target]:
        """A deployment of the earlier product with a poller and an event, brought under jetway."""
        _run(target, *EARLIER_PRODUCT)
        columns = "poller_id, registration_source, first_registered, last_seen, metadata, agent_count"
        milliseconds = int(SEEN.timestamp() * 1000)
        row = ("old-poller", "edge_onboarding", milliseconds, milliseconds, '{"rack": "7"}', 3)
        _insert(target, f"INSERT INTO pollers ({columns}) VALUES", row)
        columns = "event_id, event_type, service_id, service_type, registration_source, actor, timestamp"
        recent = int(MOMENT.timestamp() * 1000)
        old = ("old-event", "registered", "old-poller", "poller", "config", "system", recent)
        _insert(target, f"INSERT INTO service_registration_events ({columns}) VALUES", old)
        _insert(target, "INSERT INTO schema_migrations (version) VALUES", ("00000000000009",))
        # For whatever registered itself it writes the JSON text null.
        columns = "agent_id, poller_id, registration_source, first_registered, last_seen, metadata"
        row = ("old-agent", "old-poller", "implicit", milliseconds, milliseconds, "null")
        _insert(target, f"INSERT INTO agents ({columns}) VALUES", row)
        columns = (
            "event_id, event_type, service_id, service_type, registration_source, actor, timestamp, metadata"
        )
        new = ("null-event", "registered", "old-agent", "agent", "implicit", "system", recent + 1, "null")
        _insert(target, f"INSERT INTO service_registration_events ({columns}) VALUES", new)
        async with opened(target) as database:
            assert list(await database.migrate()) == SHIPPED
        yield target

    async def test_its_streams_and_rows_are_kept_as_they_are(self, adopted: Target) -> None:
        (row,) = _select(adopted, "SELECT poller_id, status, metadata, agent_count FROM table(pollers)")
        assert row == ("old-poller", "active", '{"rack": "7"}', 3)
        names = {row[0] for row in _select(adopted, "DESCRIBE pollers")}
        assert "label" not in names and "revision" not in names, "no column was added"
        async with opened(adopted) as database:
            missing = await database.find_adopted()
        assert set(missing) == {"pollers", "agents", "checkers", "service_registration_events"}
        assert {"label", "site", "epoch", "revision"} <= set(missing["agents"])

    async def test_what_was_applied_stands_beside_its_own_notes(self, adopted: Target) -> None:
        async with opened(adopted) as database:
            assert list((await database.migration_status()).applied) == SHIPPED
            assert list(await database.migrate()) == []
        versions = [row[0] for row in _select(adopted, "SELECT version FROM table(schema_migrations)")]
        assert "00000000000009" in versions
        assert len(versions) == 1 + len(SHIPPED)

    async def test_its_rows_are_read_as_far_as_they_go(self, adopted: Target) -> None:
        async with opened(adopted) as database:
            row = (await database.load_rows([OLD]))[OLD]
            assert (row.status, row.metadata, row.agent_count) == ("active", {"rack": "7"}, 3)
            assert (row.last_seen, row.first_registered, row.revision) == (SEEN, SEEN, 0)
            assert await database.find_row_versions() == {OLD: (0, 0), IMPLICIT: (0, 0)}
            assert await database.load_presence() == {
                OLD: Presence(SEEN, True, ""),
                IMPLICIT: Presence(SEEN, None, ""),
            }
            found = (await database.find_events(EventQuery())).events
            assert [(each.event_id, each.metadata) for each in found] == [
                ("null-event", {}),
                ("old-event", {}),
            ]

    @pytest.mark.parametrize(
        ("text", "metadata"),
        [
            ("null", {}),
            ('"x"', {}),
            ("5", {}),
            ("[]", {}),
            ("", {}),
            ('{"_jetway": null}', {"_jetway": None}),
            ('{"_jetway": []}', {"_jetway": []}),
            ('{"_jetway": {"labels": 5, "package_id": null}}', {}),
        ],
    )
    async def test_json_that_is_no_object_is_an_empty_one(
        self, target: Target, text: str, metadata: dict[str, Any]
    ) -> None:
        _run(target, *EARLIER_PRODUCT)
        at = int(SEEN.timestamp() * 1000)
        columns = "poller_id, registration_source, first_registered, last_seen, metadata"
        _insert(target, f"INSERT INTO pollers ({columns}) VALUES", ("old-poller", "implicit", at, at, text))
        async with opened(target) as database:
            await database.migrate()
            assert await database.load_presence() == {OLD: Presence(SEEN, True, "")}
            assert await database.find_row_versions() == {OLD: (0, 0)}
            row = (await database.load_rows([OLD]))[OLD]
            assert (row.metadata, row.labels, row.package_id) == (metadata, {}, "")
            await database.write_rows([poller_row("old-poller", metadata={"a": 1})], [])
            assert (await database.load_rows([OLD]))[OLD].metadata == {"a": 1}

    async def test_what_nobody_can_read_hides_no_other_entry_and_no_other_row(self, adopted: Target) -> None:
        at = int(SEEN.timestamp() * 1000)
        columns = "poller_id, registration_source, first_registered, last_seen, metadata"
        row = ("broken", "implicit", at, at, "{bad")
        _insert(adopted, f"INSERT INTO pollers ({columns}) VALUES", row)
        columns = "event_id, event_type, service_id, service_type, registration_source, actor, metadata"
        event_row = ("broken", "registered", "x", "poller", "config", "system", "{bad")
        _insert(adopted, f"INSERT INTO service_registration_events ({columns}) VALUES", event_row)
        async with opened(adopted) as database:
            assert set(await database.load_presence()) == {OLD, IMPLICIT}
            assert set(await database.load_rows([OLD, ServiceKey(ServiceType.POLLER, "broken")])) == {OLD}
            events = (await database.find_events(EventQuery())).events
            assert [each.event_id for each in events] == ["null-event", "old-event"]

    async def test_of_rows_of_several_days_the_newest_is_read_and_counted(self, adopted: Target) -> None:
        """Those streams are cut by the day of _tp_time, and Proton shows a row of a key for each."""
        columns = "poller_id, registration_source, first_registered, last_seen, metadata, _tp_time"
        days = [SEEN + timedelta(days=day) for day in range(5)]
        for number in range(5):
            rows = [
                (f"p{each}", "implicit", at, at, "{}", at)
                for each in range(4)
                for at in [int(days[number].timestamp() * 1000)]
            ]
            _insert(adopted, f"INSERT INTO pollers ({columns}) VALUES", *rows)
        keys = [ServiceKey(ServiceType.POLLER, f"p{each}") for each in range(4)]
        ((shown,),) = _select(adopted, "SELECT count() FROM table(pollers) WHERE poller_id LIKE 'p%'")
        assert shown == 20, "if it were one a key, this test would show nothing"
        async with opened(adopted) as database:
            presence = await database.load_presence()
            assert {presence[key].last_seen for key in keys} == {days[-1]}
            assert await database.find_row_keys(ServiceType.POLLER) == [OLD, *keys]
            assert await database.find_row_keys(ServiceType.POLLER, after="p1", limit=1) == [keys[2]]
            written = [poller_row(key.service_id, status="revoked", revision=2) for key in keys]
            await database.write_rows(written, [])
            await database.remove_rows(keys[:1])
            for _ in range(5):
                rows = await database.load_rows(keys)
                assert {key: row.status for key, row in rows.items()} == dict.fromkeys(keys[1:], "revoked")
                assert await database.find_row_versions() == {
                    OLD: (0, 0),
                    IMPLICIT: (0, 0),
                    **dict.fromkeys(keys[1:], (1, 2)),
                }
        async with opened(adopted) as again:
            await again.write_rows([poller_row("p3", revision=1, label="older")], [])
            assert (await again.load_rows(keys[3:]))[keys[3]].revision == 2
        counts = _select(adopted, "SELECT service_type, status, service_count FROM service_counts")
        assert set(counts) == {("poller", "active", 1), ("poller", "revoked", 3), ("agent", "active", 1)}

    async def test_rows_of_ours_come_back_whole(self, adopted: Target) -> None:
        rows = [
            poller_row(last_seen=None, is_healthy=None, metadata={"_jetway": "a person's", "x": [1]}),
            agent_row(is_healthy=False, labels={"rack": "ü"}),
            checker_row(first_seen=None),
        ]
        async with opened(adopted) as database:
            await database.write_rows(rows, [package_row()])
            keys = [ServiceKey(row.service_type, row.service_id) for row in rows]
            found = await database.load_rows(keys)
            assert [found[key] for key in keys] == [
                replace(row, metadata=json.loads(json.dumps(row.metadata))) for row in rows
            ]
            ours = dict.fromkeys(keys, (1, 3))
            assert await database.find_row_versions() == {OLD: (0, 0), IMPLICIT: (0, 0)} | ours

    async def test_an_older_row_never_replaces_a_newer_one_there_either(self, adopted: Target) -> None:
        async with opened(adopted) as database:
            await database.write_rows([poller_row("old-poller", revision=2, label="two")], [])
            await database.write_rows([poller_row("old-poller", revision=1, label="one")], [])
            assert (await database.load_rows([OLD]))[OLD].label == "two"
        async with opened(adopted) as again:
            await again.write_rows([poller_row("old-poller", revision=1, label="one")], [])
            await again.write_rows([poller_row("old-poller", revision=2, label="two again")], [])
            assert (await again.load_rows([OLD]))[OLD].label == "two again"

    async def test_what_the_earlier_product_reads_stays_in_its_columns(self, adopted: Target) -> None:
        async with opened(adopted) as database:
            await database.write_rows([poller_row("old-poller", status="inactive")], [])
        sql = "SELECT status, component_id, agent_count, metadata FROM table(pollers)"
        ((status, component_id, agents, metadata),) = _select(adopted, sql)
        assert (status, component_id, agents) == ("inactive", "old-poller", 2)
        assert json.loads(metadata)["owner"] == "netops"
        assert json.loads(metadata)["_jetway"]["site"] == "A"

    async def test_events_are_filtered_by_what_only_ours_have(self, adopted: Target) -> None:
        events = [event("e-1", package_id="p", timestamp=after(5)), event("e-2"), event("e-2")]
        key = ServiceKey(ServiceType.AGENT, "switch-room")
        async with opened(adopted) as database:
            await database.append_events(events)
            page = await database.find_events(EventQuery(package_id="p"))
            assert list(page.events) == [events[0]]
            since = await database.find_events(EventQuery(since=after(-1), types=("activated",), limit=1))
            assert ([found.event_id for found in since.events], since.total) == (["e-1"], 2)
            assert (await database.find_event_spans([key]))[key][0].last == 3

    async def test_a_stream_that_only_appends_is_refused_and_nothing_is_made(self, target: Target) -> None:
        _run(target, "CREATE STREAM pollers (poller_id string, metadata string DEFAULT '{}')")
        async with opened(target) as database:
            with pytest.raises(StartupError, match=r"stream pollers exists and only appends"):
                await database.migrate()
        assert [row[0] for row in _select(target, "SHOW STREAMS")] == ["pollers"]

    @pytest.mark.parametrize(
        ("columns", "reason"),
        [
            ("poller_id string", "without the column metadata"),
            (
                "poller_id string, metadata map(string, string)",
                r"the column metadata as map\(string, string\)",
            ),
            ("poller_id string, metadata string, last_seen datetime", "the column last_seen as datetime"),
        ],
    )
    async def test_streams_that_do_not_fit_are_named(self, target: Target, columns: str, reason: str) -> None:
        _run(target, f"CREATE STREAM pollers ({columns}) PRIMARY KEY (poller_id) {_KEYED}")
        async with opened(target) as database:
            with pytest.raises(StartupError, match=f"stream pollers exists .*{reason}.*cannot be adopted"):
                await database.migrate()
