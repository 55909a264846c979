"""What every registry database must do. A further one joins by an entry in IMPLEMENTATIONS.

`settle` is awaited between a write and a read: an implementation whose writes show later waits there.

With JETWAY_TEST_PROTON_URL the same runs on a real Proton, each test in a database that it creates and drops;
see docs/proton.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from jetway.adapters.database.proton_client import ProtonClient, Target
from jetway.adapters.database.proton_streams import DECODERS
from jetway.adapters.database.sqlite import SqliteDatabase
from jetway.adapters.database.tables import (
    ALL_TABLES,
    EVENTS,
    PACKAGES,
    SERVICE_TABLES,
    TEXT_DECODERS,
    Decoders,
    Table,
    decode_values,
    encode_row,
)
from jetway.core.drift import row_facts
from jetway.core.errors import PortError, UnavailableError
from jetway.core.gaps import EventSpan
from jetway.core.ids import ServiceKey, ServiceType
from jetway.core.rows import CountSample, Event, Presence, ServiceRow
from jetway.ports import EventQuery, RegistryDatabase
from support.database_rows import MOMENT, after, agent_row, checker_row, event, package_row, poller_row
from support.memory_database import MemoryDatabase
from support.proton_database import opened, own_database
from support.proton_standin import ProtonStandin, require_chdb

MIGRATIONS = Path(__file__).parents[2] / "migrations" / "sqlite"
REAL_PROTON = os.environ.get("JETWAY_TEST_PROTON_URL", "")
STANDIN_SHOWS_AFTER = 0.05
PROTON_SHOWS_AFTER = 4.0
"""Seconds. Proton writes its log into the streams every 2 s, and looks for what is due once a second."""

Rows = dict[str, dict[str, Any]]
Counts = set[tuple[Any, ...]]
SELECT_COUNTS = "SELECT service_type, status, registration_source, service_count FROM service_counts"


@dataclass(frozen=True)
class Subject:
    """An open, migrated database, and how to look into it from outside."""

    database: RegistryDatabase
    read_table: Callable[[Table], Awaitable[Rows]]
    """The table as people see it: decoded rows by primary key."""
    settle: Callable[[], Awaitable[None]]
    read_counts: Callable[[], Awaitable[Counts]]
    """`service_counts` as people see it."""
    count_rows: Callable[[Table], Awaitable[int]]
    """How many rows people see in a table."""


async def _at_once() -> None:
    return None


@contextlib.asynccontextmanager
async def _memory(_: Path) -> AsyncIterator[Subject]:
    database = MemoryDatabase()

    async def read_table(table: Table) -> Rows:
        by_type = {SERVICE_TABLES[kind].name: kind for kind in ServiceType}
        services = [s for s in database.services.values() if s.service_type is by_type.get(table.name)]
        rows: Mapping[str, Sequence[object]] = {
            PACKAGES.name: [*database.packages.values()],
            EVENTS.name: [*database.events.values()],
        }
        return _by_key(table, [encode_row(table, row) for row in rows.get(table.name, services)])

    async def read_counts() -> Counts:
        rows = database.services.values()
        found = Counter((row.service_type.value, row.status, row.registration_source) for row in rows)
        return {(*what, count) for what, count in found.items()}

    async def count_rows(table: Table) -> int:
        return len(await read_table(table))

    await database.migrate()
    yield Subject(database, read_table, _at_once, read_counts, count_rows)
    await database.close()


@contextlib.asynccontextmanager
async def _sqlite(directory: Path) -> AsyncIterator[Subject]:
    path = directory / "registry.db"
    database = SqliteDatabase(path, MIGRATIONS)

    async def read_table(table: Table) -> Rows:
        # A connection of its own, as people query it.
        with contextlib.closing(sqlite3.connect(path)) as connection:
            return _by_key(table, connection.execute(f"SELECT {', '.join(table.names)} FROM {table.name}"))

    def select(sql: str) -> list[tuple[Any, ...]]:
        with contextlib.closing(sqlite3.connect(path)) as connection:
            return connection.execute(sql).fetchall()

    async def read_counts() -> Counts:
        return set(select(SELECT_COUNTS))

    async def count_rows(table: Table) -> int:
        return int(select(f"SELECT count(*) FROM {table.name}")[0][0])

    await database.open()
    try:
        await database.migrate()
        yield Subject(database, read_table, _at_once, read_counts, count_rows)
    finally:
        await database.close()


@contextlib.asynccontextmanager
async def _proton(url: str, shows_after: float) -> AsyncIterator[Subject]:
    with own_database(url) as target:

        async def settle() -> None:
            await asyncio.sleep(shows_after)

        async def read_table(table: Table) -> Rows:
            return await asyncio.to_thread(_read_stream, target, table)

        async def read_counts() -> Counts:
            return set(await asyncio.to_thread(_select, target, SELECT_COUNTS))

        async def count_rows(table: Table) -> int:
            sql = f"SELECT count() FROM table({table.name}) WHERE status != 'purged'"
            return int((await asyncio.to_thread(_select, target, sql))[0][0])

        async with opened(target) as database:
            await database.migrate()
            yield Subject(database, read_table, settle, read_counts, count_rows)


def _read_stream(target: Target, table: Table) -> Rows:
    """As people read it, an event's first arrival last, so that it stays."""
    sql = f"SELECT {', '.join(table.names)} FROM table({table.name}) ORDER BY _tp_time DESC"
    return _by_key(table, _select(target, sql), DECODERS)


def _select(target: Target, sql: str) -> Sequence[tuple[Any, ...]]:
    with contextlib.closing(ProtonClient(target)) as client:
        return client.select(sql)


@pytest.fixture(scope="module")
def standin() -> Iterator[ProtonStandin]:
    with ProtonStandin(visible_after=STANDIN_SHOWS_AFTER) as running:
        yield running


IMPLEMENTATIONS = ("memory", "sqlite", "proton stand-in", *(("proton",) if REAL_PROTON else ()))


def _implementation(
    request: pytest.FixtureRequest, directory: Path
) -> contextlib.AbstractAsyncContextManager[Subject]:
    match request.param:
        case "memory":
            return _memory(directory)
        case "sqlite":
            return _sqlite(directory)
        case "proton stand-in":
            require_chdb()
            return _proton(request.getfixturevalue("standin").url, STANDIN_SHOWS_AFTER * 1.5)
        case _:
            return _proton(REAL_PROTON, PROTON_SHOWS_AFTER)


def _by_key(table: Table, rows: Any, decoders: Decoders = TEXT_DECODERS) -> Rows:
    decoded = [decode_values(table, row, decoders) for row in rows]
    return {row[table.key]: row for row in decoded}


@pytest.fixture(params=IMPLEMENTATIONS)
async def subject(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Subject]:
    async with _implementation(request, tmp_path) as made:
        yield made


@pytest.fixture
def database(subject: Subject) -> RegistryDatabase:
    return subject.database


async def _agent(subject: Subject) -> dict[str, Any]:
    await subject.settle()
    return (await subject.read_table(SERVICE_TABLES[ServiceType.AGENT]))["switch-room"]


async def _find(subject: Subject, **query: Any) -> list[str]:
    await subject.settle()
    return [found.event_id for found in (await subject.database.find_events(EventQuery(**query))).events]


class TestMigrateAndCheck:
    async def test_a_second_migration_has_nothing_to_do(self, database: RegistryDatabase) -> None:
        assert list(await database.migrate()) == []

    async def test_check_is_silent_when_all_is_well(self, database: RegistryDatabase) -> None:
        await database.check()

    async def test_after_close_every_call_is_refused(self, database: RegistryDatabase) -> None:
        await database.close()
        for call in (
            database.check,
            database.find_row_versions,
            database.load_presence,
            lambda: database.find_events(EventQuery()),
            lambda: database.write_rows([agent_row()], []),
            lambda: database.append_events([event()]),
        ):
            with pytest.raises(UnavailableError):
                await call()

    async def test_close_may_be_called_again(self, database: RegistryDatabase) -> None:
        await database.close()
        await database.close()


class TestRows:
    @pytest.mark.parametrize("row", [poller_row(), agent_row(), checker_row()], ids=lambda r: r.service_type)
    async def test_every_column_of_a_service_is_stored(self, subject: Subject, row: ServiceRow) -> None:
        await subject.database.write_rows([row], [])
        await subject.settle()
        table = SERVICE_TABLES[row.service_type]
        stored = (await subject.read_table(table))[row.service_id]
        assert stored == {c.name: getattr(row, c.attribute or c.name) for c in table.columns}

    async def test_every_column_of_a_package_is_stored(self, subject: Subject) -> None:
        row = package_row()
        await subject.database.write_rows([], [row])
        await subject.settle()
        stored = (await subject.read_table(PACKAGES))[row.package_id]
        assert stored == {name: getattr(row, name) for name in PACKAGES.names}

    async def test_what_is_unknown_stays_unknown(self, subject: Subject) -> None:
        await subject.database.write_rows(
            [agent_row(first_seen=None, last_seen=None, is_healthy=None, metadata={}, labels={})], []
        )
        stored = await _agent(subject)
        assert (stored["first_seen"], stored["last_seen"], stored["is_healthy"]) == (None, None, None)
        assert (stored["metadata"], stored["labels"]) == ({}, {})

    async def test_unhealthy_is_not_unknown(self, subject: Subject) -> None:
        await subject.database.write_rows([agent_row(is_healthy=False)], [])
        assert (await _agent(subject))["is_healthy"] is False

    async def test_the_same_id_of_another_type_is_another_row(self, subject: Subject) -> None:
        await subject.database.write_rows([poller_row("x"), agent_row("x"), checker_row("x")], [])
        await subject.settle()
        assert set(await subject.database.find_row_versions()) == {ServiceKey(t, "x") for t in ServiceType}

    @pytest.mark.parametrize(
        "text", ["Zürich – Saal 東京 🚀", "'; DROP TABLE agents; --", 'quote " \\ %s ? :x', "a\x00b\n\t"]
    )
    async def test_any_text_comes_back_as_it_was(self, subject: Subject, text: str) -> None:
        row = agent_row(label=text, metadata={text: [text]}, labels={"k": text})
        await subject.database.write_rows([row], [])
        stored = await _agent(subject)
        assert (stored["label"], stored["metadata"], stored["labels"]) == (text, {text: [text]}, {"k": text})

    async def test_times_are_utc_and_cut_to_milliseconds(self, subject: Subject) -> None:
        local = datetime(2096, 11, 23, 10, 10, 11, 123_999, tzinfo=timezone(timedelta(hours=1)))
        await subject.database.write_rows([agent_row(last_seen=local)], [])
        assert (await _agent(subject))["last_seen"] == MOMENT

    async def test_a_number_that_json_does_not_know_becomes_null(self, subject: Subject) -> None:
        # The ledger keeps it as null, but a record that was just made may still hold it.
        await subject.database.write_rows([agent_row(metadata={"load": float("nan")})], [])
        stored = (await _agent(subject))["metadata"]
        assert stored["load"] is None or stored["load"] != stored["load"]

    async def test_nothing_to_write_is_fine(self, database: RegistryDatabase) -> None:
        await database.write_rows([], [])
        await database.append_events([])


class TestVersions:
    @pytest.mark.parametrize(
        ("version", "wins"),
        [((2, 5), True), ((2, 6), True), ((3, 1), True), ((2, 4), False), ((1, 99), False)],
    )
    async def test_an_older_row_never_replaces_a_newer_one(
        self, subject: Subject, version: tuple[int, int], wins: bool
    ) -> None:
        epoch, revision = version
        await subject.database.write_rows(
            [agent_row(epoch=2, revision=5)], [package_row(epoch=2, revision=5)]
        )
        await subject.database.write_rows(
            [agent_row(epoch=epoch, revision=revision, status="revoked", last_seen=None)],
            [package_row(epoch=epoch, revision=revision, status="revoked", notes="")],
        )
        stored = await _agent(subject)
        package = (await subject.read_table(PACKAGES))[package_row().package_id]
        expected = (version, "revoked", None) if wins else ((2, 5), "active", after(2000))
        assert ((stored["epoch"], stored["revision"]), stored["status"], stored["last_seen"]) == expected
        assert package["status"] == ("revoked" if wins else "activated")

    async def test_within_a_batch_the_newest_wins_whatever_the_order(self, subject: Subject) -> None:
        rows = [agent_row(revision=n, label=f"r{n}") for n in (2, 4, 3)]
        await subject.database.write_rows(rows, [])
        assert (await _agent(subject))["label"] == "r4"

    async def test_of_two_equal_ones_the_later_wins(self, subject: Subject) -> None:
        await subject.database.write_rows([agent_row(label="first"), agent_row(label="second")], [])
        assert (await _agent(subject))["label"] == "second"

    async def test_versions_of_all_services_can_be_read(self, subject: Subject) -> None:
        await subject.database.write_rows([poller_row(epoch=2, revision=1), agent_row(), checker_row()], [])
        await subject.settle()
        assert await subject.database.find_row_versions() == {
            ServiceKey(ServiceType.POLLER, "site-a"): (2, 1),
            ServiceKey(ServiceType.AGENT, "switch-room"): (1, 3),
            ServiceKey(ServiceType.CHECKER, "ping"): (1, 3),
        }


class TestRemoving:
    async def test_a_purged_service_has_no_row_and_the_next_of_its_id_begins_anew(
        self, subject: Subject
    ) -> None:
        key = ServiceKey(ServiceType.AGENT, "switch-room")
        await subject.database.write_rows([agent_row(revision=7), poller_row()], [])
        await subject.settle()
        await subject.database.remove_rows([key])
        await subject.settle()
        assert set(await subject.database.find_row_versions()) == {ServiceKey(ServiceType.POLLER, "site-a")}
        assert await subject.database.find_row_keys(ServiceType.AGENT) == []
        assert await subject.database.load_rows([key]) == {}
        assert key not in await subject.database.load_presence()

        await subject.database.write_rows([agent_row(revision=1, updated_at=after(1000))], [])
        await subject.settle()
        assert (await subject.database.load_rows([key]))[key].revision == 1

    async def test_one_that_is_removed_before_its_row_shows_is_gone_and_its_id_free(
        self, subject: Subject
    ) -> None:
        key = ServiceKey(ServiceType.AGENT, "switch-room")
        await subject.database.write_rows([agent_row(revision=5, status="deleted")], [])
        await subject.database.remove_rows([key])
        await subject.database.write_rows(
            [agent_row(revision=1, label="anew", incarnation=2, updated_at=after(4000))], []
        )
        await subject.settle()
        row = (await subject.database.load_rows([key]))[key]
        assert (row.label, row.revision) == ("anew", 1)
        assert (await _agent(subject))["label"] == "anew"

        await subject.database.remove_rows([key])
        await subject.settle()
        assert await subject.database.load_rows([key]) == {}
        assert await subject.read_counts() == set()

    async def test_what_is_purged_is_counted_no_more(self, subject: Subject) -> None:
        await subject.database.write_rows([agent_row(status="deleted"), agent_row("other"), poller_row()], [])
        await subject.settle()
        assert await subject.read_counts() == {
            ("agent", "deleted", "edge_onboarding", 1),
            ("agent", "active", "edge_onboarding", 1),
            ("poller", "active", "edge_onboarding", 1),
        }
        await subject.database.remove_rows([ServiceKey(ServiceType.AGENT, "switch-room")])
        await subject.settle()
        assert await subject.read_counts() == {
            ("agent", "active", "edge_onboarding", 1),
            ("poller", "active", "edge_onboarding", 1),
        }

    async def test_a_new_incarnation_of_another_month_has_one_row_and_counts_once(
        self, subject: Subject
    ) -> None:
        await subject.database.write_rows([agent_row(revision=7, status="deleted")], [])
        await subject.settle()
        later = MOMENT + timedelta(days=40)
        await subject.database.write_rows(
            [agent_row(revision=8, incarnation=2, first_registered=later, updated_at=later)], []
        )
        await subject.settle()
        assert await subject.count_rows(SERVICE_TABLES[ServiceType.AGENT]) == 1
        assert await subject.read_counts() == {("agent", "active", "edge_onboarding", 1)}
        assert await subject.database.find_row_versions() == {
            ServiceKey(ServiceType.AGENT, "switch-room"): (1, 8)
        }

    async def test_removing_what_is_not_there_is_fine(self, subject: Subject) -> None:
        await subject.database.remove_rows([ServiceKey(ServiceType.AGENT, "nobody")])
        await subject.database.remove_rows([])
        await subject.settle()
        assert await subject.database.find_row_versions() == {}

    async def test_only_events_from_before_are_trimmed(self, subject: Subject) -> None:
        old, new = event(), event("e-2", timestamp=after(1000))
        await subject.database.append_events([old, new])
        await subject.settle()
        counted = await subject.database.trim_events(after(1000), dry_run=True)
        assert (await subject.database.find_events(EventQuery())).total == 2
        trimmed = await subject.database.trim_events(after(1000))
        assert counted == trimmed
        await subject.settle()
        left = [each.event_id for each in (await subject.database.find_events(EventQuery())).events]
        # Where the database drops events by their age itself, that is not the daemon's to do.
        assert (trimmed, left) in ((1, [new.event_id]), (0, [new.event_id, old.event_id]))


class TestCounts:
    async def test_samples_come_back_in_order_and_once(self, subject: Subject) -> None:
        start = MOMENT.replace(minute=0, second=0, microsecond=0)
        times = [start + timedelta(minutes=5 * number) for number in range(14)]
        samples = [
            CountSample(at, kind, "active", number)
            for number, at in enumerate(times)
            for kind in ("agent", "poller")
        ]
        await subject.database.append_counts(samples[6:])
        await subject.database.append_counts(samples)
        await subject.settle()
        assert await subject.database.load_counts(times[0], times[3]) == samples[:6]
        hourly = await subject.database.load_counts(times[0], times[-1] + timedelta(hours=1), hourly=True)
        assert hourly == [*samples[:2], *samples[24:26]]

    async def test_old_samples_are_trimmed(self, subject: Subject) -> None:
        old, new = CountSample(MOMENT, "poller", "active", 1), CountSample(after(1000), "poller", "active", 2)
        await subject.database.append_counts([old, new])
        await subject.settle()
        counted = await subject.database.trim_counts(after(1000), dry_run=True)
        assert await subject.database.load_counts(MOMENT, after(2000)) == [old, new]
        trimmed = await subject.database.trim_counts(after(1000))
        assert counted == trimmed
        await subject.settle()
        left = await subject.database.load_counts(MOMENT, after(2000))
        assert (trimmed, left) in ((1, [new]), (0, [old, new]))


class TestAllOrNone:
    @pytest.mark.parametrize(
        "bad",
        [
            {"updated_at": datetime(2026, 1, 1)},  # without an offset
            {"status": None},
            {"heartbeat_interval_seconds": 2**63},
            {"metadata": {"x": object()}},
            {"label": "\ud800"},
            {"is_healthy": "yes"},
        ],
        ids=lambda bad: next(iter(bad)),
    )
    async def test_one_bad_row_keeps_the_whole_batch_out(self, subject: Subject, bad: dict[str, Any]) -> None:
        batch = [poller_row(), agent_row(), checker_row(**bad)]
        with pytest.raises(PortError) as caught:
            await subject.database.write_rows(batch, [package_row()])
        await subject.settle()
        assert not isinstance(caught.value, UnavailableError), "trying again would not help"
        assert "ping" in str(caught.value)
        assert next(iter(bad)) in str(caught.value)
        for table in ALL_TABLES:
            assert await subject.read_table(table) == {}

    async def test_a_bad_package_keeps_the_services_out(self, subject: Subject) -> None:
        with pytest.raises(PortError):
            await subject.database.write_rows([agent_row()], [replace(package_row(), notes=None)])  # type: ignore[arg-type]
        await subject.settle()
        assert await subject.database.find_row_versions() == {}

    async def test_one_bad_event_keeps_the_others_out(self, subject: Subject) -> None:
        with pytest.raises(PortError):
            await subject.database.append_events([event("e-1"), event("e-2", actor=None)])
        assert await _find(subject) == []

    async def test_the_database_goes_on_after_a_bad_batch(self, subject: Subject) -> None:
        with pytest.raises(PortError):
            await subject.database.write_rows([agent_row(label=None)], [])
        await subject.database.write_rows([agent_row()], [])
        assert (await _agent(subject))["label"] == "Core switch room"


class TestForComparing:
    async def test_rows_come_back_whole(self, subject: Subject) -> None:
        rows = [poller_row("x"), agent_row("x", last_seen=None), checker_row("x", is_healthy=None)]
        await subject.database.write_rows(rows, [package_row(), package_row("p-2", revoked_at=after(5))])
        await subject.settle()
        keys = [ServiceKey(kind, "x") for kind in ServiceType]
        found = await subject.database.load_rows([*keys, ServiceKey(ServiceType.AGENT, "nobody")])
        assert {key: row_facts(row) for key, row in found.items()} == {
            ServiceKey(row.service_type, "x"): row_facts(row) for row in rows
        }
        assert found[keys[0]].last_seen == rows[0].last_seen
        assert await subject.database.load_packages(["p-2", "nobody"]) == {
            "p-2": package_row("p-2", revoked_at=after(5))
        }

    async def test_more_rows_than_one_statement_takes(self, subject: Subject) -> None:
        rows = [agent_row(f"a-{number}") for number in range(1200)]
        packages = [package_row(f"p-{number}") for number in range(1200)]
        await subject.database.write_rows(rows, packages)
        await subject.settle()
        keys = [ServiceKey(ServiceType.AGENT, row.service_id) for row in rows]
        assert set(await subject.database.load_rows(keys)) == set(keys)
        assert len(await subject.database.load_packages([p.package_id for p in packages])) == 1200
        assert await subject.database.find_event_spans(keys) == {}

    async def test_keys_come_in_pages(self, subject: Subject) -> None:
        rows = [agent_row(name) for name in ("b", "c", "a", "a-1")]
        await subject.database.write_rows([*rows, poller_row("x")], [])
        await subject.settle()
        find = subject.database.find_row_keys
        first = await find(ServiceType.AGENT, limit=3)
        assert [key.service_id for key in first] == ["a", "a-1", "b"]
        rest = await find(ServiceType.AGENT, after="b", limit=3)
        assert rest == [ServiceKey(ServiceType.AGENT, "c")]
        assert await find(ServiceType.CHECKER) == []

    async def test_an_overwrite_takes_back_what_claims_to_be_newer(self, subject: Subject) -> None:
        await subject.database.write_rows([agent_row(revision=999)], [package_row(revision=999, notes="x")])
        await subject.database.write_rows([agent_row()], [package_row()], overwrite=True)
        assert (await _agent(subject))["revision"] == 3
        package_id = package_row().package_id
        assert await subject.database.load_packages([package_id]) == {package_id: package_row()}

    async def test_which_revisions_have_events(self, subject: Subject) -> None:
        versions = [(1, 1), (1, 1), (1, 2), (1, 5), (2, 3), (2, 4)]
        events = [
            event(f"e-{number}", epoch=epoch, revision=revision, timestamp=after(number))
            for number, (epoch, revision) in enumerate(versions)
        ]
        stranger = event("s-1", service_id="other", revision=9)
        outside = event("o-1", event_type="redeem_refused", epoch=0, revision=0)
        await subject.database.append_events([*events, stranger, outside])
        await subject.settle()
        keys = [ServiceKey(ServiceType.AGENT, "switch-room"), ServiceKey(ServiceType.POLLER, "switch-room")]
        assert {k: list(v) for k, v in (await subject.database.find_event_spans(keys)).items()} == {
            keys[0]: [EventSpan(1, 3, 1, 5), EventSpan(2, 2, 3, 4)]
        }
        moments = {(1, 1): after(0), (1, 2): after(2), (1, 5): after(3), (2, 3): after(4), (2, 4): after(5)}
        assert await subject.database.find_event_revisions(keys) == {keys[0]: moments}

    async def test_nothing_asked_is_nothing_found(self, subject: Subject) -> None:
        for call in ("load_rows", "load_packages", "find_event_spans", "find_event_revisions"):
            assert await getattr(subject.database, call)([]) == {}


class TestPresence:
    async def test_what_heartbeats_told_comes_back(self, subject: Subject) -> None:
        await subject.database.write_rows(
            [
                poller_row(is_healthy=False),
                agent_row(is_healthy=None, version=""),
                checker_row(last_seen=None, is_healthy=None, version="9"),
            ],
            [],
        )
        await subject.settle()
        assert await subject.database.load_presence() == {
            ServiceKey(ServiceType.POLLER, "site-a"): Presence(after(2000), False, "1.2.3"),
            ServiceKey(ServiceType.AGENT, "switch-room"): Presence(after(2000), None, ""),
            ServiceKey(ServiceType.CHECKER, "ping"): Presence(None, None, "9"),
        }

    async def test_the_never_heard_are_left_out(self, subject: Subject) -> None:
        await subject.database.write_rows([agent_row(last_seen=None, is_healthy=None, version="")], [])
        await subject.settle()
        assert await subject.database.load_presence() == {}


class TestEvents:
    async def test_an_event_comes_back_as_it_was(self, subject: Subject) -> None:
        full = event("e-2")
        sparse = Event(event_id="e-1", event_type="api_token_created", actor="ü", timestamp=MOMENT)
        await subject.database.append_events([full, sparse])
        await subject.settle()
        page = await subject.database.find_events(EventQuery())
        assert list(page.events) == [full, sparse]
        assert page.events[0].timestamp.tzinfo is UTC

    async def test_a_duplicate_changes_nothing(self, subject: Subject) -> None:
        await subject.database.append_events([event(reason="first"), event(reason="same batch")])
        await subject.database.append_events([event(reason="later"), event("e-2")])
        await subject.settle()
        page = await subject.database.find_events(EventQuery())
        assert [(e.event_id, e.reason) for e in page.events] == [("e-2", "first heartbeat"), ("e-1", "first")]
        assert page.total == 2

    async def test_newest_first_and_equal_times_by_id(self, subject: Subject) -> None:
        await subject.database.append_events(
            [event("b"), event("c", timestamp=after(1)), event("a"), event("d", timestamp=after(-1))]
        )
        assert await _find(subject) == ["c", "b", "a", "d"]

    @pytest.mark.parametrize("limit", [1, 2, 3, 7])
    async def test_pages_repeat_and_miss_nothing_at_equal_times(self, subject: Subject, limit: int) -> None:
        ids = [f"e-{n}" for n in range(7)]
        await subject.database.append_events([event(i, timestamp=after(n // 5)) for n, i in enumerate(ids)])
        await subject.settle()
        seen: list[str] = []
        before: tuple[datetime, str] | None = None
        more = True
        while more:
            page = await subject.database.find_events(EventQuery(limit=limit, before=before))
            assert page.total == 7, "the total does not depend on the page"
            assert 0 < len(page.events) <= limit
            seen += [e.event_id for e in page.events]
            before, more = (page.events[-1].timestamp, page.events[-1].event_id), page.more
        assert seen == ["e-6", "e-5", "e-4", "e-3", "e-2", "e-1", "e-0"]

    @pytest.mark.parametrize(
        ("query", "found"),
        [
            ({"types": ("issued",)}, ["e-2"]),
            ({"types": ("issued", "revoked")}, ["e-3", "e-2"]),
            ({"types": ("nothing",)}, []),
            ({"service_type": "agent"}, ["e-1", "e-0"]),
            ({"service_id": "ping"}, ["e-3", "e-2"]),
            ({"service_type": "agent", "service_id": "ping"}, []),
            ({"package_id": "p"}, ["e-2"]),
            ({"actor": "ann"}, ["e-3"]),
            ({"actor": "' OR '1'='1"}, []),
            ({"since": after(2)}, ["e-3", "e-2"]),
            ({"until": after(2)}, ["e-1", "e-0"]),
            ({"since": after(1), "until": after(3)}, ["e-2", "e-1"]),
            ({"since": after(2) + timedelta(microseconds=900)}, ["e-3", "e-2"]),
            ({"types": ("issued", "activated"), "until": after(3), "limit": 1}, ["e-2"]),
        ],
    )
    async def test_filters(self, subject: Subject, query: dict[str, Any], found: list[str]) -> None:
        await subject.database.append_events(
            [
                event("e-0"),
                event("e-1", timestamp=after(1)),
                event(
                    "e-2",
                    timestamp=after(2),
                    service_type="checker",
                    service_id="ping",
                    event_type="issued",
                    package_id="p",
                ),
                event(
                    "e-3",
                    timestamp=after(3),
                    service_type="checker",
                    service_id="ping",
                    event_type="revoked",
                    actor="ann",
                ),
            ]
        )
        assert await _find(subject, **query) == found

    async def test_filters_come_before_the_limit(self, subject: Subject) -> None:
        noise = [event(f"n-{n:03}", timestamp=after(1000 + n)) for n in range(200)]
        await subject.database.append_events([event("old", service_id="quiet"), *noise])
        await subject.settle()
        page = await subject.database.find_events(EventQuery(service_id="quiet", limit=5))
        assert ([e.event_id for e in page.events], page.total, page.more) == (["old"], 1, False)

    async def test_the_last_full_page_has_no_more(self, subject: Subject) -> None:
        await subject.database.append_events([event("a"), event("b")])
        await subject.settle()
        page = await subject.database.find_events(EventQuery(limit=2))
        assert (len(page.events), page.more) == (2, False)


class TestManyCallers:
    async def test_sixteen_at_once(self, subject: Subject) -> None:
        async def caller(number: int) -> None:
            for turn in range(4):
                await subject.database.write_rows([agent_row(f"a-{number}", revision=turn + 1)], [])
                await subject.database.append_events([event(f"e-{number}-{turn}")])
                await subject.database.find_events(EventQuery(limit=3))
                await subject.database.find_row_versions()

        await asyncio.gather(*(caller(number) for number in range(16)))
        await subject.settle()
        assert set((await subject.database.find_row_versions()).values()) == {(1, 4)}
        assert (await subject.database.find_events(EventQuery(limit=1))).total == 64


class TestMemoryFailures:
    async def test_an_error_before_the_effect(self) -> None:
        database = MemoryDatabase()
        database.fail_next("append_events", UnavailableError("away"))
        with pytest.raises(UnavailableError, match="away"):
            await database.append_events([event()])
        assert database.events == {}
        await database.append_events([event()])
        assert list(database.events) == ["e-1"]

    async def test_an_error_after_the_effect(self) -> None:
        database = MemoryDatabase()
        database.fail_next("write_rows", UnavailableError("lost the answer"), after_effect=True)
        with pytest.raises(UnavailableError):
            await database.write_rows([agent_row()], [])
        assert len(database.services) == 1

    def test_a_misspelt_method_is_told(self) -> None:
        with pytest.raises(AttributeError):
            MemoryDatabase().fail_next("write_row", UnavailableError("x"))
