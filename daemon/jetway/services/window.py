"""A page of a list that is never sorted as a whole: only what the page shows is kept while the list goes by.

A cursor names the last item seen rather than a position, so a list that changes skips nothing.
"""

from __future__ import annotations

import base64
import json
import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

from jetway.core.errors import Code, RefusedError, refuse
from jetway.core.times import parse_rfc3339, rfc3339

T = TypeVar("T")

NEVER = datetime.min.replace(tzinfo=UTC)
"""Stands before every time that there is."""
_NOT_OURS = "this cursor is not one of this list: start without it"


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """A part of a list. `total` counts all that match."""

    items: Sequence[T]
    next_cursor: str | None
    total: int


@dataclass(frozen=True, slots=True)
class Order(Generic[T]):
    """What a list is sorted by: a text or a time, then the id."""

    by: Callable[[T], Any]
    name: Callable[[T], str]
    """The id, which no two items share."""
    descending: bool = False
    of_times: bool = False

    def encode(self, item: T) -> str:
        """The cursor behind this item."""
        value = self.by(item)
        text = _written(value) if self.of_times else value
        return encode_cursor([text, self.name(item)])

    def decode(self, cursor: str) -> tuple[Any, str]:
        """Where it points to. Raises RefusedError for a cursor of another list."""
        value, name = decode_cursor(cursor)
        return (_read(value) if self.of_times else value, name)


class Window(Generic[T]):
    """The first `limit` items behind the cursor, of all that are shown to it."""

    def __init__(self, order: Order[T], limit: int, cursor: str | None) -> None:
        """Raises RefusedError for a cursor of another list."""
        self._order = order
        self._limit = limit
        self._last = None if cursor is None else order.decode(cursor)
        self._is_before = operator.gt if order.descending else operator.lt
        self._best: list[tuple[tuple[Any, str], T]] = []
        self._total = 0

    def take(self, items: Sequence[T]) -> None:
        """Look at further items, in any order."""
        self._total += len(items)
        name, is_before, last = self._order.name, self._is_before, self._last
        pairs: Iterable[tuple[Any, T]] = zip(map(self._order.by, items), items, strict=True)
        # What the list is sorted by rules most of them out before their ids are looked at.
        if last is not None:
            pairs = [pair for pair in pairs if not is_before(pair[0], last[0])]
        if len(self._best) > self._limit:
            bound = self._best[-1][0]
            pairs = [pair for pair in pairs if not is_before(bound[0], pair[0])]
        keyed = [((value, name(item)), item) for value, item in pairs]
        if last is not None:
            keyed = [pair for pair in keyed if is_before(last, pair[0])]
        if keyed:
            self._best += keyed
            self._best.sort(key=operator.itemgetter(0), reverse=self._order.descending)
            del self._best[self._limit + 1 :]

    def page(self) -> Page[T]:
        """What was found."""
        shown = [item for _, item in self._best[: self._limit]]
        more = len(self._best) > self._limit
        return Page(shown, self._order.encode(shown[-1]) if more else None, self._total)


def encode_cursor(parts: list[str]) -> str:
    """A cursor that names these."""
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode().rstrip("=")


def decode_cursor(cursor: str) -> tuple[str, str]:
    """What it names. Raises RefusedError (invalid) for what is no cursor."""
    try:
        match json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))):
            case [str(first), str(second)]:
                f"{first}{second}".encode()  # half a surrogate pair is no text: no database takes it
                return first, second
    except (ValueError, TypeError, RecursionError):
        pass
    raise foreign_cursor()


def foreign_cursor() -> RefusedError:
    """Says that a cursor belongs elsewhere."""
    return refuse(Code.INVALID, _NOT_OURS, "cursor")


def _written(moment: datetime) -> str:
    return "" if moment is NEVER else rfc3339(moment)


def _read(text: str) -> datetime:
    if not text:
        return NEVER
    try:
        return parse_rfc3339(text)
    except ValueError:
        raise foreign_cursor() from None
