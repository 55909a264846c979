"""Health, metrics and the installer: what machines ask for."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from jetway.entry.http import answers as a
from jetway.entry.http.api import Call, route
from jetway.entry.http.auth import Gate, Role
from jetway.entry.http.doors import Doors
from jetway.setting_types import is_loopback, split_address
from jetway.settings import Settings

TAG = "system"
_INSTALLER = Path(__file__).resolve().parent / "static" / "install.sh"
_PLAIN = "text/plain"
_SCRIPT = "text/x-shellscript"


class SystemRoutes:
    """/healthz, /readyz, /metrics and /install.sh."""

    def __init__(
        self, doors: Doors, settings: Settings, registry: CollectorRegistry, gate: Gate, public_url: str
    ) -> None:
        self._health = doors.health
        self._registry = registry
        self._gate = gate
        self._open_to_all = settings.http.detail_for_all
        self._for_this_machine = not _is_behind_proxy(settings, public_url)
        pinned = doors.certificates if settings.pins_own_authority else None
        self._installer = installer(public_url, pinned.pin if pinned else "")

    @route("GET", "/healthz", tag=TAG, lenient=True, result=a.Alive, unwell=True)
    async def get_health(self) -> web.Response:
        """Whether the process does what it is for; 503 asks for a restart."""
        if self._health.live():
            return _health(a.Alive(status="ok"), 200)
        return _health(a.Alive(status="unavailable"), 503)

    @route("GET", "/readyz", tag=TAG, lenient=True, result=a.Ready, unwell=True, errors=(401, 403, 429))
    async def get_readiness(self, call: Call) -> web.Response:
        """Whether requests can be served; 503 while not.

        Each part's state is shown to this machine, to the role `viewer`, and where the settings open it.
        """
        detail = self._may_see_detail(call.request)
        report = await self._health.report()
        answer = a.Ready(status=report.status)
        if detail:
            parts = {name: a.Component.model_validate(part) for name, part in report.components.items()}
            answer = a.Ready(status=report.status, components=parts)
        return _health(answer, 200 if report.ready else 503)

    def _may_see_detail(self, request: web.Request) -> bool:
        return self._gate.may_see_detail(request, self._open_to_all, self._for_this_machine)

    @route(
        "GET",
        "/metrics",
        tag=TAG,
        lenient=True,
        errors=(401, 403, 429),
        content={_PLAIN: "Prometheus's text format.", "application/openmetrics-text": "OpenMetrics."},
    )
    async def get_metrics(self, call: Call) -> web.Response:
        """Metrics, for this machine, for the role `viewer`, and where the settings open them."""
        if not self._may_see_detail(call.request):
            self._gate.admit(call.request, Role.VIEWER)
        encode, content_type = _encoder(call.request.headers.get("Accept", ""))
        # Off the loop: a large registry takes a while to print.
        body = await asyncio.to_thread(encode, self._registry)
        return web.Response(body=body, headers={"Content-Type": content_type})

    @route("GET", "/install.sh", tag=TAG, lenient=True, content={_SCRIPT: "A POSIX shell script."})
    async def get_installer(self) -> web.Response:
        """The installer for hosts without Python: `curl -fsS <gateway>/install.sh | sh -s -- --dir DIR`."""
        return web.Response(body=self._installer, content_type=_SCRIPT, charset="utf-8")


def _encoder(accept: str) -> tuple[Callable[[CollectorRegistry], bytes], str]:
    """How metrics are written for whoever accepts this; the plain text where the library cannot read it."""
    try:
        return choose_encoder(accept)
    except (TypeError, ValueError):
        return choose_encoder("")


def installer(public_url: str, pin: str = "") -> bytes:
    """The installer with the gateway's address and its authority's pin in it, quoted for the shell."""
    script = _INSTALLER.read_text(encoding="utf-8").replace("@{pin}", shlex.quote(pin))
    return script.replace("@{gateway}", shlex.quote(public_url)).encode()


def _health(answer: a.Alive | a.Ready, status: int) -> web.Response:
    body = answer.model_dump_json(exclude_none=True).encode()
    return web.Response(status=status, body=body, content_type="application/json")


def _is_behind_proxy(settings: Settings, public_url: str) -> bool:
    """Whether everybody comes by way of this machine: a proxy that names nobody looks like a program here."""
    host, _ = split_address(settings.http.listen)
    return is_loopback(host) and not is_loopback(urlsplit(public_url).hostname or "")
