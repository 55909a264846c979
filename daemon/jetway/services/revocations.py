"""Revocations: whatever the records say is revoked, told to the NATS server and shown on the revocation list.

Both are derived from the records, and always whole: what a crash or an outage kept from being told is told with
the next try. A burst of revocations needs few tries, as each tells all that has come together since the last one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from jetway.core.errors import PortError, UnavailableError
from jetway.core.identity import (
    RevokedCertificate,
    revoked_certificates,
    revoked_nats_keys,
    unexpired_identities,
)
from jetway.core.ids import ServiceKey
from jetway.core.record import ServiceRecord
from jetway.core.times import rfc3339
from jetway.ports import CertificateAuthority, Clock, NatsAccount
from jetway.services.index import Index, SequenceWaiters
from jetway.services.metrics import Metrics

log = structlog.get_logger()

PAUSE_SECONDS = 0.1
"""Between two tellings: what is revoked meanwhile goes with the second. The first is never put off."""
_TELLING_SECONDS = 10.0
_FIRST_BACKOFF = 0.2
_LAST_BACKOFF = 5.0
_LIST_KEPT = timedelta(hours=1)
"""How long a revocation list is shown that nothing was added to; it ends much later than that."""


@dataclass(frozen=True, slots=True)
class Left:
    """What a revocation has not reached yet, and why."""

    what: str
    why: str


class Revocations:
    """Tells, repeats until it is heard, and knows what is left."""

    def __init__(
        self,
        index: Index,
        account: NatsAccount,
        certificates: CertificateAuthority,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self._index = index
        self._account = account
        self._certificates = certificates
        self._clock = clock
        self._metrics = metrics
        self._records: dict[ServiceKey, ServiceRecord] = {}
        """Those with identities that were revoked."""
        self._suspended: dict[str, datetime] = {}
        """NATS keys that are refused for a while, whatever the records say, and until when."""
        self._untold: dict[ServiceKey, int] = {}
        """Services whose credentials the server still takes, each with the change since which it is so."""
        self._changes = 1
        self._told = SequenceWaiters()
        self._wake = asyncio.Event()
        self._failing_since: float | None = None
        self._last_error = ""
        self._list: tuple[int, datetime, str] | None = None
        self._listing = asyncio.Lock()
        self.pause = PAUSE_SECONDS
        index.on_change(self._follow)
        index.on_forget(self._forget)

    async def run(self) -> None:
        """Tell the server, for ever: first what stood in the ledger, then every change."""
        await self._index.ready.wait()
        backoff = _FIRST_BACKOFF
        while True:
            await self._something_to_tell()
            try:
                await self._tell()
            except PortError as error:
                self._failed(error)
                await asyncio.sleep(backoff)
                backoff = min(2 * backoff, _LAST_BACKOFF)
            else:
                self._failing_since, backoff = None, _FIRST_BACKOFF
                await asyncio.sleep(self.pause)

    @property
    def can_tell(self) -> bool:
        """Whether there is a server that can be told."""
        return self._account.can_revoke

    def suspend(self, public_key: str, until: datetime) -> None:
        """Have credentials of this key refused that were issued before `until`, in addition to what is revoked."""
        self._suspended[public_key] = until
        self._changed()

    def lift(self, public_key: str) -> None:
        """End it."""
        if self._suspended.pop(public_key, None):
            self._changed()

    async def told(self, seconds: float) -> bool:
        """Whether the server knows all that is revoked now; waits up to so long for it."""
        return self._account.can_revoke and await self._told.reached(self._changes, seconds)

    @property
    def idle(self) -> bool:
        """Whether nothing waits to be told."""
        return not self._account.can_revoke or self._told.position >= self._changes

    def cannot_tell(self, records: Iterable[ServiceRecord]) -> Left | None:
        """What of these cannot be revoked at NATS at all, because the server is not the gateway's own."""
        if self._account.can_revoke:
            return None
        now = self._clock.now()
        ends = [
            each.nats_expires_at
            for record in records
            for each in record.revoked_identities
            if each.nats_expires_at and each.nats_expires_at > now
        ]
        if not ends:
            return None
        keys = f"{len(ends)} NATS credentials" if len(ends) > 1 else "the NATS credentials"
        why = f"this NATS server is not the gateway's own: {keys} work there until {rfc3339(max(ends))}"
        return Left("nats", why)

    def trouble(self) -> str:
        """A sentence on what is left to be done; empty where nothing is."""
        left = self.cannot_tell(self._records.values())
        if left:
            return left.why
        if not self._untold or self._failing_since is None:
            return ""
        seconds = round(self._clock.monotonic() - self._failing_since)
        services = f"the NATS credentials of {len(self._untold)} revoked services still work"
        return f"{services}, since {seconds} s: {self._last_error}"

    async def revocation_list(self) -> str:
        """The certificate revocation list, PEM. Raises PortError where it cannot be signed."""
        async with self._listing:
            now, version = self._clock.now(), self._changes
            # One of the future was made while the clock was ahead: nobody would take it yet.
            if self._list and self._list[0] == version and timedelta() <= now - self._list[1] < _LIST_KEPT:
                return self._list[2]
            # Signing 10,000 entries takes some tenths of a second.
            text = await asyncio.to_thread(self._certificates.crl, self._revoked_certificates(now), now)
            self._list = (version, now, text)
            return text

    def _revoked_certificates(self, now: datetime) -> list[RevokedCertificate]:
        return revoked_certificates(self._records.values(), now)

    async def _something_to_tell(self) -> None:
        while self.idle:
            self._wake.clear()
            await self._wake.wait()

    async def _tell(self) -> None:
        changes = self._changes
        keys = revoked_nats_keys(self._records.values(), self._clock.now())
        for key, until in self._suspended.items():
            keys[key] = max(until, keys.get(key, until))
        try:
            async with asyncio.timeout(_TELLING_SECONDS):
                await self._account.publish_revocations(keys)
        except TimeoutError as error:
            raise UnavailableError(f"the NATS server has not answered for {_TELLING_SECONDS:g} s") from error
        self._told.advance(changes)
        self._untold = {key: since for key, since in self._untold.items() if since > changes}
        self._metrics.revocations_left.set(len(self._untold))
        if keys:
            log.info("revocations told", action="revocations_told", keys=len(keys))

    def _failed(self, error: PortError) -> None:
        self._last_error = str(error)
        if self._failing_since is None:
            self._failing_since = self._clock.monotonic()
            log.warning("revocations wait", action="revocations_wait", error=str(error))

    def _follow(self, before: ServiceRecord | None, after: ServiceRecord) -> None:
        had = before.revoked_identities if before else ()
        if after.revoked_identities == had:
            return
        if after.revoked_identities:
            self._records[after.key] = after
        else:
            self._records.pop(after.key, None)
        self._changed()
        if self._account.can_revoke and _credentials(after, self._clock.now()):
            self._untold[after.key] = self._changes
            self._metrics.revocations_left.set(len(self._untold))

    def _changed(self) -> None:
        self._changes += 1
        self._wake.set()

    def _forget(self, record: ServiceRecord) -> None:
        """A record is purged once nothing of its identities could be used any more."""
        self._records.pop(record.key, None)


def _credentials(record: ServiceRecord, now: datetime) -> bool:
    """Whether NATS credentials were revoked that have not expired by themselves."""
    return any(each.nats_expires_at for each in unexpired_identities(record.revoked_identities, now))
