"""All that stands in NATS and cannot be derived, read from end to end while the daemon goes on: for a backup.

A key that is written meanwhile comes as it was or as it is, or both, marked `again`: each line is whole, and the
last one counts. A key that is deleted meanwhile comes as deleted.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing

from jetway.adapters.nats.jetstream import JetStream
from jetway.adapters.nats.lease import LEASE_KEY
from jetway.adapters.nats.names import EVENTS_PREFIX, LEDGER_KEY, RESTORE_KEY, Names, stream_of, subject_of
from jetway.adapters.nats.pull import Delivered
from jetway.adapters.nats.tail import Stretch, Tail
from jetway.adapters.nats.views import NatsViews
from jetway.core.backup import SECTIONS, Line
from jetway.core.errors import UnavailableError

_SILENT_SECONDS = 30.0
_TRAIL_SECONDS = 30.0
_POLL_SECONDS = 0.05
_OWN = frozenset({LEDGER_KEY, LEASE_KEY, RESTORE_KEY})
"""Of the meta bucket: the identity stands in the manifest, and the others belong to the moment."""


def buckets(names: Names) -> Mapping[str, str]:
    """The bucket of each section."""
    found = (
        names.config_bucket,
        names.api_tokens_bucket,
        names.idempotency_bucket,
        names.registry_bucket,
        names.meta_bucket,
    )
    return dict(zip(SECTIONS, found, strict=True))


class NatsImage:
    """Implements `ports.LedgerImage`."""

    def __init__(self, jetstream: JetStream, names: Names) -> None:
        self._js = jetstream
        self._names = names
        self._buckets = buckets(names)

    async def walk(self, section: str) -> AsyncGenerator[Sequence[Line], None]:
        """Every key of a section, in batches, and then an end."""
        bucket = self._buckets[section]
        before = await self._last_sequence(stream_of(bucket))
        start = len(subject_of(bucket, ""))
        async with aclosing(self._read(stream_of(bucket), subject_of(bucket, ">"), whole=False)) as stretches:
            async for stretch in stretches:
                lines = [_line(m, m.subject[start:], before) for m in stretch.messages]
                yield [line for line in lines if line is not None and line.key not in _left_out(section)]

    async def walk_trail(self, limit: int = 0) -> AsyncGenerator[Sequence[Line], None]:
        """The audit trail as far as it went when it was asked for, or its first `limit` entries."""
        stream = self._names.events_stream
        end = await self._last_sequence(stream)
        left = limit
        async with aclosing(self._read(stream, f"{EVENTS_PREFIX}>", whole=True)) as stretches:
            async for stretch in stretches:
                lines = [_entry(message) for message in stretch.messages if message.sequence <= end]
                lines = lines[:left] if limit else lines
                left -= len(lines)
                yield lines
                if (limit and left <= 0) or not stretch.messages or stretch.messages[-1].sequence >= end:
                    return

    async def settle_trail(self, seconds: float = _TRAIL_SECONDS) -> int:
        """Wait until the trail has what the ledger and the log of other events hold now.

        How many entries it lacks after `seconds`.
        """
        views = NatsViews(self._js, self._names)
        wanted = await views.wanted("events")
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while True:
            taken = await views.taken("events")
            lacking = sum(max(0, end - done) for end, done in zip(wanted, taken, strict=True))
            if not lacking or loop.time() >= deadline:
                return lacking
            await asyncio.sleep(_POLL_SECONDS)

    async def _read(self, stream: str, subjects: str, *, whole: bool) -> AsyncGenerator[Stretch, None]:
        tail = Tail(self._js, stream, subjects, name=f"{stream}-backup", whole=whole)
        try:
            caught_up = False
            while not caught_up:
                try:
                    async with asyncio.timeout(_SILENT_SECONDS):
                        stretch = await tail.next()
                except TimeoutError:
                    why = f"the stream {stream} was not read on for {_SILENT_SECONDS:g} s"
                    raise UnavailableError(why) from None
                caught_up = stretch.caught_up
                yield stretch
        finally:
            await tail.close()

    async def _last_sequence(self, stream: str) -> int:
        return int((await self._js.call(f"STREAM.INFO.{stream}"))["state"]["last_seq"])


def _line(message: Delivered, key: str, before: int) -> Line | None:
    again = message.sequence > before
    if message.is_marker:
        return Line(key, None, again) if again else None
    return Line(key, message.data, again)


def _entry(message: Delivered) -> Line:
    return Line(message.subject, None if message.is_marker else message.data)


def _left_out(section: str) -> frozenset[str]:
    return _OWN if section == "meta" else frozenset()
