"""What is said to those who do not speak HTTP, are too slow or too many, or send a request line without end.

aiohttp answers them before any handler of ours runs, with a text that repeats what was sent. Here they get a
problem document that does not, and the log gets no excerpt of it either, since that could hold a token.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from http import HTTPStatus
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong

from jetway.entry.http.connections import LOOK_SECONDS, Connections, Watch, cut, unsent_bytes
from jetway.entry.http.middleware import add_headers
from jetway.entry.http.problems import RETRY_SECONDS, ProblemError, render

_FULL = ProblemError(
    503,
    "too_many_connections",
    "the daemon has as many connections as it may have: try again shortly",
    headers={"Retry-After": str(RETRY_SECONDS)},
)
_SLOW = ProblemError(408, "request_timeout", "the request took too long to arrive")


class ProblemHandler(web.RequestHandler):
    """A connection whose own refusals are problem documents, and that ends when its client is too slow."""

    __slots__ = ("_connections", "_look", "_watch", "_wire")

    def __init__(self, manager: web.Server, connections: Connections, **options: Any) -> None:
        super().__init__(manager, **options)
        self._connections = connections
        self._watch = Watch()
        self._wire: asyncio.Transport | None = None
        self._look: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a connection in, or refuse it where there are too many."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - what a TCP server hands over
        if not self._connections.open():
            transport.write(_bare(_FULL))
            transport.close()
            return
        self._wire = transport
        self._look = self._loop.call_later(LOOK_SECONDS, self._look_after)
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """The connection is gone, whoever ended it."""
        if self._wire is not None:
            self._wire = None
            self._connections.close()
        if self._look is not None:
            self._look.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes came in."""
        if data:
            self._watch.received(self._loop.time())
        super().data_received(data)

    def request_began(self) -> None:
        """A whole head is here, or what is to be refused as one."""
        self._watch.request_began()

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send the answer."""
        self._watch.answer_begins(self._loop.time())
        try:
            return await super().finish_response(request, resp, start_time)
        finally:
            self._watch.request_ended()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to a request that could not be parsed; the connection is closed after it."""
        self.logger.info("a request could not be read: %s", type(exc).__name__)
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has begun")
        request_id = str(uuid.uuid4())
        response = render(_problem(status, exc), request_id)
        add_headers(response, request_id)
        response.force_close()
        return response

    def _look_after(self) -> None:
        """End the connection if its client is too slow, else look again later."""
        if self._wire is None:
            return
        reason = self._watch.verdict(self._loop.time(), unsent_bytes(self._wire))
        if reason is None:
            self._look = self._loop.call_later(LOOK_SECONDS, self._look_after)
            return
        self._connections.note_cut(reason)
        if reason == "slow_head" and not unsent_bytes(self._wire):
            self._wire.write(_bare(_SLOW))
            self._wire.close()
        else:
            cut(self._wire)


class ProblemServer(web.Server):
    """Makes such connections."""

    def __init__(self, handler: Any, connections: Connections, **options: Any) -> None:
        super().__init__(handler, **options)
        self._limited = connections

    def __call__(self) -> web.RequestHandler:
        """The handler of a new connection."""
        return ProblemHandler(self, self._limited, loop=self._loop, **self._kwargs)


class ProblemRunner(web.AppRunner):
    """Runs an application on such a server."""

    __slots__ = ("_connections",)

    def __init__(self, app: web.Application, connections: Connections, **options: Any) -> None:
        super().__init__(app, **options)
        self._connections = connections

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        make = made.request_factory

        def noted(message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> web.BaseRequest:
            protocol.request_began()
            return make(message, payload, protocol, writer, task)

        return ProblemServer(made.request_handler, self._connections, request_factory=noted, **self._kwargs)


def _bare(problem: ProblemError) -> bytes:
    """A problem as a whole answer, where there is no request to answer."""
    request_id = str(uuid.uuid4())
    response = render(problem, request_id)
    add_headers(response, request_id)
    body = response.body if isinstance(response.body, bytes) else b""
    headers = {**response.headers, "Connection": "close", "Content-Length": str(len(body))}
    lines = [f"HTTP/1.1 {problem.status} {HTTPStatus(problem.status).phrase}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def _problem(status: int, error: BaseException | None) -> ProblemError:
    if status >= 500:
        return ProblemError(500, "internal", "the daemon made a mistake")
    if isinstance(error, LineTooLong):
        return ProblemError(400, "malformed_request", "the request line or a header is too long")
    return ProblemError(400, "malformed_request", "this is not HTTP")


def protocol_logger() -> logging.Logger:
    """Where aiohttp reports what goes wrong beneath the handlers, without the texts of exceptions."""
    logger = logging.getLogger("jetway.http.protocol")
    if not logger.filters:
        logger.addFilter(_without_content)
    return logger


def _without_content(record: logging.LogRecord) -> bool:
    if record.exc_info and record.exc_info[0] is not None:
        record.msg, record.args = f"{record.getMessage()}: {record.exc_info[0].__name__}", ()
    record.exc_info = record.exc_text = None
    return True
