"""The process around the daemon: signals, systemd, the exit status."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable

import structlog

from jetway.adapters.systemd import Notifier
from jetway.app import Daemon
from jetway.logs import set_up_logs
from jetway.settings import Settings

log = structlog.get_logger()


def run(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT; the exit status. Raises StartupError."""
    set_up_logs(settings.log.level, settings.log.format)
    return asyncio.run(_serve(settings))


class Reloads:
    """Takes SIGHUP: one reload at a time, and one more where another was asked for meanwhile."""

    def __init__(self, reload: Callable[[], Awaitable[None]]) -> None:
        self._reload = reload
        self._asked = False
        self._task: asyncio.Task[None] | None = None

    def ask(self) -> None:
        """Reload, now or after the reload that is under way."""
        self._asked = True
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run(), name="reload")

    async def stop(self) -> None:
        """Give up what is under way."""
        self._asked = False
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _run(self) -> None:
        while self._asked:
            self._asked = False
            try:
                await self._reload()
            except Exception:
                log.exception("the reload failed", action="reload_failed")


async def _serve(settings: Settings) -> int:
    notifier = Notifier.from_environment()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    daemon = Daemon(settings)
    reloads = Reloads(daemon.reload)
    loop.add_signal_handler(signal.SIGHUP, reloads.ask)
    stopping = loop.create_task(stop.wait(), name="stop-signal")
    try:
        if not await _started(daemon, stopping):
            return 0
        notifier.ready()
        notifier.status(f"serving at {daemon.url}")
        await _until_stopped(daemon, stopping, notifier)
        return 1 if daemon.ended.is_set() else 0
    finally:
        stopping.cancel()
        await reloads.stop()
        notifier.stopping()
        await daemon.stop()
        log.info("stopped", action="stopped")


async def _started(daemon: Daemon, stopping: asyncio.Task[bool]) -> bool:
    """Start, unless a signal comes first; whether the daemon serves. Raises StartupError."""
    starting = asyncio.get_running_loop().create_task(daemon.start(), name="start")
    await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        starting.cancel()
        await asyncio.wait({starting})
        return False
    await starting
    return True


async def _until_stopped(daemon: Daemon, stopping: asyncio.Task[bool], notifier: Notifier) -> None:
    """Wait for a signal or an incident, telling the watchdog that the event loop is alive."""
    ended = asyncio.get_running_loop().create_task(daemon.ended.wait(), name="incident")
    while not stopping.done() and not ended.done():
        notifier.watchdog()
        waiting = {stopping, ended}
        await asyncio.wait(waiting, timeout=notifier.watchdog_interval, return_when=asyncio.FIRST_COMPLETED)
    ended.cancel()
