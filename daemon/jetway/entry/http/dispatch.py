"""An operation as an aiohttp handler: authenticate, read what was declared, call, encode."""

from __future__ import annotations

import asyncio
import typing
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiohttp import web
from pydantic import TypeAdapter, ValidationError

from jetway.core.errors import OutcomeUnknownError, UnavailableError
from jetway.entry.http.api import DEFAULT_BODY_LIMIT, Call, Operation, Reply
from jetway.entry.http.auth import REQUEST_ID, Gate, source_ip
from jetway.entry.http.problems import FieldError, ProblemError, field_errors, invalid_fields
from jetway.services.caller import Caller

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_BODY_SECONDS = 30.0
"""How long a body may take to arrive."""
_JSON_TYPE = "application/json"
_PARSED_AT_ONCE = 256 * 1024
"""A larger body is parsed off the event loop."""


class Dispatcher:
    """Makes handlers of operations."""

    def __init__(self, gate: Gate, *, max_body_bytes: int) -> None:
        self._gate = gate
        self._max_body_bytes = max_body_bytes

    def handler(self, operation: Operation) -> Handler:
        """The aiohttp handler of an operation."""
        limit = operation.route.max_body
        limit = self._max_body_bytes if limit == DEFAULT_BODY_LIMIT else limit
        repeatable = _repeatable(operation)

        async def handle(request: web.Request) -> web.StreamResponse:
            actor = self._authenticate(operation, request)
            try:
                arguments = _path_arguments(operation, request)
                arguments |= _query_arguments(operation, request, repeatable)
                arguments |= _header_arguments(operation, request)
                arguments |= await _body_arguments(operation, request, limit)
            except ProblemError:
                if operation.route.limited:
                    self._gate.note_failure(request)
                raise
            if operation.takes_call:
                caller = Caller(actor, source_ip(request), request[REQUEST_ID])
                arguments["call"] = Call(request, caller)
            return await _answer(operation, await _call(operation, arguments))

        return handle

    def _authenticate(self, operation: Operation, request: web.Request) -> str:
        """The token's name; empty where none is needed."""
        role = operation.route.role
        return self._gate.admit(request, role).name if role else ""


# --- what comes in


def _path_arguments(operation: Operation, request: web.Request) -> dict[str, Any]:
    """Something that is no id names nothing, so it is a 404 that says which part is wrong."""
    arguments = {}
    for name, adapter in operation.paths.items():
        try:
            arguments[name] = adapter.validate_strings(request.match_info[name])
        except ValidationError as error:
            raise invalid_fields(404, "the path names nothing", field_errors(error, name)) from None
    return arguments


def _repeatable(operation: Operation) -> frozenset[str]:
    fields = operation.query.model_fields if operation.query else {}
    return frozenset(name for name, info in fields.items() if typing.get_origin(info.annotation) is list)


def _query_arguments(
    operation: Operation, request: web.Request, repeatable: frozenset[str]
) -> dict[str, Any]:
    if operation.route.lenient:
        return {}
    known = operation.query.model_fields if operation.query else {}
    errors = [_unknown_parameter(name) for name in dict.fromkeys(request.query) if name not in known]
    values: dict[str, object] = {}
    for name in known.keys() & set(request.query):
        given = request.query.getall(name)
        values[name] = given if name in repeatable else given[0]
        if len(given) > 1 and name not in repeatable:
            errors.append(FieldError(field=name, message="was given more than once"))
    arguments = {}
    if operation.query is not None:
        try:
            arguments["query"] = operation.query.model_validate(values)
        except ValidationError as error:
            errors += field_errors(error)
    if errors:
        raise invalid_fields(422, _summary("query parameters", errors), errors)
    return arguments


def _unknown_parameter(name: str) -> FieldError:
    return FieldError(field=name[:200], message="there is no such query parameter")


def _header_arguments(operation: Operation, request: web.Request) -> dict[str, Any]:
    arguments = {}
    for parameter in operation.headers:
        name = parameter.header.name
        given = request.headers.get(name)
        if given is None and not parameter.may_be_absent:
            errors = [FieldError(field=name, message="this header is required")]
            raise invalid_fields(422, _summary("headers", errors), errors)
        try:
            arguments[parameter.argument] = parameter.adapter.validate_python(given)
        except ValidationError as error:
            errors = field_errors(error, name)
            raise invalid_fields(422, _summary("headers", errors), errors) from None
    return arguments


async def _body_arguments(operation: Operation, request: web.Request, limit: int) -> dict[str, Any]:
    if operation.body is None:
        return {}
    absent = operation.body_may_be_absent and not request.can_read_body
    data = b"{}" if absent else await _read(request, limit, operation.route.media)
    if len(data) <= _PARSED_AT_ONCE:
        return {"body": _parse(operation.body, data)}
    return {"body": await asyncio.to_thread(_parse, operation.body, data)}


async def _read(request: web.Request, limit: int, media: Mapping[str, Callable[[bytes], bytes]]) -> bytes:
    """The body as JSON: as it is sent, at most `limit` bytes of it, or made of another form that it may have."""
    if request.content_type != _JSON_TYPE and request.content_type not in media:
        types = " or ".join((_JSON_TYPE, *media))
        raise ProblemError(415, "unsupported_media_type", f"the body must be JSON: Content-Type: {types}")
    data = await _receive(request, limit)
    if request.content_type == _JSON_TYPE:
        return data
    return await asyncio.to_thread(media[request.content_type], data)


async def _receive(request: web.Request, limit: int) -> bytes:
    if any(coding.lower() != "identity" for coding in request.headers.getall("Content-Encoding", ())):
        raise ProblemError(415, "unsupported_media_type", "the body must not be compressed")
    if (request.content_length or 0) > limit:
        raise _too_large(limit)
    body = bytearray()
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            async for chunk in request.content.iter_any():
                body += chunk
                if len(body) > limit:
                    raise _too_large(limit)
    except TimeoutError:
        raise ProblemError(408, "request_timeout", "the body took too long to arrive") from None
    return bytes(body)


def _too_large(limit: int) -> ProblemError:
    return ProblemError(413, "body_too_large", f"the body has more than {limit} bytes")


def _parse(adapter: TypeAdapter[Any], body: bytes) -> Any:
    try:
        return adapter.validate_json(body, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        if first["type"] == "json_invalid":
            detail = f"the body is not JSON: {first['ctx']['error']}"
            raise ProblemError(400, "malformed_json", detail) from None
        errors = field_errors(error)
        raise invalid_fields(422, _summary("fields", errors), errors) from None


def _summary(what: str, errors: list[FieldError]) -> str:
    """One sentence that names every field."""
    named = "; ".join(f"{error.field}: {error.message}" for error in errors[:5])
    more = f"; and {len(errors) - 5} more" if len(errors) > 5 else ""
    return f"wrong {what}: {named}{more}"


# --- what is done


async def _call(operation: Operation, arguments: dict[str, Any]) -> Any:
    """Call the handler, but not for ever: its client has gone by then, and others want what it holds."""
    deadline = asyncio.timeout(operation.route.seconds)
    try:
        async with deadline:
            return await operation.handler(**arguments)
    except TimeoutError as error:
        if not deadline.expired():
            raise
        late = f"{operation.name} took more than {operation.route.seconds} s"
        if operation.route.method == "GET":
            raise UnavailableError(late) from error
        raise OutcomeUnknownError(late) from error


# --- what goes out


async def _answer(operation: Operation, value: Any) -> web.StreamResponse:
    if isinstance(value, web.StreamResponse):
        return value
    if value is None:
        return web.Response(status=204)
    headers: Mapping[str, str] = {}
    if isinstance(value, Reply):
        value, headers = value.body, value.headers
    body = await operation.encode(value)
    return web.Response(status=operation.route.status, body=body, content_type=_JSON_TYPE, headers=headers)
