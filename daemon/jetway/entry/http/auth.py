"""Who calls: bearer tokens and roles, request ids, client addresses."""

from __future__ import annotations

import re
import uuid
from enum import StrEnum
from ipaddress import ip_address
from urllib.parse import urlsplit

from aiohttp import web

from jetway.entry.http.limits import FailureLimiter, address_key
from jetway.entry.http.problems import ProblemError, too_many_failures
from jetway.ports import ApiToken
from jetway.services.api_tokens import ApiTokens, allows
from jetway.services.caller import Caller
from jetway.services.refusals import STRANGER, Reason, Refusal, Refusals
from jetway.setting_types import is_loopback

REQUEST_ID: web.RequestKey[str] = web.RequestKey("request_id", str)
ACTOR: web.RequestKey[str] = web.RequestKey("actor", str)
CLIENT: web.RequestKey[str] = web.RequestKey("client", str)

_SANE_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}\Z")
_FORWARDED = ("Forwarded", "X-Forwarded-For", "X-Real-IP", "Via")
_CHALLENGE = 'Bearer realm="jetway"'
_UNMATCHED = "unmatched"


class Role(StrEnum):
    """What a token may do; each role may what those before it may."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"


def request_id_of(request: web.Request) -> str:
    """The caller's X-Request-Id if it is harmless, else a new one."""
    given = request.headers.get("X-Request-Id", "")
    return given if _SANE_REQUEST_ID.match(given) else str(uuid.uuid4())


def source_ip(request: web.Request) -> str:
    """The caller's address: the peer's, or what a proxy that the settings name says of it."""
    return request.get(CLIENT) or request.remote or ""


def route_of(request: web.Request) -> str:
    """The template of the route that was asked for: nothing of what a client made up."""
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else _UNMATCHED


def from_loopback(request: web.Request) -> bool:
    """Whether a program on this machine calls for itself: what a local proxy passes on is from elsewhere.

    Nor is it one that asked for another name: a proxy that says nothing of itself, or a browser here that was sent
    to this machine by a name of somebody else's.
    """
    if any(name in request.headers for name in _FORWARDED) or not _asks_for_loopback(request):
        return False
    try:
        return ip_address(source_ip(request).partition("%")[0]).is_loopback
    except ValueError:
        return False


def _asks_for_loopback(request: web.Request) -> bool:
    try:
        return is_loopback(urlsplit(f"//{request.headers.get('Host', '')}").hostname or "")
    except ValueError:
        return False


class Gate:
    """Lets callers in by their token; whoever is not let in is counted, and told of in the audit trail."""

    def __init__(self, api_tokens: ApiTokens, limiter: FailureLimiter, refusals: Refusals) -> None:
        self._api_tokens = api_tokens
        self._limiter = limiter
        self._refusals = refusals

    def admit(self, request: web.Request, needed: Role) -> ApiToken:
        """The caller's token. Raises ProblemError: 401, 403 naming the role, 429 after too many failures.

        A good token passes whatever others at the same address have done.
        """
        token = self._identify(request)
        if token is None:
            self._refuse_stranger(request)
            raise _stranger(request)
        request[ACTOR] = token.name
        if not allows(token.role, needed):
            self._tell(request, Reason.ROLE_TOO_SMALL, token.name)
            detail = f"this needs the role {needed.value}; the token {token.name!r} has the role {token.role}"
            raise ProblemError(403, "forbidden", detail)
        return token

    def may_see_detail(self, request: web.Request, open_to_all: bool, to_this_machine: bool) -> bool:
        """Whether health detail and metrics are for this caller. A wrong token is refused all the same."""
        if "Authorization" in request.headers:
            return allows(self.admit(request, Role.VIEWER).role, Role.VIEWER)
        return open_to_all or (to_this_machine and from_loopback(request))

    def note_failure(self, request: web.Request) -> None:
        """Count a failed call without authentication. Raises ProblemError (429) where there were too many."""
        key = address_key(source_ip(request))
        wait = self._limiter.wait(key)
        if wait > 0:
            raise too_many_failures(wait)
        self._limiter.fail(key)

    def _refuse_stranger(self, request: web.Request) -> None:
        try:
            self.note_failure(request)
        except ProblemError:
            self._tell(request, Reason.TOO_MANY_FAILURES, STRANGER)
            raise
        text = bearer_text(request)
        expired = self._api_tokens.expired(text) if text else None
        if expired is not None:
            self._tell(request, Reason.EXPIRED_TOKEN, expired.name)
        else:
            self._tell(request, Reason.UNKNOWN_TOKEN if text else Reason.NO_TOKEN, STRANGER)

    def _tell(self, request: web.Request, reason: Reason, actor: str) -> None:
        address = source_ip(request)
        caller = Caller(actor, address, request[REQUEST_ID])
        what = f"{request.method} {route_of(request)}"
        self._refusals.note(Refusal(reason, caller, address_key(address), what))

    def _identify(self, request: web.Request) -> ApiToken | None:
        text = bearer_text(request)
        return self._api_tokens.authenticate(text) if text else None


def bearer_text(request: web.Request) -> str:
    """The text of the API token that came with a request; empty where none did."""
    scheme, _, text = request.headers.get("Authorization", "").partition(" ")
    return text.strip() if scheme.lower() == "bearer" else ""


def _stranger(request: web.Request) -> ProblemError:
    if "Authorization" not in request.headers:
        detail = "an API token is needed: Authorization: Bearer <token>"
        return ProblemError(401, "unauthorized", detail, headers={"WWW-Authenticate": _CHALLENGE})
    detail = "this API token is unknown, revoked or expired"
    challenge = {"WWW-Authenticate": f'{_CHALLENGE}, error="invalid_token"'}
    return ProblemError(401, "unauthorized", detail, headers=challenge)
