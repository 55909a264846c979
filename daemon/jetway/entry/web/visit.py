"""A visit: one request of somebody who signed in, and the ways to answer it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from aiohttp import web

from jetway.entry.http.auth import REQUEST_ID, source_ip
from jetway.entry.web.sessions import Session
from jetway.entry.web.templating import Templating
from jetway.ports import ApiToken
from jetway.services.api_tokens import allows
from jetway.services.caller import Caller

LIVE_HEADER = "X-Jetway-Live"
"""On what a page asks by itself: it keeps no session awake."""
THEME_COOKIE = "jetway_theme"
THEMES = ("light", "dark")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


def page_response(text: str, status: int = 200) -> web.Response:
    """A page with the headers of all pages.

    The referrer is kept within the gateway: without any, browsers would send `Origin: null` with forms.
    """
    headers = {"Content-Security-Policy": POLICY, "Referrer-Policy": "same-origin"}
    return web.Response(status=status, text=text, content_type="text/html", headers=headers)


def see_other(path: str) -> web.Response:
    """After a form: the page that shows what came of it."""
    return web.Response(status=303, headers={"Location": path, "Referrer-Policy": "same-origin"})


def theme_of(request: web.Request) -> str:
    """The theme that the reader chose; empty: the system's."""
    chosen = request.cookies.get(THEME_COOKIE, "")
    return chosen if chosen in THEMES else ""


@dataclass(slots=True)
class Visit:
    """Who asks, for what, and with which form."""

    request: web.Request
    session: Session
    token: ApiToken
    now: datetime
    templating: Templating
    form: Mapping[str, str] = field(default_factory=dict)
    file: bytes = field(default=b"", repr=False)
    """What was uploaded with the form."""

    @property
    def caller(self) -> Caller:
        """The one that stands in records and in the audit trail."""
        return Caller(self.token.name, source_ip(self.request), self.request[REQUEST_ID])

    @property
    def is_live(self) -> bool:
        """Whether the page asks by itself, to show what changed."""
        return LIVE_HEADER in self.request.headers

    def may(self, role: str) -> bool:
        """Whether the visitor's role is at least this one."""
        return allows(self.token.role, role)

    def part(self, name: str) -> str:
        """A part of the path."""
        return self.request.match_info[name]

    def show(self, template: str, status: int = 200, **values: Any) -> web.Response:
        """A page."""
        said = [] if self.is_live else list(self.session.said)
        if not self.is_live:
            self.session.said.clear()
        text = self.templating.render(
            template,
            self.now,
            {
                "visit": self,
                "theme": theme_of(self.request),
                "path": self.request.path,
                "query": self.request.query,
                "csrf": self.session.csrf,
                "said": said,
                **values,
            },
        )
        return page_response(text, status)

    def go(self, path: str, said: str = "") -> web.Response:
        """Another page, which first says this."""
        if said:
            self.session.said.append(said)
        return see_other(path)
