"""Answers that are sent piece by piece, and must not look whole where they are not."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import structlog
from aiohttp import web

from jetway.core.errors import PortError
from jetway.entry.http.auth import route_of

log = structlog.get_logger()


@contextmanager
def whole_or_cut_off(request: web.Request) -> Iterator[None]:
    """Cut the connection where an outage is met after the head was sent: whoever reads sees that it broke off.

    Raises ConnectionResetError then, which nothing answers.
    """
    try:
        yield
    except PortError as error:
        log.warning(
            "an answer met an outage when it had begun",
            action="http_cut_off",
            route=route_of(request),
            error=str(error),
        )
        if request.transport is not None:
            _reset(request.transport)
        raise ConnectionResetError("the answer broke off") from error


def _reset(transport: asyncio.Transport) -> None:
    """Without SO_LINGER the end would be an orderly one, which in HTTP/1.0 is that of the answer."""
    connection = transport.get_extra_info("socket")
    if connection is not None:
        with suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
