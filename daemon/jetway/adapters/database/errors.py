"""sqlite3's errors in the product's words. The cause stays chained for the log."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from jetway.core.errors import ExhaustedError, OutcomeUnknownError, PortError, RejectedError, UnavailableError

_REASONS = {
    sqlite3.SQLITE_BUSY: "is locked by another process",
    sqlite3.SQLITE_LOCKED: "is locked by another connection",
    sqlite3.SQLITE_READONLY: "is read-only",
    sqlite3.SQLITE_PERM: "may not be accessed",
    sqlite3.SQLITE_AUTH: "may not be accessed",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened",
    sqlite3.SQLITE_FULL: "cannot grow: the disk is full",
    sqlite3.SQLITE_IOERR: "cannot be read or written (input/output error)",
    sqlite3.SQLITE_CORRUPT: "is corrupt: restore it from a backup, or move it away and reproject",
    sqlite3.SQLITE_NOTADB: "is not an SQLite database",
    sqlite3.SQLITE_NOMEM: "needs more memory than there is",
    sqlite3.SQLITE_INTERRUPT: "took too long to answer",
    sqlite3.SQLITE_SCHEMA: "was migrated by another process meanwhile",
}
_NO_ROOM = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOMEM})
_ABOUT_THE_VALUES = (
    sqlite3.IntegrityError,
    sqlite3.DataError,
    sqlite3.InterfaceError,
    sqlite3.ProgrammingError,
    sqlite3.NotSupportedError,
)


class CommitFailed(sqlite3.OperationalError):
    """The disk failed in the middle of a COMMIT: after a crash either state may be found."""


def primary_code(error: sqlite3.Error) -> int:
    """SQLite's result code without its extension; 0 where the error is sqlite3's own."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def explain(error: sqlite3.Error) -> str:
    """The reason, to be read after the file's name."""
    reason = _REASONS.get(primary_code(error))
    return f"{reason} ({error})" if reason else f"refused: {error}"


def translate(path: Path, error: sqlite3.Error) -> PortError:
    """UnavailableError where another try may help, RejectedError where the values themselves were refused."""
    if isinstance(error, CommitFailed):
        return OutcomeUnknownError(f"the database {path} failed while it was storing: {error}")
    if isinstance(error, _ABOUT_THE_VALUES):
        return RejectedError(f"the database {path} refused what it was given: {error}")
    if "no such table" in str(error) or "no such column" in str(error):
        return UnavailableError(f"the database {path} has not been migrated: run jetway migrate ({error})")
    lacks_room = primary_code(error) in _NO_ROOM
    return (ExhaustedError if lacks_room else UnavailableError)(f"the database {path} {explain(error)}")
