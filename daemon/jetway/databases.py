"""Which registry database the settings mean, and how it is begun with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import structlog

from jetway.adapters.clock import SystemClock
from jetway.adapters.database.migrations import find_migrations
from jetway.adapters.database.sqlite import SqliteDatabase
from jetway.core.errors import StartupError, UnavailableError
from jetway.database_url import is_proton, parse_proton_url
from jetway.resources import resource_dir
from jetway.settings import Settings

if TYPE_CHECKING:
    from jetway.adapters.database.proton import ProtonDatabase

Database: TypeAlias = "SqliteDatabase | ProtonDatabase"

_ANSWERS_WITHIN = 2.0
"""Seconds that a start waits for a Proton that says nothing."""

log = structlog.get_logger()


def open_database(settings: Settings) -> Database:
    """The registry database, not opened yet. Raises StartupError for an authority that cannot be read."""
    migrations = resource_dir("migrations")
    if not is_proton(settings.database_url):
        return SqliteDatabase(settings.database_path, migrations / "sqlite")
    return _open_proton(settings, migrations / "proton")


async def migrate_at_start(database: Database) -> None:
    """Bring the schema up to date before rows are written.

    A Proton that is away is waited for: its migrations are applied when it is back. Raises StartupError, and
    UnavailableError for a file that cannot be used.
    """
    try:
        if isinstance(database, SqliteDatabase):
            await database.migrate()
        else:
            await database.migrate(answers_within=_ANSWERS_WITHIN)
            for stream, missing in (await database.find_adopted()).items():
                log.info(
                    "a stream of another product is used as it is",
                    action="stream_adopted",
                    stream=stream,
                    kept_in_metadata=list(missing),
                )
    except UnavailableError as error:
        if isinstance(database, SqliteDatabase):
            raise
        log.warning("the database is away, rows wait for it", action="database_away", reason=str(error))


async def schema_version(database: Database) -> str:
    """The newest migration that is applied, or why nobody can tell. Raises UnavailableError."""
    try:
        applied = (await database.migration_status()).applied
    except StartupError as error:
        return str(error)
    return applied[-1].removesuffix(".sql") if applied else "none"


async def find_pending_migrations(settings: Settings) -> list[str]:
    """Names of the migrations that are still to be applied; makes nothing. Raises StartupError, PortErrors."""
    if not is_proton(settings.database_url) and not settings.database_path.exists():
        return [migration.name for migration in find_migrations(resource_dir("migrations") / "sqlite")]
    database = open_database(settings)
    try:
        await database.open()
        return list((await database.migration_status()).pending)
    finally:
        await database.close()


def _open_proton(settings: Settings, migrations: Path) -> ProtonDatabase:
    # Here and not above: who keeps the registry in a file is spared the driver, 29 MiB and a third of the start.
    from jetway.adapters.database.proton import ProtonDatabase
    from jetway.adapters.database.proton_client import Target, verifying_context

    url = parse_proton_url(settings.database_url)
    file = settings.database.password_file
    target = Target(
        label=url.label,
        host=url.host,
        port=url.port,
        database=url.database,
        user=url.user,
        password=_reader(file) if file else lambda: url.password,
        tls=verifying_context(settings.database.tls_ca) if url.tls else None,
    )
    return ProtonDatabase(target, migrations, SystemClock())


def _reader(file: Path) -> Callable[[], str]:
    """Read anew at every connect, so that a password may be changed under a running daemon."""

    def read() -> str:
        try:
            return file.read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise UnavailableError(f"database.password_file: {file} cannot be read: {reason}") from None

    return read
