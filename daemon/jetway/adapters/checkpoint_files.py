"""Checkpoints as files in the state directory, one each: small, and meant to be copied elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import structlog

from jetway.adapters.statedir import atomic_write
from jetway.core.checkpoint import Signed, decode_signed, encode_signed, read_checkpoint
from jetway.core.errors import PortError, UnavailableError

log = structlog.get_logger()

PUBLIC_KEY_FILE = "public-key.pem"


class CheckpointFiles:
    """Implements `ports.CheckpointShelf`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    async def store(self, signed: Signed, public_pem: bytes) -> None:
        """A file of its own, durable when this returns. Raises PortError."""
        await asyncio.to_thread(self._store, signed, public_pem)

    async def load(self) -> Sequence[Signed]:
        """All of them. Raises PortError, naming the file, for one that cannot be read."""
        return await asyncio.to_thread(self._load)

    def _store(self, signed: Signed, public_pem: bytes) -> None:
        checkpoint = read_checkpoint(signed)
        name = f"{checkpoint.number:06d}-{checkpoint.made_at:%Y%m%dT%H%M%SZ}.json"
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            atomic_write(self._directory / name, encode_signed(signed), 0o600)
            atomic_write(self._directory / PUBLIC_KEY_FILE, public_pem, 0o600)
        except OSError as error:
            why = f"the checkpoint cannot be kept in {self._directory}: {error.strerror}"
            raise UnavailableError(why) from error

    def _load(self) -> list[Signed]:
        found = []
        for path in sorted(self._directory.glob("*.json")):
            try:
                found.append(decode_signed(path.read_bytes()))
            except ValueError:
                raise PortError(f"{path} is no checkpoint") from None
            except OSError as error:
                raise PortError(f"{path} cannot be read: {error.strerror}") from error
        return found
