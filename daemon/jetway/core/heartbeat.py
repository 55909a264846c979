"""Heartbeats on the wire: the subject says who speaks, the payload is empty or JSON, all fields optional."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, JsonValue, TypeAdapter, ValidationError

from jetway.core.ids import Lineage, ServiceId, ServiceType, is_id

PAYLOAD_LIMIT = 64 * 1024
"""Bytes of a single heartbeat's payload; a larger one is refused before it is parsed."""
BATCH_PAYLOAD_LIMIT = 1024 * 1024
BATCH_LIMIT = 1000
HEADERS_NOT_READ = "Nats-Headers-Not-Read"
"""In the place of headers that are too many to be read: how many bytes they have. No host's own is called so."""


class MalformedError(ValueError):
    """Not a heartbeat; the message says why."""


class Payload(BaseModel):
    """What a service may say of itself. Unknown fields are ignored: edges are updated after the gateway."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    timestamp: AwareDatetime | None = None
    healthy: bool | None = None
    version: str = Field(default="", max_length=128)
    source_ip: str = Field(default="", max_length=64)
    instance_id: str = Field(default="", max_length=64)
    """Of the process that speaks, new at each of its starts: two at a time are two hosts with one identity."""
    interval_seconds: int | None = Field(default=None, ge=1, le=86_400)
    config_revision: int | None = Field(default=None, ge=0)
    stopping: bool = False
    metadata: dict[str, JsonValue] = Field(default_factory=dict)


class BatchEntry(Payload):
    """One heartbeat of a batch; a relay's names the poller as well."""

    service_type: ServiceType
    poller_id: ServiceId | None = None
    agent_id: ServiceId | None = None
    checker_id: ServiceId | None = None


class _Batch(BaseModel):
    heartbeats: list[JsonValue] = Field(max_length=BATCH_LIMIT)


@dataclass(frozen=True, slots=True)
class Beat:
    """One heartbeat, its sender known."""

    lineage: Lineage
    payload: Payload


EMPTY = Payload()
_PAYLOAD: TypeAdapter[Payload] = TypeAdapter(Payload)
_BATCH: TypeAdapter[_Batch] = TypeAdapter(_Batch)
_ENTRY: TypeAdapter[BatchEntry] = TypeAdapter(BatchEntry)

_DEPTH = {1: ServiceType.POLLER, 2: ServiceType.AGENT, 3: ServiceType.CHECKER}


def parse_subject(subject: str, prefix: str) -> Lineage:
    """The sender of a single heartbeat. Raises MalformedError for any other subject."""
    head, _, rest = subject[len(prefix) :].partition(".")
    tokens = rest.split(".")
    if not subject.startswith(prefix) or head or not all(map(is_id, tokens)):
        raise MalformedError("not a heartbeat subject")
    kind, ids = tokens[0], tokens[1:]
    expected = _DEPTH.get(len(ids))
    if expected is None or expected.value != kind:
        raise MalformedError("the subject's type and its number of ids do not match")
    return lineage_of(expected, ids)


def lineage_of(service_type: ServiceType, ids: Sequence[str]) -> Lineage:
    """A lineage from its ids, root first."""
    padded = [*ids, "", ""]
    return Lineage(service_type, padded[0], padded[1], padded[2])


def parse_payload(data: bytes) -> Payload:
    """A single heartbeat's payload. Raises MalformedError."""
    if not data:
        return EMPTY
    if len(data) > PAYLOAD_LIMIT:
        raise MalformedError(f"the payload has {len(data)} bytes, over {PAYLOAD_LIMIT}")
    try:
        return _PAYLOAD.validate_json(data)
    except ValidationError as error:
        raise MalformedError(_first_error(error)) from None


def parse_batch(data: bytes, poller_id: str | None) -> list[Beat | MalformedError]:
    """The heartbeats of a batch (`poller_id` given) or of a relay (None), each judged alone.

    Raises MalformedError when the whole is not a batch: no JSON, over 1,000 entries, too large.
    """
    if len(data) > BATCH_PAYLOAD_LIMIT:
        raise MalformedError(f"the batch has {len(data)} bytes, over {BATCH_PAYLOAD_LIMIT}")
    try:
        batch = _BATCH.validate_json(data)
    except ValidationError as error:
        raise MalformedError(_first_error(error)) from None
    return [_entry(item, poller_id) for item in batch.heartbeats]


def _entry(item: JsonValue, poller_id: str | None) -> Beat | MalformedError:
    try:
        entry = _ENTRY.validate_python(item)
    except ValidationError as error:
        return MalformedError(_first_error(error))
    ids = [entry.poller_id or poller_id, entry.agent_id, entry.checker_id]
    depth = {ServiceType.POLLER: 1, ServiceType.AGENT: 2, ServiceType.CHECKER: 3}[entry.service_type]
    named = [i for i in ids[:depth] if i]
    if len(named) < depth:
        return MalformedError(f"a {entry.service_type.value}'s heartbeat names all of its parents")
    if poller_id is not None and named[0] != poller_id:
        return MalformedError("a batch carries the poller's own subtree only")
    return Beat(lineage_of(entry.service_type, named), entry)


def _first_error(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{where}: {first['msg']}" if where else str(first["msg"])
