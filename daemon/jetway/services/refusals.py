"""Refused calls, of the API and of edge hosts: all counted, and in the audit trail at a rate no flood can raise.

Of each caller and reason the first in a minute is told at once, the others of that minute together at its end.
Callers can make up addresses, so only so many are told apart; the rest share an entry.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum

from jetway.core.errors import Code
from jetway.core.record import EventType
from jetway.core.renewal import RenewalRequest
from jetway.ports import Clock
from jetway.services.caller import Caller
from jetway.services.trail import Trail

WINDOW_SECONDS = 60.0
MOST_CALLERS = 100
"""Told apart in a minute: at most twice as many entries are written in it, and one for the rest."""
STRANGER = "stranger"
"""The actor of a call whose token is nobody's."""


class Reason(StrEnum):
    """Why a call was refused."""

    NO_TOKEN = "no_token"  # noqa: S105 - a reason's name
    UNKNOWN_TOKEN = "unknown_token"  # noqa: S105
    EXPIRED_TOKEN = "expired_token"  # noqa: S105
    ROLE_TOO_SMALL = "role_too_small"
    TOO_MANY_FAILURES = "too_many_failures"
    FOREIGN_FORM = "foreign_form"
    FORGED_PACKAGE_TOKEN = "forged_package_token"  # noqa: S105
    TOO_MANY_REDEMPTIONS = "too_many_redemptions"
    RENEWAL = "renewal"


_WHY = {
    Reason.NO_TOKEN: "no API token",
    Reason.UNKNOWN_TOKEN: "an API token that is unknown or revoked",
    Reason.EXPIRED_TOKEN: "an API token that has expired",
    Reason.ROLE_TOO_SMALL: "an API token whose role is too small",
    Reason.TOO_MANY_FAILURES: "too many failed calls",
    Reason.FOREIGN_FORM: "a form that no page of the dashboard sent",
    Reason.FORGED_PACKAGE_TOKEN: "a package token that is forged, altered or unreadable",
    Reason.TOO_MANY_REDEMPTIONS: "too many failures to redeem a package",
    Reason.RENEWAL: "credentials were not renewed",
}
_UNPROVEN = frozenset({Code.PROOF_STALE, Code.PROOF_INVALID})
_REDEMPTIONS = frozenset({Reason.FORGED_PACKAGE_TOKEN, Reason.TOO_MANY_REDEMPTIONS})


@dataclass(frozen=True, slots=True)
class Refusal:
    """A refused call. `address` is what callers are told apart by, `what` the method and the route.

    `why` is the code where one reason has several.
    """

    reason: Reason
    caller: Caller
    address: str
    what: str
    why: str = ""


@dataclass(slots=True)
class _Seen:
    first: Refusal
    told: bool = False
    more: int = 0


class Refusals:
    """Counts and tells. `run` does the telling, so that no caller waits for it."""

    def __init__(self, trail: Trail, clock: Clock, count: Callable[[str], None]) -> None:
        self._trail = trail
        self._clock = clock
        self._count = count
        self._seen: dict[tuple[Reason, str, str], _Seen] = {}
        self._others = 0
        self._began = 0.0
        self._wake = asyncio.Event()

    def note(self, refusal: Refusal) -> None:
        """Count a refused call, and have it told."""
        self._count(refusal.reason.value)
        if not self._seen:
            self._began = self._clock.monotonic()
        key = (refusal.reason, refusal.caller.actor, refusal.address)
        seen = self._seen.get(key)
        if seen is not None:
            seen.more += 1
        elif len(self._seen) >= MOST_CALLERS:
            self._others += 1
        else:
            self._seen[key] = _Seen(refusal)
            self._wake.set()
        if self._is_over():
            self._wake.set()

    def note_renewal(self, request: RenewalRequest, caller: Caller, code: Code) -> None:
        """The same for credentials that were not renewed. Who has proven nothing is called nobody."""
        known = caller if code not in _UNPROVEN else replace(caller, actor=STRANGER)
        address, what = caller.source_ip or str(request.lineage.key), f"renew {request.lineage.key}"
        self.note(Refusal(Reason.RENEWAL, known, address, what, code.value))

    async def run(self) -> None:
        """Tell what is to be told, for ever."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(WINDOW_SECONDS if self._seen else None):
                    await self._wake.wait()
            self._wake.clear()
            await self.tell()

    async def tell(self, *, all_of_it: bool = False) -> None:
        """Write the entries that are due; with `all_of_it` those that would be due at the minute's end, too."""
        for seen in list(self._seen.values()):
            if not seen.told:
                seen.told = True
                await self._write(seen.first, 1)
        if not all_of_it and not self._is_over():
            return
        ended, others = list(self._seen.values()), self._others
        self._seen.clear()
        self._others = 0
        for seen in ended:
            # One that came while the others were written was not told yet.
            count = seen.more if seen.told else seen.more + 1
            if count:
                await self._write(seen.first, count)
        if others:
            await self._trail.try_note(
                EventType.API_REFUSED,
                Caller(STRANGER),
                reason="more callers than are told apart",
                metadata={"code": "others", "count": others},
            )

    def _is_over(self) -> bool:
        return bool(self._seen) and self._clock.monotonic() - self._began >= WINDOW_SECONDS

    async def _write(self, refusal: Refusal, count: int) -> None:
        redeem = refusal.reason in _REDEMPTIONS
        await self._trail.try_note(
            EventType.REDEEM_REFUSED if redeem else EventType.API_REFUSED,
            refusal.caller,
            reason=_WHY[refusal.reason],
            metadata={"code": refusal.why or refusal.reason.value, "call": refusal.what, "count": count},
        )
