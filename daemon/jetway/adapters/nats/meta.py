"""The ledger's identity: which ledger it is, and its epoch."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, replace

from jetway.adapters.nats.bucket import Bucket
from jetway.adapters.nats.jetstream import JetStream
from jetway.adapters.nats.names import LEDGER_KEY, RESTORE_KEY, Names, stream_of
from jetway.adapters.nats.schema import UNFINISHED_RESTORE
from jetway.core.errors import ConflictError, PortError, StartupError
from jetway.core.times import rfc3339
from jetway.ports import Clock, Identifiers

_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class LedgerMeta:
    """`epoch` is the whole Unix second at which it began; it orders before the revision."""

    ledger_id: str
    epoch: int
    created_at: str
    stream_created: str = ""
    """When the stream behind the ledger was made, as the server tells it: changes when it is replaced."""


class MetaStore:
    """Keeps the identity under the key `ledger` of the meta bucket."""

    def __init__(self, jetstream: JetStream, names: Names, clock: Clock, identifiers: Identifiers) -> None:
        self._js = jetstream
        self._bucket = Bucket(jetstream, names.meta_bucket)
        self._registry = stream_of(names.registry_bucket)
        self._clock = clock
        self._identifiers = identifiers

    async def open(self) -> LedgerMeta:
        """The identity, made at the first start; several daemons that start at once agree on one.

        Raises StartupError when it cannot be read.
        """
        try:
            await self._require_whole()
            meta = await self._read_or_create()
            info = await self._js.call(f"STREAM.INFO.{self._registry}")
        except PortError as error:
            raise StartupError(f"nats: the ledger's identity cannot be read: {error}") from error
        return replace(meta, stream_created=str(info["created"]))

    async def begin_restore(self, told: bytes) -> None:
        """From now on no daemon opens the ledger. Raises ConflictError where there is one already."""
        await self._bucket.write(RESTORE_KEY, told, (await self._bucket.read(RESTORE_KEY)).sequence)
        if (await self._bucket.read(LEDGER_KEY)).data is not None:
            raise ConflictError("a daemon began a ledger there meanwhile")

    async def stands(self, ledger_id: str, epoch: int) -> bool:
        """Whether this very ledger is there, and open to daemons."""
        if (await self._bucket.read(RESTORE_KEY)).data is not None:
            return False
        stored = await self._bucket.read(LEDGER_KEY)
        meta = _decode(stored.data) if stored.data is not None else None
        return meta is not None and (meta.ledger_id, meta.epoch) == (ledger_id, epoch)

    async def complete_restore(self, meta: LedgerMeta) -> None:
        """Give the ledger its identity. Raises ConflictError where a daemon gave it another one."""
        await self._bucket.write(LEDGER_KEY, _encode(meta), 0)

    async def end_restore(self) -> None:
        """Let daemons in."""
        await self._bucket.delete(RESTORE_KEY, (await self._bucket.read(RESTORE_KEY)).sequence)

    async def begin_epoch(self) -> LedgerMeta:
        """A new epoch, higher than all before, for a ledger that was restored. Raises PortErrors."""
        stored = await self._bucket.read(LEDGER_KEY)
        if stored.data is None:
            raise PortError("the ledger has no identity")
        meta = _decode(stored.data)
        newer = replace(meta, epoch=max(meta.epoch + 1, self._now()))
        await self._bucket.write(LEDGER_KEY, _encode(newer), stored.sequence)
        return newer

    async def agree(self, name: str, value: str) -> str:
        """What all daemons of this ledger agree on under `name`: `value`, if nobody said anything before.

        Raises StartupError when it cannot be read.
        """
        try:
            for _ in range(_ATTEMPTS):
                stored = await self._bucket.read(name)
                if stored.data is not None:
                    return stored.data.decode(errors="replace")
                with contextlib.suppress(ConflictError):
                    await self._bucket.write(name, value.encode(), stored.sequence)
        except PortError as error:
            raise StartupError(f"nats: {name} cannot be read: {error}") from error
        raise StartupError(f"nats: {name} cannot be agreed on")

    async def agreed(self, name: str) -> str | None:
        """What was agreed on under `name`, None for nothing yet. Raises StartupError when it cannot be read."""
        try:
            data = (await self._bucket.read(name)).data
        except PortError as error:
            raise StartupError(f"nats: {name} cannot be read: {error}") from error
        return None if data is None else data.decode(errors="replace")

    async def agree_anew(self, name: str, before: str, value: str) -> None:
        """Put `value` in the place of `before`. Raises PortErrors; ConflictError where another stands there."""
        stored = await self._bucket.read(name)
        if stored.data != before.encode():
            raise ConflictError(f"{name} was changed by somebody else")
        await self._bucket.write(name, value.encode(), stored.sequence)

    async def _read_or_create(self) -> LedgerMeta:
        for _ in range(_ATTEMPTS):
            stored = await self._bucket.read(LEDGER_KEY)
            if stored.data is not None:
                return _decode(stored.data)
            meta = LedgerMeta(self._identifiers.new_id(), self._now(), rfc3339(self._clock.now()))
            try:
                await self._bucket.write(LEDGER_KEY, _encode(meta), stored.sequence)
            except ConflictError:
                continue
            return meta
        raise PortError("others keep changing it")

    async def _require_whole(self) -> None:
        if (await self._bucket.read(RESTORE_KEY)).data is not None:
            raise StartupError(UNFINISHED_RESTORE)

    def _now(self) -> int:
        return int(self._clock.now().timestamp())


def _encode(meta: LedgerMeta) -> bytes:
    fields = {"ledger_id": meta.ledger_id, "epoch": meta.epoch, "created_at": meta.created_at}
    return json.dumps(fields).encode()


def _decode(data: bytes) -> LedgerMeta:
    try:
        fields = json.loads(data)
        return LedgerMeta(str(fields["ledger_id"]), int(fields["epoch"]), str(fields["created_at"]))
    except (ValueError, KeyError, TypeError) as error:
        raise PortError("it is damaged") from error
