"""A TCP proxy on loopback that can cut its connections, swallow what comes, or take its time."""

from __future__ import annotations

import asyncio
import contextlib

from support.ports import free_port

_CHUNK = 64 * 1024


class Proxy:
    """Between a daemon and its NATS server. `port` is where it listens."""

    def __init__(self, target_port: int) -> None:
        self._target = target_port
        self._server: asyncio.Server | None = None
        self._open = asyncio.Event()
        self._open.set()
        self._delay = 0.0
        self._links: set[asyncio.Task[None]] = set()
        self.port = free_port()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._take, "127.0.0.1", self.port)

    async def stop(self) -> None:
        await self.cut()

    async def cut(self) -> None:
        """Close all connections, and refuse new ones."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        await self.drop()

    async def mend(self) -> None:
        """Take connections again, and pass on what was held back."""
        self._open.set()
        if self._server is None:
            await self.start()

    def swallow(self) -> None:
        """Keep every connection open, take new ones, and pass nothing on: a half-open link."""
        self._open.clear()

    async def drop(self) -> None:
        """Close the connections that stand, as a firewall that was restarted; new ones are as before."""
        links = list(self._links)
        for link in links:
            link.cancel()
        await asyncio.gather(*links, return_exceptions=True)

    def delay(self, seconds: float) -> None:
        """Let every piece take so long in each direction."""
        self._delay = seconds

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = asyncio.current_task()
        assert link is not None
        self._links.add(link)
        with contextlib.suppress(OSError, ExceptionGroup, asyncio.CancelledError):
            try:
                await self._open.wait()
                await self._join(reader, writer)
            finally:
                self._links.discard(link)
                writer.close()

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pump(reader, far_writer))
                both.create_task(self._pump(far_reader, writer))
        finally:
            far_writer.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(_CHUNK):
            await self._open.wait()
            if self._delay:
                await asyncio.sleep(self._delay)
            writer.write(data)
            await writer.drain()
        raise ConnectionResetError  # one end is gone, so the other one goes too
