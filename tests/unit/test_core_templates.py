"""Checker templates: placeholders, values that could do harm, and nothing left in silently."""

from __future__ import annotations

import pytest

from jetway.core.errors import RefusedError
from jetway.core.ids import ServiceType
from jetway.core.templates import METADATA_ALLOWED, fill, placeholders, template_key, template_variables
from support.builders import spec

CHECKER = ServiceType.CHECKER


def variables(**metadata: object) -> dict[str, str]:
    return template_variables(spec(CHECKER, metadata=metadata, spiffe_identity="spiffe://td/c1"))


def test_the_names_are_those_that_users_know() -> None:
    assert variables() == {
        "COMPONENT_ID": "c1",
        "CHECKER_KIND": "snmp",
        "AGENT_ID": "a1",
        "DOWNSTREAM_SPIFFE_ID": "spiffe://td/c1",
    }


@pytest.mark.parametrize("name", METADATA_ALLOWED)
def test_allowed_metadata_goes_in_under_its_own_name_and_in_capitals(name: str) -> None:
    values = variables(**{name: "10.0.0.1:50051"})
    assert values[name] == values[name.upper()] == "10.0.0.1:50051"


def test_other_metadata_and_other_types_do_not_go_in() -> None:
    values = variables(owner="x", core_address=7, kv_address=["a"], log_level=None)
    assert not {"owner", "OWNER", "core_address", "kv_address", "log_level"} & values.keys()


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("{{COMPONENT_ID}}", "c1"),
        ("${COMPONENT_ID}", "c1"),
        ("{{ AGENT_ID }}/${CHECKER_KIND}", "a1/snmp"),
        ("{{COMPONENT_ID}}{{COMPONENT_ID}}", "c1c1"),
        ("plain {x} $y {{ }} ${}", "plain {x} $y {{ }} ${}"),
        ("", ""),
    ],
)
def test_placeholders_are_replaced(text: str, filled: str) -> None:
    assert fill(text, variables(), "snmp") == filled


def test_the_whole_template_is_filled_and_its_shape_stays() -> None:
    template = {"a": ["{{COMPONENT_ID}}", 1, None, True, {"b": "${AGENT_ID}"}], "{{COMPONENT_ID}}": 2.5}
    assert fill(template, variables(), "snmp") == {
        "a": ["c1", 1, None, True, {"b": "a1"}],
        "{{COMPONENT_ID}}": 2.5,
    }


def test_a_value_cannot_change_the_json_around_it() -> None:
    values = variables(core_address='x", "admin": true, "y": "')
    assert fill({"address": "{{CORE_ADDRESS}}"}, values, "snmp") == {"address": 'x", "admin": true, "y": "'}


@pytest.mark.parametrize(
    "value", ["a\nb", "a\x00", "a\x7f", "\x1b[0m", "../etc", "a/../b", "{{X}}", "a{{", "${X}", "x${"]
)
def test_a_value_that_could_do_harm_is_refused_by_its_name(value: str) -> None:
    with pytest.raises(RefusedError) as caught:
        variables(core_address=value)
    assert caught.value.refused.field == "metadata.core_address"


def test_harm_in_metadata_that_no_template_may_use_is_no_matter() -> None:
    assert "COMPONENT_ID" in variables(owner="../{{x}}")


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("{{CORE_ADDRESS}}", "metadata.core_address"),
        ("${kv_address}", "metadata.kv_address"),
        ("{{NO_SUCH}}", "checker_kind"),
        ("${component_id}", "checker_kind"),
    ],
)
def test_a_placeholder_without_a_value_is_refused_and_not_left_in(text: str, field: str) -> None:
    """Unresolved placeholders are not left in silently."""
    with pytest.raises(RefusedError) as caught:
        fill({"a": [text]}, variables(), "snmp")
    assert caught.value.refused.field == field
    assert "'snmp'" in caught.value.refused.why


def test_a_missing_spiffe_id_is_asked_for() -> None:
    with pytest.raises(RefusedError) as caught:
        fill("{{DOWNSTREAM_SPIFFE_ID}}", template_variables(spec(CHECKER)), "snmp")
    assert caught.value.refused.field == "spiffe_id"


def test_a_form_learns_all_placeholders() -> None:
    assert placeholders({"a": ["{{X}}", {"b": "${Y} {{ Z }}"}], "c": 1}) == {"X", "Y", "Z"}
    assert placeholders(None) == placeholders([]) == placeholders({}) == set()


def test_a_template_stands_under_its_kind() -> None:
    assert template_key("snmp") == "templates/checkers/snmp.json"
