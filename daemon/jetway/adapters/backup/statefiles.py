"""What of a state directory belongs into a backup, and how it comes back: keys, the administrator's token.

A restore is marked by a file of its own from its beginning to its end. While that is there, no daemon starts and
another restore begins anew.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from jetway.adapters.statedir import LEDGER_FILE, RESTORE_FILE, atomic_write, sync_directory
from jetway.core.backup import check_file
from jetway.core.errors import StartupError

KEYS = "keys"
ADMIN_TOKEN = "admin.token"  # noqa: S105 - a file's name
_NATS = "nats"
_LIMIT = 1024 * 1024
"""Of one file: keys are small."""


@dataclass(frozen=True, slots=True)
class RestoreMark:
    """Which restore is under way."""

    ledger_id: str
    epoch: int
    backup_created_at: str
    started_at: str


def read_files(state_dir: Path) -> Mapping[str, bytes]:
    """Keys, and the administrator's token if it is there, by name. Raises StartupError."""
    found: dict[str, bytes] = {}
    try:
        for path in sorted((state_dir / KEYS).rglob("*")):
            # Half-written files of a daemon that was killed begin with a dot.
            if path.is_file() and not path.name.startswith("."):
                found[path.relative_to(state_dir).as_posix()] = _read(path)
        token = state_dir / ADMIN_TOKEN
        if token.exists():
            found[ADMIN_TOKEN] = _read(token)
    except OSError as error:
        raise StartupError(f"cannot read {error.filename}: {error.strerror}") from error
    if not any(name.startswith(f"{KEYS}/") for name in found):
        raise StartupError(
            f"there are no keys in {state_dir / KEYS}: run this on the daemon's host, as its user"
        )
    return found


def _read(path: Path) -> bytes:
    if path.stat().st_size > _LIMIT:
        raise StartupError(f"{path} is too large for a key")
    return path.read_bytes()


class RestorePlace:
    """A state directory that is restored into. Raises OSError where it cannot be written."""

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir
        self._mark = state_dir / RESTORE_FILE
        self.aside: Path | None = None
        """Where what stood here was moved by `begin`."""

    def unfinished(self) -> RestoreMark | None:
        """The restore that was begun here and not completed. Raises StartupError for a damaged mark."""
        try:
            return RestoreMark(**json.loads(self._mark.read_bytes()))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError):
            raise StartupError(f"{self._mark} is damaged: remove it if no restore was begun here") from None

    def occupied(self) -> bool:
        """Whether something stands here that a restore would replace."""
        keys, nats = self._path / KEYS, self._path / _NATS / "jetstream"
        return (self._path / LEDGER_FILE).exists() or any(
            place.is_dir() and any(place.iterdir()) for place in (keys, nats)
        )

    def _set_aside(self, name: str) -> None:
        """Move what stands here into a directory of that name. What says whose it is goes last."""
        aside = self._path / name
        aside.mkdir(mode=0o700, exist_ok=True)
        self.aside = aside
        for each in (_NATS, KEYS, ADMIN_TOKEN, LEDGER_FILE):
            if (self._path / each).exists():
                os.rename(self._path / each, aside / each)  # noqa: PTH104 - of directories as well
        sync_directory(aside)
        sync_directory(self._path)

    def begin(
        self, mark: RestoreMark, files: Mapping[str, bytes], *, embedded: bool, aside: str = ""
    ) -> None:
        """Mark it, remove what an earlier attempt left, and write the files.

        `aside`: the name of the directory into which what stands here is moved before.
        """
        if aside:
            self._set_aside(aside)
        atomic_write(self._mark, json.dumps(asdict(mark)).encode() + b"\n")
        (self._path / LEDGER_FILE).unlink(missing_ok=True)
        for leftover in (KEYS, _NATS) if embedded else (KEYS,):
            shutil.rmtree(self._path / leftover, ignore_errors=True)
        for name, data in files.items():
            check_file(name)
            target = self._path / name
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            atomic_write(target, data, 0o600)

    def end(self) -> None:
        """It is complete."""
        self._mark.unlink(missing_ok=True)
        sync_directory(self._path)
