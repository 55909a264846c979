"""`jetway.get` and `jetway.stats`: single services and their counts, asked for over NATS as over HTTP.

Answers have the shapes of the HTTP API, problem documents among them, and come from memory like those.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from jetway.core.errors import Code, RefusedError
from jetway.core.ids import ServiceId, ServiceKey, ServiceType
from jetway.entry.http import models as m
from jetway.entry.http import problems, render
from jetway.entry.questions import Endpoint, Told
from jetway.ports import HeartbeatMessage
from jetway.services.catalogue import Catalogue

REQUEST_LIMIT = 4096
"""Bytes of a question."""
ANSWERS_AT_ONCE = 1000
_Asked = TypeVar("_Asked", bound=BaseModel)


class GetService(BaseModel):
    """What `jetway.get` is asked."""

    model_config = ConfigDict(extra="forbid")

    service_type: ServiceType
    service_id: ServiceId


class GetStats(BaseModel):
    """What `jetway.stats` is asked: nothing."""

    model_config = ConfigDict(extra="forbid")


def get_endpoint(catalogue: Catalogue, subject: str) -> Endpoint:
    """The twin of `GET /api/admin/services/{type}/{id}`."""

    async def get(asked: GetService) -> m.Answer:
        return render.service(catalogue.get(ServiceKey(asked.service_type, asked.service_id)))

    return Endpoint(
        name="get",
        subject=subject,
        description="One service.",
        answer=lambda message: _told(message, GetService, get),
        at_once=ANSWERS_AT_ONCE,
    )


def stats_endpoint(catalogue: Catalogue, subject: str) -> Endpoint:
    """The twin of `GET /api/admin/services/stats`."""

    async def stats(_asked: GetStats) -> m.Answer:
        return m.Stats.model_validate(await catalogue.stats())

    return Endpoint(
        name="stats",
        subject=subject,
        description="Counts of services by type, status, source and liveness.",
        answer=lambda message: _told(message, GetStats, stats),
        at_once=ANSWERS_AT_ONCE,
    )


async def _told(
    message: HeartbeatMessage, model: type[_Asked], answer: Callable[[_Asked], Awaitable[m.Answer]]
) -> Told:
    try:
        return Told((await answer(_read(message.data, model))).model_dump_json().encode())
    except (RefusedError, problems.ProblemError) as error:
        problem = problems.of_error(error)
        document = problems.document(problem).model_dump_json()
        return Told(document.encode(), problem.status, problem.code, problem.detail)


def _read(data: bytes, model: type[_Asked]) -> _Asked:
    """The question; nothing at all asks with every field left out. Raises ProblemError."""
    if len(data) > REQUEST_LIMIT:
        raise problems.ProblemError(400, Code.MALFORMED, f"a question has at most {REQUEST_LIMIT} bytes")
    try:
        return model.model_validate_json(data or b"{}")
    except ValidationError as error:
        errors = problems.field_errors(error)
        detail = "; ".join(f"{each.field}: {each.message}" for each in errors)
        raise problems.invalid_fields(400, detail, errors) from None
