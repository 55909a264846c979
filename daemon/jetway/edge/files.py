"""Files of an edge host: private, written whole or not at all, one program at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from jetway.edge.errors import EdgeError

PRIVATE = 0o600
FOLDER = 0o700


def ensure_folder(folder: Path) -> None:
    """Create the folder for its owner alone; an existing one is made so."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=FOLDER)
        if folder.stat().st_mode & 0o777 != FOLDER:
            folder.chmod(FOLDER)
    except OSError as error:
        raise EdgeError(f"cannot use the folder {folder}: {error.strerror}") from error


def write_file(path: Path, data: bytes, *, mode: int = PRIVATE, durable: bool = True) -> None:
    """Replace `path` by `data` in one step. `durable`: it is on the disk when this returns."""
    # mkstemp creates the file with 0600: at no moment can another user open it.
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".tmp-")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fchmod(stream.fileno(), mode)
            if durable:
                os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames and removals in `folder` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def exclusive(folder: Path, name: str, program: str) -> Iterator[None]:
    """Hold `folder/name` while in the block. Raises EdgeError when another process holds it."""
    handle = os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        raise EdgeError(f"another {program} is at work in {folder}") from error
    try:
        yield
    finally:
        os.close(handle)
