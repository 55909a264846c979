"""record → config document: what a service, and whoever reads its key, learns of it from NATS."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence

from pydantic import JsonValue
from pydantic_core import from_json

from jetway.core.ids import ServiceKey
from jetway.core.record import ServiceRecord, ServiceStatus
from jetway.core.times import rfc3339

Document = dict[str, JsonValue]

GENERATED_HASH = "checker_config_generated_sha256"


def has_document(record: ServiceRecord) -> bool:
    """A deleted service has none."""
    return record.status is not ServiceStatus.DELETED


def config_hash(config: JsonValue) -> str:
    """SHA-256 of a checker's configuration in canonical JSON."""
    text = json.dumps(config, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def render(
    record: ServiceRecord,
    children: Sequence[ServiceKey],
    *,
    default_interval: int,
    stored: Mapping[str, JsonValue] | None = None,
) -> Document:
    """The document of `record`.

    `stored` is what stands in the bucket now: a checker_config that a person changed there is kept, any other
    field is ours. `default_interval` is in seconds.
    """
    parent_type = record.service_type.parent_type
    config: JsonValue = record.checker_config
    if stored is not None and edited_by_hand(stored):
        config = stored.get("checker_config")
    return {
        "component_id": record.service_id,
        "component_type": record.service_type.value,
        "status": record.status.value,
        "label": record.label,
        "parent_id": record.parent_id,
        "parent_type": parent_type.value if parent_type else "",
        "poller_id": record.poller_id,
        "site": record.site,
        "labels": dict(record.labels),
        "metadata": dict(record.metadata),
        "checker_kind": record.checker_kind,
        "checker_config": config,
        "spiffe_id": record.spiffe_identity,
        "heartbeat_interval_seconds": record.heartbeat_interval_seconds or default_interval,
        "children": [
            {"type": child.service_type.value, "id": child.service_id} for child in sorted(children)
        ],
        "created_by": record.created_by,
        "created_at": rfc3339(record.first_registered),
        "updated_at": rfc3339(record.updated_at),
        "epoch": record.epoch,
        "revision": record.revision,
        "incarnation": record.incarnation,
        GENERATED_HASH: config_hash(record.checker_config),
    }


def edited_by_hand(stored: Mapping[str, JsonValue]) -> bool:
    """Whether the stored checker_config is no longer the generated one."""
    generated = stored.get(GENERATED_HASH)
    return isinstance(generated, str) and config_hash(stored.get("checker_config")) != generated


def version_of(stored: Mapping[str, JsonValue]) -> tuple[int, int]:
    """(epoch, revision) of a stored document; (0, 0) where it has none, so that ours is newer."""
    epoch, revision = stored.get("epoch"), stored.get("revision")
    if isinstance(epoch, int) and isinstance(revision, int):
        return (epoch, revision)
    return (0, 0)


def belongs_to_older_incarnation(stored: Mapping[str, JsonValue], record: ServiceRecord) -> bool:
    """Whether the document is a leftover of an earlier service of the same id: its edits do not carry over."""
    incarnation = stored.get("incarnation")
    return isinstance(incarnation, int) and incarnation < record.incarnation


def encode_document(document: Document) -> bytes:
    """JSON for people and programs: UTF-8, two spaces of indent, keys in the order of the contract."""
    return json.dumps(document, ensure_ascii=False, indent=2).encode()


def decode_document(data: bytes) -> Document | None:
    """A stored document, or None when somebody put something else there.

    What is returned can be encoded again: no half surrogates, no numbers without end, no bottomless nesting.
    """
    try:
        value = from_json(data, allow_inf_nan=False)
    except ValueError:
        return None
    return value if isinstance(value, dict) and _finite(value) else None


def _finite(value: JsonValue) -> bool:
    if isinstance(value, dict):
        return all(map(_finite, value.values()))
    if isinstance(value, list):
        return all(map(_finite, value))
    return not isinstance(value, float) or math.isfinite(value)
