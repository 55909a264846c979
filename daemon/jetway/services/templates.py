"""Checker templates in the config bucket: read, filled, and seeded once with the shipped ones."""

from __future__ import annotations

import json
from collections.abc import Mapping

from pydantic import JsonValue

from jetway.core.commands import ServiceSpec
from jetway.core.documents import decode_document
from jetway.core.errors import Code, ConflictError, refuse
from jetway.core.templates import (
    METADATA_ALLOWED,
    TEMPLATE_PREFIX,
    fill,
    placeholders,
    template_key,
    template_variables,
)
from jetway.ports import Documents


class Templates:
    """The templates of checker kinds, as they stand in the bucket `config`."""

    def __init__(self, documents: Documents, *, default_interval: int, default_token_ttl: int) -> None:
        self._documents = documents
        self._default_interval = default_interval
        self._default_token_ttl = default_token_ttl

    async def seed(self, shipped: Mapping[str, bytes]) -> None:
        """Write the shipped templates (kind → JSON) that are not there; an existing one is never overwritten."""
        for kind, data in shipped.items():
            stored = await self._documents.read(template_key(kind))
            if stored.sequence == 0:
                try:
                    await self._documents.write(template_key(kind), data, 0)
                except ConflictError:
                    continue

    async def config_for(self, spec: ServiceSpec) -> dict[str, JsonValue] | None:
        """A checker's configuration: its own, or its kind's template filled in, or None without either.

        Raises RefusedError where the template needs something that is not given.
        """
        if spec.checker_config is not None or not spec.checker_kind:
            return spec.checker_config
        stored = await self._documents.read(template_key(spec.checker_kind))
        if stored.data is None:
            return None
        template = decode_document(stored.data)
        if template is None:
            raise refuse(
                Code.INVALID,
                f"the template {template_key(spec.checker_kind)} is not a JSON object",
                "checker_kind",
            )
        filled = fill(template, template_variables(spec), spec.checker_kind)
        return dict(filled) if isinstance(filled, dict) else None

    async def defaults(self) -> dict[str, JsonValue]:
        """What a form starts from: defaults, and the checker kinds with their templates and needs."""
        kinds: list[JsonValue] = []
        for key in await self._documents.keys(TEMPLATE_PREFIX):
            stored = await self._documents.read(key)
            template = decode_document(stored.data) if stored.data is not None else None
            if template is not None:
                kind = key.removeprefix(TEMPLATE_PREFIX).removesuffix(".json")
                names: list[JsonValue] = [*sorted(placeholders(template))]
                kinds.append({"kind": kind, "template": template, "placeholders": names})
        return {
            "heartbeat_interval_seconds": self._default_interval,
            "token_ttl_seconds": self._default_token_ttl,
            "component_types": ["poller", "agent", "checker"],
            "template_metadata": list(METADATA_ALLOWED),
            "checker_kinds": kinds,
        }


def shipped_templates(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """kind → JSON from shipped files `<kind>.json`. Raises ValueError for one that is not a JSON object."""
    templates = {}
    for name, data in files.items():
        if not isinstance(json.loads(data), dict):
            raise ValueError(f"{name} is not a JSON object")
        templates[name.removesuffix(".json")] = data
    return templates
