"""Changes of services as server-sent events: for the API's clients and for the pages alike."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable, Collection, Iterable, Sequence

from aiohttp import web

from jetway.core.errors import RefusedError
from jetway.core.ids import ServiceKey, ServiceType
from jetway.entry.http import render
from jetway.services.catalogue import Catalogue
from jetway.services.watch import Batch, Watch

KEEP_ALIVE_SECONDS = 15.0
"""A line to keep proxies from closing, and to notice a client that has gone or whose right has ended."""
COALESCE_SECONDS = 0.25
"""At most so often a client is told: what changes many times in between is told once."""
_AT_ONCE = 100
_ID = re.compile(r"(\d{1,20})-(\d{1,20})(?:-(\w{1,20})-(\d{1,20}))?\Z", re.ASCII)
"""Epoch and position, and, for the daemon whose they are, its run and its count of turns."""
_HEADERS = {"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
_UNKNOWN_POSITION = -1


class ServiceStream:
    """Sends every change of a service to one client, until it goes or may not listen any longer."""

    def __init__(self, watch: Watch, catalogue: Catalogue, epoch: Callable[[], int]) -> None:
        self._watch = watch
        self._catalogue = catalogue
        self._epoch = epoch

    async def answer(
        self,
        request: web.Request,
        *,
        last_event_id: str | None,
        welcome: Callable[[], bool],
        kinds: Collection[ServiceType] = (),
    ) -> web.StreamResponse:
        """The stream. `welcome` is asked before every event; `kinds` empty: services of every type.

        Raises RefusedError where too many watch.
        """
        with self._watch.watching(*self._position(last_event_id)) as watcher:
            response = web.StreamResponse(headers=_HEADERS)
            await response.prepare(request)
            if request.method == "HEAD":
                return response
            with contextlib.suppress(ConnectionError):
                await response.write(b"retry: 2000\n\n")
                # At once, be it the position alone: who is cut off before the first change goes on from there.
                await self._send(response, watcher.take(), kinds)
                while True:
                    batch = await watcher.next(KEEP_ALIVE_SECONDS)
                    if watcher.closed or not welcome():
                        break
                    await self._send(response, batch, kinds)
                    await asyncio.sleep(COALESCE_SECONDS if batch else 0)
        return response

    def _position(self, last_event_id: str | None) -> tuple[int | None, int | None]:
        """Where the client was; nowhere that is known here, if that was in another epoch."""
        if last_event_id is None:
            return None, None
        found = _ID.match(last_event_id)
        if not found or int(found[1]) != self._epoch():
            return _UNKNOWN_POSITION, None
        return int(found[2]), int(found[4]) if found[3] == self._watch.run else None

    async def _send(
        self, response: web.StreamResponse, batch: Batch | None, kinds: Collection[ServiceType]
    ) -> None:
        if batch is None:
            await response.write(b": nothing new\n\n")
            return
        if batch.reset:
            await response.write(b"event: reset\ndata: {}\n\n")
        wanted = [key for key in batch.keys if not kinds or key.service_type in kinds]
        for start in range(0, len(wanted), _AT_ONCE):
            await response.write(b"".join(self._events(wanted[start : start + _AT_ONCE])))
            await asyncio.sleep(0)
        # The id last: a client that lost the line in the middle goes on from before all of this.
        number = f"{self._epoch()}-{batch.position}-{self._watch.run}-{batch.turn}"
        await response.write(f"id: {number}\nevent: position\ndata: {{}}\n\n".encode())

    def _events(self, keys: Sequence[ServiceKey]) -> Iterable[bytes]:
        for key in keys:
            try:
                shown = render.service(self._catalogue.get(key)).model_dump_json()
                yield f"event: service\ndata: {shown}\n\n".encode()
            except RefusedError:
                gone = f'{{"service_type":"{key.service_type.value}","service_id":"{key.service_id}"}}'
                yield f"event: gone\ndata: {gone}\n\n".encode()
