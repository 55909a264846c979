"""Where JetStream keeps an account's data: in a directory with the account's name."""

from __future__ import annotations

from pathlib import Path

import structlog

from jetway.core.errors import StartupError

log = structlog.get_logger()

OPEN_ACCOUNT = "$G"
"""The account of everybody, where the server asks for no credentials."""


def move_to_account(store: Path, account: str) -> None:
    """Give the data in `store` to the account. Only while the server is stopped.

    Raises StartupError, and changes nothing, when two accounts have data.
    """
    filled = sorted(path for path in store.glob("*") if _has_streams(path))
    target = store / account
    others = [path for path in filled if path != target]
    if not others:
        return
    if len(filled) > 1:
        names = ", ".join(str(path) for path in filled)
        raise StartupError(f"state_dir: several NATS accounts have data, only one can be used: {names}")
    try:
        if target.exists():
            _remove_empty(target)
        others[0].rename(target)
    except OSError as error:
        raise StartupError(f"state_dir: {others[0]} cannot be moved to {target}: {error.strerror}") from error
    log.info("NATS data moved to another account", action="nats_data_moved", account=account)


def _has_streams(account: Path) -> bool:
    return any((account / "streams").glob("*"))


def _remove_empty(directory: Path) -> None:
    """Raises OSError when a file is left in it."""
    for path in directory.iterdir():
        if path.is_dir():
            _remove_empty(path)
    directory.rmdir()
