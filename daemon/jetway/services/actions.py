"""One decision over many services at once: shown first, then done, each service with its own result.

Every service is changed by itself, as if it were alone. What was done stays done when the rest is cut off, and
doing it again changes nothing where it is done already; so the way on is to make the call again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice

from jetway.core import commands as c
from jetway.core.errors import Code, PortError, Refused, RefusedError, refuse
from jetway.core.ids import ServiceKey
from jetway.core.record import Cascade, ServiceRecord, ServiceStatus
from jetway.services.administer import Administrator
from jetway.services.caller import Caller
from jetway.services.catalogue import Catalogue, ServiceFilter
from jetway.services.pace import Pace

MOST_SERVICES = 10_000
"""In one call."""
_AT_ONCE = 32


class Action(StrEnum):
    """What can be done to many."""

    REVOKE = "revoke"
    SET_STATUS = "set-status"
    DELETE = "delete"
    APPROVE = "approve"
    REJECT = "reject"


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to be done, and to whom: to the services of these ids, or to all that pass the filters."""

    action: Action
    filters: ServiceFilter
    ids: Sequence[str] = ()
    status: ServiceStatus = ServiceStatus.REVOKED
    reason: str = ""
    cascade: bool = True
    expected_count: int | None = None
    """How many services there must be: refused where there are others by now."""


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one service, or would."""

    key: ServiceKey
    refused: Refused | None = None
    failure: str = ""
    """Why it could not be done now: it may be tried again."""
    changed: bool = False
    beneath: int = 0
    """How many services under it were or would be revoked with it."""


class Actions:
    """Does to many what `Administrator` does to one."""

    def __init__(self, catalogue: Catalogue, administrator: Administrator) -> None:
        self._catalogue = catalogue
        self._administrator = administrator

    async def preview(self, order: Order) -> list[Result]:
        """What would become of each, as far as it is known here. Raises RefusedError as `run` does."""
        pace, results = Pace(), []
        for key in await self._select(order):
            await pace.breathe()
            results.append(await self._foresee(key, order))
        return results

    async def run(
        self, caller: Caller, order: Order, heard: Callable[[Result], None] = lambda _: None
    ) -> list[Result]:
        """Do it; `heard` is told of each as it is done. Raises RefusedError where there are too many, or not as
        many as expected.
        """
        keys = await self._select(order)
        results = [Result(key) for key in keys]
        waiting = iter(enumerate(keys))

        async def work() -> None:
            for number, key in waiting:
                results[number] = await self._do(caller, key, order)
                heard(results[number])

        # A few workers rather than a task for each service: ten thousand tasks begin in one turn of the loop.
        async with asyncio.TaskGroup() as group:
            for _ in range(_AT_ONCE):
                group.create_task(work())
        return results

    async def _select(self, order: Order) -> list[ServiceKey]:
        kind = order.filters.service_type
        if order.ids:
            keys = [ServiceKey(kind, service_id) for service_id in dict.fromkeys(order.ids)]
        else:
            keys = [record.key for record in await self._catalogue.matching(order.filters)]
        if len(keys) > MOST_SERVICES:
            why = f"{len(keys)} services are selected, at most {MOST_SERVICES} at once: narrow it down"
            raise refuse(Code.INVALID, why, "selector")
        if order.expected_count is not None and len(keys) != order.expected_count:
            why = f"{len(keys)} services are selected by now, not {order.expected_count}: look again"
            raise refuse(Code.COUNT_DIFFERS, why, "expected_count")
        return keys

    async def _foresee(self, key: ServiceKey, order: Order) -> Result:
        """By the same table that decides, on what is known here."""
        record = self._catalogue.record(key)
        live = [r for r in islice(self._catalogue.beneath(key), MOST_SERVICES) if r.live] if record else []
        direct = sum(1 for each in live if each.parent == key)
        outcome = self._administrator.foresee(record, _command(order, direct))
        if isinstance(outcome, Refused) or record is None:
            return Result(key, refused=outcome if isinstance(outcome, Refused) else None)
        cascades = outcome is not record and outcome.cascade is Cascade.RUNNING
        return Result(key, changed=outcome is not record, beneath=len(live) if cascades else 0)

    async def _do(self, caller: Caller, key: ServiceKey, order: Order) -> Result:
        try:
            touched = await self._apply(caller, key, order)
        except RefusedError as error:
            return Result(key, refused=error.refused)
        except PortError as error:
            return Result(key, failure=str(error))
        own = [each for each in touched if each == key]
        return Result(key, changed=bool(own), beneath=len(touched) - len(own))

    async def _apply(self, caller: Caller, key: ServiceKey, order: Order) -> list[ServiceKey]:
        """Whom it changed."""
        if order.action in (Action.APPROVE, Action.REJECT):
            return await self._decide(caller, key, order)
        if order.action is Action.DELETE:
            done = await self._administrator.delete(caller, key, reason=order.reason, cascade=order.cascade)
        else:
            status = order.status if order.action is Action.SET_STATUS else ServiceStatus.REVOKED
            done = await self._administrator.override(
                caller, key, status, reason=order.reason, cascade=order.cascade
            )
        return [ServiceKey(each.service_type, each.service_id) for each in done.services]

    async def _decide(self, caller: Caller, key: ServiceKey, order: Order) -> list[ServiceKey]:
        before: ServiceRecord | None = self._catalogue.record(key)
        decide = self._administrator.approve if order.action is Action.APPROVE else self._administrator.reject
        after = await decide(caller, key, order.reason)
        return [] if before is not None and before.version == after.version else [key]


def _command(order: Order, live_children: int) -> c.Command:
    match order.action:
        case Action.APPROVE:
            return c.Approve(reason=order.reason)
        case Action.REJECT:
            return c.Reject(reason=order.reason)
        case Action.DELETE:
            return c.Delete(reason=order.reason, cascade=order.cascade, live_children=live_children)
        case Action.REVOKE | Action.SET_STATUS:
            status = order.status if order.action is Action.SET_STATUS else ServiceStatus.REVOKED
            return c.Override(
                status=status, reason=order.reason, cascade=order.cascade, live_children=live_children
            )
