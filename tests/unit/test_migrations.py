"""The migration runner, and what the shipped migrations make."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from jetway.adapters.database.migrations import Migrations, find_migrations, split_statements
from jetway.adapters.database.tables import ALL_TABLES, EVENTS, PACKAGES, SERVICE_TABLES, Kind, Table
from jetway.core.errors import StartupError
from jetway.core.ids import ServiceType
from jetway.core.rows import Event, PackageRow, ServiceRow

SHIPPED = Path(__file__).parents[2] / "migrations" / "sqlite"
FIRST = "CREATE TABLE a (x INTEGER);\nINSERT INTO a VALUES (1);\n"
SECOND = "ALTER TABLE a ADD COLUMN y TEXT;\n"


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as opened:
        yield opened


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "0001_first.sql").write_text(FIRST)
    (tmp_path / "0002_second.sql").write_text(SECOND)
    return tmp_path


def _schema(connection: sqlite3.Connection) -> set[tuple[str, str]]:
    return set(connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL"))


def _tables(connection: sqlite3.Connection) -> set[str]:
    return {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


class TestApply:
    def test_in_order_and_once(self, connection: sqlite3.Connection, directory: Path) -> None:
        migrations = Migrations(directory)
        assert migrations.apply(connection) == ["0001_first.sql", "0002_second.sql"]
        assert migrations.apply(connection) == []
        assert connection.execute("SELECT * FROM a").fetchall() == [(1, None)]

    def test_a_later_file_is_applied_to_what_is_there(
        self, connection: sqlite3.Connection, directory: Path
    ) -> None:
        Migrations(directory).apply(connection)
        connection.execute("INSERT INTO a VALUES (2, 'kept')")
        (directory / "0003_third.sql").write_text("CREATE INDEX a_by_x ON a (x);")
        assert Migrations(directory).apply(connection) == ["0003_third.sql"]
        assert connection.execute("SELECT count(*) FROM a").fetchone() == (2,)

    def test_what_was_applied_is_recorded(self, connection: sqlite3.Connection, directory: Path) -> None:
        Migrations(directory).apply(connection)
        rows = connection.execute("SELECT version, name, length(sha256), applied_at FROM schema_migrations")
        for number, (version, name, length, applied_at) in enumerate(rows, start=1):
            assert (version, name[:4], length) == (number, f"000{number}", 64)
            assert applied_at.endswith("Z")

    def test_status_changes_nothing(self, connection: sqlite3.Connection, directory: Path) -> None:
        status = Migrations(directory).status(connection)
        assert (status.applied, [*status.pending]) == ([], ["0001_first.sql", "0002_second.sql"])
        assert _tables(connection) == set()
        Migrations(directory).apply(connection)
        status = Migrations(directory).status(connection)
        assert (status.applied, [*status.pending]) == (["0001_first.sql", "0002_second.sql"], [])

    def test_a_failing_migration_leaves_nothing_and_names_its_file(
        self, connection: sqlite3.Connection, directory: Path
    ) -> None:
        (directory / "0002_second.sql").write_text("CREATE TABLE b (x INTEGER);\nCREATE TABLE a (x INTEGER);")
        with pytest.raises(StartupError, match=r"0002_second\.sql: table a already exists"):
            Migrations(directory).apply(connection)
        assert _tables(connection) == {"schema_migrations", "a"}
        assert Migrations(directory).status(connection).applied == ["0001_first.sql"]
        (directory / "0002_second.sql").write_text(SECOND)
        assert Migrations(directory).apply(connection) == ["0002_second.sql"]

    @pytest.mark.parametrize("word", ["COMMIT", "ROLLBACK"])
    def test_a_migration_must_not_end_its_transaction(
        self, connection: sqlite3.Connection, directory: Path, word: str
    ) -> None:
        (directory / "0002_second.sql").write_text(f"{word};\nDROP TABLE a;\n")
        with pytest.raises(StartupError, match=r"0002_second\.sql"):
            Migrations(directory).apply(connection)
        assert "a" in _tables(connection)
        assert not connection.in_transaction

    def test_a_database_in_use_is_not_blamed_on_the_file(self, tmp_path: Path, directory: Path) -> None:
        path = tmp_path / "x.db"
        with (
            contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other,
            contextlib.closing(sqlite3.connect(path, isolation_level=None, timeout=0)) as mine,
        ):
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                Migrations(directory).apply(mine)


class TestRefusals:
    def test_a_changed_file(self, connection: sqlite3.Connection, directory: Path) -> None:
        Migrations(directory).apply(connection)
        (directory / "0001_first.sql").write_text(FIRST + "-- a remark\n")
        for call in (Migrations(directory).apply, Migrations(directory).status):
            with pytest.raises(StartupError, match=r"0001_first\.sql: was changed after it was applied"):
                call(connection)

    def test_line_ends_are_no_change(self, connection: sqlite3.Connection, directory: Path) -> None:
        Migrations(directory).apply(connection)
        (directory / "0001_first.sql").write_bytes(FIRST.replace("\n", "\r\n").encode())
        assert Migrations(directory).apply(connection) == []

    def test_a_newer_database(self, connection: sqlite3.Connection, directory: Path) -> None:
        Migrations(directory).apply(connection)
        (directory / "0002_second.sql").unlink()
        with pytest.raises(StartupError, match=r"0002_second.sql: .* newer program.* up to 0001"):
            Migrations(directory).apply(connection)

    def test_a_hole_in_what_was_applied(self, connection: sqlite3.Connection, directory: Path) -> None:
        Migrations(directory).apply(connection)
        connection.execute("DELETE FROM schema_migrations WHERE version = 1")
        with pytest.raises(StartupError, match=r"0002_second\.sql: applied although number 0001 was not"):
            Migrations(directory).apply(connection)

    @pytest.mark.parametrize(
        ("name", "reason"),
        [
            ("0004_later.sql", "0004_later.sql: .*number 0003, is missing"),
            ("0002_again.sql", "0002_second.sql: there is another migration with the number 0002"),
            ("0000_zero.sql", "0000_zero.sql: "),
            ("3_short.sql", "3_short.sql: a migration's name is"),
            ("0003-Wrong.sql", "0003-Wrong.sql: a migration's name is"),
        ],
    )
    def test_wrong_numbers_and_names(self, directory: Path, name: str, reason: str) -> None:
        (directory / name).write_text("SELECT 1;")
        with pytest.raises(StartupError, match=reason):
            find_migrations(directory)

    def test_a_missing_or_empty_directory(self, tmp_path: Path) -> None:
        for directory in (tmp_path / "nothing", tmp_path):
            with pytest.raises(StartupError, match=str(directory)):
                find_migrations(directory)

    def test_bytes_that_are_no_text(self, directory: Path) -> None:
        (directory / "0001_first.sql").write_bytes(b"\xff\xfe")
        with pytest.raises(StartupError, match=r"0001_first\.sql"):
            find_migrations(directory)

    def test_an_unfinished_statement(self, connection: sqlite3.Connection, directory: Path) -> None:
        (directory / "0001_first.sql").write_text("CREATE TABLE a (x INTEGER)")
        with pytest.raises(StartupError, match=r"0001_first\.sql: the last statement has no end"):
            Migrations(directory).apply(connection)


class TestSplitting:
    def test_semicolons_that_end_nothing(self, connection: sqlite3.Connection, tmp_path: Path) -> None:
        text = (
            "-- a remark; with a semicolon\n/* another; one */ CREATE TABLE a (x TEXT); INSERT INTO a VALUES"
            " ('a;b''c;');\nCREATE TRIGGER t AFTER INSERT ON a BEGIN\n  DELETE FROM a WHERE x = ';';\n"
            "  DELETE FROM a WHERE x = '--';\nEND;\n-- the end; really"
        )
        (tmp_path / "0001_x.sql").write_text(text)
        assert len(split_statements(find_migrations(tmp_path)[0])) == 3
        Migrations(tmp_path).apply(connection)
        assert connection.execute("SELECT x FROM a").fetchall() == [("a;b'c;",)]


class TestShipped:
    @pytest.fixture
    def migrated(self, connection: sqlite3.Connection) -> sqlite3.Connection:
        Migrations(SHIPPED).apply(connection)
        return connection

    def test_one_at_a_time_equals_all_at_once(self, migrated: sqlite3.Connection, tmp_path: Path) -> None:
        with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as stepwise:
            for migration in find_migrations(SHIPPED):
                shutil.copy(SHIPPED / migration.name, tmp_path)
                assert Migrations(tmp_path).apply(stepwise) == [migration.name]
            assert _schema(stepwise) == _schema(migrated)

    @pytest.mark.parametrize("table", ALL_TABLES, ids=lambda table: table.name)
    def test_columns_are_as_declared(self, migrated: sqlite3.Connection, table: Table) -> None:
        info = migrated.execute('SELECT name, type, "notnull", pk FROM pragma_table_info(?)', (table.name,))
        actual = {name: (kind, bool(notnull), bool(pk)) for name, kind, notnull, pk in info}
        assert actual == {
            column.name: (
                "INTEGER" if column.kind in (Kind.INTEGER, Kind.BOOLEAN) else "TEXT",
                not column.nullable,
                column.name == table.key,
            )
            for column in table.columns
        }

    def test_columns_cover_the_rows(self) -> None:
        for table, row in ((PACKAGES, PackageRow), (EVENTS, Event)):
            assert set(table.names) == {field.name for field in fields(row)}
        attributes = {c.attribute or c.name for t in SERVICE_TABLES.values() for c in t.columns}
        # The type is the table. A poller's or an agent's own id stands under `<type>_id` already.
        assert attributes == {field.name for field in fields(ServiceRow)} - {"service_type"}

    def test_each_type_has_the_columns_that_make_sense(self) -> None:
        names = {kind: set(table.names) for kind, table in SERVICE_TABLES.items()}
        common = set.intersection(*names.values()) - {"poller_id"}
        assert names[ServiceType.POLLER] - common == {"poller_id", "agent_count", "checker_count"}
        assert names[ServiceType.AGENT] - common == {"agent_id", "poller_id", "checker_count"}
        assert names[ServiceType.CHECKER] - common == {"checker_id", "agent_id", "poller_id", "checker_kind"}

    @pytest.mark.parametrize("table", ALL_TABLES, ids=lambda table: table.name)
    def test_every_table_explains_itself(self, migrated: sqlite3.Connection, table: Table) -> None:
        (text,) = migrated.execute("SELECT sql FROM sqlite_master WHERE name = ?", (table.name,)).fetchone()
        assert text.splitlines()[1].strip().startswith("-- ")

    @pytest.mark.parametrize(
        ("query", "index"),
        [
            (
                "SELECT * FROM service_registration_events ORDER BY timestamp DESC, event_id DESC",
                "events_by_time",
            ),
            (
                "SELECT * FROM service_registration_events WHERE service_type = 'agent' AND service_id = 'a'"
                " ORDER BY timestamp DESC, event_id DESC",
                "events_by_service",
            ),
            (
                "SELECT * FROM service_registration_events WHERE package_id = 'p'"
                " ORDER BY timestamp DESC, event_id DESC",
                "events_by_package",
            ),
            ("SELECT * FROM agents WHERE status = 'active'", "agents_by_status"),
            ("SELECT * FROM agents WHERE poller_id = 'p'", "agents_by_poller"),
            ("SELECT * FROM checkers WHERE agent_id = 'a'", "checkers_by_agent"),
        ],
    )
    def test_usual_questions_use_an_index_and_need_no_sort(
        self, migrated: sqlite3.Connection, query: str, index: str
    ) -> None:
        plan = " ".join(row[3] for row in migrated.execute(f"EXPLAIN QUERY PLAN {query}"))
        assert index in plan
        assert "TEMP B-TREE" not in plan

    def test_a_boolean_is_0_1_or_unknown(self, migrated: sqlite3.Connection) -> None:
        for table in SERVICE_TABLES.values():
            columns = {c.name: 0 if c.kind in (Kind.INTEGER, Kind.BOOLEAN) else "" for c in table.columns}
            columns["is_healthy"] = 2
            statement = (
                f"INSERT INTO {table.name} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"
            )
            with pytest.raises(sqlite3.IntegrityError, match="is_healthy"):
                migrated.execute(statement, tuple(columns.values()))

    def test_counts_are_right_at_once(self, migrated: sqlite3.Connection) -> None:
        table = SERVICE_TABLES[ServiceType.AGENT]
        for number, status in enumerate(("active", "active", "deleted")):
            values = {c.name: 0 if c.kind is Kind.INTEGER else "" for c in table.columns if not c.nullable}
            values |= {"agent_id": f"a{number}", "status": status, "registration_source": "config"}
            migrated.execute(
                f"INSERT INTO agents ({', '.join(values)}) VALUES ({', '.join('?' * len(values))})",
                tuple(values.values()),
            )
        rows = migrated.execute(
            "SELECT service_type, status, registration_source, service_count FROM service_counts"
        )
        assert set(rows) == {("agent", "active", "config", 2), ("agent", "deleted", "config", 1)}
