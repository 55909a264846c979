"""The dashboard as a whole: every route, and around every page who may see it and what an error looks like."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from urllib.parse import urlencode

import structlog
from aiohttp import web

from jetway.entry.http import problems
from jetway.entry.http.auth import ACTOR, REQUEST_ID, Gate, Role, route_of, source_ip
from jetway.entry.http.doors import Doors
from jetway.entry.http.forwarded import Proxies
from jetway.entry.http.limits import address_key
from jetway.entry.http.problems import ProblemError
from jetway.entry.web.about import AboutPages
from jetway.entry.web.actions import ActionPages
from jetway.entry.web.assets import Assets
from jetway.entry.web.audit import AuditPages
from jetway.entry.web.bulk import BulkPages
from jetway.entry.web.charts import ChartPages
from jetway.entry.web.due import DuePages
from jetway.entry.web.jobs import JobPages
from jetway.entry.web.live import Live
from jetway.entry.web.maintenance import MaintenancePages
from jetway.entry.web.onboard import OnboardPages
from jetway.entry.web.onboard_many import OnboardManyPages
from jetway.entry.web.origin import is_same_origin
from jetway.entry.web.overview import OverviewPages
from jetway.entry.web.packages import PackagePages
from jetway.entry.web.pages import Handler, Page, pages_of
from jetway.entry.web.services import ServicePages
from jetway.entry.web.sessions import Sessions
from jetway.entry.web.sign_in import HOME, SESSION_COOKIE, SIGN_IN, SignIn
from jetway.entry.web.templating import Templating
from jetway.entry.web.tokens import TokenPages
from jetway.entry.web.tree import TreePages
from jetway.entry.web.upload import Uploads
from jetway.entry.web.visit import Visit, page_response, see_other, theme_of
from jetway.entry.web.words import sentence
from jetway.ports import ApiToken, Clock
from jetway.services.api_tokens import allows
from jetway.services.caller import Caller
from jetway.services.refusals import STRANGER, Reason, Refusal
from jetway.settings import Settings

log = structlog.get_logger()

_FORM_TYPE = "application/x-www-form-urlencoded"
_FORM_BYTES = 256 * 1024
_FORM_SECONDS = 30.0
_FORBIDDEN = "this form did not come from a page of this gateway: open the page again and repeat it"

Open = Callable[[web.Request, dict[str, str]], web.Response]


class Site:
    """Everything under /ui/."""

    def __init__(
        self, doors: Doors, settings: Settings, gate: Gate, clock: Clock, public_url: str, *, secure: bool
    ) -> None:
        self._doors = doors
        self._clock = clock
        self._public_url = public_url
        self._assets = Assets()
        self._templating = Templating(self._assets)
        self._sessions = Sessions(doors.api_tokens, clock)
        self._jobs = JobPages(doors)
        self._many = OnboardManyPages(doors)
        self._bulk = BulkPages(doors)
        self._uploads = Uploads()
        self._sign_in = SignIn(
            self._sessions,
            doors.api_tokens,
            doors.refusals,
            gate,
            self._templating,
            clock,
            is_secure=_secure_by(settings, public_url, listens=secure),
        )
        charts = ChartPages(doors)
        self._rooms = (
            OverviewPages(doors, charts),
            charts,
            DuePages(doors),
            ServicePages(doors),
            TreePages(doors),
            ActionPages(doors),
            self._bulk,
            OnboardPages(doors, settings, public_url),
            self._many,
            PackagePages(doors),
            AuditPages(doors),
            MaintenancePages(doors),
            self._jobs,
            TokenPages(doors),
            AboutPages(doors, settings),
            Live(doors, self._sessions),
        )

    def mount(self, app: web.Application) -> None:
        """Add all routes, and what ends with the application."""
        router = app.router
        router.add_get("/", _to(HOME))
        router.add_get("/ui", _to(HOME))
        router.add_get("/ui/static/{name}", self._assets.show)
        router.add_get(SIGN_IN, self._sign_in.show)
        router.add_post(SIGN_IN, self._open(self._sign_in.sign_in))
        router.add_post("/ui/sign-out", self._open(lambda request, _form: self._sign_in.sign_out(request)))
        router.add_post("/ui/theme", self._open(self._sign_in.choose_theme))
        for room in self._rooms:
            for page, handler in pages_of(room):
                add = router.add_get if page.method == "GET" else router.add_post
                add(page.path, self._guarded(page, handler))
        router.add_get("/ui/{rest:.*}", self._guarded(Page("GET", "", Role.VIEWER), _nothing_here))
        app.on_cleanup.append(self._close)

    async def _close(self, _app: web.Application) -> None:
        await self._jobs.close()
        await self._many.close()
        await self._bulk.close()

    def _open(self, answer: Open) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        """A form that needs no session, but a page of ours that it came from."""

        async def handle(request: web.Request) -> web.StreamResponse:
            try:
                self._require_same_origin(request)
                return answer(request, await _form(request))
            except Exception as error:
                return self._failed(request, error, None)

        return handle

    def _guarded(
        self, page: Page, handler: Handler
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            visit = self._visit(request)
            if visit is None:
                return _sign_in_first(request)
            request[ACTOR] = visit.token.name
            try:
                self._require_role(request, visit.token, page)
                if page.method == "POST":
                    self._require_same_origin(request)
                    await self._take_form(visit, page)
                    self._require_csrf(visit)
                return await handler(visit)
            except Exception as error:
                return self._failed(request, error, visit)

        return handle

    async def _take_form(self, visit: Visit, page: Page) -> None:
        if page.upload:
            uploaded = await self._uploads.read(visit.request, page.upload)
            visit.form, visit.file = uploaded.fields, uploaded.file
        else:
            visit.form = await _form(visit.request)

    def _visit(self, request: web.Request) -> Visit | None:
        by_itself = "X-Jetway-Live" in request.headers or request.path == "/ui/live"
        found = self._sessions.find(request.cookies.get(SESSION_COOKIE, ""), used=not by_itself)
        if found is None:
            return None
        return Visit(request, *found, self._clock.now(), self._templating)

    def _require_role(self, request: web.Request, token: ApiToken, page: Page) -> None:
        if allows(token.role, page.role.value):
            return
        self._tell(request, Reason.ROLE_TOO_SMALL, token.name)
        detail = f"this needs the role {page.role.value}; you are signed in with the role {token.role}"
        raise ProblemError(403, "forbidden", detail)

    def _require_same_origin(self, request: web.Request) -> None:
        if not is_same_origin(request, self._public_url):
            self._tell(request, Reason.FOREIGN_FORM, request.get(ACTOR) or STRANGER)
            raise ProblemError(403, "forbidden", _FORBIDDEN)

    def _require_csrf(self, visit: Visit) -> None:
        given = visit.form.get("csrf") or visit.request.headers.get("X-CSRF-Token") or ""
        if not visit.session.has_csrf(given):
            self._tell(visit.request, Reason.FOREIGN_FORM, visit.token.name)
            raise ProblemError(403, "forbidden", _FORBIDDEN)

    def _tell(self, request: web.Request, reason: Reason, actor: str) -> None:
        address = source_ip(request)
        caller = Caller(actor, address, request[REQUEST_ID])
        what = f"{request.method} {route_of(request)}"
        self._doors.refusals.note(Refusal(reason, caller, address_key(address), what))

    def _failed(self, request: web.Request, error: Exception, visit: Visit | None) -> web.StreamResponse:
        """The error as a page; what a client that went away or a stop means is for aiohttp."""
        if isinstance(error, ConnectionError):
            raise error
        if isinstance(error, web.HTTPException):
            problem = problems.of_http_exception(error)
        else:
            problem = problems.of_error(error)
        if problem.status == 500:
            log.exception("a page failed by a mistake of ours", action="page_failed", route=route_of(request))
        elif problem.status == 503:
            route = route_of(request)
            log.warning("a page met an outage", action="page_unavailable", route=route, error=str(error))
        values = {
            "problem": problem,
            "request_id": request[REQUEST_ID],
            "sentence": sentence(problem.detail),
        }
        if visit is not None:
            response = visit.show("error.html", problem.status, **values)
        else:
            values |= {"theme": theme_of(request), "path": request.path}
            text = self._templating.render("error_outside.html", self._clock.now(), values)
            response = page_response(text, problem.status)
        response.headers.extend(problem.headers)
        return response


def _secure_by(settings: Settings, public_url: str, *, listens: bool) -> Callable[[web.Request], bool]:
    """Whether browsers reach the gateway by HTTPS: its own, or that of a proxy which ends it before."""
    if listens or public_url.startswith("https://"):
        return lambda _request: True
    return Proxies(settings.http.trusted_proxies).speaks_https


async def _form(request: web.Request) -> dict[str, str]:
    """The fields of a form; of one that is given twice the last."""
    if request.content_type != _FORM_TYPE:
        raise ProblemError(415, "unsupported_media_type", "a form must be sent as a browser sends it")
    if (request.content_length or 0) > _FORM_BYTES:
        raise ProblemError(413, "body_too_large", f"the form has more than {_FORM_BYTES} bytes")
    try:
        async with asyncio.timeout(_FORM_SECONDS):
            return {name: value for name, value in (await request.post()).items() if isinstance(value, str)}
    except TimeoutError:
        raise ProblemError(408, "request_timeout", "the form took too long to arrive") from None
    except ValueError:
        raise ProblemError(400, "malformed_request", "the form cannot be read") from None


def _sign_in_first(request: web.Request) -> web.Response:
    if request.method != "GET" or request.path == "/ui/live" or "X-Jetway-Live" in request.headers:
        if request.method == "POST":
            return see_other(SIGN_IN)
        return web.Response(status=401, text="sign in first")
    goal = "" if request.path == HOME else str(request.rel_url)
    return see_other(f"{SIGN_IN}?{urlencode({'next': goal})}" if goal else SIGN_IN)


def _to(path: str) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def redirect(_request: web.Request) -> web.StreamResponse:
        return see_other(path)

    return redirect


async def _nothing_here(_visit: Visit) -> web.StreamResponse:
    raise ProblemError(404, "not_found", "there is no such page")
