"""The state directory: one daemon at a time, and files that are whole or not there."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

from jetway.core.errors import StartupError

LOCK_FILE = "daemon.lock"
LEDGER_FILE = "ledger.json"
RESTORE_FILE = "restore.json"
"""There from the beginning of a restore to its end."""


@dataclass(frozen=True, slots=True)
class LedgerIdentity:
    """Which ledger this state belongs to, and the newest epoch of it that was seen here."""

    ledger_id: str
    epoch: int


class StateLock:
    """The held lock. It ends with `release()`, or with the process however that ends."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    def release(self) -> None:
        """Let the next daemon in. Safe to call again."""
        if self._descriptor is None:
            return
        # The file stays: removing it would let two daemons lock two files of the same name.
        with contextlib.suppress(OSError):
            os.ftruncate(self._descriptor, 0)
        os.close(self._descriptor)
        self._descriptor = None

    def __enter__(self) -> StateLock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


class StateDir:
    """`path` and what the daemon keeps in it. Nothing is touched before `prepare()`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def prepare(self) -> None:
        """Create the directory (mode 0700) if need be. Raises StartupError when it cannot be written."""
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self.path, prefix=".probe-"):
                pass
        except OSError as error:
            reason = error.strerror or str(error)
            raise StartupError(f"state_dir: {self.path} cannot be written: {reason}") from error

    def lock(self) -> StateLock:
        """Take the directory for this process. Raises StartupError, naming the pid, when it is taken."""
        file = self.path / LOCK_FILE
        try:
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StartupError(f"state_dir: cannot open {file}: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        except BlockingIOError as error:
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
            os.close(descriptor)
            who = f"pid {holder}" if holder.isdigit() else "a pid that is not known"
            raise StartupError(
                f"state_dir: {self.path} is in use by another daemon ({who}, lock file {file})"
            ) from error
        except OSError as error:
            os.close(descriptor)
            raise StartupError(f"state_dir: cannot lock {file}: {error.strerror}") from error
        return StateLock(descriptor)

    def read_ledger(self) -> LedgerIdentity | None:
        """The ledger that this state belongs to; None before the first start is complete.

        Raises StartupError for what cannot be read, and where a restore was begun and not completed.
        """
        if (self.path / RESTORE_FILE).exists():
            raise StartupError(
                f"state_dir: a restore into {self.path} was begun and not completed: run `jetway restore` again"
            )
        file = self.path / LEDGER_FILE
        try:
            fields = json.loads(file.read_bytes())
            ledger_id, epoch = fields["ledger_id"], fields["epoch"]
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StartupError(f"cannot read {file}: {error.strerror}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise StartupError(f"{file} is damaged: restore it from a backup") from error
        if not isinstance(ledger_id, str) or type(epoch) is not int:
            raise StartupError(f"{file} is damaged: restore it from a backup")
        return LedgerIdentity(ledger_id, epoch)

    def write_ledger(self, identity: LedgerIdentity) -> None:
        """Remember the ledger. Durable when this returns; raises OSError."""
        atomic_write(self.path / LEDGER_FILE, json.dumps(asdict(identity)).encode() + b"\n", 0o600)


def atomic_write(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Replace `path` by `data` in one step; durable when this returns. `mode` holds whatever the umask says.

    Raises OSError; the old file is then still there, unless only the last step, making it durable, failed.
    """
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            os.fchmod(descriptor, mode)
            stream.write(data)
            stream.flush()
            os.fsync(descriptor)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make names durable: without this a new one may be gone after a power cut, though the bytes are not."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
