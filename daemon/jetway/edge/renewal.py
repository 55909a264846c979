"""Renew what ends by itself, before it does: ask, check the answer, write it into the folder.

The request is signed with the service's NATS key, so that it may go over NATS, or over HTTPS to the gateway that
the folder names, also after the credentials have ended. Each file is replaced in one step, and only by what
belongs to this host's own keys: whoever answers falsely can withhold a renewal, and no more.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import structlog

from jetway.core.heartbeat import MalformedError
from jetway.core.renewal import (
    RenewalAnswer,
    RenewalRefusal,
    make_request,
    parse_answer,
    renewal_subject,
)
from jetway.core.times import rfc3339
from jetway.edge.errors import EdgeError
from jetway.edge.exchange import Answer, BadAddressError, ExchangeError, explain, parse_url, plain, send
from jetway.edge.files import PRIVATE, exclusive, write_file
from jetway.edge.held import Held, jwt_claims, read_held
from jetway.edge.joined import CERTIFICATE_FILE, CREDS_FILE, Joined, load_joined
from jetway.edge.keys import check_certificate, complete_creds, read_creds, sign_with
from jetway.edge.link import Link, LinkError
from jetway.edge.pin import Trust

log = structlog.get_logger()

RENEW_PATH = "/api/edge/renew"
_EARLIEST, _LATEST = 0.6, 0.73
"""Which part of a lifetime is over when a renewal is due. Hosts that joined together do not ask together."""
_AT_LEAST = 0.25
"""Which part of a lifetime lies between two renewals at least."""
_CERTIFICATE_TOO = 0.5
"""A certificate older than this part of its life is renewed along with the NATS credentials."""
_SHORTEST_PAUSE, _LONGEST_PAUSE = 10.0, 300.0
_LONGEST_SLEEP = 60.0
"""The clock may be set, or the machine sleep: it is looked at so often."""
_ANSWER_LIMIT = 256 * 1024
_HTTPS_TIMEOUT = 10.0
"""Also how long the program's end can be held up by a gateway that does not answer."""
_CERTIFICATE_REFUSED_FOR = 3600.0
_NOT_THE_CERTIFICATE = frozenset(
    {"", "proof_stale", "proof_invalid", "unavailable", "too_many_failures", "too_many_renewals"}
)
_PUBLIC = 0o644


class RenewalError(Exception):
    """There are no new credentials; the message says why. What stands in the folder is as it was."""

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(message)
        self.code = code
        """The gateway's word for it; empty where it gave no answer."""


class RevokedError(RenewalError):
    """The gateway knows this identity, and has revoked it: nothing renews it."""


def _now() -> datetime:
    return datetime.now(UTC)


class Renewal:
    """The renewals of one joined service."""

    def __init__(
        self,
        folder: Path,
        joined: Joined,
        chance: Callable[[], float],
        *,
        now: Callable[[], datetime] = _now,
        send: Callable[..., Answer] = send,
    ) -> None:
        self._folder = folder
        self._joined = joined
        self._chance = chance
        self._now = now
        self._send = send
        self._due_part = _EARLIEST + (_LATEST - _EARLIEST) * chance()
        self._no_certificate_until = self._renewed_at = float("-inf")

    @property
    def expired(self) -> bool:
        """Whether the NATS credentials have ended by this host's clock."""
        nats = read_held(self._folder, self._joined).nats
        return nats is not None and nats.ends <= self._now()

    @property
    def just_renewed(self) -> bool:
        """Whether that was a short while ago: to ask again would bring nothing."""
        return time.monotonic() - self._renewed_at < _LONGEST_PAUSE

    def due_in(self) -> float | None:
        """Seconds until a renewal is due, negative afterwards; None where nothing ends or nothing can renew it."""
        held = read_held(self._folder, self._joined)
        if not held.seed:
            return None
        certificate = held.certificate if self._certificate_wanted else None
        lives = [each for each in (held.nats, certificate) if each is not None]
        if not lives:
            return None
        due = min(each.part(self._due_part) for each in lives)
        # Where the clocks disagree, what is new may look old: it is not renewed again and again.
        rest = min(each.length for each in lives).total_seconds() * _AT_LEAST
        return max((due - self._now()).total_seconds(), self._renewed_at + rest - time.monotonic())

    async def keep(self, link: Link) -> None:
        """Renew what is due, for ever; returns when there are new NATS credentials, for a new connection.

        Raises RevokedError.
        """
        while True:
            wait = self.due_in()
            if wait is None or wait > 0:
                await asyncio.sleep(_LONGEST_SLEEP if wait is None else min(wait, _LONGEST_SLEEP))
                continue
            try:
                if await self._over_either(link):
                    return
            except RenewalError as error:
                if isinstance(error, RevokedError):
                    raise
                log.warning("credentials not renewed", action="renewal_failed", reason=str(error))
            await asyncio.sleep(self._pause())

    async def over_nats(self, link: Link) -> bool:
        """Ask over NATS. Whether there are new NATS credentials. Raises RenewalError."""
        held, body = self._request()
        try:
            message = await link.request(renewal_subject(self._joined.lineage), body)
        except LinkError as error:
            raise RenewalError(str(error)) from error
        return self._take(held, message.data)

    async def over_https(self) -> bool:
        """Ask the gateway that the folder names, if it names one. The same otherwise."""
        held, body = self._request()
        return self._take(held, await asyncio.to_thread(self._post, body))

    async def _over_either(self, link: Link) -> bool:
        try:
            return await self.over_nats(link)
        except RenewalError as error:
            if error.code or not self._joined.gateway.url:
                raise
            log.info("no renewal over NATS", action="renewal_over_https", reason=str(error))
        return await self.over_https()

    @property
    def _certificate_wanted(self) -> bool:
        return time.monotonic() >= self._no_certificate_until

    def _request(self) -> tuple[Held, bytes]:
        held = read_held(self._folder, self._joined)
        if not held.seed:
            raise RenewalError("this host has no NATS key to ask with: join again with a new token")
        wanted = (
            held.certificate is not None
            and self._certificate_wanted
            and held.certificate.part(_CERTIFICATE_TOO) <= self._now()
        )
        body = make_request(
            self._joined.lineage,
            nats_public_key=held.public_key,
            now=self._now(),
            sign=lambda message: sign_with(held.seed, message),
            csr_pem=held.csr_pem if wanted else "",
        )
        return held, body

    def _post(self, body: bytes) -> bytes:
        gateway = self._joined.gateway
        if not gateway.url:
            raise RenewalError("service.json names no gateway to ask: join again with a new token")
        try:
            endpoint = parse_url(gateway.url)
            answer = self._send(
                endpoint,
                "POST",
                RENEW_PATH,
                body=body,
                headers={"Content-Type": "application/json", "User-Agent": "jetway-run"},
                timeout=_HTTPS_TIMEOUT,
                limit=_ANSWER_LIMIT,
                context=Trust(endpoint, gateway.ca_pin, self._send).context(),
            )
        except (ExchangeError, BadAddressError) as error:
            raise RenewalError(str(error)) from error
        if answer.status == 200:
            return answer.body
        raise self._refused(_code(answer), explain(answer))

    def _take(self, held: Held, data: bytes) -> bool:
        """Write what the answer holds. Whether there are new NATS credentials."""
        try:
            answer = parse_answer(data)
        except MalformedError as error:
            raise RenewalError(str(error)) from error
        if isinstance(answer, RenewalRefusal):
            raise self._refused(answer.error, plain(answer.detail) or plain(answer.error))
        try:
            self._write(held, answer)
        except (EdgeError, OSError) as error:
            raise RenewalError(f"the new credentials were not kept: {error}") from error
        self._renewed_at = time.monotonic()
        until = rfc3339(answer.expires_at) if answer.expires_at else ""
        log.info("credentials renewed", action="credentials_renewed", until=until)
        return bool(answer.creds)

    def _refused(self, code: str, why: str) -> RenewalError:
        # It may be the certificate's request that is refused: the NATS credentials must not end for that.
        if code not in _NOT_THE_CERTIFICATE:
            self._no_certificate_until = time.monotonic() + _CERTIFICATE_REFUSED_FOR
        return RevokedError(why, code) if code == "revoked" else RenewalError(why, code)

    def _write(self, held: Held, answer: RenewalAnswer) -> None:
        check_certificate(answer.certificate_pem, held.csr_pem)
        creds = complete_creds(answer.creds, held.seed)
        if creds and jwt_claims(read_creds(creds).jwt).get("sub") != held.public_key:
            raise EdgeError("they are not for this host's key")
        with exclusive(self._folder, ".join.lock", "jetway join"):
            if load_joined(self._folder).package_id != self._joined.package_id:
                raise EdgeError("the folder was joined anew")
            if answer.certificate_pem:
                write_file(self._folder / CERTIFICATE_FILE, answer.certificate_pem.encode(), mode=_PUBLIC)
            if creds:
                write_file(self._folder / CREDS_FILE, creds.encode(), mode=PRIVATE)

    def _pause(self) -> float:
        """Until the next attempt: a tenth of the time that is left, within bounds."""
        nats = read_held(self._folder, self._joined).nats
        left = (nats.ends - self._now()).total_seconds() if nats else _LONGEST_PAUSE
        return min(max(left / 10, _SHORTEST_PAUSE), _LONGEST_PAUSE) * (0.75 + self._chance() / 2)


def _code(answer: Answer) -> str:
    try:
        said = json.loads(answer.body)
    except (ValueError, RecursionError):
        return ""
    code = said.get("code") if isinstance(said, dict) else None
    return code if isinstance(code, str) else ""
