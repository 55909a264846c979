"""What an edge host may do at NATS: one source for the templates of signing keys and for single credentials.

A host may publish its own heartbeats, read its own document and its children's, and ask for its own renewal; it
may hear its own inbox and those documents' changes. Nothing else: no stream or consumer API, no wildcard. The
one exception is a consumer over those same documents, for software that insists on a standard key-value watcher:
an opt-in, because whoever may create a consumer may create many, and may have them delivered to any subject of
its account.
"""

from __future__ import annotations

from dataclasses import dataclass

from jetway.core.ids import Lineage, ServiceType, children_watch_key, watch_key

RENEW_PREFIX = "jetway.renew"
"""Before `<type>.<ids>`: where a host asks for its renewal."""
TAGS = {ServiceType.POLLER: "poller", ServiceType.AGENT: "agent", ServiceType.CHECKER: "checker"}
"""The tags of a user's credentials that hold its ids, by the type that each id belongs to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantNames:
    """The names that grants are made of: those of one gateway."""

    heartbeat_prefix: str = "edge.heartbeat"
    live_prefix: str = "edge.config"
    """Where changes of `watch_bucket` are republished: stands in the place of its keys' first token."""
    watch_bucket: str = "config_watch"
    js_api: str = "$JS.API"
    """`$JS.<domain>.API` where JetStream is in a domain."""
    renew_prefix: str = RENEW_PREFIX

    @property
    def direct_get(self) -> str:
        """Before a key of `watch_bucket`: reads it."""
        return f"{self.js_api}.DIRECT.GET.KV_{self.watch_bucket}.$KV.{self.watch_bucket}"

    @property
    def create_consumer(self) -> str:
        """Before a key of `watch_bucket`: creates a consumer of any name that sees that key alone."""
        return f"{self.js_api}.CONSUMER.CREATE.KV_{self.watch_bucket}.*.$KV.{self.watch_bucket}"


@dataclass(frozen=True, slots=True)
class Grant:
    """Subjects that may be published to and subscribed to; whatever is not listed is denied."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]


def grant(names: GrantNames, lineage: Lineage, *, watch: bool = False) -> Grant:
    """What this service may do."""
    keys = document_keys(lineage)
    publish = [
        *heartbeat_subjects(names, lineage),
        lineage.subject(names.renew_prefix),
        *(f"{names.direct_get}.{key}" for key in keys),
    ]
    if watch:
        publish += [f"{names.create_consumer}.{key}" for key in keys]
    live = (f"{names.live_prefix}.{key.removeprefix('config.')}" for key in keys)
    return Grant(tuple(publish), (f"{lineage.inbox_prefix}>", *live))


def template(names: GrantNames, service_type: ServiceType, *, watch: bool = False) -> Grant:
    """The same for every service of a type: in the place of each id the tag that holds it.

    The NATS server fills it in at each connection, and denies what it cannot fill.
    """
    placeholders = Lineage(service_type, *(f"{{{{tag({tag})}}}}" for tag in TAGS.values()))
    return grant(names, placeholders, watch=watch)


def tags(lineage: Lineage) -> tuple[str, ...]:
    """The tags that a service's credentials carry, `poller:site-a`."""
    return tuple(f"{tag}:{id_}" for tag, id_ in zip(TAGS.values(), lineage.ids, strict=False))


def heartbeat_echo(names: GrantNames) -> str:
    """Where the daemon sends messages of its own the heartbeats' way, to know that it hears."""
    return f"{names.heartbeat_prefix}.echo"


def heartbeat_subjects(names: GrantNames, lineage: Lineage) -> tuple[str, ...]:
    """Where a service's heartbeats go; a poller also sends those of what is beneath it."""
    own = lineage.subject(names.heartbeat_prefix)
    if lineage.service_type is ServiceType.POLLER:
        return (own, f"{names.heartbeat_prefix}.batch.{lineage.poller_id}")
    return (own,)


def document_keys(lineage: Lineage) -> tuple[str, ...]:
    """Keys in `config_watch` of a service's own document and, as a filter, of its direct children's."""
    return tuple(filter(None, (watch_key(lineage), children_watch_key(lineage))))
