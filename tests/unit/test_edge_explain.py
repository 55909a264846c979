"""A problem document as one sentence: everything that is wrong, and nothing twice."""

from __future__ import annotations

import json

import pytest

from jetway.edge.exchange import Answer, ExchangeError, explain, parse_url, send

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


def test_a_name_that_no_host_can_have_is_an_error_of_one_line() -> None:
    with pytest.raises(ExchangeError, match="this is no host's name"):
        send(parse_url("http://a..b:8080"), "GET", "/", limit=1)
