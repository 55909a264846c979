"""The ledger: the bucket `registry`, one record per key, written by compare-and-swap."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from functools import partial

import structlog

from jetway.adapters.nats.jetstream import OPERATION, ApiError, JetStream, Stored
from jetway.adapters.nats.meta import LedgerMeta
from jetway.adapters.nats.names import Names, stream_of, subject_of
from jetway.adapters.nats.pull import Delivered
from jetway.adapters.nats.tail import Tail
from jetway.core.chain import digest_of
from jetway.core.errors import ConflictError, OutcomeUnknownError, PortError, UnavailableError
from jetway.core.ids import ServiceKey
from jetway.core.record import ServiceRecord, decode_record, encode_record
from jetway.ports import Change, ChangeBatch, Entry

log = structlog.get_logger()


class NatsLedger:
    """Implements `ports.Ledger`. `undecodable` counts values that were passed over by `follow`."""

    def __init__(self, jetstream: JetStream, names: Names, meta: LedgerMeta) -> None:
        self._js = jetstream
        self._names = names
        self._meta = meta
        self._stream = stream_of(names.registry_bucket)
        self._decoder = ChangeDecoder(names.registry_bucket)
        self._checked_link = -1

    @property
    def epoch(self) -> int:
        """The epoch that new revisions carry."""
        return self._meta.epoch

    @property
    def undecodable(self) -> int:
        """Values that are not records, passed over."""
        return self._decoder.undecodable

    async def read(self, key: ServiceKey) -> Entry:
        """The key as the ledger has it now. Raises PortError when the value is not a record."""
        await self._require_same_stream()
        stored = await self._js.read_last(self._stream, self._names.record_subject(key))
        if stored is None:
            return Entry(None, 0)
        if stored.is_marker:
            return Entry(None, stored.sequence)
        try:
            return Entry(decode_record(stored.data), stored.sequence, digest_of(stored.data))
        except ValueError as error:
            raise PortError(f"the ledger's value of {key} is not a record") from error

    async def write(self, record: ServiceRecord, expected: int) -> int:
        """Write if the key is still at sequence `expected` (0: it was never written); the new sequence."""
        await self._require_same_stream()
        subject = self._names.record_subject(record.key)
        try:
            return await self._js.publish(subject, encode_record(record), expected=expected)
        except OutcomeUnknownError as error:
            # Whatever came next on this key after `expected` decides: there can be only one such write.
            read = partial(self._js.read_next, self._stream, subject, expected + 1)
            return _settle(record, await self._js.read_back(read, error), error)

    async def purge(self, key: ServiceKey, expected: int) -> int:
        """Forget the key and its history if it is still at sequence `expected`; the new sequence."""
        await self._require_same_stream()
        subject = self._names.record_subject(key)
        headers = {OPERATION: "PURGE", "Nats-Rollup": "sub"}
        try:
            return await self._js.publish(subject, b"", expected=expected, headers=headers)
        except OutcomeUnknownError as error:
            read = partial(self._js.read_next, self._stream, subject, expected + 1)
            found = await self._js.read_back(read, error)
            if found is None:
                raise
            if not found.is_marker:
                raise ConflictError("another write came first") from error
            return found.sequence

    async def _require_same_stream(self) -> None:
        """Once a link: what comes back after an outage may be another world, in which nothing may be decided."""
        link = self._js.connection.reconnects
        if link == self._checked_link:
            return
        try:
            info = await self._js.call(f"STREAM.INFO.{self._stream}")
        except ApiError as error:
            raise UnavailableError(f"the ledger cannot be found in NATS: {error}") from error
        except OutcomeUnknownError as error:
            raise UnavailableError(str(error)) from error
        if self._meta.stream_created and str(info["created"]) != self._meta.stream_created:
            raise UnavailableError("the ledger in NATS is not the one that this daemon has read")
        self._checked_link = link

    async def follow(self, after: int = 0) -> AsyncIterator[ChangeBatch]:
        """All changes after that sequence, newest per key at first, then live, for ever, over reconnects.

        Raises StreamReplacedError when the ledger is not the one that was opened.
        """
        subjects = subject_of(self._names.registry_bucket, ">")
        tail = Tail(
            self._js, self._stream, subjects, after=after, created=self._meta.stream_created, name="ledger"
        )
        try:
            while True:
                stretch = await tail.next()
                changes = [c for m in stretch.messages if (c := self._decoder.decode(m)) is not None]
                position = stretch.messages[-1].sequence if stretch.messages else 0
                yield ChangeBatch(changes, stretch.caught_up, position)
        finally:
            await tail.close()

    async def last_sequence(self) -> int:
        """The sequence of the newest write."""
        info = await self._js.call(f"STREAM.INFO.{self._stream}")
        return int(info["state"]["last_seq"])

    async def history(self, key: ServiceKey) -> Sequence[ServiceRecord]:
        """The revisions that are still kept, oldest first; none from before the key was purged."""
        subject = self._names.record_subject(key)
        records: list[ServiceRecord] = []
        sequence = 0
        # One read after the other: a record has few revisions, and who asks for several asks for them at once.
        while (stored := await self._js.read_next(self._stream, subject, sequence + 1)) is not None:
            sequence = stored.sequence
            if stored.is_marker:
                records.clear()
                continue
            with contextlib.suppress(ValueError):  # it is no record: `follow` has told
                records.append(decode_record(stored.data))
        return records


class ChangeDecoder:
    """Delivered messages as changes. What is not a record is counted, logged and passed over."""

    def __init__(self, bucket: str) -> None:
        self._start = len(subject_of(bucket, ""))
        self.undecodable = 0

    def decode(self, message: Delivered) -> Change | None:
        """The change, or None for what is none."""
        try:
            key = ServiceKey.parse(message.subject[self._start :])
            record = None if message.is_marker else decode_record(message.data)
        except ValueError:
            self.undecodable += 1
            log.error(
                "a value in the ledger is not a record",
                action="ledger_undecodable",
                key=message.subject[self._start :],
                sequence=message.sequence,
            )
            return None
        digest = b"" if record is None else digest_of(message.data)
        return Change(key, record, message.sequence, digest)


def _settle(record: ServiceRecord, found: Stored | None, error: OutcomeUnknownError) -> int:
    """The sequence of one's own write; ConflictError when another came first; else it stays unknown."""
    if found is None:
        raise error
    try:
        own = (
            not found.is_marker
            and decode_record(found.data).transition.transition_id == record.transition.transition_id
        )
    except ValueError:
        own = False
    if not own:
        raise ConflictError("another write came first") from error
    return found.sequence
