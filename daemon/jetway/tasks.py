"""What a long-running program holds: named, guarded tasks, and the order in which everything is let go."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack

import structlog

from jetway.core.errors import StartupError

log = structlog.get_logger()

_STOP_SECONDS = 5.0
_ASKED_AGAIN_SECONDS = 0.5


class Releases:
    """What has to be let go, in reverse order: bounded in time, each failure named, none hiding the next."""

    def __init__(self) -> None:
        self._stack = AsyncExitStack()

    def add(
        self, name: str, release: Callable[[], Awaitable[object] | None], seconds: float = _STOP_SECONDS
    ) -> None:
        """Let `name` go by calling `release` when its turn comes, waiting up to `seconds` for it."""
        self._stack.push_async_callback(self._release, name, release, seconds)

    async def all(self) -> None:
        """Let everything go. Safe to call again."""
        await self._stack.aclose()

    @staticmethod
    async def _release(name: str, release: Callable[[], Awaitable[object] | None], seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                result = release()
                if result is not None:
                    await result
        except TimeoutError:
            log.error("a step of the shutdown did not end in time", action="stop_timeout", step=name)
        except Exception:
            log.exception("a step of the shutdown failed", action="stop_failed", step=name)


class EternalTasks:
    """Tasks that should run until they are stopped. One that ends by itself is an incident, not a silence."""

    def __init__(self, on_incident: Callable[[str], None]) -> None:
        self._on_incident = on_incident
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def start(self, name: str, run: Coroutine[object, object, None]) -> None:
        """Run it in the background under this name."""
        task = asyncio.get_running_loop().create_task(run, name=name)
        self._tasks[name] = task
        task.add_done_callback(self._ended)

    async def stop(self, *names: str) -> None:
        """Cancel these, or all of them, and wait a bounded time for their end."""
        chosen = {name: task for name, task in self._tasks.items() if not names or name in names}
        for name in chosen:
            self._tasks.pop(name)
        late = set(chosen.values())
        ends = asyncio.get_running_loop().time() + _STOP_SECONDS
        while late and (left := ends - asyncio.get_running_loop().time()) > 0:
            for task in late:
                task.cancel()  # again where it got lost: Python 3.11's wait_for may take it for its own end
            _, late = await asyncio.wait(late, timeout=min(left, _ASKED_AGAIN_SECONDS))
        for task in late:
            log.error("a task did not end in time", action="task_stuck", task=task.get_name())

    def _ended(self, task: asyncio.Task[None]) -> None:
        name = task.get_name()
        error = None if task.cancelled() else task.exception()
        if self._tasks.get(name) is not task:
            return
        self._tasks.pop(name)
        # A StartupError says what is wrong outside; any other end is a mistake of ours.
        mistake = None if isinstance(error, StartupError) else error
        log.error("an eternal task ended", action="task_ended", task=name, error=str(error), exc_info=mistake)
        self._on_incident(name)
