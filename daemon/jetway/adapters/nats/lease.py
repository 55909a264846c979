"""One of several daemons leads: it runs the projections and the jobs. The others serve and stand by.

The lease is one key, written by compare-and-swap. No clocks are compared between machines: a holder rewrites
the key while it lives, and whoever sees the same sequence for longer than the lease lasts, by its own clock,
may take it over. A holder counts from before it sent the last write whose success it knows of, and stops well
before that time is up; the others count from after they read that write. So the holder is always first.

A process that was stopped (SIGSTOP) finds `held` false as soon as it goes on. One on a machine that was suspended
finds out at its next renewal, since its clock stood still as well: for that moment, as for any other, what the
leader writes is compared and swapped, or ordered by (epoch, revision).

A daemon that was killed and started again need not wait for its own lease to run out: the lock on its state
directory proves that the process which held it is gone. It takes back what stood there at its first look, and only
as long as nobody has renewed it since: a copy of the state directory elsewhere may still be running.
"""

from __future__ import annotations

import asyncio
import json
from typing import Protocol

import structlog

from jetway.core.errors import ConflictError, PortError
from jetway.ports import Clock, Identifiers, StoredDocument

log = structlog.get_logger()

LEASE_KEY = "lease"
LEASE_SECONDS = 10.0
_ATTEMPTS = 3


class LeaseBucket(Protocol):
    """Where the lease lies: `Bucket` in the daemon."""

    async def read(self, key: str) -> StoredDocument:
        """The key as it stands now."""
        ...

    async def write(self, key: str, data: bytes, expected: int) -> int:
        """Write if the key is still at `expected`; the new sequence."""
        ...

    async def delete(self, key: str, expected: int) -> None:
        """Leave a delete marker if the key is still at `expected`."""
        ...


class NatsLease:
    """Implements `ports.Lease`. `seconds`: the same for all daemons on one NATS."""

    def __init__(
        self,
        bucket: LeaseBucket,
        clock: Clock,
        identifiers: Identifiers,
        *,
        seconds: float = LEASE_SECONDS,
        holder: str = "",
        host: str = "",
    ) -> None:
        """`holder`: the same for every process of one locked state directory; empty: nobody came before.

        `host`: what the other daemons call this one in /readyz.
        """
        self._bucket = bucket
        self._clock = clock
        run = identifiers.new_id()
        self._holder = holder or run
        self._value = json.dumps({"holder": self._holder, "run": run, "host": host}).encode()
        self._seconds = seconds
        self._renew_seconds = seconds / 4
        self._safe_seconds = seconds * 0.6
        self._renewed_at = float("-inf")
        self._sequence = 0
        self._seen: tuple[int, float] = (-1, float("-inf"))
        self._leader = ""
        self._first_look: int | None = None
        """The sequence at which the lease stood at the first look."""
        self._changed = asyncio.Condition()
        self._lock = asyncio.Lock()
        self._held = False
        self._released = False

    @property
    def held(self) -> bool:
        """Whether this daemon leads now."""
        return self._held and self._left > 0

    @property
    def leader(self) -> str | None:
        """The host of another daemon that leads, as far as is known: it may have no name. None: nobody does."""
        if self.held or self._clock.monotonic() - self._seen[1] >= self._seconds:
            return None
        return self._leader

    @property
    def _left(self) -> float:
        """Seconds that this daemon may still lead without another renewal."""
        return self._renewed_at + self._safe_seconds - self._clock.monotonic()

    async def run(self) -> None:
        """Renew, or wait for a chance, for ever."""
        while True:
            pause = await self.step()
            await asyncio.sleep(pause)

    async def step(self) -> float:
        """Renew, or try to take the lease; after how many seconds to do so again."""
        async with self._lock:
            if self._released:
                return self._seconds
            await self._notice_expiry()
            limit = min(self._renew_seconds, self._left) if self._held else self._renew_seconds
            renewed = False
            try:
                async with asyncio.timeout(limit):
                    renewed = await (self._renew() if self._held else self._try())
            except (PortError, TimeoutError) as error:
                log.debug("the lease could not be renewed", action="lease_waits", error=str(error))
            await self._notice_expiry()
            return self._pause(renewed)

    async def wait(self, held: bool) -> None:
        """Wait until this daemon leads (or no longer leads)."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._held is held)

    async def release(self) -> None:
        """Let the next one lead at once, and never lead again. Safe to call again.

        What only the leader does must have ended before.
        """
        self._released = True
        async with self._lock:
            if not self._held:
                return
            await self._set(held=False)
            try:
                await self._delete()
            except PortError as error:
                log.info("the lease runs out by itself", action="lease_left", error=str(error))

    async def _renew(self) -> bool:
        """Whether it was renewed. It is lost where somebody else wrote."""
        for _ in range(_ATTEMPTS):
            began = self._clock.monotonic()
            try:
                self._sequence = await self._bucket.write(LEASE_KEY, self._value, self._sequence)
            except ConflictError:
                # Perhaps by an earlier write of our own whose answer was lost; that says nothing of now.
                stored = await self._bucket.read(LEASE_KEY)
                if stored.data != self._value:
                    await self._set(held=False)
                    return False
                self._sequence = stored.sequence
                continue
            self._renewed_at = began
            return True
        return False

    async def _try(self) -> bool:
        """Take the lease where it is free, has run out, or is our own still: whether it was taken."""
        stored = await self._bucket.read(LEASE_KEY)
        if self._first_look is None:
            self._first_look = stored.sequence
        if stored.data is not None and stored.data != self._value and not self._is_predecessors(stored):
            now = self._clock.monotonic()
            if self._seen[0] != stored.sequence:
                self._seen = (stored.sequence, now)
                self._leader = _fields(stored.data)["host"]
            if now - self._seen[1] < self._seconds:
                return False
        began = self._clock.monotonic()
        try:
            self._sequence = await self._bucket.write(LEASE_KEY, self._value, stored.sequence)
        except ConflictError:
            return False
        self._renewed_at = began
        await self._set(held=True)
        return True

    def _is_predecessors(self, stored: StoredDocument) -> bool:
        """Whether it is still what the last process of this state directory left behind."""
        own = stored.data is not None and _fields(stored.data)["holder"] == self._holder
        return own and stored.sequence == self._first_look

    async def _delete(self) -> None:
        try:
            await self._bucket.delete(LEASE_KEY, self._sequence)
        except ConflictError:
            stored = await self._bucket.read(LEASE_KEY)
            if stored.data == self._value:  # a renewal whose answer was lost
                await self._bucket.delete(LEASE_KEY, stored.sequence)

    async def _notice_expiry(self) -> None:
        if self._held and self._left <= 0:
            await self._set(held=False)

    def _pause(self, renewed: bool) -> float:
        if self._held:
            return max(0.0, min(self._renew_seconds if renewed else self._renew_seconds / 4, self._left))
        waits = self._seen[1] + self._seconds - self._clock.monotonic()
        return min(self._renew_seconds / 2, waits) if waits > 0 else self._renew_seconds / 4

    async def _set(self, *, held: bool) -> None:
        if self._held is not held:
            event = "this daemon leads" if held else "this daemon no longer leads"
            log.info(event, action="lease_taken" if held else "lease_lost")
        async with self._changed:
            self._held = held
            self._changed.notify_all()


def _fields(data: bytes) -> dict[str, str]:
    """Who holds the lease; empty where that cannot be read."""
    try:
        fields = json.loads(data)
    except ValueError:
        fields = None
    found = fields if isinstance(fields, dict) else {}
    return {name: str(found.get(name, "")) for name in ("holder", "host")}
