"""Backups of the ledger, and back."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from jetway.core.backup import Line, Manifest


class LedgerImage(Protocol):
    """All that the ledger's NATS holds and that cannot be derived, for a backup. See `core.backup`."""

    def walk(self, section: str) -> AsyncGenerator[Sequence[Line], None]:
        """Every key of a section, in batches, and then an end.

        What changes meanwhile comes as it was, as it is, or both, marked `again`: the last one counts.
        """
        ...

    def walk_trail(self, limit: int = 0) -> AsyncGenerator[Sequence[Line], None]:
        """The audit trail as far as it goes now, oldest first, or its first `limit` entries."""
        ...

    async def settle_trail(self, seconds: float = 30.0) -> int:
        """Wait until the trail has what is written for it by now; how many entries it lacks after `seconds`."""
        ...


class LedgerLoader(Protocol):
    """An empty ledger that is being filled from a backup."""

    async def load(self, section: str, lines: Sequence[Line]) -> None:
        """Write keys that are not there yet."""
        ...

    async def load_trail(self, lines: Sequence[Line]) -> None:
        """Append to the audit trail. Not after `open_trail`."""
        ...

    async def open_trail(self) -> None:
        """From here on the trail follows the ledger by itself."""
        ...


class BackupWriter(Protocol):
    """A backup that is being written. Its methods block, and raise OSError."""

    def add_file(self, name: str, data: bytes) -> None:
        """A file of the state directory."""
        ...

    def add_lines(self, section: str, lines: Sequence[Line]) -> None:
        """Further lines of a section."""
        ...


@dataclass(frozen=True, slots=True)
class BackupPart:
    """A stretch of a backup: lines of a section, or one file."""

    section: str
    lines: tuple[Line, ...] = ()
    name: str = ""
    data: bytes = field(default=b"", repr=False)


class BackupReader(Protocol):
    """A backup. Reading blocks, and raises `core.backup.BadBackupError` for all that is wrong with it."""

    @property
    def manifest(self) -> Manifest:
        """What it says of itself."""
        ...

    def parts(self) -> Iterator[BackupPart]:
        """All parts in order; that all was there and undamaged is known once the iteration has ended."""
        ...
