"""Renew: a service asks for new credentials before the old ones end, and proves itself with its NATS key.

Who cannot prove itself is told nothing of what is registered, and costs a look into memory or a signature check.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

import structlog

from jetway.core import commands as c
from jetway.core.errors import Code, PortError, RefusedError, refuse
from jetway.core.ids import ServiceKey
from jetway.core.record import ServiceRecord
from jetway.core.renewal import FRESH, RenewalAnswer, RenewalRequest
from jetway.core.times import rfc3339
from jetway.ports import NatsAuthority
from jetway.services.caller import Caller
from jetway.services.identities import HostKeys, Identities, Renewal
from jetway.services.recorder import Recorder

log = structlog.get_logger()

PER_MINUTE = 6
PER_HOUR = 18
"""Renewals of one service: enough for every retry after a lost answer, and little to write for one gone wild."""
_PER_LIFETIME = 4
"""As many in any case, however short the lifetime of what is renewed."""


class Renewer:
    """Renews identities."""

    def __init__(
        self,
        recorder: Recorder,
        identities: Identities,
        nats: NatsAuthority,
        count: Callable[[str], None],
    ) -> None:
        self._recorder = recorder
        self._identities = identities
        self._nats = nats
        self.count = count
        self.on_refused: Callable[[RenewalRequest, Caller, Code], None] = lambda *_: None
        """Called for every refusal. It must not block."""
        lifetime = identities.shortest_lifetime.total_seconds()
        self._paces = tuple(
            Pace(max(most, math.ceil(_PER_LIFETIME * seconds / lifetime)), seconds)
            for most, seconds in ((PER_MINUTE, 60.0), (PER_HOUR, 3600.0))
        )

    async def renew(
        self, request: RenewalRequest, *, source_ip: str = "", request_id: str = ""
    ) -> RenewalAnswer:
        """New credentials for who holds the key. Raises RefusedError, and PortErrors: then nothing happened.

        Refusals: proof_stale, proof_invalid, revoked, too_many_renewals, malformed, key_used_before, invalid.
        """
        caller = Caller(f"service:{request.lineage.key}", source_ip, request_id)
        try:
            answer = await self._renew(request, caller)
        except RefusedError as error:
            self.count(error.refused.code.value)
            self.on_refused(request, caller, error.refused.code)
            log.info(
                "renewal refused",
                action="renewal_refused",
                service=str(request.lineage.key),
                code=error.refused.code.value,
            )
            raise
        self.count("renewed")
        return answer

    def proves(self, request: RenewalRequest) -> bool:
        """Whether the request is by who it says. Costs at most a signature check."""
        return self._knows(request) and self._signed(request)

    async def _renew(self, request: RenewalRequest, caller: Caller) -> RenewalAnswer:
        now, key = self._recorder.clock.now(), request.lineage.key
        _require_fresh(request.timestamp, now)
        if not self.proves(request):
            raise _unproven()
        seconds = self._recorder.clock.monotonic()
        if not all(pace.allows(key, seconds) for pace in self._paces):
            minute, hour = (pace.most for pace in self._paces)
            why = f"more than {minute} renewals of this service in a minute, or {hour} in an hour"
            raise refuse(Code.TOO_MANY_RENEWALS, why)
        keys = self._identities.read_keys("", request.csr_pem, key)
        made: list[Renewal] = []
        try:
            await self._recorder.apply(key, lambda record: self._command(record, request, keys, made), caller)
        except RefusedError as error:
            raise _unproven() if error.refused.code is Code.NOT_FOUND else error from None
        except PortError:
            for pace in self._paces:
                pace.give_back(key)
            raise
        log.info("credentials renewed", action="credentials_renewed", service=str(key))
        credentials = made[-1].credentials
        return RenewalAnswer(
            creds=credentials.creds,
            certificate_pem=credentials.certificate_pem,
            ca_pem=credentials.ca_pem,
            expires_at=made[-1].expires_at,
        )

    def _command(
        self, record: ServiceRecord | None, request: RenewalRequest, keys: HostKeys, made: list[Renewal]
    ) -> c.Renew:
        """What would renew this record; without anything new where it will be refused."""
        bare = c.Renew(nats_public_key=request.nats_public_key)
        if record is None or record.identity is None or not _is_current(record, request):
            return bare
        renewal = self._identities.renew(record, record.identity, keys, self._recorder.clock.now())
        if renewal.expires_at is None:
            why = "nothing to renew: no NATS credentials are issued here, and no certificate was asked for"
            raise refuse(Code.INVALID, why, "csr_pem")
        made.append(renewal)
        return replace(renewal.command, nats_public_key=request.nats_public_key)

    def _knows(self, request: RenewalRequest) -> bool:
        """Whether the key is, or was, that of the service: all others are refused before anything costs."""
        record = self._recorder.index.get(request.lineage.key)
        if record is None or record.lineage != request.lineage:
            return False
        had = any(each.nats_public_key == request.nats_public_key for each in record.revoked_identities)
        return had or _is_current(record, request)

    def _signed(self, request: RenewalRequest) -> bool:
        return self._nats.verify(request.nats_public_key, request.signed, request.signature)


class Pace:
    """So many of each in some time. Only who has proven itself is counted: no more than there are services."""

    def __init__(self, most: int, seconds: float) -> None:
        self.most = most
        self._seconds = seconds
        self._period = -1
        self._counts: Counter[ServiceKey] = Counter()

    def allows(self, key: ServiceKey, seconds: float) -> bool:
        """Whether there may be another one of this service now. `seconds` is monotonic."""
        period = math.floor(seconds / self._seconds)
        if period != self._period:
            self._period, self._counts = period, Counter()
        self._counts[key] += 1
        return self._counts[key] <= self.most

    def give_back(self, key: ServiceKey) -> None:
        """One came to nothing, and not by the service's fault."""
        if self._counts[key]:
            self._counts[key] -= 1


def _is_current(record: ServiceRecord, request: RenewalRequest) -> bool:
    identity = record.identity
    return (
        identity is not None
        and bool(request.nats_public_key)
        and identity.nats_public_key == request.nats_public_key
        and record.lineage == request.lineage
    )


def _require_fresh(timestamp: datetime, now: datetime) -> None:
    if abs(now - timestamp) > FRESH:
        why = f"the request was made at {rfc3339(timestamp)}, and here it is {rfc3339(now)}: set the host's clock"
        raise refuse(Code.PROOF_STALE, why, "timestamp")


def _unproven() -> RefusedError:
    return refuse(Code.PROOF_INVALID, "this is not the key of a service that may renew its credentials")
