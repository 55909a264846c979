"""Writing a batch of rows of which the database may refuse some: the others go on, in order.

A row is at fault when it is refused by itself while others are taken. Where nothing is taken, the fault is the
database's: the error is raised, and the caller holds its place and comes again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import chain, islice
from typing import Generic, TypeVar

from jetway.core.errors import ExhaustedError, PortError, RejectedError, UnavailableError
from jetway.services.set_aside import Row, SetAside, name_of

T = TypeVar("T", bound=Row)
Write = Callable[[Sequence[T]], Awaitable[None]]

PATIENCE = 6
"""Failures in a row, of which nothing says whose fault they are, before a row is suspected of them. The pauses of
a projection between them are 3 s in all, so a database that is started anew is none of them."""
_PROOFS = 4


class Sieve(Generic[T]):
    """Writes batches, and remembers a few rows that were taken: a proof that the database takes rows at all."""

    def __init__(
        self,
        set_aside: SetAside,
        check: Callable[[], Awaitable[None]],
        *,
        renew: Callable[[T], T | None] = lambda row: row,
        others: Callable[[], Iterable[T]] = tuple,
    ) -> None:
        """`check` raises where the database is away; `renew` gives a row as it should stand now.

        `others`: rows that the database should have, where none was taken yet.
        """
        self._set_aside = set_aside
        self._check = check
        self._renew = renew
        self._others = others
        self._taken: deque[T] = deque(maxlen=_PROOFS)
        self._failures = 0

    async def write(self, rows: Sequence[T], write: Write[T], *, again: bool = False) -> None:
        """Write them but for those set aside; with `again` those too. Raises PortError, and nothing is lost."""
        rows = rows if again else [row for row in rows if not self._set_aside.holds(row)]
        if not rows:
            return
        try:
            await write(rows)
        except PortError as error:
            await self._look_into(error)
            await self._sift(rows, write, error)
        else:
            self._took(rows)

    async def _look_into(self, error: PortError) -> None:
        """Raise the error again unless it may be a row's fault."""
        if isinstance(error, RejectedError):
            return
        if isinstance(error, ExhaustedError):
            raise error  # a row that needs no more room is taken all the same, and proves nothing
        self._failures += 1
        if self._failures < PATIENCE:
            raise error
        await self._check()

    async def _sift(self, rows: Sequence[T], write: Write[T], error: PortError) -> None:
        """Set aside what is at fault. Raises `error` where nothing shows that it is a row's."""
        is_blamed = isinstance(error, RejectedError)
        takes_others = await self._takes_others(rows, write)
        may_prove_itself = len(rows) > 1 and not isinstance(error, UnavailableError)
        if takes_others is False or (takes_others is None and not is_blamed and not may_prove_itself):
            raise error
        refused = await self._halve(rows, write)
        if len(refused) == len(rows) and takes_others is None and not is_blamed:
            raise error
        for row, why in refused:
            self._set_aside.put(row, why)
        self._failures = 0

    async def _halve(self, rows: Sequence[T], write: Write[T]) -> list[tuple[T, PortError]]:
        """Write what can be written; the others, each with its own error."""
        try:
            await write(rows)
        except ExhaustedError:
            raise
        except PortError as error:
            if isinstance(error, UnavailableError) and not await self._takes_others(rows, write):
                raise
            if len(rows) == 1:
                return [(rows[0], error)]
        else:
            self._took(rows)
            return []
        half = len(rows) // 2
        return await self._halve(rows[:half], write) + await self._halve(rows[half:], write)

    async def _takes_others(self, rows: Sequence[T], write: Write[T]) -> bool | None:
        """Whether the database takes rows that it should have already; None where there is none to try."""
        names = {name_of(row) for row in rows}
        renewed = (self._renew(row) for row in reversed(self._taken) if name_of(row) not in names)
        known = (row for row in chain(renewed, self._others()) if row is not None)
        tried = [row for row in islice(known, len(names) + 2 * _PROOFS) if name_of(row) not in names]
        answer = None
        for row in [row for row in tried if not self._set_aside.holds(row)][:_PROOFS]:
            try:
                await write([row])
            except UnavailableError:
                return False
            except PortError:
                answer = False
            else:
                return True
        return answer

    def _took(self, rows: Sequence[T]) -> None:
        self._failures = 0
        for row in rows:
            self._set_aside.take(row)
        self._taken.extend(rows[-_PROOFS:])
