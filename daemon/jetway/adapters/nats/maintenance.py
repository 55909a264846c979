"""Maintenance windows, in the meta bucket: one small key for each."""

from __future__ import annotations

from collections.abc import Sequence

import structlog
from pydantic import TypeAdapter

from jetway.adapters.nats.bucket import Bucket
from jetway.adapters.nats.jetstream import JetStream
from jetway.adapters.nats.names import Names
from jetway.core.maintenance import MaintenanceWindow

log = structlog.get_logger()

_PREFIX = "maintenance."
_WINDOW: TypeAdapter[MaintenanceWindow] = TypeAdapter(MaintenanceWindow)


class NatsMaintenanceStore:
    """Implements `ports.MaintenanceStore`."""

    def __init__(self, jetstream: JetStream, names: Names) -> None:
        self._bucket = Bucket(jetstream, names.meta_bucket)

    async def load(self) -> Sequence[MaintenanceWindow]:
        """All that are kept, those that are over included. One that cannot be read is left out."""
        found = []
        for key in await self._bucket.keys(_PREFIX):
            stored = await self._bucket.read(key)
            if stored.data is None:
                continue
            try:
                found.append(_WINDOW.validate_json(stored.data))
            except ValueError:
                log.error("a maintenance window cannot be read", action="maintenance_undecodable", key=key)
        return found

    async def put(self, window: MaintenanceWindow) -> None:
        """Keep it, in the place of one of the same id."""
        key = f"{_PREFIX}{window.window_id}"
        stored = await self._bucket.read(key)
        await self._bucket.write(key, _WINDOW.dump_json(window), stored.sequence)

    async def remove(self, window_id: str) -> None:
        """Forget it, if it is there."""
        key = f"{_PREFIX}{window_id}"
        stored = await self._bucket.read(key)
        if stored.data is not None:
            await self._bucket.delete(key, stored.sequence)
