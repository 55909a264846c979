"""The stream that tells an open page to read itself again, for as long as its session is good."""

from __future__ import annotations

import contextlib

from aiohttp import web

from jetway.entry.http.doors import Doors
from jetway.entry.web.pages import page
from jetway.entry.web.pulse import Pulse
from jetway.entry.web.sessions import Sessions
from jetway.entry.web.sign_in import SESSION_COOKIE
from jetway.entry.web.visit import Visit

KEEP_ALIVE_SECONDS = 15.0
"""A line to keep proxies from closing, and to notice a page that was left or whose session has ended."""
_LONGEST_ABOUT = 80
_HEADERS = {"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}


class Live:
    """The route /ui/live."""

    def __init__(self, doors: Doors, sessions: Sessions) -> None:
        self._pulse = Pulse(doors.watch, doors.catalogue)
        self._sessions = sessions

    @page("GET", "/ui/live")
    async def live(self, visit: Visit) -> web.StreamResponse:
        """Server-sent events `changed`, at most one a second; with `about`, of one service or type alone."""
        session_id = visit.request.cookies.get(SESSION_COOKIE, "")
        with self._pulse.listening(visit.request.query.get("about", "")[:_LONGEST_ABOUT]) as listener:
            response = web.StreamResponse(headers=_HEADERS)
            await response.prepare(visit.request)
            with contextlib.suppress(ConnectionError):
                await response.write(b"retry: 2000\n\n")
                while True:
                    changed = await listener.next(KEEP_ALIVE_SECONDS)
                    if listener.closed or self._sessions.find(session_id, used=False) is None:
                        break
                    await response.write(b"event: changed\ndata: {}\n\n" if changed else b": nothing new\n\n")
        return response
