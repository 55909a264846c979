"""Checker templates: a JSON object whose strings may hold `{{NAME}}` or `${NAME}`.

Names and rules are those that users of the Go product know. Substitution happens inside parsed strings, so a
value can never change the JSON around it. A placeholder without a value is refused, not left in silently.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from pydantic import JsonValue

from jetway.core.commands import ServiceSpec
from jetway.core.errors import Code, refuse

TEMPLATE_PREFIX = "templates/checkers/"
METADATA_ALLOWED = (
    "agent_address",
    "core_address",
    "core_spiffe_id",
    "kv_address",
    "kv_spiffe_id",
    "trust_domain",
    "log_level",
)
"""Metadata that a template may use, under its own name or in capitals."""

_PLACEHOLDER = re.compile(r"\{\{\s*([A-Za-z_][A-Za-z0-9_]*)\s*\}\}|\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f]|\.\./|\{\{|\$\{")


def template_key(kind: str) -> str:
    """Where the template of a checker kind stands in the config bucket."""
    return f"{TEMPLATE_PREFIX}{kind}.json"


def template_variables(spec: ServiceSpec) -> dict[str, str]:
    """The values that a checker's template may use. Raises RefusedError for a value that could do harm."""
    values = {
        "COMPONENT_ID": spec.service_id,
        "CHECKER_KIND": spec.checker_kind,
        "AGENT_ID": spec.parent_id,
    }
    if spec.spiffe_identity:
        values["DOWNSTREAM_SPIFFE_ID"] = spec.spiffe_identity
    for name in METADATA_ALLOWED:
        value = spec.metadata.get(name)
        if isinstance(value, str):
            values[name] = values[name.upper()] = _harmless(name, value)
    return values


def _harmless(name: str, value: str) -> str:
    if _FORBIDDEN.search(value):
        why = (
            f"metadata.{name} holds a control character, '../', '{{{{' or '${{' and cannot go into a template"
        )
        raise refuse(Code.INVALID, why, f"metadata.{name}")
    return value


def fill(template: JsonValue, values: Mapping[str, str], kind: str) -> JsonValue:
    """The template with its placeholders replaced. Raises RefusedError naming the first one without a value."""
    if isinstance(template, str):
        return _fill_text(template, values, kind)
    if isinstance(template, list):
        return [fill(item, values, kind) for item in template]
    if isinstance(template, dict):
        return {name: fill(item, values, kind) for name, item in template.items()}
    return template


def _fill_text(text: str, values: Mapping[str, str], kind: str) -> str:
    def value_of(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if name not in values:
            raise refuse(Code.INVALID, *_missing(name, kind))
        return values[name]

    return _PLACEHOLDER.sub(value_of, text)


def _missing(name: str, kind: str) -> tuple[str, str]:
    if name.lower() in METADATA_ALLOWED:
        field = f"metadata.{name.lower()}"
        return f"the template for checker kind {kind!r} needs {field}", field
    if name == "DOWNSTREAM_SPIFFE_ID":
        return f"the template for checker kind {kind!r} needs spiffe_id", "spiffe_id"
    return f"the template for checker kind {kind!r} has the unknown placeholder {name!r}", "checker_kind"


def placeholders(template: JsonValue) -> set[str]:
    """All names that a template uses, for a form."""
    if isinstance(template, str):
        return {match[1] or match[2] for match in _PLACEHOLDER.finditer(template)}
    if isinstance(template, list):
        return set().union(*(placeholders(item) for item in template))
    if isinstance(template, dict):
        return set().union(*(placeholders(item) for item in template.values()))
    return set()
