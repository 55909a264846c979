"""Just enough of protocol buffers and of Redis' protocol for the side-by-side: no generated code, no library."""

from __future__ import annotations

from collections.abc import Iterator

_VARINT, _BYTES = 0, 2


def proto(*fields: tuple[int, int | bytes]) -> bytes:
    """A message of these (number, value) fields: whole numbers and bytes, which submessages are too."""
    out = b""
    for number, value in fields:
        if isinstance(value, int):
            out += _varint(number << 3 | _VARINT) + _varint(value)
        else:
            out += _varint(number << 3 | _BYTES) + _varint(len(value)) + value
    return out


def fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The (number, value) fields of a message that has only whole numbers and bytes."""
    at = 0
    while at < len(message):
        head, at = _read_varint(message, at)
        value, at = _read_varint(message, at)
        if head & 7 == _BYTES:
            yield head >> 3, message[at : at + value]
            at += value
        elif head & 7 == _VARINT:
            yield head >> 3, value
        else:
            raise ValueError(f"wire type {head & 7} is not read here")


def resp(*words: str) -> bytes:
    """A Redis command."""
    told = [word.encode() for word in words]
    return b"*%d\r\n" % len(told) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in told)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    value, shift = 0, 0
    while True:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if not byte & 0x80:
            return value, at
