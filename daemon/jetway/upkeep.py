"""What an operator does beside the running daemon: migrate the database, make an API token on the spot."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta

from jetway.adapters.clock import RandomIdentifiers, SystemClock
from jetway.adapters.nats.stores import NatsApiTokenStore, NatsAuditLog
from jetway.adapters.statedir import LedgerIdentity, StateDir
from jetway.app import DAEMON_FILE
from jetway.core.errors import PortError, StartupError
from jetway.databases import find_pending_migrations, open_database
from jetway.logs import set_up_logs
from jetway.nats_link import NatsWay, external_nats, open_nats, running_nats, start_private_nats
from jetway.services.api_tokens import ApiTokens
from jetway.services.caller import Caller
from jetway.services.trail import Trail
from jetway.settings import Settings
from jetway.tasks import Releases


def migrate(settings: Settings, *, status: bool = False) -> list[str]:
    """Bring the registry database to the current schema; the names applied, or with `status` those pending.

    Raises StartupError.
    """
    _keep_output_clean()
    return asyncio.run(_migrate(settings, status))


async def _migrate(settings: Settings, status: bool) -> list[str]:
    try:
        return await (find_pending_migrations(settings) if status else _apply(settings))
    except PortError as error:
        raise StartupError(f"database.url: {error}") from error


async def _apply(settings: Settings) -> list[str]:
    StateDir(settings.state_dir).prepare()
    database = open_database(settings)
    try:
        await database.open()
        return list(await database.migrate())
    finally:
        await database.close()


def create_token_locally(settings: Settings, name: str, role: str, expires_in: timedelta | None) -> str:
    """An API token's text, made without the HTTP API: a lost token locks nobody out.

    Talks to the running daemon's NATS server, or starts the embedded one for a moment. Raises StartupError,
    RefusedError (taken, invalid).
    """
    _keep_output_clean()
    return asyncio.run(_create_token_locally(settings, name, role, expires_in))


def _keep_output_clean() -> None:
    """What goes wrong beneath is logged to standard error; standard output is the answer alone."""
    set_up_logs("warning", "auto")


async def _create_token_locally(
    settings: Settings, name: str, role: str, expires_in: timedelta | None
) -> str:
    releases = Releases()
    try:
        link = await open_nats(settings, await way_to_nats(settings, releases), releases)
        clock = SystemClock()
        trail = Trail(NatsAuditLog(link.jetstream, link.names), clock, RandomIdentifiers())
        tokens = ApiTokens(NatsApiTokenStore(link.jetstream, link.names), trail, clock)
        await tokens.load()
        text, _ = await tokens.create(Caller("local"), name, role, expires_in)
        return text
    except PortError as error:
        raise StartupError(f"NATS cannot be used: {error}") from error
    finally:
        await releases.all()


def require_ledger(settings: Settings) -> LedgerIdentity:
    """Which ledger the state directory belongs to. Raises StartupError where there is none.

    In an empty directory a ledger would be made, and whatever is asked of that one would succeed.
    """
    ledger = StateDir(settings.state_dir).read_ledger()
    if ledger is None:
        raise StartupError(
            f"state_dir: no ledger belongs to {settings.state_dir}: there is nothing to back up, verify or change"
            " in it. --state-dir names another directory"
        )
    return ledger


async def way_to_nats(settings: Settings, releases: Releases) -> NatsWay:
    """To where the running daemon's NATS listens; with no daemon running, of a server started for this call.

    Raises StartupError, also where no ledger stands.
    """
    if settings.nats.mode == "external":
        return external_nats(settings)  # the ledger is there, whatever stands here
    require_ledger(settings)
    state = StateDir(settings.state_dir)
    state.prepare()
    try:
        lock = state.lock()
    except StartupError:
        return running_nats(settings, _running_urls(settings))
    releases.add("state lock", lock.release)
    return await start_private_nats(settings, releases)


def _running_urls(settings: Settings) -> tuple[str, ...]:
    try:
        told = json.loads((settings.state_dir / DAEMON_FILE).read_bytes())
        return tuple(str(url) for url in told["nats_urls"])
    except (OSError, ValueError, KeyError, TypeError):
        return (f"nats://{settings.nats.listen}",)
