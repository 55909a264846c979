"""Errors as the outside sees them: RFC 9457 problem documents.

A problem carries a sentence that a person can act on and a stable code. Causes stay in the log.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any, Literal

from aiohttp import web
from pydantic import BaseModel, Field, ValidationError

from jetway.core.errors import (
    Code,
    ConflictError,
    OutcomeUnknownError,
    PortError,
    RefusedError,
    RejectedError,
    UnavailableError,
)
from jetway.core.ids import ID_PATTERN

CONTENT_TYPE = "application/problem+json"
RETRY_SECONDS = 5
"""Retry-After while a dependency is away: about as long as an election in a cluster takes."""
_ERRORS_SHOWN = 50
_FIELD_SHOWN = 200

STATUS: Mapping[Code, int] = {
    Code.INVALID: 422,
    Code.NOT_FOUND: 404,
    Code.TAKEN: 409,
    Code.PARENT_MISSING: 422,  # the body names something that is not there
    Code.PARENT_NOT_LIVE: 409,  # it is there, and its state is in the way
    Code.CHILDREN_LIVE: 409,
    Code.ILLEGAL_TRANSITION: 409,
    Code.TOKEN_MALFORMED: 400,
    Code.TOKEN_UNKNOWN: 401,
    Code.EXPIRED: 410,
    Code.REVOKED: 410,
    Code.SUPERSEDED: 410,
    Code.ALREADY_REDEEMED: 409,
    Code.KEY_USED_BEFORE: 409,
    Code.PROOF_INVALID: 401,
    Code.PROOF_STALE: 401,
    Code.TOO_MANY_RENEWALS: 429,
    Code.UNKNOWN_SERVICE: 404,
    Code.WRONG_PARENTS: 409,
    Code.NOT_DELIVERED: 409,
    Code.APPROVAL_REQUIRED: 409,
    Code.REJECTED: 409,
    Code.DELETED: 410,
    Code.MALFORMED: 400,
    Code.IDEMPOTENCY_MISMATCH: 422,
    Code.VERSION_DIFFERS: 412,
    Code.COUNT_DIFFERS: 409,
    Code.TOO_MANY_FAILURES: 429,
    Code.ALREADY_RUNNING: 409,
    Code.NOT_LEADING: 409,
}
"""The HTTP status of every refusal."""

PATTERN_WORDS: dict[str, str] = {
    ID_PATTERN: "must be an id: 1 to 63 lower-case letters, digits and inner hyphens",
}
"""What a pattern means, for people. `fields` adds its own."""


class FieldError(BaseModel):
    """One wrong field of a request."""

    field: str = Field(description="The field, parameter or header; parts of a path are joined by dots.")
    message: str


class Problem(BaseModel):
    """What went wrong, as RFC 9457 has it."""

    type: Literal["about:blank"] = "about:blank"
    title: str = Field(description="The status in words.")
    status: int
    detail: str = Field(description="A sentence to act on.")
    code: str = Field(description="Stable, for programs.")
    errors: list[FieldError] = Field(default_factory=list, description="Every wrong field.")
    request_id: str = Field(default="", description="What to look for in the daemon's log.")


class ProblemError(Exception):
    """A problem on its way to the caller."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        errors: Iterable[FieldError] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.errors = list(errors)
        self.headers = dict(headers or {})


def too_many_failures(seconds: float) -> ProblemError:
    """429, with the time after which another try is looked at."""
    wait = max(1, math.ceil(seconds))
    detail = f"too many failed calls: try again in {wait} s"
    return ProblemError(429, Code.TOO_MANY_FAILURES, detail, headers={"Retry-After": str(wait)})


def invalid_fields(status: int, detail: str, errors: Iterable[FieldError]) -> ProblemError:
    """A request whose fields are wrong."""
    return ProblemError(status, Code.INVALID if status != 404 else Code.NOT_FOUND, detail, errors=errors)


def wrong_filter(error: ValidationError) -> ProblemError:
    """A page was asked for with an address whose parameters are wrong."""
    errors = field_errors(error)
    sentence = "; ".join(f"{each.field} {each.message}" for each in errors)
    return invalid_fields(422, f"the filter is wrong: {sentence}", errors)


def of_error(error: Exception) -> ProblemError:
    """The problem that an exception of ours stands for; anything unknown is a 500 that tells nothing."""
    if isinstance(error, ProblemError):
        return error
    if isinstance(error, RefusedError):
        return _of_refusal(error)
    if isinstance(error, UnavailableError):
        return _of_unavailable(error)
    if isinstance(error, PortError):
        return _of_failure(error)
    detail = "the daemon made a mistake; its log has the details under this request id"
    return ProblemError(500, "internal", detail)


def _of_refusal(error: RefusedError) -> ProblemError:
    refused = error.refused
    status = STATUS[refused.code]
    errors = [FieldError(field=refused.field, message=refused.why)] if refused.field else []
    headers = {"WWW-Authenticate": 'JoinToken realm="jetway"'} if status == 401 else None
    return ProblemError(status, refused.code, refused.why, errors=errors, headers=headers)


def _of_unavailable(error: UnavailableError) -> ProblemError:
    headers = {"Retry-After": str(RETRY_SECONDS)}
    if isinstance(error, OutcomeUnknownError):
        detail = (
            "a dependency went away in the middle: whether this was done is unknown. "
            "Repeating a creation with the same Idempotency-Key is safe; for anything else look first"
        )
        return ProblemError(503, "outcome_unknown", detail, headers=headers)
    detail = "a dependency is away, nothing was changed: try again shortly; /readyz tells which one"
    return ProblemError(503, "unavailable", detail, headers=headers)


def _of_failure(error: PortError) -> ProblemError:
    """Something outside did otherwise than asked, and that is no mistake of the daemon's."""
    if isinstance(error, RejectedError):
        detail = (
            "this cannot be stored: it is larger than a dependency takes, or refused for what it contains; "
            "nothing was changed"
        )
        return ProblemError(422, "not_storable", detail)
    headers = {"Retry-After": str(RETRY_SECONDS)}
    if isinstance(error, ConflictError):
        detail = "others change the same thing all the time, nothing was changed: try again"
        return ProblemError(503, "changes_too_fast", detail, headers=headers)
    detail = (
        "a dependency did not do as it was asked; whether anything was changed is unknown: look before it is "
        "repeated. The daemon's log has the details under this request id"
    )
    return ProblemError(503, "dependency_failed", detail, headers=headers)


def of_http_exception(error: web.HTTPException) -> ProblemError:
    """The problem that one of aiohttp's own refusals stands for."""
    headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else None
    details = {
        404: "there is nothing at this path; /openapi.json lists what there is",
        405: f"this path does not take that method, only {error.headers.get('Allow', 'others')}",
        413: "the request body is too large",
    }
    code = error.reason.lower().replace(" ", "_") if error.status != 413 else "body_too_large"
    return ProblemError(error.status, code, details.get(error.status, error.reason), headers=headers)


def document(error: ProblemError, request_id: str = "") -> Problem:
    """The problem as a document."""
    return Problem(
        title=HTTPStatus(error.status).phrase,
        status=error.status,
        detail=error.detail,
        code=error.code,
        errors=error.errors,
        request_id=request_id,
    )


def render(error: ProblemError, request_id: str) -> web.Response:
    """The problem document as a response."""
    return web.Response(
        status=error.status,
        body=document(error, request_id).model_dump_json().encode(),
        content_type=CONTENT_TYPE,
        headers=error.headers,
    )


def field_errors(
    error: ValidationError, at: str = "", missing: str = "there is no such field"
) -> list[FieldError]:
    """Every bad field of a ValidationError. What the client sent is not repeated, only where it stood."""
    items = error.errors(include_url=False, include_input=False)
    return [_field_error(item, at, missing) for item in items[:_ERRORS_SHOWN]]


def _field_error(item: Any, at: str, missing: str) -> FieldError:
    parts = [str(part) for part in item["loc"] if part != "[key]"]
    where = ".".join([at, *parts] if at else parts)
    return FieldError(field=where[:_FIELD_SHOWN] or "body", message=_message(item, missing))


def _message(item: Any, missing: str) -> str:
    kind = item["type"]
    if kind == "extra_forbidden":
        return missing
    if kind == "missing":
        return "is required"
    if kind == "string_pattern_mismatch":
        words = PATTERN_WORDS.get(item["ctx"]["pattern"])
        if words:
            return words
    if kind == "value_error":
        return str(item["ctx"]["error"])
    return str(item["msg"])
