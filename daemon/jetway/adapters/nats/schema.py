"""Streams, buckets and consumers: made at the first start, checked at every other one.

What is the same, or can be brought up to date without losing anything (how long things are kept, replicas),
is no reason to stop. Anything else is refused by name: a stream that behaves otherwise than the program
believes would lose records in silence.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import structlog

from jetway.adapters.nats.jetstream import CONSUMER_NOT_FOUND, STREAM_NOT_FOUND, ApiError, JetStream
from jetway.adapters.nats.layout import ASYNC, Layout
from jetway.adapters.nats.names import RESTORE_KEY, stream_of, subject_of
from jetway.core.errors import PortError, StartupError, UnavailableError

log = structlog.get_logger()

OLDEST_SERVER = (2, 10, 0)
"""The first with subject transforms."""
UNFINISHED_RESTORE = "nats: a restore into this NATS was begun and not completed: run `jetway restore` again"
_UPDATABLE = frozenset({"max_age", "num_replicas", "duplicate_window", "allow_atomic", "allow_direct"})
_ACK_WAIT_SECONDS = 10
"""After this comes again what a killed daemon had in hand. One that only works slowly knows it already."""
_ACK_PENDING = 2000
_DEFAULTS: Mapping[str, Any] = {"subjects": [], "sources": [], "persist_mode": "default", "republish": None}


class Schema:
    """Brings a server to the layout."""

    def __init__(self, jetstream: JetStream, layout: Layout) -> None:
        self._js = jetstream
        self._layout = layout

    async def ensure(self, patience: float = 10.0, *, ledger_id: str = "", restoring: bool = False) -> None:
        """Make what is missing, update what may be updated. `patience`: seconds for JetStream to come up.

        `ledger_id`: the ledger that must be there already, so that nothing is made at a server that lost it.
        `restoring`: the restore that may be under way is the caller's own.
        Raises StartupError naming the stream, the field, what was found and what is wanted.
        """
        await self.check_server(patience)
        try:
            if not restoring:
                await self._require_restored()
            if ledger_id:
                await self._require_ledger(ledger_id, patience)
            for wanted in self._layout.streams(self._js.connection.server_version):
                await self._ensure_stream(wanted)
            consumers = Consumers(self._js)
            for stream, durable in self._layout.durables():
                await consumers.ensure(stream, durable)
            self._js.replicas = self._layout.replicas
        except PortError as error:
            raise StartupError(f"nats: the streams cannot be set up: {error}") from error

    async def check_server(self, patience: float = 10.0) -> None:
        """Wait for JetStream. Raises StartupError where the server is too old, or does not come up in time."""
        version = self._js.connection.server_version
        if version < OLDEST_SERVER:
            found, oldest = (".".join(map(str, v)) for v in (version, OLDEST_SERVER))
            raise StartupError(f"nats: the server is {found}; at least {oldest} is needed")
        loop = asyncio.get_running_loop()
        deadline = loop.time() + patience
        while True:
            try:
                await self._js.call("INFO")
                return
            except PortError as error:
                if loop.time() >= deadline:
                    raise StartupError(f"nats: JetStream is not available at the server: {error}") from error
            await asyncio.sleep(0.2)

    async def _require_restored(self) -> None:
        """What was restored in part only is not touched."""
        bucket = self._layout.names.meta_bucket
        if await self._find_stream(stream_of(bucket)) is None:
            return
        mark = await self._js.read_last(stream_of(bucket), subject_of(bucket, RESTORE_KEY))
        if mark is not None and not mark.is_marker:
            raise StartupError(UNFINISHED_RESTORE)

    async def _require_ledger(self, ledger_id: str, patience: float) -> None:
        """A member of a cluster may need a while until it knows what there is."""
        stream = stream_of(self._layout.names.registry_bucket)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + (patience if self._layout.replicas > 1 else 0)
        while await self._find_stream(stream) is None:
            if loop.time() >= deadline:
                raise StartupError(
                    f"nats: there is no ledger at the server (no stream {stream}), but this state directory "
                    f"belongs to the ledger {ledger_id}: restore NATS from a backup, or move the state directory "
                    "away to begin anew"
                )
            await asyncio.sleep(0.2)

    async def _ensure_stream(self, wanted: Mapping[str, Any]) -> None:
        name = wanted["name"]
        found = await self._find_stream(name)
        if found is None:
            await self._request("CREATE", wanted)
            log.info("a stream was made", action="stream_created", stream=name)
            return
        differing = _differences(found, wanted)
        stuck = [field for field, change in differing.items() if not self._may_update(name, field, *change)]
        if stuck:
            field = stuck[0]
            old, new = differing[field]
            raise StartupError(f"nats: the stream {name} has {field} = {old!r}, but {new!r} is wanted")
        if differing:
            await self._request("UPDATE", {**found, **{field: wanted[field] for field in differing}})
            log.info("a stream was updated", action="stream_updated", stream=name, fields=sorted(differing))

    def _may_update(self, name: str, field: str, old: Any, new: Any) -> bool:
        """Whether nothing is lost by it. The ledger is not to be one that kept less until now."""
        if field == "max_msgs_per_subject":
            return name == stream_of(self._layout.names.config_bucket) and bool(0 < old < new)
        return field in _UPDATABLE

    async def _find_stream(self, name: str) -> dict[str, Any] | None:
        try:
            config: dict[str, Any] = (await self._js.call(f"STREAM.INFO.{name}"))["config"]
        except ApiError as error:
            if error.err_code == STREAM_NOT_FOUND:
                return None
            raise
        # Notes of the server to itself, which it refuses to be told.
        notes = config.pop("metadata", None) or {}
        config["metadata"] = {key: value for key, value in notes.items() if not key.startswith("_nats.")}
        return config

    async def _request(self, verb: str, config: Mapping[str, Any]) -> None:
        name = config["name"]
        try:
            await self._js.call(f"STREAM.{verb}.{name}", config, timeout=15)
        except ApiError as error:
            raise StartupError(f"nats: the stream {name} cannot be set up: {error}") from error


class Consumers:
    """The durable consumers."""

    def __init__(self, jetstream: JetStream) -> None:
        self._js = jetstream

    async def ensure(self, stream: str, durable: str) -> None:
        """Make it, or check it. Raises StartupError where it is something else, PortErrors else."""
        config = {
            "name": durable,
            "durable_name": durable,
            "deliver_policy": "all",
            "ack_policy": "explicit",
            "ack_wait": _ACK_WAIT_SECONDS * 10**9,
            "max_ack_pending": _ACK_PENDING,
        }
        found = await self._find(stream, durable)
        for field in ("deliver_policy", "ack_policy", "deliver_subject", "filter_subject"):
            old, new = (found or config).get(field, ""), config.get(field, "")
            if old != new:
                raise StartupError(
                    f"nats: the consumer {durable} of {stream} has {field} = {old!r}, but {new!r} is wanted"
                )
        if found is None or any(found.get(field) != value for field, value in config.items()):
            body = {"stream_name": stream, "config": config}
            await self._js.call(f"CONSUMER.CREATE.{stream}.{durable}", body, timeout=10)

    async def _find(self, stream: str, durable: str) -> dict[str, Any] | None:
        try:
            config: dict[str, Any] = (await self._js.call(f"CONSUMER.INFO.{stream}.{durable}"))["config"]
        except ApiError as error:
            if error.err_code == CONSUMER_NOT_FOUND:
                return None
            raise
        return config


async def check_sync(jetstream: JetStream, *, embedded: bool) -> str:
    """What is known of how the server brings writes to disk, as words for the log and /readyz.

    A server tells its sync interval to its system account only, which the daemon is not in: of a server of
    somebody else nothing can be known, except that several replicas make up for most of it.
    """
    if embedded:
        return "always: every write is on disk before it is acknowledged"
    try:
        await jetstream.call("INFO")
    except UnavailableError:
        return "unknown: JetStream does not answer"
    more = "" if jetstream.replicas > 1 else "; with one replica set sync_interval: always at the server"
    return f"unknown: the server does not tell its sync interval{more}"


def _differences(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Fields that differ: (found, wanted)."""
    expected = {
        **{field: _DEFAULTS[field] for field in ("persist_mode", "sources", "subjects", "republish")},
        **wanted,
    }
    differing = {}
    for field, new in expected.items():
        old = found.get(field, _DEFAULTS.get(field, False if isinstance(new, bool) else None))
        if field == "sources":
            old, new = _sources(old), _sources(new)
        if field == "persist_mode" and new == ASYNC:
            continue  # fixed at creation, and the other mode is only slower
        if old != new:
            differing[field] = (old, new)
    return differing


def _sources(sources: Sequence[Mapping[str, Any]] | None) -> list[dict[str, Any]]:
    """What matters of a stream's sources, in a stable order."""
    fields = ("name", "subject_transforms", "filter_subject", "external")
    plain = [{field: source[field] for field in fields if source.get(field)} for source in sources or ()]
    return sorted(plain, key=lambda source: str(source["name"]))
