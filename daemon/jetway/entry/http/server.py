"""The HTTP server: builds the application, listens, and stops without cutting off what is in flight."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Awaitable, Callable

import structlog
from aiohttp import HttpVersion11, web
from prometheus_client import CollectorRegistry

from jetway import __version__
from jetway.core.errors import StartupError
from jetway.entry.http.admin import AdminRoutes
from jetway.entry.http.admission import AdmissionRoutes
from jetway.entry.http.api import Operation, operations_of
from jetway.entry.http.auth import Gate
from jetway.entry.http.bulk import BulkRoutes
from jetway.entry.http.connections import Connections, allowed_connections
from jetway.entry.http.derived import DerivedRoutes
from jetway.entry.http.dispatch import Dispatcher
from jetway.entry.http.docs import add_docs
from jetway.entry.http.doors import Doors
from jetway.entry.http.edge import EdgeRoutes
from jetway.entry.http.forwarded import Proxies
from jetway.entry.http.jobs import JobRoutes, PurgeRoutes
from jetway.entry.http.limits import FailureLimiter
from jetway.entry.http.listener import TlsListener
from jetway.entry.http.liveness import LivenessRoutes
from jetway.entry.http.log_level import LogLevelRoutes
from jetway.entry.http.maintenance import MaintenanceRoutes
from jetway.entry.http.middleware import HttpMetrics, observer
from jetway.entry.http.openapi import describe
from jetway.entry.http.packages import PackageRoutes
from jetway.entry.http.protocol import ProblemRunner, protocol_logger
from jetway.entry.http.quarantine import QuarantineRoutes
from jetway.entry.http.selection import SelectionRoutes
from jetway.entry.http.services import ServiceRoutes
from jetway.entry.http.system import SystemRoutes
from jetway.entry.http.tls import Tls
from jetway.entry.http.watch import WatchRoutes
from jetway.entry.web.site import Site
from jetway.ports import Clock
from jetway.setting_types import split_address
from jetway.settings import Settings

__all__ = ["Doors", "HttpServer"]

log = structlog.get_logger()

_IN_FLIGHT_SECONDS = 5.0
_KEEP_ALIVE_SECONDS = 75.0
"""Longer than proxies keep theirs, so that it is not the server who closes under a request."""
_LINGER_SECONDS = 2.0
"""How long the rest of a refused body is read and dropped: the client sees the answer, not a reset."""
_LINE_BYTES = 8190
_HEADERS = 64
_BACKLOG = 512
_ABOUT = "Onboarding gateway for edge services: packages, the registry, liveness and audit."


class HttpServer:
    """The HTTP door. `start()`, then `stop()`, also after a failed start."""

    def __init__(
        self,
        doors: Doors,
        settings: Settings,
        registry: CollectorRegistry,
        clock: Clock,
        tls: Tls | None = None,
    ) -> None:
        self._doors = doors
        self._settings = settings
        self._registry = registry
        self._clock = clock
        self._metrics = HttpMetrics(registry)
        self._connections = Connections(registry)
        self._runner: web.AppRunner | None = None
        self._tls = tls
        self._listener: TlsListener | None = None
        self.url = ""
        """Where this machine reaches the server; known once it is started."""

    async def start(self) -> None:
        """Listen. Raises StartupError, naming the setting, where that cannot be."""
        bound = await _bind(self._settings.http.listen)
        try:
            port = bound.getsockname()[1]
            self.url = _local_url("https" if self._tls else "http", self._settings.http.listen, port)
            self._connections.most = allowed_connections(self._settings.http.max_connections)
            runner = ProblemRunner(
                self.application(self._settings.http.public_url.rstrip("/") or self.url),
                self._connections,
                access_log=None,
                logger=protocol_logger(),
                shutdown_timeout=_IN_FLIGHT_SECONDS,
                keepalive_timeout=_KEEP_ALIVE_SECONDS,
                max_line_size=_LINE_BYTES,
                max_field_size=_LINE_BYTES,
                max_headers=_HEADERS,
                lingering_time=_LINGER_SECONDS,
                # A compressed body could unfold to any size: it is refused instead.
                auto_decompress=False,
            )
            self._runner = runner
            await runner.setup()
            await self._listen(runner, bound)
        except BaseException:
            bound.close()
            await self.stop()
            raise
        log.info("HTTP is served", action="http_listening", url=self.url)

    async def stop(self) -> None:
        """Take no more connections, give requests in flight 5 s to end, then cut. Safe to call again."""
        listener, self._listener = self._listener, None
        if listener is not None:
            await listener.stop()
        self._doors.watch.close()
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    async def _listen(self, runner: web.AppRunner, bound: socket.socket) -> None:
        if self._tls is None or runner.server is None:
            await web.SockSite(runner, bound, backlog=_BACKLOG).start()
            return
        self._listener = TlsListener(bound, runner.server, self._tls.context, self._connections)
        self._listener.start()

    def application(self, public_url: str) -> web.Application:
        """The application, with everything that is served."""
        settings = self._settings
        limiter = FailureLimiter(self._clock, settings.http.failures_per_minute)
        gate = Gate(self._doors.api_tokens, limiter, self._doors.refusals)
        rooms = (
            BulkRoutes(self._doors),
            PackageRoutes(self._doors, settings, public_url),
            SelectionRoutes(self._doors),
            ServiceRoutes(self._doors),
            LivenessRoutes(self._doors),
            AdminRoutes(self._doors),
            DerivedRoutes(self._doors),
            JobRoutes(self._doors),
            PurgeRoutes(self._doors),
            MaintenanceRoutes(self._doors),
            WatchRoutes(self._doors),
            QuarantineRoutes(self._doors, settings.heartbeat.subject_prefix),
            AdmissionRoutes(self._doors),
            LogLevelRoutes(self._doors),
            EdgeRoutes(self._doors, limiter),
            SystemRoutes(self._doors, settings, self._registry, gate, public_url),
        )
        operations = [operation for room in rooms for operation in operations_of(room)]
        app = web.Application(middlewares=[observer(self._metrics, Proxies(settings.http.trusted_proxies))])
        _add_operations(app, operations, Dispatcher(gate, max_body_bytes=settings.http.max_body_bytes))
        app.router.add_get("/openapi.json", _openapi(operations))
        add_docs(app)
        secure = self._tls is not None
        Site(self._doors, settings, gate, self._clock, public_url, secure=secure).mount(app)
        return app


def _add_operations(app: web.Application, operations: list[Operation], dispatcher: Dispatcher) -> None:
    for operation in operations:
        handler = dispatcher.handler(operation)
        path, method = operation.route.path, operation.route.method
        if method == "GET":
            app.router.add_get(path, handler, expect_handler=_expected)  # answers HEAD as well
        else:
            app.router.add_route(method, path, handler, expect_handler=_expected)


async def _expected(request: web.Request) -> web.StreamResponse | None:
    """Ask for the body where the client waits for that; other expectations are nothing that we know of."""
    if request.version >= HttpVersion11 and request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # that was not yet the answer
    return None


def _openapi(operations: list[Operation]) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    document = describe(operations, title="Jetway", version=__version__, about=_ABOUT)

    async def show(_request: web.Request) -> web.StreamResponse:
        return web.json_response(document)

    return show


# --- listening


async def _bind(address: str) -> socket.socket:
    host, port = split_address(address)
    try:
        found = await asyncio.get_running_loop().getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except socket.gaierror as error:
        raise StartupError(
            f"http.listen: {host} is not an address of this machine ({error.strerror})"
        ) from error
    family, kind, protocol, _, place = found[0]
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setblocking(False)
        bound.bind(place)
        bound.listen(_BACKLOG)
    except OSError as error:
        bound.close()
        raise StartupError(f"http.listen: {_why(error, address)}") from error
    return bound


def _why(error: OSError, address: str) -> str:
    reasons = {
        errno.EADDRINUSE: f"{address} is in use by another program",
        errno.EACCES: f"{address} may not be listened on: ports below 1024 need a privilege",
        errno.EADDRNOTAVAIL: f"{address} is not an address of this machine",
    }
    number = error.errno or 0
    return reasons.get(number, f"{address}: {os.strerror(number)}")


def _local_url(scheme: str, address: str, port: int) -> str:
    host, _ = split_address(address)
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - read, not bound
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
