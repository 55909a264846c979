"""Administer: revoke, override, delete, approve, reject, and the cascade beneath a service that was taken out."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import structlog

from jetway.core import commands as c
from jetway.core.errors import Code, PortError, Refused, RefusedError, UnavailableError, refuse
from jetway.core.ids import ServiceKey, ServiceType
from jetway.core.lifecycle import step
from jetway.core.record import LIVE, Cascade, ServiceRecord, ServiceStatus
from jetway.services.caller import SYSTEM, Caller
from jetway.services.cascade import Cascades
from jetway.services.index import Index
from jetway.services.reach import Reach, Step
from jetway.services.recorder import Applied, Recorder, Versions, version_refused
from jetway.services.revocations import Left

log = structlog.get_logger()

_CATCH_UP_SECONDS = 2.0
_ATTEMPTS = 5
_CASCADE_LEFT = Left("cascade", "what stands beneath is still being revoked, which goes on by itself")


@dataclass(frozen=True, slots=True)
class AffectedService:
    """One service that a change touched, or would touch."""

    service_type: ServiceType
    service_id: str
    status_before: ServiceStatus
    status_after: ServiceStatus


@dataclass(frozen=True, slots=True)
class Affected:
    """What a change did, or would do. `complete` is False where a cascade goes on in the background.

    `reached` and `left` say how far it had come when the answer was made. What is left goes on by itself, unless
    it says that it cannot.
    """

    dry_run: bool
    record: ServiceRecord
    services: tuple[AffectedService, ...]
    complete: bool = True
    reached: list[Step] = field(default_factory=list)
    left: tuple[Left, ...] = ()


class Administrator:
    """What a person decides over a service."""

    def __init__(self, recorder: Recorder, cascades: Cascades, reach: Reach) -> None:
        self._recorder = recorder
        self._cascades = cascades
        self._reach = reach
        self._looking = asyncio.Lock()
        """One at a time: two who close the same service would keep each other from it."""

    @property
    def _index(self) -> Index:
        return self._recorder.index

    async def revoke_package(
        self,
        caller: Caller,
        package_id: str,
        *,
        reason: str,
        cascade: bool,
        dry_run: bool,
        expected: Versions | None = None,
    ) -> Affected:
        """Revoke the service of this package, and with `cascade` all beneath it. Raises RefusedError."""
        record = await self._recorder.of_package(package_id)
        count = await self._live_children(record.key, cascade)
        command = c.Revoke(reason=reason, cascade=cascade, live_children=count, package_id=package_id)
        return await self._take_out(caller, record.key, command, dry_run, expected)

    async def override(
        self,
        caller: Caller,
        key: ServiceKey,
        status: ServiceStatus,
        *,
        reason: str,
        cascade: bool = True,
        dry_run: bool = False,
        expected: Versions | None = None,
    ) -> Affected:
        """Set a status by hand. Raises RefusedError where the lifecycle forbids it."""
        count = await self._live_children(key, cascade)
        command = c.Override(status=status, reason=reason, cascade=cascade, live_children=count)
        return await self._take_out(caller, key, command, dry_run, expected)

    async def delete(
        self,
        caller: Caller,
        key: ServiceKey,
        *,
        reason: str,
        cascade: bool = True,
        dry_run: bool = False,
        expected: Versions | None = None,
    ) -> Affected:
        """Delete a revoked or inactive service; with `cascade` what lives beneath it is revoked."""
        count = await self._live_children(key, cascade)
        command = c.Delete(reason=reason, cascade=cascade, live_children=count)
        return await self._take_out(caller, key, command, dry_run, expected)

    async def delete_package(self, caller: Caller, package_id: str, expected: Versions | None = None) -> None:
        """Take a revoked or expired package out of the listings. Raises RefusedError."""
        record = await self._recorder.of_package(package_id)
        await self._recorder.apply(
            record.key, c.DeletePackage(package_id=package_id), caller, expected=expected
        )

    async def approve(
        self, caller: Caller, key: ServiceKey, reason: str, expected: Versions | None = None
    ) -> ServiceRecord:
        """Let a service in that registered itself. Raises RefusedError."""
        return (await self._recorder.apply(key, c.Approve(reason=reason), caller, expected=expected)).after

    async def reject(
        self, caller: Caller, key: ServiceKey, reason: str, expected: Versions | None = None
    ) -> ServiceRecord:
        """Keep a service out that registered itself. Raises RefusedError."""
        return (await self._recorder.apply(key, c.Reject(reason=reason), caller, expected=expected)).after

    def foresee(self, record: ServiceRecord | None, command: c.Command) -> ServiceRecord | Refused:
        """What a command would make of a record as it stands, without asking the ledger."""
        context = c.Context(now=self._recorder.clock.now(), actor="", transition_id="", epoch=0)
        return step(record, command, context)

    async def _take_out(
        self,
        caller: Caller,
        key: ServiceKey,
        command: c.Revoke | c.Override | c.Delete,
        dry_run: bool,
        expected: Versions | None,
    ) -> Affected:
        if dry_run:
            return await self._preview(key, command, expected)
        if command.cascade:
            applied = await self._recorder.apply(key, command, caller, expected=expected)
        else:
            applied = await self._apply_alone(caller, key, command, expected)
        touched = [_affected(applied)] if applied.changed else []
        if applied.after.cascade is not Cascade.RUNNING:
            return await self._answer([applied.after], applied.sequence, touched)
        before = {record.key: record.status for record in self._beneath(key)}
        try:
            revoked = await self._cascades.finish(key, applied.sequence, caller)
        except PortError as error:
            log.warning(
                "a cascade is interrupted", action="cascade_waits", service=str(key), error=str(error)
            )
            return await self._answer([applied.after], applied.sequence, touched, _CASCADE_LEFT)
        touched += [_taken_out(record, before) for record in revoked]
        now = self._index.entry(key)  # the cascade's end was written after everything beneath
        return await self._answer([now.record or applied.after, *revoked], now.sequence, touched)

    async def _apply_alone(
        self,
        caller: Caller,
        key: ServiceKey,
        command: c.Revoke | c.Override | c.Delete,
        expected: Versions | None,
    ) -> Applied:
        """Without a cascade: the service is closed to children first, and looked beneath once more.

        A child that was written before that is seen, and one that is written later waits for what comes of it, so
        that nobody is acknowledged who goes with the service. Raises RefusedError and PortErrors like `apply`.
        """
        async with self._looking:
            try:
                for _ in range(_ATTEMPTS):
                    outcome = await self._close_and_apply(caller, key, command, expected)
                    if isinstance(outcome, Applied):
                        return outcome
                    if outcome.code is not Code.VERSION_DIFFERS or expected is not None:
                        raise RefusedError(outcome)
            except BaseException:
                await self._reopen(key)
                raise
            await self._reopen(key)
        raise UnavailableError(f"{key} changes too fast: try again")

    async def _close_and_apply(
        self,
        caller: Caller,
        key: ServiceKey,
        command: c.Revoke | c.Override | c.Delete,
        expected: Versions | None,
    ) -> Applied | Refused:
        record = await self._recorder.read(key)
        outcome = version_refused(record, expected) or self.foresee(record, command)
        if record is None or isinstance(outcome, Refused) or not (record.live and _cascades(outcome)):
            return await self._recorder.attempt(key, command, caller, expected=expected)
        closed = await self._recorder.attempt(key, c.Close(), caller, expected=(record.version,))
        if isinstance(closed, Refused):
            return closed
        if not await self._index.progress.reached(closed.sequence, _CATCH_UP_SECONDS):
            raise _not_caught_up()
        asked = replace(command, live_children=self._count_children(key))
        return await self._recorder.attempt(key, asked, caller, expected=(closed.after.version,))

    async def _reopen(self, key: ServiceKey) -> None:
        record = self._index.get(key)
        if record is None or record.cascade is not Cascade.CLOSING:
            return
        with contextlib.suppress(PortError):  # the job that finishes cascades sees to it later
            await self._recorder.attempt(key, c.Reopen(), SYSTEM)

    async def _answer(
        self,
        records: list[ServiceRecord],
        sequence: int,
        touched: list[AffectedService],
        *left: Left,
    ) -> Affected:
        """What was done, once it has reached what it can reach in time. The first record is the one asked for."""
        reached = await self._reach.of(records, sequence)
        return Affected(
            False,
            records[0],
            tuple(touched),
            complete=not left,
            reached=reached.reached,
            left=(*reached.left, *left),
        )

    async def _preview(
        self, key: ServiceKey, command: c.Revoke | c.Override | c.Delete, expected: Versions | None
    ) -> Affected:
        """What the command would do. Raises RefusedError where it would be refused."""
        record = await self._recorder.read(key)
        outcome = version_refused(record, expected) or self.foresee(record, command)
        if isinstance(outcome, Refused) or record is None:
            raise (
                RefusedError(outcome)
                if isinstance(outcome, Refused)
                else refuse(Code.NOT_FOUND, "no such service")
            )
        touched = []
        if outcome is not record:
            touched.append(_change(record, outcome.status))
        if outcome.cascade is Cascade.RUNNING:
            touched += [_change(child, ServiceStatus.REVOKED) for child in self._beneath(key)]
        return Affected(True, record, tuple(touched))

    def _beneath(self, key: ServiceKey) -> Iterator[ServiceRecord]:
        """Live services beneath, parents before their children."""
        for child in sorted(self._index.children(key), key=lambda record: record.service_id):
            if child.status in LIVE:
                yield child
            yield from self._beneath(child.key)

    async def _live_children(self, key: ServiceKey, cascade: bool) -> int:
        """How many children stand in the way of a change without a cascade: those of a moment ago as well."""
        if not cascade and key.service_type.child_type and not await self._recorder.catch_up():
            raise _not_caught_up()
        return self._count_children(key)

    def _count_children(self, key: ServiceKey) -> int:
        return sum(1 for child in self._index.children(key) if child.status in LIVE)


def _not_caught_up() -> UnavailableError:
    return UnavailableError("whether anybody lives beneath is not known here yet: try again shortly")


def _cascades(outcome: ServiceRecord | Refused) -> bool:
    return isinstance(outcome, ServiceRecord) and outcome.cascade is Cascade.RUNNING


def _affected(applied: Applied) -> AffectedService:
    before = applied.before.status if applied.before else applied.after.status
    after = applied.after
    return AffectedService(after.service_type, after.service_id, before, after.status)


def _change(record: ServiceRecord, status: ServiceStatus) -> AffectedService:
    return AffectedService(record.service_type, record.service_id, record.status, status)


def _taken_out(record: ServiceRecord, before: dict[ServiceKey, ServiceStatus]) -> AffectedService:
    was = record.transition.from_status or before.get(record.key, record.status)
    return AffectedService(record.service_type, record.service_id, was, record.status)
