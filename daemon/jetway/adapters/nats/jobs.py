"""The last runs of rare jobs, in the meta bucket: one small key for each job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import structlog
from pydantic import TypeAdapter

from jetway.adapters.nats.bucket import Bucket
from jetway.adapters.nats.jetstream import JetStream
from jetway.adapters.nats.names import Names
from jetway.ports import JobRun

log = structlog.get_logger()

_PREFIX = "jobs."
_RUNS: TypeAdapter[tuple[JobRun, ...]] = TypeAdapter(tuple[JobRun, ...])


class NatsJobStore:
    """Implements `ports.JobStore`."""

    def __init__(self, jetstream: JetStream, names: Names) -> None:
        self._bucket = Bucket(jetstream, names.meta_bucket)

    async def load(self) -> Mapping[str, Sequence[JobRun]]:
        """By job, the newest first. What cannot be read is as if it had not been kept."""
        found = {}
        for key in await self._bucket.keys(_PREFIX):
            stored = await self._bucket.read(key)
            if stored.data is None:
                continue
            try:
                found[key.removeprefix(_PREFIX)] = _RUNS.validate_json(stored.data)
            except ValueError:
                log.error("a job's runs cannot be read", action="job_undecodable", key=key)
        return found

    async def save(self, job: str, runs: Sequence[JobRun]) -> None:
        """Keep these instead of what was kept."""
        key = f"{_PREFIX}{job}"
        stored = await self._bucket.read(key)
        await self._bucket.write(key, _RUNS.dump_json(tuple(runs)), stored.sequence)
