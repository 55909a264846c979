"""Names of things: service types, ids, and the subjects and keys made of them.

An id is a DNS label, so it can stand in a NATS subject token, in a KV key and in a path without escaping.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, NamedTuple

from pydantic import StringConstraints

ID_PATTERN = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
_ID = re.compile(ID_PATTERN.removesuffix("$") + r"\Z")
_NOT_LABEL = re.compile(r"[^a-z0-9]+")

ServiceId = Annotated[str, StringConstraints(pattern=ID_PATTERN, max_length=63)]
"""A DNS label: lower-case letters, digits and inner hyphens, 1 to 63 characters."""


class ServiceType(StrEnum):
    """What a service is. A poller is a root, an agent's parent is a poller, a checker's parent an agent."""

    POLLER = "poller"
    AGENT = "agent"
    CHECKER = "checker"

    # Of its text, as it is equal to its text; Enum's own is written in Python, and every look-up takes it.
    __hash__ = str.__hash__

    @property
    def plural(self) -> str:
        """The word used in paths and table names, `pollers`."""
        return f"{self.value}s"

    @property
    def parent_type(self) -> ServiceType | None:
        """The type a parent must have, or None for a root."""
        return {ServiceType.AGENT: ServiceType.POLLER, ServiceType.CHECKER: ServiceType.AGENT}.get(self)

    @property
    def child_type(self) -> ServiceType | None:
        """The type that children have, or None for a leaf."""
        return {ServiceType.POLLER: ServiceType.AGENT, ServiceType.AGENT: ServiceType.CHECKER}.get(self)


_DEPTH = {ServiceType.POLLER: 1, ServiceType.AGENT: 2, ServiceType.CHECKER: 3}


class ServiceKey(NamedTuple):
    """The identity of a record: ids are unique per type. A tuple, for it is made and looked up all the time."""

    service_type: ServiceType
    service_id: str

    def __str__(self) -> str:
        """`agent.core-switch-room`, the key in the ledger."""
        return f"{self.service_type.value}.{self.service_id}"

    @classmethod
    def parse(cls, text: str) -> ServiceKey:
        """The inverse of str(). Raises ValueError for anything that is not such a key."""
        kind, _, service_id = text.partition(".")
        if not is_id(service_id):
            raise ValueError(f"{text!r} is not <type>.<id>")
        return cls(ServiceType(kind), service_id)


@dataclass(frozen=True, slots=True)
class Lineage:
    """A service with its parents' ids, as a heartbeat's subject spells it."""

    service_type: ServiceType
    poller_id: str
    agent_id: str = ""
    checker_id: str = ""

    @property
    def service_id(self) -> str:
        """The last of the ids: that of the service itself."""
        return self.ids[-1]

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids from the root down to the service."""
        return (self.poller_id, self.agent_id, self.checker_id)[: _DEPTH[self.service_type]]

    @property
    def key(self) -> ServiceKey:
        """The record's key."""
        return ServiceKey(self.service_type, self.service_id)

    @property
    def parent_id(self) -> str:
        """The direct parent's id, empty for a poller."""
        ids = self.ids
        return ids[-2] if len(ids) > 1 else ""

    @property
    def parent(self) -> ServiceKey | None:
        """The direct parent's key, None for a poller."""
        kind = self.service_type.parent_type
        return ServiceKey(kind, self.parent_id) if kind else None

    @property
    def address(self) -> str:
        """The part of the heartbeat subject behind the prefix, `agent.<poller>.<agent>`."""
        return ".".join((self.service_type, *self.ids))

    def subject(self, prefix: str) -> str:
        """The heartbeat subject, `<prefix>.agent.<poller>.<agent>`."""
        return f"{prefix}.{self.address}"

    @property
    def inbox_prefix(self) -> str:
        """The only place where this service's replies may go, `_INBOX_agent_<poller>_<agent>.`."""
        return "_".join(("_INBOX", self.service_type.value, *self.ids)) + "."


def is_id(text: str) -> bool:
    """Whether `text` is a DNS label."""
    return bool(_ID.match(text))


def slug(label: str) -> str:
    """An id made of a label, `Core switch room` → `core-switch-room`; empty when nothing usable is left."""
    plain = unicodedata.normalize("NFKD", label).encode("ascii", "ignore").decode().lower()
    return _NOT_LABEL.sub("-", plain).strip("-")[:63].strip("-")


def document_key(lineage: Lineage) -> str:
    """The config document's key in the bucket `config`, as the contract lists it."""
    if lineage.service_type is ServiceType.POLLER:
        return f"config/pollers/{lineage.poller_id}.json"
    if lineage.service_type is ServiceType.AGENT:
        return f"config/pollers/{lineage.poller_id}/agents/{lineage.agent_id}.json"
    return f"config/agents/{lineage.agent_id}/checkers/{lineage.checker_id}.json"


def document_owner(path: str) -> ServiceKey | None:
    """The service whose document would stand under this key of the bucket; None for any other key."""
    match path.removesuffix(".json").split("/"):
        case ["config", "pollers", service_id]:
            key, ids = ServiceKey(ServiceType.POLLER, service_id), [service_id]
        case ["config", "pollers", parent_id, "agents", service_id]:
            key, ids = ServiceKey(ServiceType.AGENT, service_id), [parent_id, service_id]
        case ["config", "agents", parent_id, "checkers", service_id]:
            key, ids = ServiceKey(ServiceType.CHECKER, service_id), [parent_id, service_id]
        case _:
            return None
    return key if path.endswith(".json") and all(map(is_id, ids)) else None


def watch_key(lineage: Lineage) -> str:
    """The same document's key in `config_watch`: cut into tokens, without `.json`."""
    return document_key(lineage).removesuffix(".json").replace("/", ".")


def children_watch_key(lineage: Lineage) -> str:
    """A filter in `config_watch` for all of a service's children; empty for a checker, which has none."""
    if lineage.service_type is ServiceType.POLLER:
        return f"config.pollers.{lineage.poller_id}.agents.*"
    if lineage.service_type is ServiceType.AGENT:
        return f"config.agents.{lineage.agent_id}.checkers.*"
    return ""
