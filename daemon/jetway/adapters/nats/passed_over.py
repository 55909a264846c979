"""Writes of the ledger that the stream of events passed over: it has the one before and the one after, for good.

The server carries a source's messages over in their order, and every entry names the sequence that it had there.
So where two entries that follow one another name sequences with others between, these never came: a full disk can
do that. Each entry is looked at once, by its headers alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from jetway.adapters.nats.jetstream import JetStream
from jetway.adapters.nats.names import EVENTS_PREFIX, GATEWAY_EVENTS_PREFIX, Names, stream_of
from jetway.adapters.nats.pull import Delivered
from jetway.adapters.nats.tail import Tail
from jetway.core.errors import UnavailableError
from jetway.core.record import EventType
from jetway.ports import PassedOver

_SOURCE_HEADER = "Nats-Stream-Source"
"""`<stream> <sequence> ...`: where a message of a view comes from."""
_ID_HEADER = "Nats-Msg-Id"
_GAP_SUBJECT = f"{GATEWAY_EVENTS_PREFIX}{EventType.AUDIT_GAP.value}"
_MOST_GAPS = 1000
_MOST_TOLD = 50_000
_SILENT_SECONDS = 30.0


class LedgerGaps:
    """What was passed over so far, and what entries have been told of it."""

    def __init__(self, jetstream: JetStream, names: Names) -> None:
        self._js = jetstream
        self._stream = names.events_stream
        self._ledger = stream_of(names.registry_bucket)
        self._created = ""
        self._begin()

    def _begin(self) -> None:
        self._seen_up_to = 0
        self._newest = 0
        """The ledger's sequence of the last entry that comes from there."""
        self._gaps: list[tuple[int, int, int]] = []
        """The first and the last that were passed over, and the entry that came instead."""
        self._told: dict[str, None] = {}

    async def look(self) -> PassedOver:
        """All gaps but those that are older than the stream is kept. Raises UnavailableError."""
        info = await self._js.call(f"STREAM.INFO.{self._stream}")
        first, last = int(info["state"]["first_seq"]), int(info["state"]["last_seq"])
        if info["created"] != self._created or last < self._seen_up_to:
            self._created = info["created"]
            self._begin()
        if first - 1 > self._seen_up_to:
            self._newest = 0  # what came in between was not looked at, so nothing follows from it
        await self._read_on(max(self._seen_up_to, first - 1), last)
        self._gaps = [gap for gap in self._gaps if gap[2] >= first]
        return PassedOver(tuple((begin, end) for begin, end, _ in self._gaps), frozenset(self._told))

    async def _read_on(self, after: int, last: int) -> None:
        if after >= last:
            return
        tail = Tail(
            self._js,
            self._stream,
            f"{EVENTS_PREFIX}>",
            after=after,
            name=f"{self._stream}-gaps",
            whole=True,
            headers_only=True,
        )
        try:
            caught_up = False
            while self._seen_up_to < last and not caught_up:
                async with asyncio.timeout(_SILENT_SECONDS):
                    stretch = await tail.next()
                for message in stretch.messages:
                    self._take(message)
                caught_up = stretch.caught_up
        except TimeoutError:
            why = f"the stream {self._stream} was not read on for {_SILENT_SECONDS:g} s"
            raise UnavailableError(why) from None
        finally:
            await tail.close()

    def _take(self, message: Delivered) -> None:
        self._seen_up_to = message.sequence
        if message.subject == _GAP_SUBJECT:
            self._told[message.headers.get(_ID_HEADER, "")] = None
            if len(self._told) > _MOST_TOLD:
                del self._told[next(iter(self._told))]
        sequence = origin_of(message.headers, self._ledger)
        if not sequence:
            return
        # Going back means that the ledger was made anew, or that a view begins from its source once more.
        if 0 < self._newest < sequence - 1 and len(self._gaps) < _MOST_GAPS:
            self._gaps.append((self._newest + 1, sequence - 1, message.sequence))
        self._newest = sequence


def origin_of(headers: Mapping[str, str], stream: str) -> int:
    """The sequence that a message of a view had in `stream`; 0 where it is from elsewhere."""
    name, _, rest = headers.get(_SOURCE_HEADER, "").partition(" ")
    sequence = rest.partition(" ")[0]
    return int(sequence) if name == stream and sequence.isdecimal() else 0
