"""Where a daemon of this host keeps its state, for every command that looks for it."""

from __future__ import annotations

import contextlib
import os
import pwd
from pathlib import Path

from jetway.cli.errors import CommandError

SYSTEM_STATE_DIR = Path("/var/lib/jetway")
"""That of the systemd unit."""


def usual_state_dirs() -> tuple[Path, ...]:
    """Where it is unless a setting says otherwise, the likeliest first."""
    from jetway.settings import default_state_dir

    return default_state_dir(), SYSTEM_STATE_DIR


def find_state_dir() -> Path:
    """The one with a ledger. While there is none: the service's if it is there, else that of `serve`."""
    from jetway.settings import default_state_dir

    default = default_state_dir()
    if os.environ.get("STATE_DIRECTORY"):
        return default  # systemd names it: nothing is left to be looked for
    for place in usual_state_dirs():
        if _has_ledger(place):
            return place
    return SYSTEM_STATE_DIR if SYSTEM_STATE_DIR.is_dir() else default


def require_own(place: Path) -> None:
    """Raise CommandError where it is another user's: what root leaves there, that user's daemon cannot read."""
    try:
        owner = _owner_of(place)
    except OSError as error:
        raise CommandError(f"state_dir: {place} cannot be looked at: {error.strerror}") from None
    if owner is not None and owner != os.geteuid():
        name = _user(owner)
        raise CommandError(
            f"state_dir: {place} belongs to the user {name}: run this as that user (sudo -u {name} …),"
            " or name another directory by --state-dir"
        )


def _owner_of(place: Path) -> int | None:
    """Whose what a daemon left there is. An empty one, a mounted volume for example, is whose may write there."""
    from jetway.adapters.statedir import LEDGER_FILE, LOCK_FILE

    try:
        for name in (LEDGER_FILE, LOCK_FILE, "keys"):
            with contextlib.suppress(FileNotFoundError):
                return (place / name).stat().st_uid
        owner = place.stat().st_uid
    except FileNotFoundError:
        return None
    except PermissionError:
        return place.stat().st_uid
    # Root may write everywhere, so that says nothing.
    may_write = os.geteuid() != 0 and os.access(place, os.W_OK)
    return None if may_write else owner


def _has_ledger(place: Path) -> bool:
    """Whether a ledger belongs to it, a restore that was begun there included."""
    from jetway.adapters.statedir import LEDGER_FILE, RESTORE_FILE

    try:
        return any((place / name).exists() for name in (LEDGER_FILE, RESTORE_FILE))
    except OSError:
        return False  # not for this user to see


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
