"""API tokens: who may call, and until when."""

from __future__ import annotations

from datetime import timedelta

from aiohttp import web

from jetway.core.errors import Code, RefusedError, refuse
from jetway.entry.http.auth import Role
from jetway.entry.http.doors import Doors
from jetway.entry.http.problems import STATUS
from jetway.entry.web.pages import page
from jetway.entry.web.visit import Visit
from jetway.services.api_tokens import ROLES

_DAYS = ("30", "90", "365", "")
"""Of a token's life; empty: it does not end."""
_TOKEN = "/ui/tokens/{name:[A-Za-z0-9._-]{1,63}}/revoke"  # noqa: S105 - a path


class TokenPages:
    """The pages under /ui/tokens."""

    def __init__(self, doors: Doors) -> None:
        self._api_tokens = doors.api_tokens

    @page("GET", "/ui/tokens", Role.ADMIN)
    async def table(self, visit: Visit) -> web.StreamResponse:
        """All tokens, and the text of one that was just made."""
        return self._table(visit)

    @page("POST", "/ui/tokens", Role.ADMIN)
    async def create(self, visit: Visit) -> web.StreamResponse:
        """A new token."""
        name, days = visit.form.get("name", "").strip(), visit.form.get("days", "")
        try:
            if days not in _DAYS:
                raise refuse(Code.INVALID, "choose how long it is good for from the list", "days")
            expires_in = timedelta(days=int(days)) if days else None
            text, token = await self._api_tokens.create(
                visit.caller, name, visit.form.get("role", ""), expires_in
            )
        except RefusedError as error:
            return self._table(visit, error.refused.why, STATUS[error.refused.code])
        visit.session.keep_once("api-token", f"{token.name} {text}")
        return visit.go("/ui/tokens")

    @page("GET", _TOKEN, Role.ADMIN)
    async def ask(self, visit: Visit) -> web.StreamResponse:
        """What would happen."""
        name = visit.part("name")
        if all(token.name != name for token in self._api_tokens.list()):
            raise refuse(Code.NOT_FOUND, f"there is no API token {name!r}")
        return visit.show("token_revoke.html", name=name, own=name == visit.token.name)

    @page("POST", _TOKEN, Role.ADMIN)
    async def revoke(self, visit: Visit) -> web.StreamResponse:
        """End one at once."""
        name = visit.part("name")
        await self._api_tokens.revoke(visit.caller, name)
        return visit.go("/ui/tokens", f"The API token {name} is revoked.")

    def _table(self, visit: Visit, wrong: str = "", status: int = 200) -> web.Response:
        fresh_name, _, fresh = visit.session.take_once("api-token").partition(" ")
        return visit.show(
            "tokens.html",
            status,
            tokens=self._api_tokens.list(),
            roles=ROLES,
            days=_DAYS,
            fresh=fresh,
            fresh_name=fresh_name,
            wrong=wrong,
            form=visit.form,
        )
