from __future__ import annotations

import json

import pytest
from aiohttp import web
from pydantic import BaseModel, ConfigDict, ValidationError

from jetway.adapters.nats.jetstream import ApiError
from jetway.core.errors import (
    Code,
    ConflictError,
    OutcomeUnknownError,
    PortError,
    RejectedError,
    UnavailableError,
    refuse,
)
from jetway.entry.http import problems

CONTRACT = {
    Code.INVALID: 422,
    Code.NOT_FOUND: 404,
    Code.TAKEN: 409,
    Code.PARENT_MISSING: 422,
    Code.PARENT_NOT_LIVE: 409,
    Code.CHILDREN_LIVE: 409,
    Code.ILLEGAL_TRANSITION: 409,
    Code.TOKEN_MALFORMED: 400,
    Code.TOKEN_UNKNOWN: 401,
    Code.EXPIRED: 410,
    Code.REVOKED: 410,
    Code.SUPERSEDED: 410,
    Code.ALREADY_REDEEMED: 409,
    Code.IDEMPOTENCY_MISMATCH: 422,
    Code.TOO_MANY_FAILURES: 429,
}


@pytest.mark.parametrize("code", list(Code))
def test_every_refusal_has_a_status_of_its_own(code: Code) -> None:
    problem = problems.of_error(refuse(code, "because"))
    assert 400 <= problem.status < 500
    assert problem.status == CONTRACT.get(code, problem.status)
    assert (problem.code, problem.detail) == (code, "because")


def test_a_refusal_names_its_field() -> None:
    problem = problems.of_error(refuse(Code.PARENT_MISSING, "there is no poller", "parent_id"))
    assert [(error.field, error.message) for error in problem.errors] == [("parent_id", "there is no poller")]


def test_a_401_says_how_to_authenticate() -> None:
    assert "WWW-Authenticate" in problems.of_error(refuse(Code.TOKEN_UNKNOWN, "forged")).headers


def test_an_outage_says_that_nothing_was_changed() -> None:
    problem = problems.of_error(UnavailableError("10.0.0.7:4222 refused"))
    assert (problem.status, problem.code) == (503, "unavailable")
    assert "nothing was changed" in problem.detail
    assert "10.0.0.7" not in problem.detail
    assert int(problem.headers["Retry-After"]) > 0


def test_an_unknown_outcome_says_so_and_how_to_retry() -> None:
    problem = problems.of_error(OutcomeUnknownError("timeout"))
    assert (problem.status, problem.code) == (503, "outcome_unknown")
    assert "unknown" in problem.detail
    assert "Idempotency-Key" in problem.detail


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (ConflictError("secret cause"), 503, "changes_too_fast"),
        (PortError("secret cause"), 503, "dependency_failed"),
        (ApiError("secret cause", 400, 10077), 503, "dependency_failed"),
        (RejectedError("secret cause"), 422, "not_storable"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_what_a_dependency_did_is_no_mistake_of_the_daemon(error: Exception, status: int, code: str) -> None:
    problem = problems.of_error(error)
    assert (problem.status, problem.code) == (status, code)
    assert "secret" not in problem.detail
    assert ("Retry-After" in problem.headers) == (status == 503)


@pytest.mark.parametrize("error", [RuntimeError("secret cause"), KeyError("x")])
def test_anything_else_is_a_500_that_tells_nothing(error: Exception) -> None:
    problem = problems.of_error(error)
    assert problem.status == 500
    assert "secret" not in problem.detail


def test_a_405_keeps_the_methods_that_are_allowed() -> None:
    problem = problems.of_http_exception(web.HTTPMethodNotAllowed("PATCH", ["GET", "POST"]))
    assert problem.headers == {"Allow": "GET,POST"}


def test_the_document_is_the_rfcs() -> None:
    response = problems.render(problems.too_many_failures(1.2), "req-1")
    assert response.content_type == "application/problem+json"
    assert response.headers["Retry-After"] == "2"
    assert isinstance(response.body, bytes)
    assert json.loads(response.body) == {
        "type": "about:blank",
        "title": "Too Many Requests",
        "status": 429,
        "detail": "too many failed calls: try again in 2 s",
        "code": "too_many_failures",
        "errors": [],
        "request_id": "req-1",
    }


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")
    size: int


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str
    inner: Inner


def test_every_bad_field_is_listed_and_no_value_repeated() -> None:
    with pytest.raises(ValidationError) as caught:
        Outer.model_validate_json('{"inner": {"size": "s3cret"}, "nmae": "s3cret"}')
    errors = problems.field_errors(caught.value)
    assert {error.field: error.message for error in errors}.keys() == {"name", "inner.size", "nmae"}
    assert "s3cret" not in str(errors)
    assert next(error.message for error in errors if error.field == "nmae") == "there is no such field"
    assert next(error.message for error in errors if error.field == "name") == "is required"
