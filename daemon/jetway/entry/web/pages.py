"""How a page is declared."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from aiohttp import web

from jetway.entry.http.auth import Role
from jetway.entry.web.visit import Visit

Handler = Callable[[Visit], Awaitable[web.StreamResponse]]
H = TypeVar("H", bound=Callable[..., Awaitable[web.StreamResponse]])
_MARK = "__page__"


@dataclass(frozen=True, slots=True)
class Page:
    """One method and path, and who may."""

    method: str
    path: str
    role: Role
    upload: int = 0
    """Bytes of a form with a file in it; 0: its form has none."""


def page(method: str, path: str, role: Role = Role.VIEWER, *, upload: int = 0) -> Callable[[H], H]:
    """Declare a method of a class of pages as the handler of a path."""

    def mark(handler: H) -> H:
        declared = [*getattr(handler, _MARK, ()), Page(method, path, role, upload)]
        setattr(handler, _MARK, declared)
        return handler

    return mark


def pages_of(room: object) -> Iterator[tuple[Page, Handler]]:
    """All pages of an object, in the order of their names."""
    for name in dir(type(room)):
        handler: Any = getattr(room, name)
        for declared in getattr(handler, _MARK, ()):
            yield declared, handler
