"""The database's file and connections to it. Used in the threads that may block."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from jetway.adapters.database import statements as sql
from jetway.adapters.database.errors import CommitFailed, explain, primary_code
from jetway.core.errors import StartupError, UnavailableError

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]

_WAL_KEPT_BYTES = 64 * 1024 * 1024


class DatabaseFile:
    """Where the database is, and whether it is still the file that was opened first."""

    def __init__(self, path: Path, busy_timeout: float) -> None:
        """`busy_timeout`: seconds to wait for another process's lock."""
        self.path = path.absolute()
        self._busy_timeout = busy_timeout
        self._identity: tuple[int, int] | None = None

    def create(self) -> None:
        """Make an empty file (mode 0600) if there is none. Raises StartupError when it cannot be written."""
        if not self.path.parent.is_dir():
            raise StartupError(f"database.url: the directory {self.path.parent} does not exist")
        if self.path.is_dir():
            raise StartupError(f"database.url: {self.path} is a directory, not a file")
        try:
            # SQLite would create it with the umask's mode; it copies the mode to its -wal and -shm files.
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        except OSError as error:
            raise StartupError(f"database.url: {self.path} cannot be written: {error.strerror}") from error

    def connect_writer(self) -> sqlite3.Connection:
        """A connection that writes, in WAL mode, durable at every commit."""
        connection = self._connect("rw")
        (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            connection.close()
            raise UnavailableError(f"the database {self.path} has no WAL mode: is it on a network share?")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA journal_size_limit = {_WAL_KEPT_BYTES}")
        if self._identity is None:
            stat = self.path.stat()
            self._identity = (stat.st_dev, stat.st_ino)
        return connection

    def connect_reader(self) -> sqlite3.Connection:
        """A connection that cannot write."""
        return self._connect("ro")

    def _connect(self, mode: str) -> sqlite3.Connection:
        """`mode`: rw or ro, never rwc: a file that was taken away must be missed, not made anew."""
        if self._identity is not None:
            self._check_in_place()
        connection = sqlite3.connect(
            f"{self.path.as_uri()}?mode={mode}", uri=True, timeout=self._busy_timeout, isolation_level=None
        )
        try:
            connection.execute("PRAGMA foreign_keys = ON")
        except BaseException:
            connection.close()
            raise
        return connection

    def in_place(self, work: Work[T]) -> Work[T]:
        """`work`, unless the file was taken away: an open one would go on taking writes for nobody."""

        def checked(connection: sqlite3.Connection) -> T:
            self._check_in_place()
            return work(connection)

        return checked

    def _check_in_place(self) -> None:
        try:
            stat = self.path.stat()
        except OSError as error:
            raise UnavailableError(f"the database {self.path} is gone: {error.strerror}") from error
        if (stat.st_dev, stat.st_ino) != self._identity:
            raise UnavailableError(f"the database {self.path} was replaced: restart the daemon")


def try_to_write(connection: sqlite3.Connection) -> None:
    """Raises sqlite3.Error when the database cannot be written; writes nothing."""
    connection.execute(sql.BEGIN_WRITE)
    connection.execute(sql.ROLLBACK)


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All or nothing. After an error the connection is closed by its thread, which rolls back."""
    connection.execute(sql.BEGIN_WRITE)
    yield
    try:
        connection.execute(sql.COMMIT)
    except sqlite3.Error as error:
        if primary_code(error) == sqlite3.SQLITE_IOERR:
            raise CommitFailed(explain(error)) from error
        raise


@contextlib.contextmanager
def snapshot(connection: sqlite3.Connection) -> Iterator[None]:
    """What is read within belongs to one moment."""
    connection.execute(sql.BEGIN_READ)
    yield
    connection.execute(sql.COMMIT)
