"""One connection's work: heartbeats and reads, side by side."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime

import structlog

from jetway.edge import beat
from jetway.edge.joined import Joined
from jetway.edge.link import Link, LinkError
from jetway.edge.mirror import Mirror
from jetway.edge.renewal import Renewal
from jetway.edge.sync import Sync

log = structlog.get_logger()

_FAREWELL_TIMEOUT = 2.5
_RESYNC_EVERY = 600.0
"""Core NATS may lose a message without a trace: everything is read again now and then."""
_COALESCE = 0.2
_CANCELLED_AGAIN = 0.5
_RETRY_READS = 5.0


class Session:
    """From the connection's beginning to its end."""

    def __init__(
        self,
        link: Link,
        joined: Joined,
        mirror: Mirror,
        pulse: beat.Pulse,
        renewal: Renewal,
        beats_left: int | None,
        chance: Callable[[], float],
    ) -> None:
        self._link = link
        self._joined = joined
        self._mirror = mirror
        self._pulse = pulse
        self._renewal = renewal
        self._chance = chance
        self._sync = Sync(link, joined, mirror, self._own_changed)
        self._wake = asyncio.Event()
        self._resync = asyncio.Event()
        self._read_all = True
        self._own_unread = True
        self._synced = asyncio.Event()
        self.beats_left = beats_left
        self.renewed = False
        """Whether it ended because there are new credentials to connect with."""

    async def run(self) -> int | None:
        """Until the connection is lost (None) or the beats are sent (the exit code).

        Raises LinkError, RevokedError.
        """
        await self._link.open()
        self._mirror.begin()
        log.info("connected", action="connected", server=self._link.server)
        await self._sync.listen()
        try:
            # First of all: this says whether heartbeats are wanted at all.
            await self._sync.read_own()
            self._own_unread = False
        except LinkError as error:
            log.warning("cannot read the own document", action="config_unreadable", reason=str(error))
        self._pulse.learn(self._mirror.own)
        beats = asyncio.create_task(self._beat(), name="beats")
        renewals = asyncio.create_task(self._renewal.keep(self._link), name="renewals")
        others = [
            renewals,
            asyncio.create_task(self._keep_synced(), name="sync"),
            asyncio.create_task(self._link.lost.wait(), name="lost"),
        ]
        try:
            done, _ = await asyncio.wait([beats, *others], return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                # A task that failed is heard; `lost` and `sync` otherwise end with nothing to say.
                task.result()
            if beats in done:
                return beats.result()
            if renewals in done:
                self.renewed = True
                return None
            log.warning("connection lost", action="connection_lost")
            return None
        finally:
            await cancel_all(beats, *others)

    async def farewell(self) -> None:
        """Say that the service stops, if there is anybody to say it to."""
        if not self._link.is_open or self._gone:
            return
        data = beat.payload(datetime.now(UTC), self._pulse.interval, self._mirror.own, stopping=True)
        try:
            async with asyncio.timeout(_FAREWELL_TIMEOUT):
                await self._link.publish(self._joined.heartbeat.subject, data)
                await self._link.flush()
        except (LinkError, TimeoutError) as error:
            log.warning("could not say goodbye", action="farewell_failed", reason=str(error))
        else:
            log.info("stopped", action="stopped")

    @property
    def _gone(self) -> str:
        return beat.gone(self._mirror.own, deleted=self._mirror.own_deleted)

    def _own_changed(self) -> None:
        self._pulse.learn(self._mirror.own)
        self._wake.set()
        self._resync.set()

    async def _beat(self) -> int:
        while self.beats_left is None or self.beats_left > 0:
            if self._gone:
                self._say_gone()
                if self.beats_left is not None:
                    return 1
                await self._until_wanted()
                continue
            data = beat.payload(datetime.now(UTC), self._pulse.interval, self._mirror.own)
            if await beat.send(self._link, self._joined.heartbeat.subject, data, self._pulse):
                self._read_all = self._own_unread = True
                self._resync.set()
            if self.beats_left is not None:
                self.beats_left -= 1
            if self.beats_left != 0:
                await self._rest()
        await self._link.flush()
        await self._synced.wait()
        return 1 if self._gone else 0

    def _say_gone(self) -> None:
        log.error(
            f"the gateway has {self._gone} this service: heartbeats stop. After a reissue, join again",
            action="service_gone",
            service=self._joined.name,
        )

    async def _until_wanted(self) -> None:
        while self._gone:
            self._wake.clear()
            await self._wake.wait()
        log.info("the service is wanted again: heartbeats go on", action="service_back")

    async def _rest(self) -> None:
        """Wait for the next beat; a changed interval counts at once, a lost right to beat ends the wait."""
        loop = asyncio.get_running_loop()
        begun, interval, pause = loop.time(), self._pulse.interval, self._pulse.pause(self._chance)
        while not self._gone:
            self._wake.clear()
            try:
                async with asyncio.timeout_at(begun + pause):
                    await self._wake.wait()
            except TimeoutError:
                return
            if self._pulse.interval != interval:
                interval, pause = self._pulse.interval, self._pulse.pause(self._chance)

    async def _keep_synced(self) -> None:
        while True:
            self._resync.clear()
            full, self._read_all = self._read_all, False
            wait, children_asked = _RESYNC_EVERY, False
            try:
                if self._own_unread:
                    await self._sync.read_own()
                    self._own_unread = False
                children_asked = True
                await self._sync.read_children(only_changes=not full)
                self._synced.set()
            except LinkError as error:
                log.warning("cannot read the config", action="config_unreadable", reason=str(error))
                # Of the children, only those without an answer are asked for again.
                self._read_all = self._read_all or (full and not children_asked)
                self._own_unread = True
                wait = _RETRY_READS
                if self.beats_left is not None:
                    self._synced.set()
            await self._until_news(wait * (0.9 + 0.2 * self._chance()))

    async def _until_news(self, wait: float) -> None:
        try:
            async with asyncio.timeout(wait):
                await self._resync.wait()
                # A bulk change of the children comes as many versions of the own document.
                await asyncio.sleep(_COALESCE)
        except TimeoutError:
            self._read_all = self._own_unread = True


async def cancel_all(*tasks: asyncio.Task[object]) -> None:
    """Cancel until all have ended: Python 3.11's wait_for may swallow the first, and the task goes on."""
    pending = {task for task in tasks if not task.done()}
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=_CANCELLED_AGAIN)
    await asyncio.gather(*tasks, return_exceptions=True)
