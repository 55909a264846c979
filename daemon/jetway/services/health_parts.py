"""How single parts are, in a state and a sentence."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from jetway.core.errors import PortError
from jetway.core.times import rfc3339
from jetway.ports import Clock, RegistryDatabase, Views, ViewState
from jetway.services.documents_aside import DocumentsAside
from jetway.services.index import Index
from jetway.services.project import Projector
from jetway.services.reconcile import Reconciler
from jetway.services.set_aside import SetAside
from jetway.services.views import Proof

State = Literal["ok", "degraded", "down"]

PROOFS: Mapping[Proof, str] = {
    "jwt": "jwt: a host's NATS credentials let it speak for itself alone",
    "none": "none: whoever may publish at NATS can send heartbeats in any service's name",
}
"""No illness either way, but who reads the heartbeats should know."""

ANSWER_SECONDS = 2.0
LAG_WORTH_MENTIONING = 1000
LAG_SECONDS = 30.0
"""Twice what a single write may take before it is given up: a change that is older than that waits for a target
that is away or too slow, not for its turn."""
_STANDSTILL_SECONDS = 30.0
"""A stream that was made anew takes up its source after some 20 s."""
INDEX_SECONDS = 60.0
"""Several times what there is between two proofs that the index knows all."""
_NAMED = 3
_ASK_SECONDS = 1.0
_ANSWER_HOLDS_SECONDS = _ASK_SECONDS + 2 * ANSWER_SECONDS
"""Longer than any answer takes, so that only a watch that does not run is passed by."""


@dataclass(frozen=True, slots=True)
class Component:
    """One part's state, with a sentence where it is not well."""

    state: State
    detail: str = ""


class DatabaseWatch:
    """Asks the database how it is, so that nobody who asks the daemon waits for a slow one."""

    def __init__(self, database: RegistryDatabase, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._last: tuple[float, Component] | None = None

    async def run(self) -> None:
        """Ask, for ever."""
        while True:
            component = await self._ask()
            self._last = (self._clock.monotonic(), component)
            await asyncio.sleep(_ASK_SECONDS)

    async def look(self) -> Component:
        """What it said last; asks, for a bounded time, where that is too long ago."""
        if self._last is not None and self._clock.monotonic() - self._last[0] <= _ANSWER_HOLDS_SECONDS:
            return self._last[1]
        return await self._ask()

    async def _ask(self) -> Component:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await self._database.check()
        except TimeoutError:
            return Component("degraded", f"does not answer within {ANSWER_SECONDS:g} s")
        except PortError as error:
            return Component("degraded", str(error))
        return Component("ok")


async def projected(projector: Projector[Any], clock: Clock) -> Component:
    """How far behind a projection is, in records and in seconds, and why."""
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            backlog = await projector.backlog()
    except (PortError, TimeoutError) as error:
        return Component("degraded", f"its lag cannot be told: {error}")
    waiting = f"{backlog.records} changes wait, the oldest for {backlog.seconds:.0f} s"
    if projector.failing_since is not None:
        seconds = round(clock.monotonic() - projector.failing_since)
        return Component("degraded", f"{waiting}; failing since {seconds} s: {projector.last_error}")
    if backlog.records > LAG_WORTH_MENTIONING or backlog.seconds > LAG_SECONDS:
        return Component("degraded", waiting)
    return Component("ok")


def indexed(index: Index, end: int, age: float) -> Component:
    """Whether the index knows the ledger up to `end`; `age`: seconds since it was last proven to know all."""
    if not index.ready.is_set():
        return Component("down", "still reading the ledger")
    if index.progress.position < end and age > INDEX_SECONDS:
        behind = f"knows the ledger up to {index.progress.position} of {end}"
        return Component(
            "degraded", f"{behind}, and has not caught up for {age:.0f} s: lists and counts are old"
        )
    return Component("ok")


def refused(set_aside: SetAside) -> Component:
    """Rows that the database refuses, the first of them by name."""
    named = "; ".join(str(refusal) for refusal in set_aside.all()[:_NAMED])
    more = "; ..." if len(set_aside) > _NAMED else ""
    return Component("degraded", f"{len(set_aside)} rows are set aside: {named}{more}")


def unwritten(aside: DocumentsAside) -> Component:
    """Config documents that cannot be written, the first of them by name."""
    named = "; ".join(str(refused) for refused in aside.all()[:_NAMED])
    more = "; ..." if len(aside) > _NAMED else ""
    return Component("degraded", f"{len(aside)} config documents are set aside: {named}{more}")


class ViewWatch:
    """The views that the server keeps. Behind is a lag, standing still or being ahead a fault."""

    def __init__(self, views: Views, clock: Clock) -> None:
        self._views = views
        self._clock = clock
        self._waiting: dict[str, tuple[int, float]] = {}
        """Of each view that was behind: how far it was, and since when."""

    async def look(self, nats: State) -> Mapping[str, Component]:
        """By component."""
        if nats == "down":
            return {"views": Component("degraded", "unknown while NATS is away")}
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                states = await self._views.state()
        except (PortError, TimeoutError) as error:
            return {"views": Component("degraded", f"their state cannot be told: {error}")}
        return {f"view_{name}": self._judge(name, state) for name, state in states.items()}

    def _judge(self, name: str, state: ViewState) -> Component:
        now = self._clock.monotonic()
        taken, since = self._waiting.get(name, (-1, now))
        if state.behind and taken != state.taken:
            since = now
        self._waiting[name] = (state.taken, since) if state.behind else (-1, now)
        if state.ahead:
            lost = "its source lost writes that it has seen, and what takes their place is passed over"
            return Component("down", f"{state.ahead} ahead: {lost}")
        if state.behind and now - since >= _STANDSTILL_SECONDS:
            return Component(
                "degraded", f"{state.behind} behind, and stands still since {round(now - since)} s"
            )
        if state.behind > LAG_WORTH_MENTIONING:
            return Component("degraded", f"{state.behind} behind")
        return Component("ok")


def reconciled(reconciler: Reconciler) -> Component:
    """What the last comparison with the ledger said."""
    last = reconciler.last
    if reconciler.failure:
        return Component("degraded", f"the last run did not end: {reconciler.failure}")
    if last is None:
        return Component("ok", "has not run yet")
    if last.errors:
        return Component("degraded", f"the last run could not compare or mend everything: {last.errors[0]}")
    if last.gaps_open:
        named = [finding for finding in last.findings if finding.startswith("audit")][:_NAMED]
        more = ", ..." if last.gaps_open > len(named) else ""
        return Component(
            "degraded", f"audit gaps that stay open: {last.gaps_open} ({', '.join(named)}{more})"
        )
    mended = last.documents_mended + last.rows_mended + last.gaps_mended
    detail = f"compared {last.checked} services at {rfc3339(last.finished_at)}, mended {mended}"
    if last.orphans:
        detail += f"; rows of services that the ledger does not know: {last.orphans}"
    return Component("ok", detail)
