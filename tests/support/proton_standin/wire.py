"""Proton's native protocol, as far as proton-driver 0.3.0 speaks it: numbers, strings, packets and blocks.

The bodies of columns pass through as they are: only their ends must be found. The layout is ClickHouse's.
"""

from __future__ import annotations

import asyncio
import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from support.proton_standin.names import type_to_engine, type_to_proton
from support.proton_standin.refusals import Refused, not_modelled
from support.proton_standin.tokens import cut, render, split

REVISION = 54459
"""Of the protocol, as Proton 1.6.1 announces it."""


class FromClient(IntEnum):
    """Packets that a client sends."""

    HELLO = 0
    QUERY = 1
    DATA = 2
    CANCEL = 3
    PING = 4


class ToClient(IntEnum):
    """Packets that the server sends."""

    HELLO = 0
    DATA = 1
    EXCEPTION = 2
    PROGRESS = 3
    PONG = 4
    END_OF_STREAM = 5
    PROFILE_INFO = 6


@dataclass(frozen=True, slots=True)
class BlockColumn:
    """One column of a block: the engine's type, and the values as they are on the wire."""

    name: str
    type: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Block:
    """Some rows, by column."""

    rows: int
    columns: list[BlockColumn]


def number(value: int) -> bytes:
    """A whole number in as many bytes as it needs, seven bits in each."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def text(value: str) -> bytes:
    """A string with its length before it."""
    encoded = value.encode()
    return number(len(encoded)) + encoded


# --- what comes in


class Source(Protocol):
    """Where bytes come from."""

    async def take(self, count: int) -> bytes:
        """Exactly so many bytes. Raises EOFError when there are no more."""
        ...


class Stream:
    """Bytes of a connection."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader

    async def take(self, count: int) -> bytes:
        """Wait for so many bytes."""
        return await self._reader.readexactly(count)


class Memory:
    """Bytes of an answer of the engine."""

    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)

    @property
    def is_empty(self) -> bool:
        """Whether all is taken."""
        return not self._data

    async def take(self, count: int) -> bytes:
        """Take so many bytes."""
        if count > len(self._data):
            raise EOFError
        taken, self._data = self._data[:count], self._data[count:]
        return bytes(taken)


class _Recording:
    """Keeps what is taken through it."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.taken = bytearray()

    async def take(self, count: int) -> bytes:
        data = await self._source.take(count)
        self.taken += data
        return data


async def take_byte(source: Source) -> int:
    """One byte."""
    return (await source.take(1))[0]


async def take_number(source: Source) -> int:
    """A number as `number` writes it."""
    value = shift = 0
    while True:
        byte = await take_byte(source)
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value
        shift += 7


async def take_text(source: Source) -> str:
    """A string as `text` writes it."""
    return (await source.take(await take_number(source))).decode("utf-8", "surrogateescape")


@dataclass(frozen=True, slots=True)
class Query:
    """What a query packet says."""

    sql: str
    settings: dict[str, str]
    compressed: bool


async def take_query(source: Source) -> Query:
    """A query packet, whose number is taken already."""
    await take_text(source)  # the query's id
    if await take_byte(source):
        await _skip_client_info(source)
    settings = {}
    while name := await take_text(source):
        await take_byte(source)  # whether it is important
        settings[name] = await take_text(source)
    await take_text(source)  # a secret between servers
    await take_number(source)  # the stage
    compressed = bool(await take_number(source))
    return Query(await take_text(source), settings, compressed)


async def _skip_client_info(source: Source) -> None:
    for _ in range(3):  # initial user, query and address
        await take_text(source)
    await source.take(8 + 1)  # start of the query, interface
    for _ in range(3):  # user, host and client
        await take_text(source)
    for _ in range(3):  # version and revision
        await take_number(source)
    await take_text(source)  # quota key
    for _ in range(2):  # depth, patch version
        await take_number(source)
    if await take_byte(source):  # a trace: ids, state, flags
        await source.take(16 + 8)
        await take_text(source)
        await take_byte(source)
    for _ in range(3):  # parallel replicas
        await take_number(source)


async def take_block_of_client(source: Source) -> Block:
    """A data packet, whose number is taken already."""
    await take_text(source)  # name of an external table
    while field := await take_number(source):
        await source.take(1 if field == 1 else 4)
    return await _take_block(source, of_client=True)


async def take_block_of_engine(source: Source) -> Block:
    """A block of the format Native."""
    return await _take_block(source, of_client=False)


async def _take_block(source: Source, *, of_client: bool) -> Block:
    count, rows = await take_number(source), await take_number(source)
    columns = []
    for _ in range(count):
        name, kind = await take_text(source), await take_text(source)
        kind = type_to_engine(cut(kind)) if of_client else kind
        recording = _Recording(source)
        await _take_values(recording, kind, rows)
        columns.append(BlockColumn(name, kind, bytes(recording.taken)))
    return Block(rows, columns)


_WIDTHS = {
    **dict.fromkeys(("Int8", "UInt8", "Bool", "Enum8", "Nothing"), 1),
    **dict.fromkeys(("Int16", "UInt16", "Enum16", "Date"), 2),
    **dict.fromkeys(("Int32", "UInt32", "Float32", "DateTime", "Date32", "IPv4"), 4),
    **dict.fromkeys(("Int64", "UInt64", "Float64", "DateTime64"), 8),
    **dict.fromkeys(("UUID", "IPv6", "Int128", "UInt128"), 16),
    **dict.fromkeys(("Int256", "UInt256"), 32),
}


async def _take_values(source: Source, kind: str, rows: int) -> None:
    """Take so many values of a type, whatever they are."""
    head, _, arguments = kind.partition("(")
    inner = [render(part).strip() for part in split(cut(arguments.removesuffix(")")))]
    if head in _WIDTHS:
        await source.take(_WIDTHS[head] * rows)
    elif head == "String":
        for _ in range(rows):
            await source.take(await take_number(source))
    elif head == "FixedString":
        await source.take(int(inner[0]) * rows)
    elif head == "Decimal":
        await source.take(_decimal_width(int(inner[0])) * rows)
    elif head == "Nullable":
        await source.take(rows)
        await _take_values(source, inner[0], rows)
    elif head in ("Array", "Map"):
        total = _last_offset(await source.take(8 * rows))
        for part in inner:
            await _take_values(source, part, total)
    elif head == "Tuple":
        for part in inner:
            await _take_values(source, part.split(" ")[-1] if "(" not in part else part, rows)
    else:
        raise not_modelled(f"values of type {type_to_proton(kind)}")


def _decimal_width(precision: int) -> int:
    return next(width for most, width in ((9, 4), (18, 8), (38, 16), (76, 32)) if precision <= most)


def _last_offset(offsets: bytes) -> int:
    return int(struct.unpack_from("<Q", offsets, len(offsets) - 8)[0]) if offsets else 0


# --- what goes out


def native(block: Block) -> bytes:
    """The block in the engine's format Native."""
    head = number(len(block.columns)) + number(block.rows)
    return head + b"".join(text(column.name) + text(column.type) + column.body for column in block.columns)


_BLOCK_INFO = b"\x01\x00\x02\xff\xff\xff\xff\x00"


def data_packet(block: Block) -> bytes:
    """A packet with rows for the client."""
    columns = [BlockColumn(one.name, type_to_proton(one.type), one.body) for one in block.columns]
    return number(ToClient.DATA) + text("") + _BLOCK_INFO + native(Block(block.rows, columns))


def header_packet(columns: list[tuple[str, str]]) -> bytes:
    """A packet with names and types of the engine, and no rows."""
    return data_packet(Block(0, [BlockColumn(name, kind, b"") for name, kind in columns]))


def hello_packet() -> bytes:
    """The server's name, version, time zone and display name."""
    version = number(1) + number(6) + number(REVISION)
    return (
        number(ToClient.HELLO)
        + text("timeplusd")
        + version
        + text("UTC")
        + text("proton stand-in")
        + number(1)
    )


def exception_packet(refused: Refused) -> bytes:
    """An error with its code."""
    message = text("DB::Exception") + text(f"DB::Exception: {refused.message}") + text("") + b"\0"
    return number(ToClient.EXCEPTION) + struct.pack("<i", refused.code) + message


def closing_packets() -> bytes:
    """Profile, progress and the end of an answer."""
    profile = number(ToClient.PROFILE_INFO) + number(0) * 3 + b"\0" + number(0) + b"\0"
    progress = number(ToClient.PROGRESS) + number(0) * 5
    return profile + progress + number(ToClient.END_OF_STREAM)
