"""An empty NATS that is filled from a backup.

A mark in the meta bucket, there before anything else, keeps daemons out until all is done; what an attempt left
that did not come so far is removed by the next one. The audit trail is a view, which nobody can write: while it
is loaded, it is a stream with subjects of its own, and becomes the view afterwards.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

from jetway.adapters.nats.image import buckets
from jetway.adapters.nats.jetstream import OPERATION, STREAM_NOT_FOUND, ApiError, JetStream
from jetway.adapters.nats.layout import Layout
from jetway.adapters.nats.meta import LedgerMeta, MetaStore
from jetway.adapters.nats.names import EVENTS_PREFIX, RESTORE_KEY, stream_of, subject_of
from jetway.adapters.nats.schema import Schema
from jetway.core.backup import Line
from jetway.core.errors import StartupError

_AT_ONCE = 256
_SECONDS = 30.0
"""How long one of so many writes may take on a slow disk."""


class NatsLoader:
    """Implements `ports.LedgerLoader`."""

    def __init__(self, jetstream: JetStream, layout: Layout, store: MetaStore) -> None:
        self._js = jetstream
        self._names = layout.names
        self._layout = layout
        self._schema = Schema(jetstream, layout)
        self._store = store
        self._streams = {
            str(stream["name"]): dict(stream)
            for stream in layout.streams(jetstream.connection.server_version)
        }
        self._buckets = buckets(layout.names)
        self._gate = asyncio.Semaphore(_AT_ONCE)

    async def is_complete(self, ledger_id: str, epoch: int) -> bool:
        """Whether this ledger stands there, with nothing left to do."""
        await self._schema.check_server()
        if not await self._exists(stream_of(self._names.meta_bucket)):
            return False
        return await self._store.stands(ledger_id, epoch)

    async def begin(self, told: bytes) -> None:
        """Make everything. Raises StartupError where there is a ledger, PortErrors else."""
        await self._schema.check_server()
        self._js.replicas = self._layout.replicas
        await self._clear()
        meta, events = stream_of(self._names.meta_bucket), self._names.events_stream
        await self._create(self._streams[meta])
        await self._store.begin_restore(told)
        for name, config in self._streams.items():
            if name not in (meta, events):
                await self._create(config)
        loading = {field: value for field, value in self._streams[events].items() if field != "sources"}
        await self._create(loading | {"subjects": [f"{EVENTS_PREFIX}>"]})

    async def load(self, section: str, lines: Sequence[Line]) -> None:
        """Write keys that are not there yet. Raises ConflictError for one that is."""
        bucket = self._buckets[section]
        await self._all(
            self._publish(subject_of(bucket, line.key), line.data or b"", expected=0) for line in lines
        )

    async def load_trail(self, lines: Sequence[Line]) -> None:
        """Append to the audit trail. Not after `open_trail`."""
        await self._all(
            self._publish(line.key, line.data or b"", {OPERATION: "DEL"} if line.data is None else None)
            for line in lines
        )

    async def open_trail(self) -> None:
        """From here on the trail follows the ledger by itself."""
        events = self._names.events_stream
        found = dict((await self._js.call(f"STREAM.INFO.{events}"))["config"])
        found.pop("metadata", None)
        wanted = found | {"subjects": [], "sources": self._streams[events]["sources"]}
        await self._js.call(f"STREAM.UPDATE.{events}", wanted, timeout=15)
        await self._schema.ensure(restoring=True)

    async def complete(self, meta: LedgerMeta) -> None:
        """Give the ledger its identity."""
        await self._store.complete_restore(meta)

    async def end(self) -> None:
        """Let daemons in."""
        await self._store.end_restore()

    async def _clear(self) -> None:
        """Remove what an attempt left that was not completed; refuse anything else."""
        there = [name for name in self._streams if await self._exists(name)]
        if not there:
            return
        meta = stream_of(self._names.meta_bucket)
        mark = subject_of(self._names.meta_bucket, RESTORE_KEY)
        unfinished = await self._js.read_last(meta, mark) if meta in there else None
        if unfinished is None or unfinished.is_marker:
            raise StartupError(
                f"nats: there is a ledger at the server already (streams {', '.join(there)}): restore into a "
                "NATS without one, or name another nats.bucket_prefix"
            )
        # The mark goes last, so that another attempt that is cut off can be taken up as well.
        for name in sorted(there, key=lambda name: name == meta):
            await self._js.call(f"STREAM.DELETE.{name}", timeout=15)

    async def _exists(self, name: str) -> bool:
        try:
            await self._js.call(f"STREAM.INFO.{name}")
        except ApiError as error:
            if error.err_code == STREAM_NOT_FOUND:
                return False
            raise
        return True

    async def _create(self, config: dict[str, Any]) -> None:
        await self._js.call(f"STREAM.CREATE.{config['name']}", config, timeout=15)

    async def _publish(
        self, subject: str, data: bytes, headers: dict[str, str] | None = None, *, expected: int | None = None
    ) -> None:
        async with self._gate:
            await self._js.publish(subject, data, headers=headers, expected=expected, timeout=_SECONDS)

    async def _all(self, writes: Iterable[Any]) -> None:
        results = await asyncio.gather(*writes, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
