"""Forms with a file in them, `multipart/form-data`: read into memory up to a bound, a few at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from aiohttp import BodyPartReader, web
from aiohttp.http_exceptions import HttpProcessingError

from jetway.core.errors import UnavailableError
from jetway.entry.http.problems import ProblemError

_TYPE = "multipart/form-data"
_SECONDS = 120.0
"""For which an upload may take to arrive."""
_AT_ONCE = 2
_PARTS = 16
_CHUNK = 64 * 1024


@dataclass(frozen=True, slots=True)
class Upload:
    """The fields of a form, and its file; empty where none was chosen."""

    fields: Mapping[str, str]
    file: bytes


class Uploads:
    """Reads uploads, of which few are under way at one time: each is held in memory."""

    def __init__(self) -> None:
        self._under_way = 0

    async def read(self, request: web.Request, most: int) -> Upload:
        """The form, of at most `most` bytes in all. Raises ProblemError, UnavailableError."""
        if request.content_type != _TYPE:
            raise ProblemError(415, "unsupported_media_type", "a form must be sent as a browser sends it")
        if (request.content_length or 0) > most:
            raise _too_large(most)
        if self._under_way >= _AT_ONCE:
            raise UnavailableError("other files are being uploaded: try again in a moment")
        self._under_way += 1
        try:
            async with asyncio.timeout(_SECONDS):
                return await _read(request, most)
        except TimeoutError:
            raise ProblemError(408, "request_timeout", "the file took too long to arrive") from None
        except (ValueError, AssertionError, RuntimeError, HttpProcessingError, web.RequestPayloadError):
            raise ProblemError(400, "malformed_request", "the form cannot be read") from None
        finally:
            self._under_way -= 1


async def _read(request: web.Request, most: int) -> Upload:
    reader = await request.multipart()
    fields: dict[str, str] = {}
    file, left = b"", most
    for _ in range(_PARTS):
        part = await reader.next()
        if part is None:
            return Upload(fields, file)
        if not isinstance(part, BodyPartReader) or not part.name:
            raise ValueError("a form has fields and nothing else")
        data = bytearray()
        while chunk := await part.read_chunk(_CHUNK):
            data += chunk
            if len(data) > left:
                raise _too_large(most)
        left -= len(data)
        if part.filename is not None:
            file = bytes(data)
        else:
            fields[part.name] = data.decode()
    raise ValueError("a form has not so many fields")


def _too_large(most: int) -> ProblemError:
    return ProblemError(413, "body_too_large", f"the file has more than {most // (1024 * 1024)} MiB")
