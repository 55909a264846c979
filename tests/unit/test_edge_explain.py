"""A problem document as one sentence: everything that is wrong, and nothing twice."""

from __future__ import annotations

import json

import pytest

from jetway.edge.exchange import Answer, explain

TAKEN = "the id 'a' is taken"


@pytest.mark.parametrize(
    ("detail", "errors", "said"),
    [
        (TAKEN, [("component_id", TAKEN)], f"component_id: {TAKEN}"),
        (TAKEN, [("a", TAKEN), ("b", TAKEN)], f"a: {TAKEN}; b: {TAKEN}"),
        ("wrong fields: a: x", [("a", "x")], "wrong fields: a: x"),
        ("wrong fields", [("a", "x"), ("b", "y")], "wrong fields; a: x; b: y"),
        (TAKEN, [], TAKEN),
    ],
)
def test_nothing_is_said_twice_and_nothing_is_left_out(
    detail: str, errors: list[tuple[str, str]], said: str
) -> None:
    listed = [{"field": field, "message": message} for field, message in errors]
    body = json.dumps({"detail": detail, "errors": listed}).encode()
    assert explain(Answer(status=422, headers={}, body=body)) == said
