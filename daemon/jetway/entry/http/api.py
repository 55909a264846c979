"""The thin typed layer: declared routes become aiohttp handlers here, and a description in `openapi`.

A handler's signature is its declaration. Parameters are path parameters by name, `query` (a model), `body`
(a model), `call` (who calls), and headers (`Annotated[..., Header("Idempotency-Key")]`). The return type is
what is answered: a model, `Reply[model]` to add headers, `model | None` where None means 204, or a response.
"""

from __future__ import annotations

import asyncio
import inspect
import re
import types
import typing
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from aiohttp import web
from pydantic import BaseModel, TypeAdapter

from jetway.entry.http.auth import Role
from jetway.services.caller import Caller

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Awaitable[Any]])

_DECLARED = "_jetway_route"
DEFAULT_BODY_LIMIT = -1
"""The daemon's general limit."""
HANDLER_SECONDS = 60.0
"""Longer than everything that a handler waits for is given, one after the other, and than clients wait."""


@dataclass(frozen=True, slots=True)
class Header:
    """Marks a handler's parameter as a request header."""

    name: str
    description: str = ""


@dataclass(frozen=True, slots=True)
class Call:
    """One request, its caller known."""

    request: web.Request
    caller: Caller


@dataclass(frozen=True, slots=True)
class Reply(Generic[T]):
    """An answer with headers of its own."""

    body: T
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """What is declared of a handler beside its signature."""

    method: str
    path: str
    tag: str
    role: Role | None = None
    """None: open to all."""
    status: int = 200
    errors: tuple[int, ...] = ()
    """Statuses of its own; those that follow from role, parameters and body are added by themselves."""
    content: Mapping[str, str] = field(default_factory=dict)
    """Further media types of the answer → what they hold."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Headers of the answer → what they say."""
    max_body: int = DEFAULT_BODY_LIMIT
    """In bytes; its own, where what it takes is small or large by nature."""
    media: Mapping[str, Callable[[bytes], bytes]] = field(default_factory=dict)
    """Further media types of the body → how it becomes JSON."""
    limited: bool = False
    """Whether a request that cannot even be read counts as a failure of its address."""
    lenient: bool = False
    """Whether unknown query parameters are passed over."""
    result: type[BaseModel] | None = None
    """What is answered as JSON, where the handler renders it itself."""
    unwell: bool = False
    """Whether 503 has the same body as success."""
    seconds: float | None = HANDLER_SECONDS
    """After how long a handler that has not answered is given up; None where the answer may go on without end."""
    heavy: bool = False
    """Whether the answer can be large: it is then encoded off the event loop."""


@dataclass(frozen=True, slots=True)
class HeaderParameter:
    """A request header that a handler takes."""

    argument: str
    header: Header
    adapter: TypeAdapter[Any]
    may_be_absent: bool = True


@dataclass(slots=True)
class Operation:
    """A route with its handler, taken apart once."""

    route: Route
    handler: Callable[..., Awaitable[Any]]
    paths: dict[str, TypeAdapter[Any]] = field(default_factory=dict)
    headers: list[HeaderParameter] = field(default_factory=list)
    query: type[BaseModel] | None = None
    body: TypeAdapter[Any] | None = None
    body_may_be_absent: bool = False
    """Whether every field of the body has a default."""
    takes_call: bool = False
    result: TypeAdapter[Any] | None = None
    may_be_empty: bool = False

    @property
    def name(self) -> str:
        """Unique: the handler's name."""
        return self.handler.__name__

    @property
    def path_template(self) -> str:
        """The path without the patterns of its parameters."""
        return template_of(self.route.path)

    async def encode(self, value: Any) -> bytes:
        """The answer's body."""
        if self.result is None:
            raise TypeError(f"{self.name} answered without having declared it")
        if self.route.heavy:
            return await asyncio.to_thread(self.result.dump_json, value)
        return self.result.dump_json(value)


def template_of(path: str) -> str:
    """`/x/{kind:a|b}` → `/x/{kind}`."""
    return re.sub(r"{(\w+):[^}]*}", r"{\1}", path)


def route(method: str, path: str, **details: Any) -> Callable[[F], F]:
    """Declare a method as the handler of a route."""

    def declare(handler: F) -> F:
        setattr(handler, _DECLARED, Route(method=method, path=path, **details))
        return handler

    return declare


def operations_of(room: object) -> list[Operation]:
    """The operations that an object's methods declare, in the order of their definition."""
    found = []
    for name in vars(type(room)):
        declared = getattr(getattr(room, name), _DECLARED, None)
        if declared is not None:
            found.append(_operation(declared, getattr(room, name)))
    return found


def _operation(declared: Route, handler: Callable[..., Awaitable[Any]]) -> Operation:
    operation = Operation(declared, handler)
    hints = typing.get_type_hints(handler, include_extras=True)
    returned = hints.pop("return")
    in_path = set(re.findall(r"{(\w+)[:}]", declared.path))
    for name, hint in hints.items():
        _take_parameter(operation, name, hint, in_path)
    if in_path != set(operation.paths):
        raise TypeError(f"{operation.name}: the path has {in_path}, the handler takes {set(operation.paths)}")
    _take_result(operation, returned)
    return operation


def _take_parameter(operation: Operation, name: str, hint: Any, in_path: set[str]) -> None:
    marks = [mark for mark in getattr(hint, "__metadata__", ()) if isinstance(mark, Header)]
    if name in in_path:
        operation.paths[name] = TypeAdapter(hint)
    elif marks:
        optional = type(None) in typing.get_args(typing.get_args(hint)[0])
        operation.headers.append(HeaderParameter(name, marks[0], TypeAdapter(hint), optional))
    elif name == "query":
        operation.query = hint
    elif name == "body":
        operation.body = TypeAdapter(hint)
        operation.body_may_be_absent = not any(info.is_required() for info in hint.model_fields.values())
    elif name == "call":
        operation.takes_call = True
    else:
        raise TypeError(f"{operation.name}: unexpected parameter {name}")


def _take_result(operation: Operation, hint: Any) -> None:
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    options = list(typing.get_args(hint)) if union else [hint]
    models = []
    for option in options:
        if option is type(None):
            operation.may_be_empty = True
        elif typing.get_origin(option) is Reply:
            models.append(typing.get_args(option)[0])
        elif not (inspect.isclass(option) and issubclass(option, web.StreamResponse)):
            models.append(option)
    if operation.route.result is not None:
        models.append(operation.route.result)
    if len(models) > 1:
        raise TypeError(f"{operation.name}: more than one kind of answer")
    if models:
        operation.result = TypeAdapter(models[0])
