from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from jetway.entry.http import fields as f
from jetway.entry.http import requests as r

CREATE = {
    "component_type": "agent",
    "label": "Core switch room",
    "component_id": "core-switch-room",
    "parent_id": "site-a",
    "site": "A",
    "labels": {"rack": "12"},
    "metadata": {"owner": "netops"},
    "checker_kind": "",
    "checker_config": None,
    "spiffe_id": "",
    "heartbeat_interval_seconds": 30,
    "token_ttl_seconds": 86400,
    "notes": "",
}


def create(**changes: Any) -> r.CreatePackage:
    return r.CreatePackage.model_validate_json(json.dumps(CREATE | changes), strict=True)


def bad_fields(**changes: Any) -> set[str]:
    with pytest.raises(ValidationError) as caught:
        create(**changes)
    return {str(error["loc"][0]) for error in caught.value.errors()}


def test_the_contracts_example_is_taken() -> None:
    assert create().component_id == "core-switch-room"


BODIES = [
    r.CreatePackage,
    r.RegisterService,
    r.RevokePackage,
    r.ReissuePackage,
    r.SetStatus,
    r.Verdict,
    r.CreateApiToken,
    r.Redeem,
]


@pytest.mark.parametrize("kind", BODIES)
def test_the_examples_that_the_description_shows_are_taken(kind: type[r.Taken]) -> None:
    examples = kind.model_json_schema()["examples"]
    assert examples
    for example in examples:
        kind.model_validate_json(json.dumps(example), strict=True)


def test_type_and_label_are_all_that_is_required() -> None:
    body = r.CreatePackage.model_validate_json('{"component_type": "poller", "label": "x"}', strict=True)
    assert (body.component_id, body.labels, body.token_ttl_seconds) == ("", {}, None)


def test_json_has_one_kind_of_number() -> None:
    assert create(heartbeat_interval_seconds=30.0).heartbeat_interval_seconds == 30


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("component_type", "gateway"),
        ("label", ""),
        ("label", " x"),
        ("label", "x" * 201),
        ("label", "a\nb"),
        ("label", "a\u0000b"),
        ("label", "a\u0085b"),
        ("label", 7),
        ("component_id", "Core"),
        ("component_id", "-x"),
        ("component_id", "x-"),
        ("component_id", "a.b"),
        ("component_id", "x" * 64),
        ("component_id", "x\n"),
        ("parent_id", "a/b"),
        ("site", "a\tb"),
        ("site", "x" * 201),
        ("labels", {f"k{n}": "v" for n in range(65)}),
        ("labels", {"": "v"}),
        ("labels", {"a b": "v"}),
        ("labels", {"k": "v" * 256}),
        ("labels", {"k": 1}),
        ("labels", []),
        ("metadata", {"k": "v" * 16 * 1024}),
        ("metadata", {"k": 10**400}),
        ("metadata", {"k": -(2**63) - 1}),
        ("metadata", [1]),
        ("checker_config", {"k": "v" * 64 * 1024}),
        ("checker_kind", "a b"),
        ("spiffe_id", "http://x"),
        ("heartbeat_interval_seconds", 0),
        ("heartbeat_interval_seconds", 86401),
        ("heartbeat_interval_seconds", 1.5),
        ("heartbeat_interval_seconds", "30"),
        ("heartbeat_interval_seconds", True),
        ("token_ttl_seconds", 59),
        ("token_ttl_seconds", 30 * 86400 + 1),
        ("notes", "x" * 2001),
        ("notes", "\u001b[31m"),
        ("colour", "red"),
    ],
)
def test_a_bad_field_is_refused_by_name(field: str, value: object) -> None:
    assert bad_fields(**{field: value}) == {field}


def test_all_bad_fields_are_named_at_once() -> None:
    assert bad_fields(label="", component_id="X", notes=1) == {"label", "component_id", "notes"}


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_are_none_are_refused(number: str) -> None:
    text = json.dumps(CREATE).replace('"netops"', f'{{"deep": [{number}]}}')
    with pytest.raises(ValidationError):
        r.CreatePackage.model_validate_json(text, strict=True)


@pytest.mark.parametrize("levels", [33, 150, 1000, 100_000])
def test_deep_json_is_refused_and_breaks_nothing(levels: int) -> None:
    text = json.dumps(CREATE).replace('"netops"', "[" * levels + "]" * levels)
    with pytest.raises(ValidationError):
        r.CreatePackage.model_validate_json(text, strict=True)


def test_notes_keep_their_lines() -> None:
    assert create(notes="a\n\tb\r\n").notes == "a\n\tb\r\n"


def test_a_token_does_not_show_in_a_log() -> None:
    assert "jw1.x" not in repr(r.Redeem(token="jw1.x.y"))


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-23",
        "2026-11-23T09:10:11",
        "20261123T091011Z",
        "1700000000",
        "2026-02-30T00:00:00Z",
        "0000-01-01T00:00:00Z",
    ],
)
def test_a_time_that_is_no_rfc_3339_is_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(f.QueryTime).validate_python(text)


@pytest.mark.parametrize("text", ["0", "501", "-1", "1_0", " 1", "1.0", "", "999999999999"])
def test_a_limit_is_1_to_500(text: str) -> None:
    with pytest.raises(ValidationError):
        r.Paged.model_validate({"limit": text})


def test_a_query_knows_two_truths() -> None:
    assert r.DeleteService.model_validate({"cascade": "false"}).cascade is False
    with pytest.raises(ValidationError):
        r.DeleteService.model_validate({"cascade": "0"})


@pytest.mark.parametrize(
    "text", ["", "x", "A0000000-0000-4000-8000-000000000000", "00000000000040008000000000000000"]
)
def test_a_package_id_is_a_uuid(text: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(f.PackageId).validate_strings(text)
