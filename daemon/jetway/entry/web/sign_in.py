"""Signing in with an API token, signing out, and the theme, which needs no session."""

from __future__ import annotations

import re
from collections.abc import Callable

from aiohttp import web

from jetway.entry.http.auth import REQUEST_ID, Gate, route_of, source_ip
from jetway.entry.http.limits import address_key
from jetway.entry.http.problems import ProblemError
from jetway.entry.web.sessions import LONGEST_SECONDS, Sessions
from jetway.entry.web.templating import Templating
from jetway.entry.web.visit import THEME_COOKIE, THEMES, page_response, see_other, theme_of
from jetway.ports import Clock
from jetway.services.api_tokens import ApiTokens
from jetway.services.caller import Caller
from jetway.services.refusals import STRANGER, Reason, Refusal, Refusals

SESSION_COOKIE = "jetway_session"
SIGN_IN = "/ui/sign-in"
HOME = "/ui/"
_WITHIN = re.compile(r"/ui(/[A-Za-z0-9/._~-]*)?(\?[\x21\x23-\x5B\x5D-\x7E]*)?\Z")
_WRONG = "This API token is unknown, revoked or expired."


class SignIn:
    """Gives a session for a token."""

    def __init__(
        self,
        sessions: Sessions,
        api_tokens: ApiTokens,
        refusals: Refusals,
        gate: Gate,
        templating: Templating,
        clock: Clock,
        *,
        is_secure: Callable[[web.Request], bool],
    ) -> None:
        self._sessions = sessions
        self._api_tokens = api_tokens
        self._refusals = refusals
        self._gate = gate
        self._templating = templating
        self._clock = clock
        self._is_secure = is_secure

    async def show(self, request: web.Request) -> web.Response:
        """The form."""
        if self._sessions.find(request.cookies.get(SESSION_COOKIE, "")) is not None:
            return see_other(within(request.query.get("next", "")))
        return self._form(request, within(request.query.get("next", "")))

    def sign_in(self, request: web.Request, form: dict[str, str]) -> web.Response:
        """A session, or the form again with what is wrong. Failures are limited as those of the API are."""
        text, goal = form.get("token", "").strip(), within(form.get("next", ""))
        if not text:
            return self._form(request, goal, "Enter an API token.", 422)
        if self._api_tokens.authenticate(text) is None:
            return self._refuse(request, text, goal)
        self._sessions.end(request.cookies.get(SESSION_COOKIE, ""))
        response = see_other(goal)
        response.set_cookie(
            SESSION_COOKIE,
            self._sessions.open(text),
            max_age=int(LONGEST_SECONDS),
            path="/ui",
            httponly=True,
            samesite="Strict",
            secure=self._is_secure(request),
        )
        return response

    def sign_out(self, request: web.Request) -> web.Response:
        """End the session."""
        self._sessions.end(request.cookies.get(SESSION_COOKIE, ""))
        response = see_other(SIGN_IN)
        secure = self._is_secure(request)
        response.del_cookie(SESSION_COOKIE, path="/ui", httponly=True, samesite="Strict", secure=secure)
        return response

    def choose_theme(self, request: web.Request, form: dict[str, str]) -> web.Response:
        """Light, dark, or as the system has it."""
        response = see_other(within(form.get("next", "")))
        if form.get("theme") in THEMES:
            response.set_cookie(
                THEME_COOKIE,
                form["theme"],
                max_age=365 * 86_400,
                path="/ui",
                samesite="Strict",
                secure=self._is_secure(request),
            )
        else:
            response.del_cookie(THEME_COOKIE, path="/ui")
        return response

    def _refuse(self, request: web.Request, text: str, goal: str) -> web.Response:
        try:
            self._gate.note_failure(request)
        except ProblemError as error:
            self._tell(request, Reason.TOO_MANY_FAILURES, STRANGER)
            return self._form(request, goal, f"{error.detail.capitalize()}.", error.status)
        expired = self._api_tokens.expired(text)
        reason = Reason.EXPIRED_TOKEN if expired else Reason.UNKNOWN_TOKEN
        self._tell(request, reason, expired.name if expired else STRANGER)
        return self._form(request, goal, _WRONG, 401)

    def _tell(self, request: web.Request, reason: Reason, actor: str) -> None:
        address = source_ip(request)
        caller = Caller(actor, address, request[REQUEST_ID])
        what = f"{request.method} {route_of(request)}"
        self._refusals.note(Refusal(reason, caller, address_key(address), what))

    def _form(self, request: web.Request, goal: str, wrong: str = "", status: int = 200) -> web.Response:
        values = {"theme": theme_of(request), "goal": goal, "wrong": wrong, "path": request.path}
        return page_response(self._templating.render("sign_in.html", self._clock.now(), values), status)


def within(path: str) -> str:
    """A page of ours to go on to; anything else is the first page."""
    return path if _WITHIN.match(path) else HOME
