"""The config bucket: documents and checker templates."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from functools import partial

from jetway.adapters.nats.bucket import Bucket
from jetway.adapters.nats.jetstream import JetStream
from jetway.adapters.nats.names import Names
from jetway.core.errors import OutcomeUnknownError
from jetway.ports import StoredDocument


class NatsDocuments:
    """Implements `ports.Documents`. The server makes `config_watch` and `edge.config.>` of it."""

    def __init__(self, jetstream: JetStream, names: Names) -> None:
        self._js = jetstream
        self._bucket = Bucket(jetstream, names.config_bucket)

    async def read(self, key: str) -> StoredDocument:
        """The key as it stands now."""
        return await self._bucket.read(key)

    async def write(self, key: str, data: bytes, expected: int) -> int:
        """Write if the key is still at sequence `expected`; the new sequence."""
        try:
            return await self._bucket.write(key, data, expected)
        except OutcomeUnknownError as error:
            # A document is derived: the same bytes after `expected` are as good as one's own.
            found = await self._js.read_back(partial(self._bucket.read, key), error)
            if found.sequence > expected and found.data == data:
                return found.sequence
            raise

    async def delete(self, key: str, expected: int) -> None:
        """Leave a delete marker if the key is still at sequence `expected`."""
        try:
            await self._bucket.delete(key, expected)
        except OutcomeUnknownError as error:
            found = await self._js.read_back(partial(self._bucket.read, key), error)
            if found.sequence <= expected or found.data is not None:
                raise

    async def forget_earlier(self, key: str) -> None:
        """Drop all versions but the newest. Raises UnavailableError."""
        await self._bucket.forget_earlier(key)

    async def keys(self, prefix: str) -> Sequence[str]:
        """Existing keys that begin with `prefix`, sorted."""
        return await self._bucket.keys(prefix)

    async def scan(self, prefix: str) -> AsyncGenerator[Sequence[tuple[str, StoredDocument]], None]:
        """Every existing key that begins with `prefix`, in batches, and then an end."""
        async with aclosing(self._bucket.scan()) as batches:
            async for batch in batches:
                yield [(key, stored) for key, stored in batch if key.startswith(prefix)]
