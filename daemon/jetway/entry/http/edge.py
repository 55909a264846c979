"""The installer's call. No API token: the package's own token is what opens."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from aiohttp import web

from jetway.core.errors import Code, RefusedError, refuse
from jetway.core.heartbeat import MalformedError
from jetway.core.renewal import MAX_BYTES, RenewalRequest, parse_request
from jetway.core.tokens import split_token
from jetway.entry.http import answers as a
from jetway.entry.http import requests as r
from jetway.entry.http.answers import Redeemed
from jetway.entry.http.api import Call, route
from jetway.entry.http.archive import build_archive
from jetway.entry.http.doors import Doors
from jetway.entry.http.limits import FailureLimiter, address_key, package_key
from jetway.entry.http.problems import ProblemError, too_many_failures
from jetway.services.redeem import RedeemAnswer, RedeemRequest
from jetway.services.refusals import STRANGER, Reason, Refusal

GZIP = "application/gzip"
_PEM = "application/x-pem-file"
_MAX_BODY = 64 * 1024


class EdgeRoutes:
    """POST /api/edge/redeem, and what whoever trusts the gateway's authority needs of it."""

    def __init__(self, doors: Doors, limiter: FailureLimiter) -> None:
        self._certificates = doors.certificates
        self._crl = doors.crl
        self._redeemer = doors.redeemer
        self._renewer = doors.renewer
        self._authority = doors.authority
        self._limiter = limiter
        self._refusals = doors.refusals

    @route(
        "POST",
        "/api/edge/redeem",
        tag="edge",
        errors=(401, 409, 410, 429, 503),
        content={GZIP: "The same as a .tar.gz of files, with a README and a start script."},
        result=Redeemed,
        max_body=_MAX_BODY,
        limited=True,
    )
    async def redeem_token(self, body: r.Redeem, call: Call) -> web.Response:
        """Redeem a package's token.

        It answers once; an installer that sent a key of its own may ask again with the same keys. With
        `Accept: application/gzip` the answer is an archive of files.
        """
        request = RedeemRequest(
            token=body.token,
            csr_pem=body.csr_pem,
            nats_public_key=body.nats_public_key,
            hostname=body.host.hostname,
            os=body.host.os,
            arch=body.host.arch,
        )
        self._refuse_the_impatient(request, call)
        packed = wants_archive(call.request.headers.get("Accept", ""))
        caller = call.caller
        try:
            answer = await self._redeemer.redeem(
                request,
                source_ip=caller.source_ip,
                request_id=caller.request_id,
                render=_archive if packed else None,
            )
        except RefusedError:
            self._note_failure(body.token, call)
            raise
        return await _render(answer, packed)

    @route(
        "POST",
        "/api/edge/renew",
        tag="edge",
        errors=(401, 409, 410, 429, 503),
        max_body=MAX_BYTES,
        limited=True,
    )
    async def renew_credentials(self, body: r.Renew, call: Call) -> a.Renewed:
        """Renew a service's credentials, on the word of its NATS key.

        Hosts that are connected ask over NATS. This is for one whose credentials ran out while it was off.
        """
        request = _renewal(body)
        address = address_key(call.caller.source_ip)
        wait = self._limiter.wait(address)
        if wait > 0 and not self._renewer.proves(request):
            self._tell(Reason.TOO_MANY_FAILURES, call)
            raise too_many_failures(wait)
        try:
            answer = await self._renewer.renew(
                request, source_ip=call.caller.source_ip, request_id=call.caller.request_id
            )
        except RefusedError:
            self._limiter.fail(address)
            raise
        return a.Renewed.model_validate(answer)

    @route("GET", "/api/edge/ca.pem", tag="edge", errors=(404,), content={_PEM: "One certificate, PEM."})
    async def get_authority(self) -> web.Response:
        """The root certificate of the gateway's own authority.

        Whoever fetches it without knowing the gateway compares its key with the pin that a token holds.
        """
        if self._certificates is None:
            raise _no_authority()
        return web.Response(text=self._certificates.root_pem, content_type=_PEM)

    @route("GET", "/api/edge/crl.pem", tag="edge", errors=(404, 503), content={_PEM: "The list, PEM."})
    async def get_revocation_list(self) -> web.Response:
        """The revocation list of that authority: certificates that were revoked and have not expired."""
        if self._crl is None:
            raise _no_authority()
        return web.Response(text=await self._crl(), content_type=_PEM)

    def _refuse_the_impatient(self, request: RedeemRequest, call: Call) -> None:
        """429 for an address or a package with too many failures.

        Behind one address there may be a whole site, so a genuine token passes; its package is asked then. Who got
        the package and asks again passes both: others with the same token cannot keep the answer from him.
        """
        wait = self._limiter.wait(address_key(call.caller.source_ip))
        if wait <= 0 or self._genuine(request.token):
            package_id = _package_id(request.token)
            wait = self._limiter.wait(package_key(package_id)) if package_id else 0.0
            if wait <= 0 or self._redeemer.is_holder(request):
                return
        self._tell(Reason.TOO_MANY_REDEMPTIONS, call)
        raise too_many_failures(wait)

    def _genuine(self, token: str) -> bool:
        if self._authority is None:
            return False
        try:
            self._authority.read_token(token)
        except RefusedError:
            return False
        return True

    def _note_failure(self, token: str, call: Call) -> None:
        """Nobody but the holder of a genuine token can use up its package's failures.

        Whatever he is refused for counts: each such refusal reads the ledger and writes an audit entry.
        """
        self._limiter.fail(address_key(call.caller.source_ip))
        if self._genuine(token):
            self._limiter.fail(package_key(_package_id(token)))
        else:  # of a genuine one the trail knows already, with both sides
            self._tell(Reason.FORGED_PACKAGE_TOKEN, call)

    def _tell(self, reason: Reason, call: Call) -> None:
        caller = replace(call.caller, actor=STRANGER)
        what = f"{call.request.method} {call.request.path}"
        self._refusals.note(Refusal(reason, caller, address_key(caller.source_ip), what))


def _no_authority() -> ProblemError:
    return ProblemError(404, "not_found", "this gateway has no authority of its own")


def _renewal(body: r.Renew) -> RenewalRequest:
    try:
        return parse_request(body.model_dump_json().encode())
    except MalformedError as error:
        raise refuse(Code.MALFORMED, str(error), str(error).partition(":")[0]) from None


def _package_id(token: str) -> str:
    """The package that a token names, genuine or not; empty when it is no token."""
    try:
        return split_token(token).claims.package_id
    except RefusedError:
        return ""


def _archive(answer: RedeemAnswer) -> bytes:
    return build_archive(answer.document(), answer.package.delivered_at)


async def _render(answer: RedeemAnswer, packed: bool) -> web.Response:
    if not packed:
        return web.json_response(answer.document())
    disposition = f'attachment; filename="{answer.record.key}.tar.gz"'
    headers = {"Content-Disposition": disposition}
    return web.Response(body=await asyncio.to_thread(_archive, answer), content_type=GZIP, headers=headers)


def wants_archive(accept: str) -> bool:
    """Whether an Accept header names the archive, and not JSON before it."""
    for part in accept.lower().split(","):
        media_type, _, parameters = part.partition(";")
        if parameters.replace(" ", "") in ("q=0", "q=0.0"):
            continue
        if media_type.strip() in (GZIP, "application/x-gzip"):
            return True
        if media_type.strip() == "application/json":
            return False
    return False
