"""Durable feeds: what one projection has not acknowledged comes again, over restarts of either side.

Every item is acknowledged by itself. With "acknowledge all up to here" a message lost between server and
daemon (the link broke while it was on its way) would be acknowledged by its successors and never be seen.
Here it comes again after the consumer's ack wait; projections do not mind the order: they go by (epoch,
revision).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Generic, TypeVar

import structlog
from pydantic import TypeAdapter

from jetway.adapters.nats.jetstream import JetStream
from jetway.adapters.nats.ledger import ChangeDecoder
from jetway.adapters.nats.names import EVENTS_PREFIX, GATEWAY_EVENTS_PREFIX, Names, stream_of
from jetway.adapters.nats.pull import Delivered, Pull
from jetway.adapters.nats.schema import Consumers
from jetway.core.errors import PortError
from jetway.core.record import decode_record
from jetway.core.rows import Event, events_of
from jetway.ports import Change, FeedItem

log = structlog.get_logger()

T = TypeVar("T")

_EVENT: TypeAdapter[Event] = TypeAdapter(Event)
_DECODED_A_TURN = 64
"""Some milliseconds; then others have the event loop."""


class NatsFeed(Generic[T]):
    """Implements `ports.Feed` over a durable consumer. Positions are sequences of the stream.

    Nothing runs before the first `fetch`. `decode` gives None for what is no item: it is acknowledged here.
    """

    def __init__(
        self, jetstream: JetStream, stream: str, durable: str, decode: Callable[[Delivered], T | None]
    ) -> None:
        self._js = jetstream
        self._stream = stream
        self._durable = durable
        self._decode = decode
        self._consumers = Consumers(jetstream)
        self._replies: dict[int, str] = {}
        self._handed_out: set[int] = set()
        self._pull = Pull(
            self._js, stream, task_name=f"nats-feed-{durable}", attach=self._attach, accept=self._accept
        )

    async def fetch(self, limit: int, timeout: float) -> Sequence[FeedItem[T]]:
        """Up to `limit` items, waiting up to `timeout` seconds for the first; empty when none came."""
        await self._pull.open()
        items: list[FeedItem[T]] = []
        for number, message in enumerate(await self._pull.take(limit, timeout), 1):
            if number % _DECODED_A_TURN == 0:
                await asyncio.sleep(0)
            value = self._decode(message)
            if value is None:
                await self._pass_over(message.sequence)
            else:
                items.append(FeedItem(value, message.sequence))
                self._handed_out.add(message.sequence)
        # What came again after a lost acknowledgement may be older than what came before it.
        items.sort(key=lambda item: item.position)
        return items

    async def acknowledge(self, position: int) -> None:
        """All that were fetched, up to and including this position, are dealt with."""
        for sequence in sorted(s for s in self._handed_out if s <= position):
            await self._acknowledge(sequence)

    async def lag(self) -> int:
        """How many items have not been acknowledged."""
        return _waiting(await self._info())

    async def oldest(self) -> datetime | None:
        """When the oldest of what has not been acknowledged was stored, by the server's clock; None: nothing."""
        info = await self._info()
        if not _waiting(info):
            return None
        stored = await self._js.read_next(self._stream, ">", int(info["ack_floor"]["stream_seq"]) + 1)
        return stored.written_at if stored else None

    async def close(self) -> None:
        """Stop pulling, and give back what was not acknowledged: whoever opens the feed next gets it."""
        await self._pull.close()
        with contextlib.suppress(PortError):  # without a link it comes again after the ack wait
            for reply in self._replies.values():
                await self._js.connection.publish(reply, b"-NAK")
        self._replies.clear()
        self._handed_out.clear()

    async def _info(self) -> dict[str, Any]:
        return await self._js.call(f"CONSUMER.INFO.{self._stream}.{self._durable}")

    async def _acknowledge(self, sequence: int) -> None:
        reply = self._replies.get(sequence)
        if reply is not None:
            await self._js.connection.publish(reply, b"+ACK")
        self._replies.pop(sequence, None)
        self._handed_out.discard(sequence)

    async def _pass_over(self, sequence: int) -> None:
        """What is no item. Where the link is lost it comes again; what was fetched with it is not lost."""
        try:
            await self._acknowledge(sequence)
        except PortError:
            self._replies.pop(sequence, None)

    async def _attach(self) -> str:
        await self._consumers.ensure(self._stream, self._durable)
        return self._durable

    def _accept(self, message: Delivered) -> bool:
        """A delivery of what is still in hand here only renews the place to acknowledge."""
        known = message.sequence in self._replies
        self._replies[message.sequence] = message.reply
        return not known


def _waiting(info: Mapping[str, Any]) -> int:
    """Not delivered yet, or not acknowledged."""
    return int(info["num_pending"]) + int(info["num_ack_pending"])


class RecordFeed(NatsFeed[Change]):
    """Every revision of every record, for the durable consumer `documents` or `rows`."""

    def __init__(self, jetstream: JetStream, names: Names, durable: str) -> None:
        decoder = ChangeDecoder(names.registry_bucket)
        super().__init__(jetstream, stream_of(names.registry_bucket), durable, decoder.decode)


class EventFeed(NatsFeed[Sequence[Event]]):
    """The audit trail: events of the records and what happened outside them."""

    def __init__(self, jetstream: JetStream, names: Names, durable: str = "events") -> None:
        super().__init__(jetstream, names.events_stream, durable, decode_events)


def decode_events(message: Delivered) -> Sequence[Event]:
    """The events of a message in REGISTRY_EVENTS; none for delete markers and for what is neither."""
    if message.is_marker:
        return ()
    try:
        if message.subject.startswith(GATEWAY_EVENTS_PREFIX):
            return (_EVENT.validate_json(message.data),)
        return events_of(decode_record(message.data))
    except ValueError:
        log.error(
            "an entry of the audit trail cannot be read",
            action="event_undecodable",
            key=message.subject.removeprefix(EVENTS_PREFIX),
            sequence=message.sequence,
        )
        return ()


def encode_event(event: Event) -> bytes:
    """An event as it stands in REGISTRY_AUDIT."""
    return _EVENT.dump_json(event)
