"""Files that nobody but the daemon may read: refused where others can, or where they are gone."""

from __future__ import annotations

import stat
from pathlib import Path

from jetway.core.errors import StartupError


def check_directory(directory: Path) -> None:
    """Who may write the directory can put other keys into it, whatever the files' own modes are."""
    if directory.exists() and stat.S_IMODE(directory.stat().st_mode) & 0o022:
        raise StartupError(f"{directory} can be written by other users: chmod 700 {directory}")


def read_private(path: Path, lost: str) -> bytes:
    """The file's contents. `lost` says, for one that is missing, what does not work without it.

    Raises StartupError, naming the file, for one that is missing or open to other users; OSError otherwise.
    """
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except FileNotFoundError:
        raise StartupError(f"{path} is missing: restore it from a backup; {lost}") from None
    if mode & 0o077:
        raise StartupError(f"{path} is open to other users (mode {mode:04o}): chmod 600 {path}")
    return path.read_bytes()
