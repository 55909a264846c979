"""Server-sent events, as they come in: bytes in pieces of any length, events out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

_LONGEST_LINE = 4 * 1024 * 1024
"""Bytes; many times the largest service."""


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """One event."""

    name: str
    data: str
    id: str
    """Where a client goes on that has dealt with it; empty for an event that says nothing of it."""


class EventReader:
    """Puts pieces together."""

    def __init__(self) -> None:
        self._rest = b""
        self._name = ""
        self._id = ""
        self._data: list[str] = []

    def feed(self, piece: bytes) -> Iterator[ServerEvent]:
        """The events that end in this piece. Raises ValueError for a line of absurd length."""
        *lines, self._rest = (self._rest + piece).split(b"\n")
        if len(self._rest) > _LONGEST_LINE:
            raise ValueError("a line without end")
        for line in lines:
            event = self._take(line.removesuffix(b"\r").decode(errors="replace"))
            if event is not None:
                yield event

    def _take(self, line: str) -> ServerEvent | None:
        if not line:
            return self._end()
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            self._name = value
        elif field == "id":
            self._id = value
        elif field == "data":
            self._data.append(value)
        return None

    def _end(self) -> ServerEvent | None:
        event = ServerEvent(self._name or "message", "\n".join(self._data), self._id)
        found = bool(self._data)
        self._name, self._id = "", ""
        self._data.clear()
        return event if found else None
