"""What a statement can ask for. Types, functions and expressions in here are the engine's already."""

from __future__ import annotations

from dataclasses import dataclass

APPEND, KEYED, VIEW = "append", "versioned_kv", "view"

StreamName = tuple[str, str]
"""Database and stream."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a stream that is to be made."""

    name: str
    type: str
    rest: str


@dataclass(frozen=True, slots=True)
class CreateStream:
    """CREATE STREAM."""

    stream: StreamName
    if_not_exists: bool
    columns: list[Column]
    mode: str
    version: str
    partition: str
    key: str
    ttl: str


@dataclass(frozen=True, slots=True)
class Insert:
    """INSERT; without a `source` the rows follow in blocks."""

    stream: StreamName
    columns: list[str]
    source: str


@dataclass(frozen=True, slots=True)
class Select:
    """SELECT; a streaming one never ends."""

    sql: str
    streaming: bool


@dataclass(frozen=True, slots=True)
class Other:
    """What changes or shows the streams."""

    sql: str
    changes_streams: bool = False


Statement = CreateStream | Insert | Select | Other


def quoted(stream: StreamName) -> str:
    """The stream's full name for the engine."""
    return ".".join(f"`{part}`" for part in stream)
