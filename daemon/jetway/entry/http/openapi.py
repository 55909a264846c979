"""Operations → OpenAPI 3.1. Schemas come from the adapters that validate and encode, so they are true."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from typing import Annotated, Any, Literal

from pydantic import TypeAdapter
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue

from jetway.entry.http.api import Operation
from jetway.entry.http.problems import CONTENT_TYPE, Problem

_PROBLEM = "problem"
_SCHEMES = {
    "apiToken": {
        "type": "http",
        "scheme": "bearer",
        "description": "Made by `jetway api-token create`; the daemon writes a first one to admin.token.",
    }
}
_REQUEST_ID = {"X-Request-Id": {"$ref": "#/components/headers/X-Request-Id"}}
_SAYS = {
    400: "Not HTTP, not JSON, or not a token.",
    401: "No credentials, or unknown ones.",
    403: "The role is too small.",
    404: "There is no such thing.",
    405: "The path does not take this method.",
    408: "The body took too long to arrive.",
    409: "The state of things is in the way.",
    410: "It is over: expired, revoked or superseded.",
    412: "It has changed since the version that `If-Match` names.",
    413: "The body is too large.",
    415: "The body is not application/json.",
    422: "Fields or parameters are wrong; `errors` lists all of them. Code `not_storable`: it cannot be stored.",
    429: "Too many failed calls.",
    500: "A mistake of the daemon.",
    503: (
        "A dependency is away or failed, or too much is going on. `code` tells whether anything was changed: "
        "`unavailable` and `changes_too_fast` say that nothing was, `outcome_unknown` and `dependency_failed` "
        "that it is not known."
    ),
}
_EXTRA_HEADERS: dict[int, dict[str, str]] = {
    401: {"WWW-Authenticate": "How to authenticate."},
    429: {"Retry-After": "Seconds until another try is looked at."},
    503: {"Retry-After": "Seconds to wait."},
}


def describe(operations: Sequence[Operation], *, title: str, version: str, about: str) -> dict[str, Any]:
    """The OpenAPI document."""
    schemas = _Schemas(operations)
    statuses = sorted({status for operation in operations for status in _error_statuses(operation)})
    paths: dict[str, Any] = {}
    for operation in operations:
        methods = paths.setdefault(operation.path_template, {})
        methods[operation.route.method.lower()] = _operation(operation, schemas)
    return {
        "openapi": "3.1.1",
        "info": {"title": title, "version": version, "description": about},
        "paths": paths,
        "components": {
            "schemas": schemas.definitions,
            "responses": {_response_name(status): _problem_response(status, schemas) for status in statuses},
            "headers": {"X-Request-Id": _header("The request's id, as the daemon's log has it.")},
            "securitySchemes": _SCHEMES,
        },
    }


class _Schemas:
    """All schemas, generated together so that what they share is shared."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        inputs: list[tuple[Any, Any, Any]] = [(_PROBLEM, "serialization", TypeAdapter(Problem).core_schema)]
        for operation in operations:
            inputs += _schema_inputs(operation)
        generator = GenerateJsonSchema(ref_template="#/components/schemas/{model}")
        self._refs, self.definitions = generator.generate_definitions(inputs)

    def of(self, key: object, mode: Literal["validation", "serialization"] = "validation") -> JsonSchemaValue:
        """The schema that was asked for under this key."""
        return self._refs[(key, mode)]


def _schema_inputs(operation: Operation) -> Iterable[tuple[Any, Any, Any]]:
    name = operation.name
    if operation.body is not None:
        yield (name, "body"), "validation", operation.body.core_schema
    if operation.result is not None:
        yield (name, "result"), "serialization", operation.result.core_schema
    for argument, adapter in operation.paths.items():
        yield (name, "path", argument), "validation", adapter.core_schema
    for parameter in operation.headers:
        yield (name, "header", parameter.argument), "validation", parameter.adapter.core_schema
    for argument, info in _query_fields(operation).items():
        annotated: Any = Annotated[info.annotation, info]
        yield (name, "query", argument), "validation", TypeAdapter(annotated).core_schema


def _query_fields(operation: Operation) -> dict[str, FieldInfo]:
    return dict(operation.query.model_fields) if operation.query else {}


# --- one operation


def _operation(operation: Operation, schemas: _Schemas) -> dict[str, Any]:
    summary, _, description = (inspect.getdoc(operation.handler) or operation.name).partition("\n")
    document: dict[str, Any] = {
        "operationId": operation.name,
        "summary": summary,
        "tags": [operation.route.tag],
        "security": [{"apiToken": []}] if operation.route.role else [],
        "parameters": _parameters(operation, schemas),
        "responses": _responses(operation, schemas),
    }
    about = description.strip()
    if operation.route.role:
        about = f"{about}\n\nNeeds the role `{operation.route.role.value}`.".strip()
    if about:
        document["description"] = about
    if operation.body is not None:
        content = {"application/json": {"schema": schemas.of((operation.name, "body"))}}
        content |= {kind: {"schema": {"type": "string"}} for kind in operation.route.media}
        document["requestBody"] = {"required": not operation.body_may_be_absent, "content": content}
    return document


def _parameters(operation: Operation, schemas: _Schemas) -> list[dict[str, Any]]:
    name = operation.name
    found = [
        {"name": argument, "in": "path", "required": True, "schema": schemas.of((name, "path", argument))}
        for argument in operation.paths
    ]
    for argument, info in _query_fields(operation).items():
        schema = _never_null(schemas.of((name, "query", argument)))
        found.append({"name": argument, "in": "query", "required": info.is_required(), "schema": schema})
        if info.description:
            found[-1]["description"] = info.description
    for parameter in operation.headers:
        given = schemas.of((name, "header", parameter.argument))
        schema, required = _never_null(given), "anyOf" not in given
        entry = {"name": parameter.header.name, "in": "header", "required": required, "schema": schema}
        found.append(entry | {"description": parameter.header.description})
    return found


def _never_null(schema: JsonSchemaValue) -> JsonSchemaValue:
    """A parameter is absent rather than null."""
    if "anyOf" not in schema:
        return schema
    options = [option for option in schema["anyOf"] if option != {"type": "null"}]
    rest = {key: value for key, value in schema.items() if key != "anyOf" and value is not None}
    return {**rest, **options[0]} if len(options) == 1 else {**rest, "anyOf": options}


# --- responses


def _error_statuses(operation: Operation) -> set[int]:
    declared = operation.route
    statuses = {*declared.errors, 400, 500, 503}
    if declared.role:
        statuses |= {401, 403, 429}
    if operation.paths:
        statuses.add(404)
    if operation.body is not None:
        statuses |= {408, 413, 415, 422}
    if "If-Match" in _header_names(operation):
        statuses.add(412)
    if operation.headers or not declared.lenient:
        statuses.add(422)
    return statuses


def _header_names(operation: Operation) -> set[str]:
    return {parameter.header.name for parameter in operation.headers}


def _responses(operation: Operation, schemas: _Schemas) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    if operation.result is not None or operation.route.content:
        responses[str(operation.route.status)] = _success(operation, schemas)
        if operation.route.unwell:
            responses["503"] = _success(operation, schemas) | {"description": "It is not."}
    if "If-None-Match" in _header_names(operation):
        about = {"ETag": _header("Its version.")}
        responses["304"] = {"description": "It has not changed.", "headers": dict(_REQUEST_ID) | about}
    if operation.may_be_empty:
        responses["204"] = {"description": HTTPStatus(204).phrase, "headers": dict(_REQUEST_ID)}
    for status in sorted(_error_statuses(operation)):
        # A status that also answers with something else than a problem is described by its own entry.
        responses.setdefault(str(status), {"$ref": f"#/components/responses/{_response_name(status)}"})
    return responses


def _success(operation: Operation, schemas: _Schemas) -> dict[str, Any]:
    content: dict[str, Any] = {}
    if operation.result is not None:
        content["application/json"] = {"schema": schemas.of((operation.name, "result"), "serialization")}
    for media_type, about in operation.route.content.items():
        content[media_type] = {"schema": _schema_of_media(media_type, about)}
    headers = dict(_REQUEST_ID) | {name: _header(says) for name, says in operation.route.headers.items()}
    return {"description": HTTPStatus(operation.route.status).phrase, "headers": headers, "content": content}


def _schema_of_media(media_type: str, about: str) -> dict[str, Any]:
    """Of events it describes one, as OpenAPI 3.2 has it (4.14.4, "Considerations for Sequential Media Types")."""
    if media_type != "text/event-stream":
        return {"type": "string", "description": about}
    fields = {name: {"type": "string"} for name in ("event", "id", "data")}
    return {"type": "object", "description": about, "properties": fields}


def _problem_response(status: int, schemas: _Schemas) -> dict[str, Any]:
    extra = _EXTRA_HEADERS.get(status, {})
    headers = dict(_REQUEST_ID) | {name: _header(says) for name, says in extra.items()}
    content = {CONTENT_TYPE: {"schema": schemas.of(_PROBLEM, "serialization")}}
    return {"description": _SAYS[status], "headers": headers, "content": content}


def _response_name(status: int) -> str:
    return f"Problem{status}"


def _header(description: str) -> dict[str, Any]:
    return {"description": description, "schema": {"type": "string"}}
