"""Names of streams, buckets and subjects.

`nats.bucket_prefix` stands before every bucket and stream name. KV subjects follow from the bucket's name. Of
the other subjects, those that live outside a stream get the prefix too, so that two gateways on one server do
not take each other's: `<prefix>registry.audit.>`, `<prefix>edge.config.>`, and `<prefix>jetway.known` with its
like. `registry.events.>` exists inside REGISTRY_EVENTS only and needs none. Heartbeats and renewals have none:
edge hosts of two gateways are kept apart by accounts.
"""

from __future__ import annotations

from dataclasses import dataclass

from jetway.core.grants import GrantNames
from jetway.core.ids import ServiceKey
from jetway.settings import NatsSettings

EVENTS_PREFIX = "registry.events."
"""Before `<type>.<id>` in REGISTRY_EVENTS."""
GATEWAY_EVENTS_PREFIX = f"{EVENTS_PREFIX}gateway."
"""Before the event type in REGISTRY_EVENTS, for what happens outside a record."""
LEDGER_KEY = "ledger"
"""The key in the meta bucket that holds the ledger's identity."""
RESTORE_KEY = "restoring"
"""The key in the meta bucket that is there from the beginning of a restore to its end."""


@dataclass(frozen=True, slots=True)
class Names:
    """All names that belong to one gateway."""

    prefix: str = ""
    bucket: str = "config"

    @classmethod
    def of(cls, settings: NatsSettings) -> Names:
        """The names that the settings ask for."""
        return cls(settings.bucket_prefix, settings.config_bucket)

    @property
    def registry_bucket(self) -> str:
        """The ledger."""
        return f"{self.prefix}registry"

    @property
    def config_bucket(self) -> str:
        """Config documents and checker templates."""
        return f"{self.prefix}{self.bucket}"

    @property
    def watch_bucket(self) -> str:
        """The view of the config bucket whose keys are cut into tokens."""
        return f"{self.config_bucket}_watch"

    @property
    def api_tokens_bucket(self) -> str:
        """API tokens by name."""
        return f"{self.prefix}api_tokens"

    @property
    def idempotency_bucket(self) -> str:
        """Idempotency keys."""
        return f"{self.prefix}idempotency"

    @property
    def meta_bucket(self) -> str:
        """What the gateway knows of itself."""
        return f"{self.prefix}jetway"

    @property
    def events_stream(self) -> str:
        """The audit trail."""
        return f"{self.prefix}REGISTRY_EVENTS"

    @property
    def audit_stream(self) -> str:
        """What happens outside a record, on its way into the trail."""
        return f"{self.prefix}REGISTRY_AUDIT"

    @property
    def audit_prefix(self) -> str:
        """Before the event type in REGISTRY_AUDIT."""
        return f"{self.prefix}registry.audit."

    @property
    def live_prefix(self) -> str:
        """Where changes of `watch_bucket` are republished, without a trailing dot."""
        return f"{self.prefix}edge.config"

    @property
    def known_subject(self) -> str:
        """Where core servers ask whether a poller is known."""
        return f"{self.prefix}jetway.known"

    @property
    def get_subject(self) -> str:
        """Where trusted clients ask for a service."""
        return f"{self.prefix}jetway.get"

    @property
    def stats_subject(self) -> str:
        """Where trusted clients ask for counts."""
        return f"{self.prefix}jetway.stats"

    @property
    def micro_service(self) -> str:
        """What discovery calls the gateway."""
        return f"{self.prefix}jetway"

    def grants(self, heartbeat_prefix: str, settings: NatsSettings) -> GrantNames:
        """What grants to edge hosts are made of."""
        return GrantNames(
            heartbeat_prefix=heartbeat_prefix,
            live_prefix=self.live_prefix,
            watch_bucket=self.watch_bucket,
            js_api=f"$JS.{settings.js_domain}.API" if settings.js_domain else "$JS.API",
        )

    def record_subject(self, key: ServiceKey) -> str:
        """The subject of a record in the ledger."""
        return subject_of(self.registry_bucket, str(key))


def stream_of(bucket: str) -> str:
    """The stream behind a bucket."""
    return f"KV_{bucket}"


def subject_of(bucket: str, key: str) -> str:
    """The subject of a bucket's key."""
    return f"$KV.{bucket}.{key}"
