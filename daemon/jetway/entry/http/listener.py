"""Takes TLS connections: a handshake is bounded in time, and counts as a connection from its first byte on.

asyncio's own server shows a connection to its protocol only when the handshake is over. Until then nobody would
count it, and a stranger who opens thousands and says nothing would use up the open files.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import suppress

import structlog
from aiohttp import web

from jetway.entry.http.connections import Connections

log = structlog.get_logger()

HANDSHAKE_SECONDS = 10.0
"""Two round trips, over any line."""
_FAREWELL_SECONDS = 5.0
"""How long the peer may take to say that it heard the end of the connection."""
_PAUSE_SECONDS = 1.0
"""After a failure to accept: of all, no more files may be opened, which others' ends will mend."""


class TlsListener:
    """Accepts on a bound, listening, non-blocking socket. `start()`, then `stop()`."""

    def __init__(
        self, bound: socket.socket, server: web.Server, context: ssl.SSLContext, connections: Connections
    ) -> None:
        self._bound = bound
        self._server = server
        self._context = context
        self._connections = connections
        self._handshakes: set[asyncio.Task[None]] = set()
        self._accepting: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Accept from now on."""
        self._accepting = asyncio.get_running_loop().create_task(self._accept(), name="https-accept")

    async def stop(self) -> None:
        """Accept no more, and give up handshakes. Connections that are open go on. Safe to call again."""
        accepting, self._accepting = self._accepting, None
        ending = [*self._handshakes, *([accepting] if accepting else [])]
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)
        self._bound.close()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(self._bound)
            except ConnectionAbortedError:  # it went away before it was taken
                continue
            except OSError as error:
                log.warning("no connection can be taken", action="http_accept", error=error.strerror)
                await asyncio.sleep(_PAUSE_SECONDS)
                continue
            if not self._connections.begin_handshake():
                connection.close()
                continue
            task = loop.create_task(self._welcome(connection), name="https-handshake")
            self._handshakes.add(task)
            task.add_done_callback(self._handshakes.discard)

    async def _welcome(self, connection: socket.socket) -> None:
        """The handshake. What fails there is the peer's affair; the connection is then closed."""
        try:
            connection.setblocking(False)
            with suppress(OSError):  # a TLS failure is one as well
                await asyncio.get_running_loop().connect_accepted_socket(
                    self._server,
                    connection,
                    ssl=self._context,
                    ssl_handshake_timeout=HANDSHAKE_SECONDS,
                    ssl_shutdown_timeout=_FAREWELL_SECONDS,
                )
        finally:
            self._connections.end_handshake()
