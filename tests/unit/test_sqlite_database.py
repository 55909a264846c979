"""What is SQLite's own: files that are wrong, locks, threads, deadlines."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from jetway.adapters.database.errors import CommitFailed, translate
from jetway.adapters.database.sqlite import SqliteDatabase
from jetway.core.errors import (
    OutcomeUnknownError,
    PortError,
    RejectedError,
    StartupError,
    UnavailableError,
)
from jetway.ports import EventQuery
from support.database_rows import agent_row, event

MIGRATIONS = Path(__file__).parents[2] / "migrations" / "sqlite"
NOBODY = 65534

LOCKER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.read()
"""
COUNT_FOREVER = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n"


def _database(path: Path, *, deadline: float = 10.0, busy_timeout: float = 0.05) -> SqliteDatabase:
    return SqliteDatabase(path, MIGRATIONS, deadline=deadline, busy_timeout=busy_timeout)


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[SqliteDatabase]:
    opened = _database(tmp_path / "registry.db")
    await opened.open()
    await opened.migrate()
    yield opened
    await opened.close()


@contextlib.contextmanager
def _locked_elsewhere(path: Path) -> Iterator[None]:
    """Another process holds the write lock."""
    with subprocess.Popen(
        [sys.executable, "-c", LOCKER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        try:
            yield
        finally:
            process.communicate()


@pytest.fixture
def unprivileged() -> Iterator[Path]:
    """A directory of one's own as a user whom file modes bind, which they do not bind root."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name)
        root = os.geteuid() == 0
        if root:
            os.chown(path, NOBODY, -1)
            os.seteuid(NOBODY)
        try:
            yield path
        finally:
            if root:
                os.seteuid(0)


@contextlib.contextmanager
def _mode(path: Path, mode: int) -> Iterator[None]:
    before = path.stat().st_mode
    path.chmod(mode)
    yield
    path.chmod(before)


class _Gate:
    """Work that holds a thread until it is let go."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.release = threading.Event()

    def __call__(self, connection: sqlite3.Connection) -> None:
        self.entered.set()
        assert self.release.wait(60)

    async def wait_entered(self) -> None:
        assert await asyncio.to_thread(self.entered.wait, 60)


class TestOpen:
    async def test_the_files_are_the_owners_alone(self, database: SqliteDatabase) -> None:
        await database.append_events([event()])
        for file in database.path.parent.iterdir():
            assert stat.S_IMODE(file.stat().st_mode) == 0o600, file.name

    async def test_what_is_there_is_kept(self, database: SqliteDatabase) -> None:
        await database.append_events([event()])
        await database.close()
        again = _database(database.path)
        await again.open()
        assert list(await again.migrate()) == []
        assert (await again.find_events(EventQuery())).total == 1
        await again.close()

    @pytest.mark.parametrize(
        ("make", "reason"),
        [
            (lambda path: path.mkdir(), "is a directory"),
            (lambda path: path.write_bytes(b"this is not a database" * 100), "is not an SQLite database"),
        ],
        ids=["directory", "text"],
    )
    async def test_a_wrong_file(self, tmp_path: Path, make: Callable[[Path], object], reason: str) -> None:
        path = tmp_path / "registry.db"
        make(path)
        database = _database(path)
        with pytest.raises(StartupError, match=reason) as caught:
            await database.open()
        assert str(path) in str(caught.value)
        await database.close()

    async def test_a_missing_directory(self, tmp_path: Path) -> None:
        with pytest.raises(StartupError, match=r"database.url: the directory .*/nowhere does not exist"):
            await _database(tmp_path / "nowhere" / "registry.db").open()

    async def test_a_read_only_file(self, unprivileged: Path) -> None:
        path = unprivileged / "registry.db"
        path.touch(0o400)
        with pytest.raises(StartupError, match=r"registry.db cannot be written: Permission denied"):
            await _database(path).open()

    async def test_a_read_only_directory(self, unprivileged: Path) -> None:
        path = unprivileged / "registry.db"
        with _mode(unprivileged, 0o500), pytest.raises(StartupError, match="written: Permission denied"):
            await _database(path).open()

    async def test_a_file_locked_by_another_process(self, tmp_path: Path) -> None:
        path = tmp_path / "registry.db"
        with _locked_elsewhere(path), pytest.raises(StartupError, match="is locked by another process"):
            await _database(path).open()

    async def test_calls_before_open_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(UnavailableError, match="not open"):
            await _database(tmp_path / "registry.db").check()

    async def test_an_unmigrated_database_says_so(self, tmp_path: Path) -> None:
        database = _database(tmp_path / "registry.db")
        await database.open()
        with pytest.raises(UnavailableError, match="run jetway migrate"):
            await database.check()
        with pytest.raises(UnavailableError, match="run jetway migrate"):
            await database.write_rows([agent_row()], [])
        assert list((await database.migration_status()).pending) == [
            "0001_registry.sql",
            "0002_count_samples.sql",
        ]
        await database.close()

    async def test_a_wrong_migration_names_database_and_file(self, tmp_path: Path) -> None:
        directory = tmp_path / "migrations"
        directory.mkdir()
        (directory / "0001_x.sql").write_text("CREATE NONSENSE;")
        database = SqliteDatabase(tmp_path / "registry.db", directory)
        await database.open()
        with pytest.raises(StartupError, match=r"registry.db: 0001_x.sql: .*syntax error"):
            await database.migrate()
        await database.close()


class TestTrouble:
    async def test_a_lock_is_waited_for_and_then_told(self, database: SqliteDatabase) -> None:
        with _locked_elsewhere(database.path):
            with pytest.raises(UnavailableError, match="is locked by another process") as caught:
                await database.write_rows([agent_row()], [])
            assert isinstance(caught.value.__cause__, sqlite3.OperationalError)
            assert str(database.path) in str(caught.value)
            await database.check()  # reading goes on
        await database.write_rows([agent_row()], [])
        assert len(await database.find_row_versions()) == 1

    async def test_a_file_that_was_taken_away(self, database: SqliteDatabase) -> None:
        away = database.path.with_name("away.db")
        database.path.rename(away)
        for call in (database.check(), database.write_rows([agent_row()], [])):
            with pytest.raises(UnavailableError, match="is gone"):
                await call
        assert not database.path.exists(), "an empty one in its place would look like a loss of all rows"
        away.rename(database.path)
        await database.write_rows([agent_row()], [])

    async def test_a_file_that_was_exchanged(self, database: SqliteDatabase) -> None:
        database.path.rename(database.path.with_name("away.db"))
        sqlite3.connect(database.path).close()
        database.path.touch()
        with pytest.raises(UnavailableError, match="was replaced"):
            await database.append_events([event()])

    async def test_a_file_that_was_overwritten(self, tmp_path: Path) -> None:
        database = _database(tmp_path / "registry.db")
        await database.open()
        await database.migrate()
        await database.append_events([event(f"e-{n}", reason="x" * 500) for n in range(200)])
        await database.close()
        content = database.path.read_bytes()
        database.path.write_bytes(content[: len(content) // 2] + b"\xa5" * (len(content) // 2))
        again = _database(database.path)
        await again.open()
        with pytest.raises(UnavailableError, match=r"registry.db is corrupt: restore it"):
            await again.find_events(EventQuery(limit=1000))
        await again.close()

    async def test_a_full_disk(self, database: SqliteDatabase) -> None:
        def shrink(connection: sqlite3.Connection) -> None:
            (pages,) = connection.execute("PRAGMA page_count").fetchone()
            connection.execute(f"PRAGMA max_page_count = {pages}")

        await database._write(shrink)
        many = [event(f"e-{n}", reason="x" * 1000) for n in range(500)]
        with pytest.raises(UnavailableError, match="the disk is full"):
            await database.append_events(many)
        # The connection is opened anew, so the limit is gone.
        await database.append_events(many)
        assert (await database.find_events(EventQuery(limit=1))).total == 500

    async def test_a_commit_that_failed_on_the_disk_may_have_happened(self) -> None:
        assert isinstance(translate(Path("x"), CommitFailed("disk I/O error")), OutcomeUnknownError)

    async def test_values_that_sqlite_refuses_are_not_called_an_outage(
        self, database: SqliteDatabase
    ) -> None:
        def insert_nothing(connection: sqlite3.Connection) -> None:
            connection.execute("INSERT INTO schema_migrations DEFAULT VALUES")

        with pytest.raises(RejectedError, match="refused what it was given") as caught:
            await database._write(insert_nothing)
        assert not isinstance(caught.value, UnavailableError)

    async def test_a_row_that_somebody_else_spoilt(self, database: SqliteDatabase) -> None:
        await database.append_events([event()])
        with contextlib.closing(sqlite3.connect(database.path)) as other, other:
            other.execute("UPDATE service_registration_events SET timestamp = 'yesterday'")
        with pytest.raises(PortError, match="never wrote"):
            await database.find_events(EventQuery())

    @pytest.mark.parametrize(
        "spoilt",
        ["last_seen = 'yesterday'", "last_seen = x'00'", "last_seen = 7", "version = x'ff'"],
    )
    async def test_a_presence_that_somebody_else_spoilt_leaves_the_others_readable(
        self, database: SqliteDatabase, spoilt: str
    ) -> None:
        await database.write_rows([agent_row(), agent_row(service_id="other")], [])
        with contextlib.closing(sqlite3.connect(database.path)) as other, other:
            other.execute(f"UPDATE agents SET {spoilt} WHERE agent_id = 'other'")
        with capture_logs() as logs:
            found = await database.load_presence()
        assert [key.service_id for key in found] == [agent_row().service_id]
        assert [(entry["count"], entry["services"]) for entry in logs] == [(1, ["agent.other"])]

    async def test_readers_cannot_write(self, database: SqliteDatabase) -> None:
        with pytest.raises(UnavailableError, match="is read-only"):
            await database._read(lambda connection: connection.execute("DELETE FROM agents"))


class TestThreads:
    async def test_the_loop_runs_on_while_the_writer_is_busy(self, database: SqliteDatabase) -> None:
        gate = _Gate()
        held = asyncio.create_task(database._write(gate))
        await gate.wait_entered()
        writing = asyncio.create_task(database.write_rows([agent_row()], []))
        await database.check()
        assert not writing.done()
        gate.release.set()
        await asyncio.gather(held, writing)

    async def test_a_waiting_write_is_withdrawn_with_its_caller(self, database: SqliteDatabase) -> None:
        gate = _Gate()
        held = asyncio.create_task(database._write(gate))
        await gate.wait_entered()
        waiting = asyncio.create_task(database.write_rows([agent_row()], []))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        gate.release.set()
        await held
        await database.append_events([event()])  # behind it in the queue
        assert await database.find_row_versions() == {}

    async def test_a_running_write_is_finished_without_its_caller(self, database: SqliteDatabase) -> None:
        gate = _Gate()

        def work(connection: sqlite3.Connection) -> None:
            gate(connection)
            connection.execute("CREATE TABLE marker (x)")

        running = asyncio.create_task(database._write(work))
        await gate.wait_entered()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        gate.release.set()
        await database.append_events([event()])
        assert await database._read(lambda c: c.execute("SELECT count(*) FROM marker").fetchone()) == (0,)

    async def test_a_cancelled_read_stops_at_once(self, database: SqliteDatabase) -> None:
        entered = threading.Event()

        def work(connection: sqlite3.Connection) -> None:
            entered.set()
            connection.execute(COUNT_FOREVER).fetchone()

        reads = [asyncio.create_task(database._read(work)) for _ in range(2)]
        assert await asyncio.to_thread(entered.wait, 60)
        await asyncio.sleep(0.05)
        for read in reads:
            read.cancel()
        await asyncio.gather(*reads, return_exceptions=True)
        async with asyncio.timeout(30):  # as long as they ran, it would wait for ever
            await database.check()

    async def test_a_cancelled_read_stops_though_its_statement_begins_later(
        self, database: SqliteDatabase
    ) -> None:
        """SQLite forgets an interrupt that comes while no statement runs."""
        gate = _Gate()

        def work(connection: sqlite3.Connection) -> None:
            gate(connection)
            connection.execute(COUNT_FOREVER).fetchone()

        read = asyncio.create_task(database._read(work))
        await gate.wait_entered()
        read.cancel()
        await asyncio.gather(read, return_exceptions=True)
        gate.release.set()
        await database.close()  # raises where the statement still runs

    async def test_close_finishes_what_waits(self, database: SqliteDatabase) -> None:
        gate = _Gate()
        held = asyncio.create_task(database._write(gate))
        await gate.wait_entered()
        writes = [asyncio.create_task(database.write_rows([agent_row(f"a-{n}")], [])) for n in range(20)]
        await asyncio.sleep(0)
        closing = asyncio.create_task(database.close())
        await asyncio.sleep(0)
        gate.release.set()
        await asyncio.gather(held, closing, *writes)
        with contextlib.closing(sqlite3.connect(database.path)) as connection:
            assert connection.execute("SELECT count(*) FROM agents").fetchone() == (20,)
        assert not any(t.is_alive() for t in (*database._writer._threads, *database._readers._threads))

    async def test_too_many_waiting_calls_are_refused(self, database: SqliteDatabase) -> None:
        database._deadline = 600.0  # 256 of them are synced to the disk, one by one
        gate = _Gate()
        held = asyncio.create_task(database._write(gate))
        await gate.wait_entered()
        calls = [asyncio.create_task(database.write_rows([agent_row()], [])) for _ in range(300)]
        await asyncio.sleep(0)
        gate.release.set()
        results = await asyncio.gather(*calls, return_exceptions=True)
        await held
        refused = [result for result in results if isinstance(result, UnavailableError)]
        assert len(refused) == 300 - 256
        assert "256 calls are waiting" in str(refused[0])


class TestDeadlines:
    @pytest.fixture
    async def hasty(self, tmp_path: Path) -> AsyncIterator[SqliteDatabase]:
        opened = _database(tmp_path / "registry.db")
        await opened.open()
        await opened.migrate()
        opened._deadline = 0.1
        yield opened
        opened._deadline = 10
        await opened.close()

    async def test_a_long_read_is_interrupted(self, hasty: SqliteDatabase) -> None:
        for _ in range(3):  # more than there are readers: none stays behind
            with pytest.raises(UnavailableError, match=r"did not answer within 0.1 s"):
                await hasty._read(lambda connection: connection.execute(COUNT_FOREVER).fetchone())
        hasty._deadline = 10
        await hasty.check()

    async def test_a_write_that_never_began_was_not_done(self, hasty: SqliteDatabase) -> None:
        gate = _Gate()
        hasty._deadline = 10
        held = asyncio.create_task(hasty._write(gate))
        await gate.wait_entered()
        hasty._deadline = 0.1
        with pytest.raises(UnavailableError, match="did not finish a write") as caught:
            await hasty.write_rows([agent_row()], [])
        assert not isinstance(caught.value, OutcomeUnknownError)
        gate.release.set()
        await held
        hasty._deadline = 10
        await hasty.append_events([event()])
        assert await hasty.find_row_versions() == {}

    async def test_a_write_that_began_has_an_unknown_outcome(
        self, hasty: SqliteDatabase, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        gate, loop = _Gate(), asyncio.get_running_loop()
        clock, hasty._deadline = loop.time, 3600
        writing = asyncio.create_task(hasty._write(gate))
        await gate.wait_entered()
        monkeypatch.setattr(loop, "time", lambda: clock() + 3600)  # however long its thread took to begin
        with pytest.raises(OutcomeUnknownError):
            await writing
        gate.release.set()
