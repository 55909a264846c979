"""Archives of purged records: compressed JSON lines, one file a batch, durable before anything is purged."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Sequence
from pathlib import Path

from jetway.adapters.statedir import atomic_write
from jetway.core.errors import PortError
from jetway.core.record import ServiceRecord, encode_record


class FileArchive:
    """Implements `ports.PurgeArchive` with files in one directory, mode 0600."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    async def store(self, name: str, records: Sequence[ServiceRecord]) -> str:
        """Write `<name>.jsonl.gz`, a record a line as the ledger had it; the file's path."""
        return await asyncio.to_thread(self._store, name, records)

    def _store(self, name: str, records: Sequence[ServiceRecord]) -> str:
        path = self._directory / f"{name}.jsonl.gz"
        lines = b"".join(encode_record(record) + b"\n" for record in records)
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            atomic_write(path, gzip.compress(lines))
        except OSError as error:
            raise PortError(f"lifecycle.archive_dir: {path} cannot be written: {error.strerror}") from error
        return str(path)
