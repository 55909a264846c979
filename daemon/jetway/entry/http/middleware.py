"""Around every request: its id, its problem document, its headers, its log line and its metrics."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import structlog
from aiohttp import HttpVersion10, hdrs, web
from aiohttp.typedefs import Middleware
from prometheus_client import CollectorRegistry, Counter, Histogram

from jetway.entry.http import problems
from jetway.entry.http.auth import ACTOR, CLIENT, REQUEST_ID, request_id_of, route_of, source_ip
from jetway.entry.http.forwarded import Proxies

log = structlog.get_logger()

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_QUIET = frozenset({"/healthz", "/readyz", "/metrics"})
"""Asked every few seconds by machines: logged only when something is wrong."""

_STREAMS = frozenset({"/api/admin/services/watch", "/ui/live"})
"""These last as long as somebody listens: no measure of how quick the gateway is."""

_POLICY = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Content-Security-Policy": _POLICY,
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""A response that sets one of these itself keeps its own."""


class HttpMetrics:
    """Requests by route template: nothing grows with what clients make up."""

    def __init__(self, registry: CollectorRegistry) -> None:
        names = ["route", "method", "status"]
        self._requests = Counter("jetway_http_requests", "HTTP requests.", names, registry=registry)
        self._seconds = Histogram(
            "jetway_http_request_duration_seconds",
            "How long an HTTP request took.",
            ["route", "method"],
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
            registry=registry,
        )

    def note(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count one request."""
        method = method if method in _METHODS else "other"
        self._requests.labels(route, method, str(status)).inc()
        if route not in _STREAMS:
            self._seconds.labels(route, method).observe(seconds)


def observer(metrics: HttpMetrics, proxies: Proxies) -> Middleware:
    """The outermost layer. Log lines have the route template, never a path, a query or a token."""

    @web.middleware
    async def observe(request: web.Request, handler: Handler) -> web.StreamResponse:
        began = time.perf_counter()
        request[REQUEST_ID] = request_id_of(request)
        request[CLIENT] = proxies.client_of(request)
        with structlog.contextvars.bound_contextvars(request_id=request[REQUEST_ID]):
            status = 499  # what is logged when the handler is cancelled
            try:
                response = await _guarded(request, handler)
                status = response.status
                add_headers(response, request[REQUEST_ID])
                return response
            finally:
                seconds = time.perf_counter() - began
                metrics.note(route_of(request), request.method, status, seconds)
                _log(request, status, seconds)

    return observe


async def _guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The handler's response, or the problem that its exception stands for."""
    try:
        if request.version < HttpVersion10:
            raise problems.ProblemError(400, "malformed_request", "speak HTTP/1.1 or HTTP/1.0")
        return await handler(request)
    except web.HTTPException as error:
        if error.status < 400:
            return error
        problem = problems.of_http_exception(error)
    except (asyncio.CancelledError, ConnectionError):
        raise
    except Exception as error:
        problem = problems.of_error(error)
        if problem.status == 500:
            log.exception(
                "a request failed by a mistake of ours", action="http_failed", route=route_of(request)
            )
        elif problem.status == 503:
            log.warning(
                "a request met an outage",
                action="http_unavailable",
                route=route_of(request),
                error=str(error),
            )
    return problems.render(problem, request[REQUEST_ID])


def add_headers(response: web.StreamResponse, request_id: str) -> None:
    """What every response carries."""
    if response.prepared:
        return
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers["X-Request-Id"] = request_id
    response.headers[hdrs.SERVER] = "jetway"


def _log(request: web.Request, status: int, seconds: float) -> None:
    route = route_of(request)
    level = "debug" if route in _QUIET and status < 500 else "info"
    getattr(log, level)(
        "request",
        action="http_request",
        method=request.method if request.method in _METHODS else "other",
        route=route,
        status=status,
        duration_ms=round(seconds * 1000, 1),
        client=source_ip(request),
        actor=request.get(ACTOR, ""),
    )
