"""A checker's template as questions of a form, and the answers as its configuration."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import JsonValue

from jetway.core.templates import placeholders

PREFIX = "config."
"""Before the names of the form's fields that are the template's."""
Shape = Literal["text", "number", "truth", "lines", "json"]


@dataclass(frozen=True, slots=True)
class Question:
    """One key of a template that a person may answer."""

    name: str
    shape: Shape
    default: str


def questions_of(template: Mapping[str, object]) -> Sequence[Question]:
    """What can be asked: every key but those that are filled in from elsewhere, and `type`, which is fixed."""
    return [
        Question(name, _shape(value), _written(value))
        for name, value in template.items()
        if name != "type" and not _is_filled(value)
    ]


def answered(
    template: Mapping[str, object], form: Mapping[str, str], wrong: dict[str, str]
) -> dict[str, JsonValue] | None:
    """The template with the answers in it; None where nothing differs. Fields that are none go into `wrong`."""
    changed: dict[str, JsonValue] = {}
    for question in questions_of(template):
        name = PREFIX + question.name
        if question.shape == "truth":
            given = "on" if form.get(name) else ""
        else:
            given = form.get(name, question.default).replace("\r\n", "\n").strip()
        if given != question.default:
            try:
                changed[question.name] = _read(question, given)
            except ValueError:
                wanted = {"number": "a number", "json": "JSON"}.get(question.shape, "text")
                wrong[name] = f"must be {wanted}"
    if not changed:
        return None
    config: dict[str, JsonValue] = json.loads(json.dumps(template))
    return config | changed


def _is_filled(value: object) -> bool:
    return isinstance(value, str) and bool(placeholders({"value": value}))


def _shape(value: object) -> Shape:
    if isinstance(value, bool):
        return "truth"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, str):
        return "text"
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return "lines"
    return "json"


def _written(value: object) -> str:
    shape = _shape(value)
    if shape == "truth":
        return "on" if value else ""
    if shape == "lines" and isinstance(value, list):
        return "\n".join(value)
    return json.dumps(value, indent=2) if shape == "json" else str(value)


def _read(question: Question, given: str) -> JsonValue:
    """Raises ValueError."""
    if question.shape == "truth":
        return bool(given)
    if question.shape == "lines":
        return [line.strip() for line in given.splitlines() if line.strip()]
    if question.shape == "number":
        return int(given) if given.lstrip("-").isdecimal() else float(given)
    if question.shape == "json":
        parsed: JsonValue = json.loads(given)
        return parsed
    return given
