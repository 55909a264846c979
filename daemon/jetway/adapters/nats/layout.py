"""What stands in JetStream: every stream and bucket, and why it is set up as it is.

A view is never more durable than its source: a source that loses its unsynced tail uses sequence numbers anew
that its view has passed already, and the view then skips new writes in silence. So only pure views
(`config_watch`, REGISTRY_EVENTS) are written without waiting for the disk, and that only with one replica.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from jetway.adapters.nats.names import EVENTS_PREFIX, GATEWAY_EVENTS_PREFIX, Names, stream_of, subject_of
from jetway.settings import Settings

ASYNC = "async"
HISTORY = 64
"""Revisions that the ledger keeps per record: what the audit trail can be mended from. KV allows no more."""
CONFIG_HISTORY = 8
"""Versions that the config bucket keeps per document. With one, a status that another follows at once may be gone
before the server's view has taken it, and no host is told: `revoked`, and then the deletion."""
_IDEMPOTENCY_KEPT = timedelta(hours=24)
_DUPLICATE_WINDOW = timedelta(minutes=2)
_ATOMIC_SINCE = (2, 12, 0)
"""The first server with atomic batches and with persist_mode."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The layout that the settings ask for."""

    names: Names
    replicas: int
    audit_kept: timedelta

    @classmethod
    def of(cls, settings: Settings, names: Names) -> Layout:
        """What the settings ask for."""
        return cls(names, settings.nats.replicas, settings.lifecycle.audit_kept)

    def durables(self) -> Sequence[tuple[str, str]]:
        """(stream, durable consumer)."""
        registry = stream_of(self.names.registry_bucket)
        return ((registry, "documents"), (registry, "rows"), (self.names.events_stream, "events"))

    def streams(self, server: tuple[int, int, int]) -> Sequence[Mapping[str, Any]]:
        """Configurations of all streams for this version of the server; sources before their views."""
        modern = server >= _ATOMIC_SINCE
        view = {"persist_mode": ASYNC} if modern and self.replicas == 1 else {}
        return (
            self._bucket(self.names.registry_bucket, HISTORY) | ({"allow_atomic": True} if modern else {}),
            self._bucket(self.names.config_bucket, CONFIG_HISTORY),
            self._config_watch() | view,
            self._audit(),
            self._events() | view,
            self._bucket(self.names.api_tokens_bucket),
            self._bucket(self.names.idempotency_bucket) | {"max_age": _nanoseconds(_IDEMPOTENCY_KEPT)},
            self._bucket(self.names.meta_bucket),
        )

    def _stream(self, name: str) -> dict[str, Any]:
        return {"name": name, "storage": "file", "num_replicas": self.replicas, "retention": "limits"}

    def _bucket(self, bucket: str, history: int = 1) -> dict[str, Any]:
        """As clients of NATS make key-value buckets, so that they recognise them."""
        return self._stream(stream_of(bucket)) | {
            "subjects": [subject_of(bucket, ">")],
            "max_msgs_per_subject": history,
            "discard": "new",
            "allow_rollup_hdrs": True,
            "deny_delete": True,
            "allow_direct": True,
        }

    def _config_watch(self) -> dict[str, Any]:
        """`config/pollers/p.json` as `config.pollers.p`: a watch goes by token, and a `/` parts none."""
        bucket, source = self.names.watch_bucket, self.names.config_bucket
        config = self._bucket(bucket)
        del config["subjects"]
        transform = {"src": subject_of(source, "*.json"), "dest": subject_of(bucket, "{{split(1,/)}}")}
        return config | {
            "discard": "old",
            "sources": [{"name": stream_of(source), "subject_transforms": [transform]}],
            "republish": {"src": subject_of(bucket, "config.>"), "dest": f"{self.names.live_prefix}.>"},
        }

    def _kept(self) -> dict[str, Any]:
        # A KV purge with its rollup header would otherwise erase the trail of its key.
        return {
            "max_age": _nanoseconds(self.audit_kept),
            "discard": "old",
            "allow_rollup_hdrs": False,
            "deny_purge": True,
            "deny_delete": True,
        }

    def _audit(self) -> dict[str, Any]:
        window = min(_DUPLICATE_WINDOW, self.audit_kept)
        return (
            self._stream(self.names.audit_stream)
            | self._kept()
            | {"subjects": [f"{self.names.audit_prefix}>"], "duplicate_window": _nanoseconds(window)}
        )

    def _events(self) -> dict[str, Any]:
        registry = self.names.registry_bucket
        return (
            self._stream(self.names.events_stream)
            | self._kept()
            | {
                "allow_direct": True,
                "sources": [
                    _source(stream_of(registry), subject_of(registry, ">"), f"{EVENTS_PREFIX}>"),
                    _source(
                        self.names.audit_stream, f"{self.names.audit_prefix}>", f"{GATEWAY_EVENTS_PREFIX}>"
                    ),
                ],
            }
        )


def _source(stream: str, src: str, dest: str) -> dict[str, Any]:
    return {"name": stream, "subject_transforms": [{"src": src, "dest": dest}]}


def _nanoseconds(duration: timedelta) -> int:
    return round(duration.total_seconds() * 1000) * 1_000_000
