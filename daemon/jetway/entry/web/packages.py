"""Packages: who was given one, and what became of it."""

from __future__ import annotations

from aiohttp import web
from pydantic import ValidationError

from jetway.core.ids import ServiceType
from jetway.core.record import PackageStatus
from jetway.entry.http import requests as r
from jetway.entry.http.doors import Doors
from jetway.entry.http.problems import wrong_filter
from jetway.entry.web.pages import page
from jetway.entry.web.visit import Visit
from jetway.services.catalogue import PackageFilter

_ONE_VALUE = ("component_type", "site", "q", "cursor")


class PackagePages:
    """The page /ui/packages."""

    def __init__(self, doors: Doors) -> None:
        self._catalogue = doors.catalogue

    @page("GET", "/ui/packages")
    async def table(self, visit: Visit) -> web.StreamResponse:
        """A page of the table, the newest first."""
        query = visit.request.query
        values: dict[str, object] = {name: query[name] for name in _ONE_VALUE if query.get(name)}
        values["status"] = [each for each in query.getall("status", []) if each]
        try:
            asked = r.ListPackages.model_validate(values)
        except ValidationError as error:
            raise wrong_filter(error) from None
        wanted = PackageFilter(
            statuses=[status.value for status in asked.status],
            component_type=asked.component_type.value if asked.component_type else None,
            site=asked.site,
            q=asked.q,
            cursor=asked.cursor,
        )
        page = await self._catalogue.packages(wanted)
        kinds, statuses = list(ServiceType), list(PackageStatus)
        filtered = any(query.get(name) for name in ("component_type", "site", "q", "status"))
        return visit.show(
            "packages.html", wanted=wanted, page=page, kinds=kinds, statuses=statuses, filtered=filtered
        )
