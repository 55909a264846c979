"""`jetway run`: heartbeats for the joined service, and copies of its config and its children's.

One session is one connection to NATS. It ends when the connection does, when the folder was joined anew or
when the program is told to stop. After a lost one the next begins after a growing, jittered pause, for ever;
each begins with a heartbeat and reads everything again, because nothing was heard in between.

A service that its document calls revoked or deleted stops its heartbeats and says so. It keeps its connection
and its ears: a reissue makes the document pending again, and the heartbeats go on. The program does not end
for it, as a supervisor would only start it again; with a limited number of beats it exits 1.

Credentials are renewed over the connection before they end. Where they have ended nevertheless, or a server does
not take them, the gateway is asked over HTTPS. One that answers that the identity was revoked is asked again only
now and then: what brings the service back is a new join.
"""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path

import structlog

from jetway.edge import beat
from jetway.edge.errors import EdgeError
from jetway.edge.files import ensure_folder, exclusive
from jetway.edge.joined import CONFIG_FOLDER, SERVICE_FILE, Joined, load_joined
from jetway.edge.link import Link, LinkError, NotLetInError
from jetway.edge.mirror import Mirror
from jetway.edge.renewal import Renewal, RenewalError, RevokedError
from jetway.edge.session import Session, cancel_all

log = structlog.get_logger()

_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 60.0
_STEADY_AFTER = 30.0
"""Seconds after which a connection counts as good, and the next pause is short again."""
_REJOIN_CHECK = 2.0
_REVOKED_PAUSE = 600.0
_TURNED_AWAY_SURELY = 2
"""How often in a row a server must end the connection at once: once it may be about to stop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """How to run."""

    folder: Path
    beats: int | None = None
    """End after so many heartbeats; None: for ever."""


def run_until_signal(options: RunOptions) -> int:
    """Run until SIGTERM or SIGINT (0), until the beats are sent (0), or until that makes no sense (1)."""

    async def main() -> int:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        return await run(options, stop)

    return asyncio.run(main())


async def run(options: RunOptions, stop: asyncio.Event) -> int:
    """Run until `stop` is set. Returns the exit code. Raises EdgeError where the folder is not usable."""
    load_joined(options.folder)
    ensure_folder(options.folder)
    with exclusive(options.folder, ".run.lock", "jetway run"):
        return await _Runner(options, stop).run()


class _Runner:
    """Sessions, one after the other."""

    def __init__(
        self, options: RunOptions, stop: asyncio.Event, chance: Callable[[], float] = random.random
    ) -> None:
        self._options = options
        self._stop = stop
        self._chance = chance
        self._beats_left = options.beats
        self._failures = 0
        self._turned_away = 0

    async def run(self) -> int:
        while not self._stop.is_set():
            stamp = _stamp(self._options.folder)
            joined = load_joined(self._options.folder)
            mirror = Mirror(self._options.folder / CONFIG_FOLDER, joined.own_key, joined.children_filter)
            mirror.load()
            pulse = beat.Pulse(joined.heartbeat.interval_seconds)
            pulse.learn(mirror.own)
            renewal = Renewal(self._options.folder, joined, self._chance)
            self._turned_away = 0
            while not self._stop.is_set() and _stamp(self._options.folder) == stamp:
                code = await self._connect(joined, mirror, pulse, renewal, stamp)
                if code is not None:
                    return code
        return 0

    async def _connect(
        self, joined: Joined, mirror: Mirror, pulse: beat.Pulse, renewal: Renewal, stamp: object
    ) -> int | None:
        """One connection, or the attempt at one, and the pause after it."""
        loop = asyncio.get_running_loop()
        begun = loop.time()
        link = Link(joined, self._options.folder)
        session = Session(link, joined, mirror, pulse, renewal, self._beats_left, self._chance)
        code: int | None = None
        try:
            work = self._work(session, joined, renewal)
            code = await self._until_stopped(work, lambda: self._rejoined(stamp))
            self._turned_away = 0
        except LinkError as error:
            self._turned_away = self._turned_away + 1 if isinstance(error, NotLetInError) else 0
            log.warning("no connection to NATS", action="nats_unreachable", reason=str(error))
        finally:
            self._beats_left = session.beats_left
            if self._stop.is_set():
                await session.farewell()
            await link.close()
        again = code is None and not session.renewed and not self._stop.is_set()
        if again and _stamp(self._options.folder) == stamp:
            self._failures = 0 if loop.time() - begun > _STEADY_AFTER else self._failures + 1
            await self._pause()
        return code

    async def _work(self, session: Session, joined: Joined, renewal: Renewal) -> int | None:
        try:
            await self._mend_credentials(renewal)
            return await session.run()
        except RevokedError:
            log.error(
                "the gateway has revoked this identity: heartbeats have stopped. After a reissue, join again",
                action="service_revoked",
                service=joined.name,
            )
        if session.beats_left is not None:
            return 1
        await asyncio.sleep(_REVOKED_PAUSE)
        return None

    async def _mend_credentials(self, renewal: Renewal) -> None:
        """Ask the gateway itself where no server will let us in. Raises RevokedError."""
        turned_away = self._turned_away >= _TURNED_AWAY_SURELY
        if not (turned_away or renewal.expired) or renewal.just_renewed:
            return
        try:
            await renewal.over_https()
        except RenewalError as error:
            if isinstance(error, RevokedError):
                raise
            log.warning("credentials not renewed", action="renewal_failed", reason=str(error))

    async def _until_stopped(
        self, work: Coroutine[None, None, int | None], rejoined: Callable[[], Coroutine[None, None, None]]
    ) -> int | None:
        """The work's result, or None when it was cut short by a stop or a new join."""
        task = asyncio.create_task(work, name="session")
        ends = [
            asyncio.create_task(self._stop.wait(), name="stop"),
            asyncio.create_task(rejoined(), name="rejoined"),
        ]
        try:
            await asyncio.wait([task, *ends], return_when=asyncio.FIRST_COMPLETED)
            return task.result() if task.done() else None
        finally:
            await cancel_all(task, *ends)

    async def _rejoined(self, stamp: object) -> None:
        while _stamp(self._options.folder) == stamp:  # noqa: ASYNC110 - a file has no event
            await asyncio.sleep(_REJOIN_CHECK)
        log.info("the folder was joined anew", action="rejoined")

    async def _pause(self) -> None:
        longest = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(self._failures, 10))
        try:
            async with asyncio.timeout(longest * (0.5 + self._chance() / 2)):
                await self._stop.wait()
        except TimeoutError:
            pass


def _stamp(folder: Path) -> tuple[int, int]:
    """Tells one service.json from the next: each is a new file."""
    try:
        found = (folder / SERVICE_FILE).stat()
    except OSError as error:
        raise EdgeError(f"cannot read {folder / SERVICE_FILE}: {error.strerror}") from error
    return (found.st_ino, found.st_mtime_ns)
