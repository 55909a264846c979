"""A fault at any call of any port: the house with every port tapped, and crashes that lose all memory.

Every call of a port is numbered, whoever makes it: the services, the projectors, the index. A plan says which
fault strikes at which number. Run it in `virtual_time`, so that waiting for what never comes takes no time.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum
from functools import cache, partial
from typing import Any, NoReturn

import structlog

from jetway.core.errors import OutcomeUnknownError, PortError, UnavailableError
from jetway.ports import (
    ApiTokenStore,
    AuditLog,
    AuditReader,
    Authority,
    CertificateAuthority,
    CheckpointShelf,
    Documents,
    Feed,
    IdempotencyStore,
    JobStore,
    Ledger,
    NatsAccount,
    NatsAuthority,
    PurgeArchive,
    RegistryDatabase,
    Vault,
    Views,
)
from jetway.services.reconcile import ReconcileReport
from support.house import PROJECTORS, House

PORTS: Mapping[str, type] = {
    "ledger": Ledger,
    "documents": Documents,
    "database": RegistryDatabase,
    "authority": Authority,
    "audit": AuditLog,
    "idempotency": IdempotencyStore,
    "api_token_store": ApiTokenStore,
    "document_feed": Feed,
    "row_feed": Feed,
    "event_feed": Feed,
    "views": Views,
    "certificates": CertificateAuthority,
    "nats_authority": NatsAuthority,
    "nats_account": NatsAccount,
    "vault": Vault,
    "archive": PurgeArchive,
    "job_store": JobStore,
    "trail_reader": AuditReader,
    "shelf": CheckpointShelf,
}
"""By the name that the house in memory has for it. The clock cannot fail; it jumps (`Fault.CLOCK_*`)."""

WITH_EFFECT = frozenset(
    {
        "write",
        "delete",
        "write_rows",
        "append_events",
        "append",
        "claim",
        "put",
        "remove",
        "fetch",
        "acknowledge",
        "publish_revocations",
        "store",
        "save",
        "purge",
        "remove_rows",
        "trim_events",
        "trim_counts",
        "append_counts",
    }
)
"""Methods after which the world is another one; for the rest it does not matter whether they had their effect."""

_AT_ONCE = frozenset({"authority", "certificates", "nats_authority", "vault"})
"""Ports that are called without waiting: nothing can be slow there but everything."""

_PATIENCE_SECONDS = 60.0
_SLOW_SECONDS = 20.0
"""Longer than anybody waits but the client who asked: others go on meanwhile."""
_MOMENT_SECONDS = 0.001


class Fault(Enum):
    """What happens at a call."""

    FAIL = "fails, nothing done"
    LOST = "fails after its effect"
    HANG = "hangs"
    CRASH = "the power fails before it"
    CRASH_AFTER = "the power fails after it"
    SLOW = "takes twenty seconds"
    CLOCK_BACK = "the clock is set back two days"
    CLOCK_FORWARD = "the clock is set forward two days"

    @property
    def has_effect(self) -> bool:
        """Whether the call does its work."""
        return self not in (Fault.FAIL, Fault.HANG, Fault.CRASH)

    @property
    def ways_on(self) -> tuple[bool, ...]:
        """Whether the house may go on, or starts anew, or either."""
        if self in _HARMLESS:
            return (True,)
        return (True, False) if self in (Fault.FAIL, Fault.LOST) else (False,)


_NEEDS_AN_EFFECT = frozenset({Fault.LOST, Fault.CRASH_AFTER})
_HARMLESS = frozenset({Fault.SLOW, Fault.CLOCK_BACK, Fault.CLOCK_FORWARD})


def faults_for(call: str) -> list[Fault]:
    """The faults that make a difference at this call."""
    port, method = call.split(".")
    found = [fault for fault in Fault if fault not in _NEEDS_AN_EFFECT or method in WITH_EFFECT]
    return [fault for fault in found if fault is not Fault.SLOW or port not in _AT_ONCE]


class PowerCut(BaseException):
    """Ends the one who called a port that cannot wait. Everybody else is cancelled."""


@dataclass
class Faults:
    """Which fault strikes when. Calls count from 0 while it is armed."""

    plan: Mapping[int, Fault] = field(default_factory=dict)
    armed: bool = False
    calls: list[str] = field(default_factory=list)
    struck: list[int] = field(default_factory=list)
    crashed: asyncio.Event = field(default_factory=asyncio.Event)

    def arm(self, plan: Mapping[int, Fault]) -> None:
        """From now on calls count."""
        self.plan, self.armed = plan, True

    def next(self, call: str) -> Fault | None:
        """What strikes at this call."""
        if not self.armed:
            return None
        number = len(self.calls)
        self.calls.append(call)
        fault = self.plan.get(number)
        if fault is None or fault not in faults_for(call):
            return None
        self.struck.append(number)
        return fault

    @property
    def all_struck(self) -> bool:
        """Whether nothing more is to come."""
        return len(self.struck) == len(self.plan)


@cache
def _methods(protocol: type, port: type) -> list[tuple[str, str]]:
    """The port's methods, and which one of `Tap` calls them."""
    found = []
    for name in vars(protocol):
        work = getattr(port, name, None)
        if name.startswith("_") or not inspect.isfunction(work):
            continue
        if inspect.iscoroutinefunction(work):
            found.append((name, "_call"))
        else:
            found.append((name, "_stream" if inspect.isasyncgenfunction(work) else "_call_at_once"))
    return found


class Tap:
    """A port, its calls numbered, until the life that it belongs to ends. What is no call passes through."""

    def __init__(self, name: str, port: Any, house: FaultyHouse, life: int) -> None:
        self._name = name
        self.port = port
        self._house = house
        self._life = life
        for method, tapped in _methods(PORTS[name], type(port)):
            setattr(self, method, partial(getattr(self, tapped), f"{name}.{method}", getattr(port, method)))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.port, name)

    async def _call(self, call: str, work: Callable[..., Awaitable[Any]], *args: Any, **named: Any) -> Any:
        fault = await self._begin(call)
        if fault is None:
            result = await work(*args, **named)
            if self._over:  # the answer reaches nobody
                await _for_ever()
            return result
        if fault.has_effect:
            result = await work(*args, **named)
            if fault in _HARMLESS:
                return result
        if fault is Fault.LOST and call.endswith(".fetch"):
            await self.port.reopen()  # what was delivered to nobody comes again
        return await self._fail(call, fault)

    async def _stream(
        self, call: str, work: Callable[..., AsyncIterator[Any]], *args: Any, **named: Any
    ) -> AsyncIterator[Any]:
        async for value in work(*args, **named):
            fault = await self._begin(call)
            if fault and fault not in _HARMLESS:
                await self._fail(call, fault)
            yield value

    def _call_at_once(self, call: str, work: Callable[..., Any], *args: Any, **named: Any) -> Any:
        if self._over:
            raise PowerCut
        fault = self._house.faults.next(call)
        if fault is None or self._jump(fault):
            return work(*args, **named)
        if fault is Fault.FAIL:
            raise UnavailableError(f"{call} fails")
        self._house.faults.crashed.set()
        raise PowerCut

    @property
    def _over(self) -> bool:
        return self._life != self._house.life or self._house.faults.crashed.is_set()

    async def _begin(self, call: str) -> Fault | None:
        if self._over:
            await _for_ever()
        fault = self._house.faults.next(call)
        if fault is Fault.SLOW:
            await asyncio.sleep(_SLOW_SECONDS)
            if self._over:
                await _for_ever()
        elif fault:
            self._jump(fault)
        return fault

    def _jump(self, fault: Fault) -> bool:
        if fault not in (Fault.CLOCK_BACK, Fault.CLOCK_FORWARD):
            return False
        clock, days = self._house.clock, timedelta(days=2)
        clock.set_wall(clock.now() + (days if fault is Fault.CLOCK_FORWARD else -days))
        return True

    async def _fail(self, call: str, fault: Fault) -> NoReturn:
        if fault is Fault.FAIL:
            raise UnavailableError(f"{call} fails")
        if fault is Fault.LOST:
            raise OutcomeUnknownError(f"the answer to {call} is lost")
        if fault in (Fault.CRASH, Fault.CRASH_AFTER):
            self._house.faults.crashed.set()
        await _for_ever()


async def _for_ever() -> NoReturn:
    await asyncio.get_running_loop().create_future()
    raise AssertionError("nobody sets this")


class FaultyHouse(House):
    """The house with every port tapped. Each `start()` is a new life with taps of its own."""

    def __init__(self, **settings: Any) -> None:
        self.faults = Faults()
        self.life = 0
        self.first_calls = 0
        super().__init__(**settings)

    def _build(self) -> None:
        self.life += 1
        for name in PORTS:
            port = getattr(self, name)
            setattr(self, name, Tap(name, getattr(port, "port", port), self, self.life))
        super()._build()

    async def crash(self) -> None:
        """Also: what still runs of the old life reaches no port any more."""
        self.life += 1
        await self.reprojector.stop()
        await super().crash()
        self.faults.crashed.clear()

    async def restart(self) -> None:
        """Crash and start until the house is up, whatever strikes meanwhile."""
        for _ in range(len(self.faults.plan) + 2):
            await self.crash()
            if await self.attempt(self.start()):
                return
        raise AssertionError("the house does not come up")

    async def attempt(self, work: Coroutine[Any, Any, Any]) -> Attempt:
        """Do it until it is done, fails, hangs, or the power fails."""
        loop = asyncio.get_running_loop()
        task = loop.create_task(work, name="attempt")
        dark = loop.create_task(self.faults.crashed.wait(), name="crash")
        await asyncio.wait({task, dark}, timeout=_PATIENCE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        interrupted = not task.done() or self.faults.crashed.is_set()
        if interrupted:
            self.faults.crashed.set()  # whatever it still does as it is cancelled reaches no port
        while not (task.done() and dark.done()):
            task.cancel()
            dark.cancel()
            await asyncio.wait({task, dark}, timeout=1)
        error = None if task.cancelled() else task.exception()
        if interrupted:
            return Attempt(interrupted=True)
        if isinstance(error, PortError):
            return Attempt(error=error)
        return Attempt(task.result(), done=True)

    async def settle(self) -> None:
        """Let everything under way come to rest. Fails where it never does, or where a task has ended."""
        assert await self.rest(), "the house does not come to rest"

    async def rest(self, until: Callable[[], bool] = lambda: False) -> bool:
        """The same; False where it never does, the power failed, or `until` came first."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _PATIENCE_SECONDS
        step, quiet = _MOMENT_SECONDS, 0
        while not (until() or self.faults.crashed.is_set()):
            # Time passes only when nobody has anything left to do but wait.
            await asyncio.sleep(_MOMENT_SECONDS if quiet else step)
            for name, task in self._tasks.items():
                assert not task.done(), f"{name} ended: {task!r}"
            quiet = quiet + 1 if await self._at_rest() else 0
            if quiet == 3:
                return True
            step = min(2 * step, 1.0)
            if loop.time() > deadline:
                break
        return False

    async def _at_rest(self) -> bool:
        """Whether nothing is left to be done. Looks past the taps."""
        if "revocations" in self._tasks and not self.revocations.idle:
            return False
        if self.observer.waiting or self.index.progress.position < self.ledger.writes:
            return False
        feeds: dict[str, Any] = dict(
            zip(PROJECTORS, (self.document_feed, self.row_feed, self.event_feed), strict=True)
        )
        return not any([await feed.port.lag() for name, feed in feeds.items() if name in self._tasks])

    async def run_jobs(self) -> None:
        """What the table of jobs runs, each once, and those that fail another time."""
        self.clock.advance(15)
        for job in (self.cascades.resume, self.sweeper.expire_packages, self.row_writer.flush_presence):
            try:
                await job()
            except PortError as error:
                structlog.get_logger().info("a job failed", error=str(error))

    async def compare(self) -> ReconcileReport:
        """Reconcile. The ports must be well."""
        return await self.reconciler.run()


@dataclass(frozen=True, slots=True)
class Attempt:
    """How something ended that somebody tried."""

    answer: Any = None
    error: PortError | None = None
    interrupted: bool = False
    """It hangs, or the power failed."""
    done: bool = False

    def __bool__(self) -> bool:
        return self.done
