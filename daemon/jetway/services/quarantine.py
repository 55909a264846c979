"""Quarantine: services that registered themselves by their heartbeats, and wait for a person's word.

They are approved or rejected like any (`services.administer`), or adopted: what somebody prepared under another
id, with a package that nobody redeemed, was meant for the one that waits. It takes over the description and
needs no token any more; the package dies with the service that it was made for.
"""

from __future__ import annotations

from dataclasses import dataclass

from jetway.core.errors import Code, Refused, RefusedError, refuse
from jetway.core.ids import ServiceKey
from jetway.core.record import Approval, PackageStatus, ServiceRecord, ServiceStatus, Source
from jetway.services.administer import Administrator
from jetway.services.caller import Caller
from jetway.services.catalogue import Catalogue, PackageView, QuarantineFilter
from jetway.services.issue import Issuer
from jetway.services.presence import Seen
from jetway.services.window import Page


@dataclass(frozen=True, slots=True)
class Waiting:
    """A service that registered itself, and what is known of it."""

    record: ServiceRecord
    seen: Seen | None


class Quarantine:
    """Shows who waits, and adopts."""

    def __init__(self, catalogue: Catalogue, administrator: Administrator, issuer: Issuer) -> None:
        self._catalogue = catalogue
        self._administrator = administrator
        self._issuer = issuer

    async def page(self, query: QuarantineFilter) -> Page[Waiting]:
        """Who waits, the oldest first. Raises RefusedError (invalid) for a foreign cursor."""
        page = await self._catalogue.quarantine(query)
        items = [Waiting(record, self._catalogue.seen(record.key)) for record in page.items]
        return Page(items, page.next_cursor, page.total)

    async def adopt(self, caller: Caller, key: ServiceKey, package_id: str) -> ServiceRecord:
        """Take the waiting service for the one that this package was made for. Raises RefusedError.

        The package goes first, so that at no moment two services answer to one description. Where the second step
        fails, the same call goes on from there.
        """
        waiting, meant = self._catalogue.get(key).record, self._catalogue.package(package_id)
        reason = f"adopted by {key}"
        ended = meant.record.status is ServiceStatus.REVOKED and meant.record.status_reason == reason
        if ended and waiting.approval is Approval.GRANTED:
            return waiting
        refused = _not_waiting(waiting) or _misfit(waiting, meant, ended)
        if refused:
            raise RefusedError(refused)
        if not ended:
            await self._end(caller, meant, reason)
        return await self._issuer.adopt(caller, key, meant.record)

    async def _end(self, caller: Caller, meant: PackageView, reason: str) -> None:
        try:
            await self._administrator.revoke_package(
                caller,
                meant.package.package_id,
                reason=reason,
                cascade=False,
                dry_run=False,
                expected={meant.record.version},
            )
        except RefusedError as error:
            if error.refused.code is not Code.VERSION_DIFFERS:
                raise
            why = "the package changed meanwhile: look at it again"
            raise refuse(Code.ILLEGAL_TRANSITION, why, "package_id") from error


def _not_waiting(record: ServiceRecord) -> Refused | None:
    waits = record.approval in (Approval.REQUIRED, Approval.REJECTED)
    if waits and record.registration_source is Source.IMPLICIT and record.status is ServiceStatus.PENDING:
        return None
    return Refused(Code.ILLEGAL_TRANSITION, f"{record.key} does not wait in quarantine")


def _misfit(waiting: ServiceRecord, meant: PackageView, ended: bool) -> Refused | None:
    """Why the package cannot have been meant for the service."""
    record, package = meant.record, meant.package
    if record.service_type is not waiting.service_type or record.parent_id != waiting.parent_id:
        why = f"the package is for {record.key} under {record.parent_id or 'nobody'!r}, not for this place"
        return Refused(Code.WRONG_PARENTS, why, "package_id")
    if not ended and (package is not record.package or package.status is not PackageStatus.ISSUED):
        why = f"the package is {package.status.value}: only one that nobody has redeemed can be adopted"
        return Refused(Code.ILLEGAL_TRANSITION, why, "package_id")
    return None
