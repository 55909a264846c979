"""Where a daemon of this host keeps its state, for every command that looks for it."""

from __future__ import annotations

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
        owner = place.stat().st_uid
    except FileNotFoundError:
        return
    except OSError as error:
        raise CommandError(f"state_dir: {place} cannot be looked at: {error.strerror}") from None
    if owner != os.geteuid():
        name = _user(owner)
        raise CommandError(
            f"state_dir: {place} belongs to the user {name}: run this as that user (sudo -u {name} …),"
            " or name another directory by --state-dir"
        )


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
