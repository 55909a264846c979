"""The onboarding form's fields as the body that the API takes, so that the same rules judge both."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import JsonValue

from jetway.core.errors import RefusedError
from jetway.core.ids import ServiceType, slug
from jetway.core.templates import METADATA_ALLOWED, fill
from jetway.entry.web.template_form import answered

_TEXTS = ("component_type", "label", "component_id", "parent_id", "site", "checker_kind", "spiffe_id")
_NUMBERS = ("heartbeat_interval_seconds", "token_ttl_seconds")

LABEL_FIELDS = ("labels.1", "labels.2", "labels.3")
"""Fields of one label each; further ones stand in `labels`, one on each line."""

METADATA_FIELDS = {
    ServiceType.POLLER: (
        "core_address",
        "core_spiffe_id",
        "spire_upstream_address",
        "spire_parent_id",
        "agent_spiffe_id",
    ),
    ServiceType.AGENT: ("agent_address", "core_address", "core_spiffe_id", "log_level"),
    ServiceType.CHECKER: METADATA_ALLOWED,
}
"""What installers and templates commonly ask of each type; further metadata stands in `metadata`."""


def read_form(
    form: Mapping[str, str], template: Mapping[str, object]
) -> tuple[dict[str, object], dict[str, str]]:
    """The body, and by field what has no place in one: all of it, so that a form comes back once."""
    wrong: dict[str, str] = {}
    values: dict[str, object] = {name: form[name].strip() for name in _TEXTS if form.get(name, "").strip()}
    values.setdefault("label", "")
    for name in _NUMBERS:
        text = form.get(name, "").strip()
        if text:
            values[name] = _whole(name, text, wrong)
    values["notes"] = form.get("notes", "").replace("\r\n", "\n").strip()
    labels = [form.get(name, "") for name in (*LABEL_FIELDS, "labels")]
    values["labels"] = _pairs("labels", "\n".join(labels), wrong)
    metadata = _metadata(form) | _pairs("metadata", form.get("metadata", ""), wrong)
    values["metadata"] = metadata
    config = answered(template, form, wrong)
    if config is not None:
        try:
            values["checker_config"] = _filled(config, values, metadata)
        except RefusedError as error:
            wrong.setdefault(error.refused.field, error.refused.why)
    return values, wrong


def _metadata(form: Mapping[str, str]) -> dict[str, str]:
    """What the fields of their own hold."""
    names = {name for names in METADATA_FIELDS.values() for name in names}
    return {name: text for name in sorted(names) if (text := form.get(f"metadata.{name}", "").strip())}


def _filled(
    config: dict[str, JsonValue], values: Mapping[str, object], metadata: Mapping[str, str]
) -> JsonValue:
    """What the template takes from the service itself, in the places that nobody was asked about."""
    component_id = str(values.get("component_id") or slug(str(values["label"])))
    kind = str(values.get("checker_kind", ""))
    known = {
        **metadata,
        **{name.upper(): value for name, value in metadata.items()},
        "COMPONENT_ID": component_id,
        "CHECKER_KIND": kind,
        "AGENT_ID": str(values.get("parent_id", "")),
    }
    if values.get("spiffe_id"):
        known["DOWNSTREAM_SPIFFE_ID"] = str(values["spiffe_id"])
    return fill(config, known, kind)


def _whole(name: str, text: str, wrong: dict[str, str]) -> int | None:
    if text.isdecimal() and len(text) <= 9:
        return int(text)
    wrong[name] = "must be a whole number of seconds"
    return None


def _pairs(name: str, text: str, wrong: dict[str, str]) -> dict[str, str]:
    """`key=value` on each line."""
    found: dict[str, str] = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        key, equals, value = line.partition("=")
        if equals:
            found[key.strip()] = value.strip()
        else:
            wrong[name] = "must be key=value on each line"
    return found
