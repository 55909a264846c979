"""The API's stream of changes."""

from __future__ import annotations

from typing import Annotated

from aiohttp import web
from pydantic import StringConstraints

from jetway.entry.http import requests as r
from jetway.entry.http.api import Call, Header, route
from jetway.entry.http.auth import Role, bearer_text
from jetway.entry.http.doors import Doors
from jetway.entry.http.stream import ServiceStream

LastEventId = Annotated[
    Annotated[str, StringConstraints(max_length=100)] | None,
    Header("Last-Event-ID", "Where the client was: it goes on from there."),
]


class WatchRoutes:
    """The route /api/admin/services/watch."""

    def __init__(self, doors: Doors) -> None:
        self._stream = ServiceStream(doors.watch, doors.catalogue, doors.epoch)
        self._api_tokens = doors.api_tokens

    @route(
        "GET",
        "/api/admin/services/watch",
        tag="services",
        role=Role.VIEWER,
        errors=(429,),
        content={"text/event-stream": "Events `service`, `gone`, `reset` and `position`."},
        seconds=None,
    )
    async def watch_services(
        self, query: r.WatchServices, last_event_id: LastEventId, call: Call
    ) -> web.StreamResponse:
        """Server-sent events: every change, for as long as the token is good.

        `service`: a service as it is now; what changes many times in a moment is told once. `gone`: it was purged.
        `reset`: too much was missed, read everything again. `position`: all of the above is told up to its id; one
        comes at once, so that there is an id to go on from.
        """
        text = bearer_text(call.request)
        return await self._stream.answer(
            call.request,
            last_event_id=last_event_id,
            welcome=lambda: self._api_tokens.authenticate(text) is not None,
            kinds=query.service_type,
        )
