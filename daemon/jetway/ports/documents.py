"""Config documents."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class StoredDocument:
    """A key of the config bucket: its bytes, None when deleted or absent, and the sequence to expect."""

    data: bytes | None
    sequence: int


class Documents(Protocol):
    """The bucket of config documents and checker templates."""

    async def read(self, key: str) -> StoredDocument:
        """The key as it stands now."""
        ...

    async def write(self, key: str, data: bytes, expected: int) -> int:
        """Write if the key is still at sequence `expected`; the new sequence."""
        ...

    async def delete(self, key: str, expected: int) -> None:
        """Leave a delete marker if the key is still at sequence `expected`."""
        ...

    async def forget_earlier(self, key: str) -> None:
        """Drop all versions but the newest; what was in them cannot be read any more."""
        ...

    async def keys(self, prefix: str) -> Sequence[str]:
        """Existing keys that begin with `prefix`, sorted."""
        ...

    def scan(self, prefix: str) -> AsyncGenerator[Sequence[tuple[str, StoredDocument]], None]:
        """Every existing key that begins with `prefix`, in batches, and then an end.

        What changes meanwhile may come as it was, as it is, or twice. Close it when done.
        """
        ...
