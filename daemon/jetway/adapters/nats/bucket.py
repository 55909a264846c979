"""A key-value bucket as plain functions."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Sequence

from jetway.adapters.nats.jetstream import OPERATION, JetStream
from jetway.adapters.nats.names import stream_of, subject_of
from jetway.adapters.nats.tail import Stretch, Tail
from jetway.core.errors import PortError, UnavailableError
from jetway.ports import StoredDocument

_KEY = re.compile(r"[-/_=a-zA-Z0-9]+(\.[-/_=a-zA-Z0-9]+)*")
_READS_AT_ONCE = 64
_SCAN_SECONDS = 15.0


class Bucket:
    """One bucket. A deleted key keeps a marker with a sequence of its own, which a new write must expect."""

    def __init__(self, jetstream: JetStream, name: str) -> None:
        self._js = jetstream
        self.name = name
        self.stream = stream_of(name)

    def subject(self, key: str) -> str:
        """The key's subject. Raises PortError for what cannot be a key."""
        if not _KEY.fullmatch(key):
            raise PortError(f"{key!r} cannot be a key of the bucket {self.name}")
        return subject_of(self.name, key)

    async def read(self, key: str) -> StoredDocument:
        """The key as it stands now."""
        stored = await self._js.read_last(self.stream, self.subject(key))
        if stored is None:
            return StoredDocument(None, 0)
        return StoredDocument(None if stored.is_marker else stored.data, stored.sequence)

    async def write(self, key: str, data: bytes, expected: int) -> int:
        """Write if the key is still at `expected`; the new sequence."""
        return await self._js.publish(self.subject(key), data, expected=expected)

    async def delete(self, key: str, expected: int) -> None:
        """Leave a delete marker if the key is still at `expected`."""
        await self._js.publish(self.subject(key), b"", expected=expected, headers={OPERATION: "DEL"})

    async def forget_earlier(self, key: str) -> None:
        """Drop all versions but the newest, which may be a marker."""
        await self._js.call(f"STREAM.PURGE.{self.stream}", {"filter": self.subject(key), "keep": 1})

    async def keys(self, prefix: str = "") -> Sequence[str]:
        """Existing keys that begin with `prefix`, sorted."""
        found = [key for key in await self._subjects() if key.startswith(prefix)]
        # The server lists deleted keys too, so each one is looked at.
        gate = asyncio.Semaphore(_READS_AT_ONCE)

        async def exists(key: str) -> bool:
            async with gate:
                return (await self.read(key)).data is not None

        existing: list[str] = []
        for start in range(0, len(found), 1000):
            some = found[start : start + 1000]
            answers = await asyncio.gather(*map(exists, some))
            existing += [key for key, there in zip(some, answers, strict=True) if there]
        return sorted(existing)

    async def scan(self) -> AsyncGenerator[Sequence[tuple[str, StoredDocument]], None]:
        """Every existing key with its value, in batches: one delivery instead of a read for each."""
        start = len(subject_of(self.name, ""))
        tail = Tail(self._js, self.stream, subject_of(self.name, ">"), name=f"{self.name}-scan")
        try:
            caught_up = False
            while not caught_up:
                stretch = await self._next(tail)
                caught_up = stretch.caught_up
                yield [
                    (message.subject[start:], StoredDocument(message.data, message.sequence))
                    for message in stretch.messages
                    if not message.is_marker
                ]
        finally:
            await tail.close()

    async def _next(self, tail: Tail) -> Stretch:
        try:
            async with asyncio.timeout(_SCAN_SECONDS):
                return await tail.next()
        except TimeoutError:
            raise UnavailableError(
                f"the bucket {self.name} was not read on for {_SCAN_SECONDS:g} s"
            ) from None

    async def _subjects(self) -> Sequence[str]:
        """The keys of all messages, deleted ones included."""
        start = len(subject_of(self.name, ""))
        subjects: dict[str, None] = {}
        while True:
            question = {"subjects_filter": subject_of(self.name, ">"), "offset": len(subjects)}
            info = await self._js.call(f"STREAM.INFO.{self.stream}", question, timeout=10)
            page = info["state"].get("subjects") or {}
            before = len(subjects)
            subjects.update(dict.fromkeys(page))
            if len(subjects) == before or len(subjects) >= int(info.get("total", 0)):
                return [subject[start:] for subject in subjects if _KEY.fullmatch(subject[start:])]
