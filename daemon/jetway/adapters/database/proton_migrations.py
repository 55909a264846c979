"""Brings Proton's streams up to date: the same numbered, checksummed files as SQLite's, with their own text.

Proton has no transactions, so every statement of a file is one that may be run again (`CREATE … IF NOT EXISTS`),
and a file is noted down once all of it has been run. Nothing is ever dropped. Streams of another product that
have the names of ours are adopted: kept as they are, with all that they hold.

A stream of another product named `schema_migrations` that has only a `version` of text is adopted, too: what
was applied stands there as `jetway <file> <sha256>`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from jetway.adapters.database import proton_statements as sql
from jetway.adapters.database.migrations import (
    Applied,
    Migration,
    MigrationStatus,
    find_migrations,
    find_pending,
    split_statements,
)
from jetway.adapters.database.proton_client import ProtonClient
from jetway.adapters.database.proton_errors import FINAL_NOT_SUPPORTED, PASSING, UNKNOWN_STREAM, server_code
from jetway.adapters.database.proton_streams import Stream, milliseconds, require_fitting
from jetway.adapters.database.tables import ALL_TABLES, EVENTS, Table
from jetway.core.errors import PortError, StartupError, UnavailableError

_CREATE_TABLE = """
CREATE STREAM IF NOT EXISTS schema_migrations (
  version    int64,
  name       string,
  sha256     string,
  applied_at datetime64(3, 'UTC')
) PARTITION BY tuple() PRIMARY KEY (version)
SETTINGS mode='versioned_kv', version_column='_tp_time'
"""
_COLUMNS = frozenset({"version", "name", "sha256", "applied_at"})
_SELECT = "SELECT version, name, sha256 FROM table(schema_migrations) ORDER BY version"
_INSERT = "INSERT INTO schema_migrations (version, name, sha256, applied_at) VALUES"
_SELECT_ADOPTED = "SELECT DISTINCT version FROM table(schema_migrations) WHERE version LIKE 'jetway %'"
_INSERT_ADOPTED = "INSERT INTO schema_migrations (version) VALUES"
_PREFIX = "jetway "
_SHOWN_WITHIN = 60.0
_LOOK_EVERY = 0.1


def find_streams(client: ProtonClient) -> Mapping[str, Stream]:
    """Those of our tables that have a stream, by name."""
    found = {table.name: describe(client, table) for table in ALL_TABLES}
    return {name: stream for name, stream in found.items() if stream is not None}


def describe(client: ProtonClient, table: Table) -> Stream | None:
    """The stream of a table, if there is one."""
    types = column_types(client, table.name)
    return None if types is None else Stream(table, types)


def column_types(client: ProtonClient, name: str) -> Mapping[str, str] | None:
    """The columns of a stream and their types in lower case; None where there is no such stream."""
    try:
        rows = client.select(sql.describe(name))
    except PortError as error:
        if server_code(error) == UNKNOWN_STREAM:
            return None
        raise
    return {str(row[0]): str(row[1]).lower() for row in rows}


class ProtonMigrations:
    """The migrations of one directory. Called in a thread that may block, for as long as it takes."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def status(self, client: ProtonClient) -> MigrationStatus:
        """What is applied and what is pending; changes nothing. Raises StartupError like `apply`."""
        applied = _Notes(client).read()
        pending = find_pending(find_migrations(self._directory), applied)
        return MigrationStatus([row.name for row in applied], [migration.name for migration in pending])

    def apply(self, client: ProtonClient) -> Sequence[str]:
        """Apply what is pending; the names. Returns once Proton shows what was noted down.

        Raises StartupError, naming the file, for one that does not fit or that Proton refuses, and for a stream
        of another product that cannot be adopted; nothing is changed then, or what was begun is begun again
        the next time. PortErrors of a database that is away come through.
        """
        notes = _Notes(client)
        pending = find_pending(find_migrations(self._directory), notes.read())
        if not pending:
            return []
        _require_fitting(client)
        notes.prepare()
        for migration in pending:
            _run(client, migration)
            notes.write(migration)
        notes.wait_for({migration.name for migration in pending})
        return [migration.name for migration in pending]


def _require_fitting(client: ProtonClient) -> None:
    """Look at what is there already before anything is made."""
    for name, stream in find_streams(client).items():
        require_fitting(stream)
        if stream.table is not EVENTS:
            _require_keyed(client, name)


def _require_keyed(client: ProtonClient, name: str) -> None:
    try:
        client.select(sql.require_keyed(name))
    except PortError as error:
        if server_code(error) != FINAL_NOT_SUPPORTED:
            raise
        raise StartupError(
            f"the stream {name} exists and only appends (its mode is not versioned_kv), so it cannot be adopted:"
            " give jetway another database in database.url, or move the stream away yourself"
        ) from error


def _run(client: ProtonClient, migration: Migration) -> None:
    for statement in split_statements(migration):
        try:
            client.command(statement.rstrip().rstrip(";"))
        except PortError as error:
            if server_code(error) is None or server_code(error) in PASSING:
                raise
            raise StartupError(f"{migration.name}: {error}") from error


class _Notes:
    """The stream `schema_migrations`, ours or another product's."""

    def __init__(self, client: ProtonClient) -> None:
        self._client = client
        self._types = column_types(client, "schema_migrations")

    def read(self) -> Sequence[Applied]:
        """What was applied, in order."""
        if self._types is None:
            return []
        if self._is_ours():
            return [Applied(int(row[0]), row[1], row[2]) for row in self._client.select(_SELECT)]
        rows = self._client.select(_SELECT_ADOPTED)
        return sorted((_parse(row[0]) for row in rows), key=lambda applied: applied.version)

    def prepare(self) -> None:
        """Make the stream if there is none. Raises StartupError if there is one that takes no notes."""
        if self._types is None:
            self._client.command(_CREATE_TABLE.strip())
            self._types = column_types(self._client, "schema_migrations")
        if not self._is_ours() and (self._types or {}).get("version") != "string":
            raise StartupError("the stream schema_migrations exists with other columns, so it cannot be used")

    def write(self, migration: Migration) -> None:
        """Note down what was applied; twice does no harm."""
        if self._is_ours():
            row = (migration.version, migration.name, migration.sha256, milliseconds(datetime.now(UTC)))
            self._client.insert(_INSERT, [row])
        else:
            self._client.insert(_INSERT_ADOPTED, [(f"{_PREFIX}{migration.name} {migration.sha256}",)])

    def wait_for(self, names: set[str]) -> None:
        """Proton shows what was written a little later. Raises UnavailableError if it never does."""
        end = time.monotonic() + _SHOWN_WITHIN
        while not names <= {applied.name for applied in self.read()}:
            if time.monotonic() > end:
                raise UnavailableError(
                    f"Proton does not show within {_SHOWN_WITHIN:g} s what was written to it"
                )
            time.sleep(_LOOK_EVERY)

    def _is_ours(self) -> bool:
        return self._types is not None and self._types.keys() >= _COLUMNS


def _parse(text: str) -> Applied:
    """`jetway 0001_registry.sql <sha256>`. Raises StartupError for anything else."""
    try:
        _, name, sha256 = text.split(" ")
        return Applied(int(name[:4]), name, sha256)
    except ValueError:
        raise StartupError(f"the stream schema_migrations holds what jetway never wrote: {text!r}") from None
