"""Many packages in one call: every row has its own result, and the whole can be asked for again.

Each row is created as if it were alone. One claim is kept for the whole call, before the first row; the id of
every row's package is made of it and of what the row says. So a call that was cut off anywhere is repeated with
the same key: rows that were created answer with the same package and token, the others are created now.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from jetway.core.errors import Code, PortError, Refused, RefusedError
from jetway.core.ids import ServiceType, slug
from jetway.services.caller import Caller
from jetway.services.issue import Issued, Issuer, NewPackageRequest

MOST_ROWS = 10_000
_AT_ONCE = 256
"""Enough for full batches of the projections; a creation beside them waits for about one such batch."""
_AT_A_TURN = 16
"""Rows begun in one turn of the loop: some 5 ms."""
_DEPTH = {ServiceType.POLLER: 0, ServiceType.AGENT: 1, ServiceType.CHECKER: 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkRow:
    """One row: what is wanted, or why it cannot even be read."""

    request: NewPackageRequest | None
    sha256: str = ""
    refused: Refused | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkResult:
    """What became of a row; in a rehearsal neither is set where it would be created."""

    issued: Issued | None = field(default=None, repr=False)
    refused: Refused | None = None
    failure: str = ""
    """Why it could not be done now: the same call may be made again."""


class BulkIssuer:
    """Creates packages by the thousand."""

    def __init__(self, issuer: Issuer) -> None:
        self._issuer = issuer

    async def create(
        self, caller: Caller, rows: Sequence[BulkRow], idempotency_key: str, *, dry_run: bool = False
    ) -> Sequence[BulkResult]:
        """One result for each row, in order. Parents may stand anywhere among the rows. Raises nothing."""
        results: list[BulkResult] = [BulkResult(refused=row.refused) for row in rows]
        wanted = _wanted(rows, results)
        planned = {_name(request) for _, request in wanted}
        try:
            reserved = None if dry_run else await self._issuer.reserve(caller, f"{idempotency_key}\nrows")
        except PortError as error:
            for number, _ in wanted:
                results[number] = BulkResult(failure=str(error))
            return results

        turnstile = asyncio.Semaphore(_AT_A_TURN)

        async def work(level: Iterator[tuple[int, NewPackageRequest]]) -> None:
            for number, request in level:
                # A written batch wakes all workers at once: they go on a few at a time, and others in between.
                async with turnstile:
                    await asyncio.sleep(0)
                if reserved is None:
                    results[number] = await self._rehearse(request, planned)
                else:
                    results[number] = await self._create(caller, request, rows[number].sha256, *reserved)

        for kind in _DEPTH:
            # A few workers rather than a task for each row: ten thousand tasks begin in one turn of the loop.
            level = iter([pair for pair in wanted if pair[1].service.service_type is kind])
            async with asyncio.TaskGroup() as group:
                for _ in range(_AT_ONCE):
                    group.create_task(work(level))
        return results

    async def _create(
        self, caller: Caller, request: NewPackageRequest, sha256: str, reserved: str, is_new: bool
    ) -> BulkResult:
        package_id = str(uuid.uuid5(uuid.UUID(reserved), f"{_name(request)}\n{sha256}"))
        try:
            issued = await self._issuer.create_named(caller, request, package_id, is_new=is_new)
        except RefusedError as error:
            return BulkResult(refused=error.refused)
        except PortError as error:
            return BulkResult(failure=str(error))
        return BulkResult(issued=issued)

    async def _rehearse(self, request: NewPackageRequest, planned: set[str]) -> BulkResult:
        service = request.service
        parent = service.service_type.parent_type
        try:
            found = await self._issuer.find(service)
            if found is not None and found.live:
                why = f"the {found.key.service_type.value} {found.service_id!r} is there already"
                return BulkResult(refused=Refused(Code.TAKEN, why, "component_id"))
            with_parent = parent is not None and f"{parent.value}.{service.parent_id}" in planned
            await self._issuer.check(service, parent_planned=with_parent)
        except RefusedError as error:
            return BulkResult(refused=error.refused)
        except PortError as error:
            return BulkResult(failure=str(error))
        return BulkResult()


def _wanted(rows: Sequence[BulkRow], results: list[BulkResult]) -> list[tuple[int, NewPackageRequest]]:
    """The rows to be created; of two for one service the second is refused."""
    found: dict[str, int] = {}
    wanted = []
    for number, row in enumerate(rows):
        if row.request is None:
            continue
        first = found.setdefault(_name(row.request), number)
        if first != number:
            why = f"row {first + 1} is for the same service"
            results[number] = BulkResult(refused=Refused(Code.TAKEN, why, "component_id"))
        else:
            wanted.append((number, row.request))
    return wanted


def _name(request: NewPackageRequest) -> str:
    service = request.service
    return f"{service.service_type.value}.{service.service_id or slug(service.label)}"
