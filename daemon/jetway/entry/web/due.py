"""Due: the services behind what the overview asks for, by name."""

from __future__ import annotations

from aiohttp import web

from jetway.entry.http.doors import Doors
from jetway.entry.web.pages import page
from jetway.entry.web.visit import Visit
from jetway.services.due import Matter

DUE = "/ui/due"
# Of each: its heading, what the time says, and what there is when nobody is due.
_SECTIONS = (
    (Matter.CREDENTIALS, "Credentials and certificates that end", "Ends", "None ends soon."),
    (Matter.TOKENS, "Package tokens that end unredeemed", "Token ends", "None ends soon."),
    (Matter.STUCK, "Pending for long", "Since", "None has been pending for long."),
)


class DuePages:
    """The page /ui/due."""

    def __init__(self, doors: Doors) -> None:
        self._due = doors.due

    @page("GET", DUE)
    async def due(self, visit: Visit) -> web.StreamResponse:
        """All matters, the most pressing services of each."""
        report = await self._due.report()
        return visit.show("due.html", sections=_SECTIONS, report=report)
