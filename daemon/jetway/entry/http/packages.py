"""Packages: create, look at, revoke, reissue, delete."""

from __future__ import annotations

import hashlib
import json
import shlex
from datetime import timedelta
from typing import Annotated
from urllib.parse import urlsplit

from aiohttp import web

from jetway.core.ids import ServiceId, ServiceKey
from jetway.entry.http import answers as a
from jetway.entry.http import etags, render
from jetway.entry.http import models as m
from jetway.entry.http import requests as r
from jetway.entry.http.api import Call, Header, Reply, route
from jetway.entry.http.auth import Role
from jetway.entry.http.doors import Doors
from jetway.entry.http.fields import IdempotencyKey, PackageId
from jetway.entry.http.services import ONE as ONE_SERVICE
from jetway.entry.http.services import Plural
from jetway.services.catalogue import EventFilter, PackageFilter, PackageView
from jetway.services.issue import Issued, NewPackageRequest, NewService
from jetway.setting_types import is_loopback
from jetway.settings import Settings

TAG = "packages"
_ALL = "/api/admin/edge-packages"
_ONE = _ALL + "/{package_id:(?!(?:defaults|bulk)(?:/|$))[^/]+}"
_LOCATION = {"Location": "The package's path."}
_Key = Annotated[
    IdempotencyKey | None,
    Header("Idempotency-Key", "Kept 24 h per caller: a retry gets the same package and token."),
]


class PackageRoutes:
    """The routes under /api/admin/edge-packages."""

    def __init__(self, doors: Doors, settings: Settings, public_url: str) -> None:
        self._catalogue = doors.catalogue
        self._administrator = doors.administrator
        self._issuer = doors.issuer
        self._templates = doors.templates
        self._settings = settings
        self._public_url = public_url
        pinned = doors.certificates if settings.pins_own_authority else None
        self._pin = pinned.pin if pinned else ""

    @route("POST", _ALL, tag=TAG, role=Role.OPERATOR, status=201, errors=(409, 503), headers=_LOCATION)
    async def create_package(
        self, body: r.CreatePackage, call: Call, idempotency_key: _Key = None
    ) -> Reply[a.Issued]:
        """Create a service with a package.

        The token is shown here and never again. Where the config document or the registry row cannot be
        written within 2 s, `projection` says that it is queued.
        """
        issued = await self._issuer.create(
            call.caller, package_request(body), idempotency_key, body_hash(body)
        )
        return self._issued(issued)

    @route("GET", _ALL, tag=TAG, role=Role.VIEWER)
    async def list_packages(self, query: r.ListPackages) -> m.PackageList:
        """List packages, newest first.

        Of a service that was reissued often the newest earlier ones; older ones can be read by their ids.
        """
        wanted = PackageFilter(
            statuses=[status.value for status in query.status],
            component_type=query.component_type.value if query.component_type else None,
            parent_id=query.parent_id,
            site=query.site,
            q=query.q,
            limit=query.limit,
            cursor=query.cursor,
        )
        return render.packages(await self._catalogue.packages(wanted))

    @route("GET", _ALL + "/defaults", tag=TAG, role=Role.VIEWER, errors=(503,))
    async def get_package_defaults(self) -> a.Defaults:
        """Defaults and checker templates for a form."""
        return a.Defaults.model_validate(await self._templates.defaults())

    @route("GET", _ONE, tag=TAG, role=Role.VIEWER, errors=(503,), headers=etags.HEADERS)
    async def get_package(
        self, package_id: PackageId, if_none_match: etags.IfNoneMatch = None
    ) -> Reply[m.Package] | web.Response:
        """One package, never with a secret."""
        view = await self._catalogue.find_package(package_id)
        return etags.answer(render.package(view), etags.of_package(view), if_none_match)

    @route("GET", _ONE + "/events", tag=TAG, role=Role.VIEWER, errors=(503,))
    async def list_package_events(self, package_id: PackageId, query: r.ListHistory) -> m.EventList:
        """A package's history, newest first; it outlives the package."""
        wanted = EventFilter(
            types=[event_type.value for event_type in query.type],
            package_id=package_id,
            since=query.since,
            until=query.until,
            limit=query.limit,
            cursor=query.cursor,
        )
        page = await self._catalogue.events(wanted)
        if not page.total:
            await self._catalogue.find_package(package_id)
        return render.events(page)

    @route("POST", _ONE + "/revoke", tag=TAG, role=Role.OPERATOR, errors=(409, 410, 503))
    async def revoke_package(
        self, package_id: PackageId, body: r.RevokePackage, call: Call, if_match: etags.IfMatch = None
    ) -> a.Affected:
        """Revoke the service of a package, and with `cascade` all beneath it.

        Without `cascade` 409 where children live. With `dry_run` nothing changes.
        """
        change = await self._administrator.revoke_package(
            call.caller,
            package_id,
            reason=body.reason,
            cascade=body.cascade,
            dry_run=body.dry_run,
            expected=etags.versions(if_match),
        )
        return render.affected(change, self._catalogue)

    @route(
        "POST",
        _ONE + "/reissue",
        tag=TAG,
        role=Role.OPERATOR,
        status=201,
        errors=(409, 503),
        headers=_LOCATION,
    )
    async def reissue_package(
        self, package_id: PackageId, body: r.ReissuePackage, call: Call, if_match: etags.IfMatch = None
    ) -> Reply[a.Issued]:
        """A new package and token for the same service.

        The old token is dead at once; the old identity when the new one is redeemed, or at once with
        `revoke_now`.
        """
        return await self._reissue(call, package_id, body, if_match)

    @route(
        "POST",
        ONE_SERVICE + "/reissue",
        tag=TAG,
        role=Role.OPERATOR,
        status=201,
        errors=(409, 503),
        headers=_LOCATION,
    )
    async def reissue_service(
        self,
        plural: Plural,
        service_id: ServiceId,
        body: r.ReissuePackage,
        call: Call,
        if_match: etags.IfMatch = None,
    ) -> Reply[a.Issued]:
        """The same for a service by its id, and the first package for one that came in without.

        Those are the services that were registered, imported, or let in after a heartbeat.
        """
        return await self._reissue(call, ServiceKey(plural.service_type, service_id), body, if_match)

    async def _reissue(
        self, call: Call, of: str | ServiceKey, body: r.ReissuePackage, if_match: etags.IfMatch
    ) -> Reply[a.Issued]:
        issued = await self._issuer.reissue(
            call.caller,
            of,
            reason=body.reason,
            token_ttl=_seconds(body.token_ttl_seconds),
            notes=body.notes,
            revoke_now=body.revoke_now,
            expected=etags.versions(if_match),
        )
        return self._issued(issued)

    @route("DELETE", _ONE, tag=TAG, role=Role.ADMIN, errors=(409, 503))
    async def delete_package(self, package_id: PackageId, call: Call, if_match: etags.IfMatch = None) -> None:
        """Take a revoked or expired package out of the listings."""
        await self._administrator.delete_package(call.caller, package_id, etags.versions(if_match))

    def _issued(self, issued: Issued) -> Reply[a.Issued]:
        package = issued.package
        answer = a.Issued(
            package=render.package(PackageView(issued.record, package)),
            service=render.service(self._catalogue.view(issued.record)),
            token=issued.token,
            install=install_commands(self._public_url, issued.record.service_id, self._pin),
            projection=a.Projection.model_validate(dict(issued.projection)),
            warnings=warnings(self._settings, self._public_url),
        )
        return Reply(answer, {"Location": f"{_ALL}/{package.package_id}"})


def body_hash(body: r.CreatePackage) -> str:
    """The same for bodies that ask for the same, however they are spelled."""
    asked = body.model_dump(mode="json", exclude_defaults=True)
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def install_commands(public_url: str, service_id: str, pin: str = "") -> a.Install:
    """What to run on the edge host. Both ask for the token.

    The wheel is a file of the operator's: asked for by name, an index might have a stranger's.
    """
    folder = f"/etc/jetway-edge/{service_id}"
    script = shlex.quote(f"{public_url}/install.sh")
    fetch = f"curl -fsS {script}" if not pin else _fetch_pinned(public_url, script, pin)
    return a.Install(  # noqa: S604 - a text that is called shell, not a call of one
        python=f"pip install ./edge_jetway-*.whl && jetway join --dir {folder}",
        shell=f"{fetch} | sh -s -- --dir {folder}",
    )


def _fetch_pinned(public_url: str, script: str, pin: str) -> str:
    """Fetch the script from the gateway with that authority and from nobody else: it is run as it comes."""
    root = shlex.quote(f"{public_url}/api/edge/ca.pem")
    hashed = pin.removeprefix("sha256:").replace("-", "+").replace("_", "/") + "="
    return (
        f'd=$(mktemp -d) && curl -fsSk {root} | openssl x509 -out "$d/ca.pem"'
        ' && [ "$(openssl x509 -in "$d/ca.pem" -noout -pubkey | openssl pkey -pubin -outform DER'
        f' | openssl dgst -sha256 -binary | openssl base64 -A)" = {hashed} ]'
        f' && curl -fsS --cacert "$d/ca.pem" --capath "$d" {script}'
    )


def warnings(settings: Settings, public_url: str) -> list[str]:
    """What is likely to keep an edge host from joining."""
    http_is_public = not is_loopback(urlsplit(public_url).hostname or "")
    nats_hosts = [urlsplit(url).hostname or "" for url in settings.nats_public_urls]
    if http_is_public and all(map(is_loopback, nats_hosts)):
        return ["edge hosts are told a NATS address that only this machine can reach: set nats.public_urls"]
    return []


def package_request(body: r.CreatePackage) -> NewPackageRequest:
    """What a body asks for."""
    service = NewService(
        service_type=body.component_type,
        service_id=body.component_id,
        label=body.label,
        parent_id=body.parent_id,
        site=body.site,
        labels=body.labels,
        metadata=body.metadata,
        checker_kind=body.checker_kind,
        checker_config=body.checker_config,
        spiffe_id=body.spiffe_id,
        heartbeat_interval_seconds=body.heartbeat_interval_seconds,
    )
    return NewPackageRequest(
        service=service,
        token_ttl=_seconds(body.token_ttl_seconds),
        notes=body.notes,
        watch=body.watch,
    )


def _seconds(value: int | None) -> timedelta | None:
    return None if value is None else timedelta(seconds=value)
