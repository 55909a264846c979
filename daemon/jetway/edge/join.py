"""Redeem a package's token: make this host's keys, ask the gateway, write what the service needs.

Safe to run again at any moment. The keys stand on the disk before the token is sent, so that a second
attempt after a lost reply is, for the gateway, the same host asking again. service.json is written last: a
folder says "joined" only when everything is there.
"""

from __future__ import annotations

import json
import platform
import random
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from jetway.core.errors import RefusedError
from jetway.core.tokens import Claims, split_token
from jetway.edge import store
from jetway.edge.errors import EdgeError, NotJoinedError
from jetway.edge.exchange import (
    Answer,
    BadAddressError,
    Endpoint,
    ExchangeError,
    UntrustedError,
    explain,
    parse_url,
    plain,
    send,
)
from jetway.edge.files import ensure_folder, exclusive
from jetway.edge.joined import Joined, load_joined, parse_answer
from jetway.edge.keys import HostKeys, check_certificate, load_or_make
from jetway.edge.pin import Trust

REDEEM_PATH = "/api/edge/redeem"
ANSWER_LIMIT = 1024 * 1024
ANSWER_TIMEOUT = 30.0
_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 30.0
_PASSING = frozenset({429, 502, 503, 504})

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinOptions:
    """How to join."""

    folder: Path
    hostname: str = ""
    """Empty: the name that the system knows."""
    allow_plain_http: bool = False
    """Whether a token may cross a network unencrypted."""
    retry_for: float = 300.0
    """Seconds for which a gateway that is away is asked again."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What join did."""

    joined: Joined
    already: bool
    """The token had been redeemed into this folder before; nothing was done."""
    backup: Path | None = None
    """Where the files of an earlier service went."""


@dataclass(frozen=True, slots=True)
class World:
    """What is not in our hands: the wire, time and chance. Tests bring their own."""

    send: Callable[..., Answer] = send
    sleep: Callable[[float], None] = time.sleep
    monotonic: Callable[[], float] = time.monotonic
    chance: Callable[[], float] = random.random


def join(token: str, options: JoinOptions, say: Say, world: World | None = None) -> Outcome:
    """Redeem `token` into the folder. Raises EdgeError with one sentence; no message ever holds the token."""
    token = token.strip()
    claims = read_claims(token)
    endpoint = gateway_of(claims, allow_plain_http=options.allow_plain_http)
    ensure_folder(options.folder)
    try:
        with exclusive(options.folder, ".join.lock", "jetway join"):
            before = _joined_before(options.folder)
            if before is not None and before.package_id == claims.package_id:
                return Outcome(before, already=True)
            keys = load_or_make(options.folder, claims.package_id, claims.generation, claims.service_id)
            world = world or World()
            trust = Trust(endpoint, claims.ca_pin, world.send)
            redeemer = _Redeemer(token, endpoint, trust, options, say, world)
            joined, raw = _accept(redeemer.redeem(_body(token, keys, options)), claims)
            check_certificate(joined.identity.certificate_pem, keys.csr_pem)
            return Outcome(joined, already=False, backup=store.save(options.folder, joined, raw, keys))
    except OSError as error:
        raise EdgeError(f"cannot write to {options.folder}: {error.strerror or error}") from error


def read_claims(token: str) -> Claims:
    """What the token says of itself; its signature is the gateway's to judge. Raises EdgeError."""
    try:
        claims = split_token(token).claims
    except RefusedError as error:
        raise EdgeError(str(error)) from None
    try:
        # A file name is made of it.
        well_formed = str(uuid.UUID(claims.package_id)) == claims.package_id
    except ValueError:
        well_formed = False
    if not well_formed:
        raise EdgeError("this is not a Jetway token: its package id is no UUID")
    return claims


def gateway_of(claims: Claims, *, allow_plain_http: bool) -> Endpoint:
    """Where the token is to be redeemed. Raises EdgeError for an address it must not be sent to."""
    try:
        endpoint = parse_url(claims.gateway)
    except BadAddressError as error:
        raise EdgeError(f"the token names no usable gateway: {error}") from None
    if claims.ca_pin and endpoint.scheme != "https":
        raise EdgeError(f"the token pins the gateway's authority, but names a plain address, {endpoint.url}")
    if endpoint.scheme == "http" and not endpoint.loopback and not allow_plain_http:
        raise EdgeError(
            f"the gateway's address is {endpoint.url}: over plain http anyone on the way can read the token"
            " and take the service's place. Give the gateway an https public_url, or pass"
            " --allow-plain-http where you trust the network"
        )
    return endpoint


def _joined_before(folder: Path) -> Joined | None:
    try:
        return load_joined(folder)
    except NotJoinedError:
        return None
    except EdgeError:
        # A damaged service.json is what a new token repairs; it goes to the backup.
        return None


def _body(token: str, keys: HostKeys, options: JoinOptions) -> bytes:
    host = {
        "hostname": (options.hostname or platform.node())[:200],
        "os": platform.system().lower(),
        "arch": platform.machine(),
    }
    request = {"token": token, "csr_pem": keys.csr_pem, "nats_public_key": keys.nats_public_key, "host": host}
    return json.dumps(request).encode()


def _accept(data: bytes, claims: Claims) -> tuple[Joined, bytes]:
    joined = parse_answer(data)
    service = joined.service
    if (joined.package_id, service.service_type, service.service_id) != (
        claims.package_id,
        claims.service_type,
        claims.service_id,
    ):
        raise EdgeError(f"the gateway answered for {joined.name}, which is not what the token is for")
    return joined, data


@dataclass(frozen=True, slots=True)
class _Redeemer:
    """Asks until there is an answer, a refusal, or no time left."""

    token: str
    endpoint: Endpoint
    trust: Trust
    options: JoinOptions
    say: Say
    world: World

    def redeem(self, body: bytes) -> bytes:
        deadline = self.world.monotonic() + self.options.retry_for
        attempt = 0
        while True:
            attempt += 1
            reason, pause = self._try(body, attempt)
            if isinstance(reason, bytes):
                return reason
            if self.world.monotonic() + pause > deadline:
                raise EdgeError(
                    f"{reason}. Gave up after {attempt} attempt{'s' if attempt > 1 else ''}; run the same"
                    " command again later, the token is not lost"
                )
            self.say(f"{reason}; next attempt in {pause:.0f} s")
            self.world.sleep(pause)

    def _try(self, body: bytes, attempt: int) -> tuple[bytes | str, float]:
        """The answer, or why there is none yet and how long to wait."""
        pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(attempt - 1, 10)) * (0.5 + self.world.chance())
        headers = {
            "Content-Type": "application/json",
            "Accept": "application/json",
            "User-Agent": "jetway-join",
        }
        try:
            answer = self.world.send(
                self.endpoint,
                "POST",
                REDEEM_PATH,
                body=body,
                headers=headers,
                timeout=ANSWER_TIMEOUT,
                limit=ANSWER_LIMIT,
                context=self.trust.context(),
            )
        except UntrustedError as error:
            raise EdgeError(str(error)) from error
        except ExchangeError as error:
            return str(error), pause
        if answer.status == 200:
            return answer.body, 0.0
        why = self._scrub(explain(answer))
        if answer.status in _PASSING:
            return f"the gateway cannot answer now ({answer.status}): {why}", max(pause, _retry_after(answer))
        if 300 <= answer.status < 400:
            target = plain(answer.headers.get("location", "elsewhere"))
            why = f"{self.endpoint.url} redirects to {self._scrub(target)}, and a token is not sent on"
        raise EdgeError(why)

    def _scrub(self, text: str) -> str:
        """Nothing that came back may carry the token onto the screen."""
        return text.replace(self.token, "[token]")


def _retry_after(answer: Answer) -> float:
    """Seconds that the gateway asks for; its form as a date is not used by ours."""
    value = answer.headers.get("retry-after", "").strip()
    return float(value) if value.isascii() and value.isdigit() and len(value) < 7 else 0.0
