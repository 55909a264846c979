"""Brings the schema up to date: numbered, checksummed `.sql` files, each in one transaction, append-only.

`NNNN_name.sql` files are numbered from 0001 without gaps. What was applied stands in `schema_migrations`; an
applied file must not change any more. Nothing is ever taken back.
"""

from __future__ import annotations

import hashlib
import re
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from jetway.adapters.database.errors import primary_code
from jetway.core.errors import StartupError
from jetway.core.times import rfc3339

_FILE_NAME = re.compile(r"^(\d{4})_[a-z0-9_]+\.sql$")
_COMMENT = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)
_CREATE_TABLE = """
CREATE TABLE IF NOT EXISTS schema_migrations (
  -- Which migrations this database has seen; written by the daemon and by `jetway migrate`.
  version    INTEGER NOT NULL PRIMARY KEY,
  name       TEXT NOT NULL,  -- the file's name
  sha256     TEXT NOT NULL,  -- of the file's text; it must never change
  applied_at TEXT NOT NULL   -- RFC 3339, UTC
)
"""
_HAS_TABLE = "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = 'schema_migrations'"
_SELECT = "SELECT version, name, sha256 FROM schema_migrations ORDER BY version"
_INSERT = "INSERT INTO schema_migrations (version, name, sha256, applied_at) VALUES (?, ?, ?, ?)"


@dataclass(frozen=True, slots=True)
class Migration:
    """A file."""

    version: int
    name: str
    sha256: str
    text: str


@dataclass(frozen=True, slots=True)
class Applied:
    """A row of `schema_migrations`."""

    version: int
    name: str
    sha256: str


@dataclass(frozen=True, slots=True)
class MigrationStatus:
    """Names of files, in order."""

    applied: Sequence[str]
    pending: Sequence[str]


def find_migrations(directory: Path) -> Sequence[Migration]:
    """The files of `directory` in order. Raises StartupError for a gap, a duplicate or a wrong name."""
    try:
        names = sorted(path.name for path in directory.iterdir() if path.suffix == ".sql")
    except OSError as error:
        raise StartupError(f"{directory}: cannot read the migrations: {error.strerror}") from error
    if not names:
        raise StartupError(f"{directory}: there are no migrations")
    migrations = []
    for expected, name in enumerate(names, start=1):
        match = _FILE_NAME.match(name)
        if match is None:
            raise StartupError(f"{name}: a migration's name is NNNN_name.sql in lower case")
        version = int(match[1])
        if version < expected:
            raise StartupError(f"{name}: there is another migration with the number {version:04d}")
        if version > expected:
            raise StartupError(f"{name}: the migration before it, number {expected:04d}, is missing")
        migrations.append(_read(directory / name, version))
    return migrations


def _read(path: Path, version: int) -> Migration:
    try:
        # Line ends become \n, so that a checkout's setting does not count.
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StartupError(f"{path.name}: cannot be read: {error}") from error
    return Migration(version, path.name, hashlib.sha256(text.encode()).hexdigest(), text)


def find_pending(known: Sequence[Migration], applied: Sequence[Applied]) -> Sequence[Migration]:
    """What is still to be applied. Raises StartupError when the database and the files do not fit."""
    by_version = {migration.version: migration for migration in known}
    for position, row in enumerate(applied, start=1):
        migration = by_version.get(row.version)
        if migration is None:
            raise StartupError(
                f"{row.name}: the database was migrated by a newer program, this one knows migrations up to"
                f" {known[-1].version:04d}: upgrade the program, or restore a backup from before"
            )
        if row.version != position:
            raise StartupError(f"{row.name}: applied although number {position:04d} was not")
        if row.sha256 != migration.sha256:
            raise StartupError(
                f"{migration.name}: was changed after it was applied: put it back and add a new migration"
            )
    return known[len(applied) :]


def split_statements(migration: Migration) -> Sequence[str]:
    """The statements of a file; triggers, quotes and comments with semicolons in them stay whole."""
    statements, rest = [], ""
    for piece in re.split(r"(?<=;)", migration.text):
        rest += piece
        if sqlite3.complete_statement(rest):
            statements.append(rest.strip())
            rest = ""
    if _COMMENT.sub("", rest).strip():
        raise StartupError(f"{migration.name}: the last statement has no end")
    return statements


class Migrations:
    """The migrations of one directory. Made for a connection in autocommit mode (`isolation_level=None`)."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def status(self, connection: sqlite3.Connection) -> MigrationStatus:
        """What is applied and what is pending; changes nothing. Raises StartupError like `apply`."""
        known = find_migrations(self._directory)
        applied = _applied(connection)
        pending = find_pending(known, applied)
        return MigrationStatus([row.name for row in applied], [migration.name for migration in pending])

    def apply(self, connection: sqlite3.Connection) -> Sequence[str]:
        """Apply what is pending, each migration in a transaction of its own; their names.

        Raises StartupError, naming the file, for one that does not fit or that SQLite refuses; those before
        it stay applied. sqlite3's errors about the database itself (locked, full) come through.
        """
        known = find_migrations(self._directory)
        names: list[str] = []
        while name := self._apply_next(connection, known):
            names.append(name)
        return names

    def _apply_next(self, connection: sqlite3.Connection, known: Sequence[Migration]) -> str | None:
        # Looked up under the write lock each time: another process may be migrating too.
        connection.execute("BEGIN IMMEDIATE")
        try:
            pending = find_pending(known, _applied(connection))
            if pending:
                connection.execute(_CREATE_TABLE)
                _run(connection, pending[0])
            connection.execute("COMMIT")
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        return pending[0].name if pending else None


def _applied(connection: sqlite3.Connection) -> Sequence[Applied]:
    (exists,) = connection.execute(_HAS_TABLE).fetchone()
    return [Applied(*row) for row in connection.execute(_SELECT)] if exists else []


def _run(connection: sqlite3.Connection, migration: Migration) -> None:
    for statement in split_statements(migration):
        try:
            connection.execute(statement)
        except sqlite3.Error as error:
            if primary_code(error) in (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CONSTRAINT):
                raise StartupError(f"{migration.name}: {error}") from error
            raise
        if not connection.in_transaction:
            raise StartupError(f"{migration.name}: must not end the transaction that it runs in")
    now = rfc3339(datetime.now(UTC))
    connection.execute(_INSERT, (migration.version, migration.name, migration.sha256, now))
