"""What a person decides over a service: a page that says what would happen, then the deed with its reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from aiohttp import web
from pydantic import TypeAdapter, ValidationError

from jetway.core.errors import Code, RefusedError, refuse
from jetway.core.ids import ServiceKey, ServiceType
from jetway.core.record import ServiceRecord, ServiceStatus
from jetway.entry.http.auth import Role
from jetway.entry.http.doors import Doors
from jetway.entry.http.fields import Reason
from jetway.entry.http.problems import STATUS, field_errors
from jetway.entry.web.pages import page
from jetway.entry.web.services import SERVICE, Action, actions, key_of, path_of
from jetway.entry.web.visit import Visit
from jetway.services.administer import Affected, AffectedService

_ACTION = SERVICE + "/{action:revoke|activate|deactivate|delete|approve|reject|reissue}"
_STATUSES = {"activate": ServiceStatus.ACTIVE, "deactivate": ServiceStatus.INACTIVE}
_DONE = {
    "revoke": "revoked",
    "activate": "set active",
    "deactivate": "set inactive",
    "delete": "deleted",
    "approve": "approved",
    "reject": "rejected",
    "reissue": "reissued",
}
_SHOWN = 50
COUNT_AGAIN = 10
"""A grave deed over more than these is confirmed with their number."""
_REASON: TypeAdapter[str] = TypeAdapter(Reason)


class ActionPages:
    """The pages under a service's page that change it."""

    def __init__(self, doors: Doors) -> None:
        self._catalogue = doors.catalogue
        self._administrator = doors.administrator
        self._issuer = doors.issuer

    @page("GET", _ACTION, Role.OPERATOR)
    async def ask(self, visit: Visit) -> web.StreamResponse:
        """What would happen."""
        return await self._form(visit)

    @page("POST", _ACTION, Role.OPERATOR)
    async def act(self, visit: Visit) -> web.StreamResponse:
        """Do it, or say why not."""
        record = self._catalogue.get(key_of(visit)).record
        action = self._allowed(visit, record)
        try:
            reason = reason_of(visit.form.get("reason", ""))
            if action.name == "revoke":
                await self._require_count(visit, record)
            if action.name == "reissue":
                return await self._reissue(visit, record, reason)
            change = await self._apply(visit, record, action.name, reason, dry_run=False)
        except RefusedError as error:
            refused = error.refused
            return await self._form(visit, {refused.field: refused.why}, STATUS[refused.code])
        return visit.go(path_of(record.key), _said(action, record.key, change))

    async def _require_count(self, visit: Visit, record: ServiceRecord) -> None:
        """The number that whoever revokes many with one has read, and that is still true."""
        change = await self._apply(visit, record, "revoke", "", dry_run=True)
        total = len(change.services) if change else 1
        if total > COUNT_AGAIN and visit.form.get("count", "").strip() != str(total):
            raise refuse(Code.INVALID, f"must be {total}, the number of services that it touches", "count")

    async def _form(
        self, visit: Visit, wrong: Mapping[str, str] | None = None, status: int = 200
    ) -> web.StreamResponse:
        record = self._catalogue.get(key_of(visit)).record
        action = self._allowed(visit, record)
        change = None
        if action.name not in ("approve", "reject", "reissue"):
            change = await self._apply(visit, record, action.name, "", dry_run=True)
        touched = change.services if change else ()
        others = [item for item in touched if (item.service_type, item.service_id) != record.key]
        return visit.show(
            "confirm.html",
            status,
            record=record,
            action=action,
            others=[(item, self._label(item)) for item in others[:_SHOWN]],
            beneath=Counter(item.service_type for item in others),
            kinds=list(ServiceType),
            counts_again=action.name == "revoke" and len(touched) > COUNT_AGAIN,
            more=max(0, len(others) - _SHOWN),
            total=len(touched) or 1,
            wrong=wrong or {},
            form=visit.form,
        )

    def _label(self, item: AffectedService) -> str:
        """What it is called, where that is another name than its id."""
        found = self._catalogue.record(ServiceKey(item.service_type, item.service_id))
        return found.label if found and found.label != item.service_id else ""

    def _allowed(self, visit: Visit, record: ServiceRecord) -> Action:
        name = visit.part("action")
        for action in actions(record):
            if action.name == name and visit.may(action.role):
                return action
        why = f"{record.service_type.value} {record.service_id} is {record.status.value} and cannot be "
        raise refuse(Code.ILLEGAL_TRANSITION, f"{why}{_DONE[name]} by you now")

    async def _apply(
        self, visit: Visit, record: ServiceRecord, name: str, reason: str, *, dry_run: bool
    ) -> Affected | None:
        administrator, caller, key = self._administrator, visit.caller, record.key
        if name == "approve":
            await administrator.approve(caller, key, reason)
            return None
        if name == "reject":
            await administrator.reject(caller, key, reason)
            return None
        if name == "delete":
            return await administrator.delete(caller, key, reason=reason, dry_run=dry_run)
        if name == "revoke" and record.package:
            package_id = record.package.package_id
            return await administrator.revoke_package(
                caller, package_id, reason=reason, cascade=True, dry_run=dry_run
            )
        status = _STATUSES.get(name, ServiceStatus.REVOKED)
        return await administrator.override(caller, key, status, reason=reason, dry_run=dry_run)

    async def _reissue(self, visit: Visit, record: ServiceRecord, reason: str) -> web.StreamResponse:
        issued = await self._issuer.reissue(
            visit.caller,
            record.package.package_id if record.package else record.key,
            reason=reason,
            revoke_now=visit.form.get("revoke_now") == "on",
        )
        package_id = issued.package.package_id
        visit.session.keep_once(package_id, issued.token)
        return visit.go(f"/ui/onboard/{package_id}")


def reason_of(text: str) -> str:
    """The reason in a form. Raises RefusedError that names the field."""
    try:
        return _REASON.validate_python(text.replace("\r\n", "\n").strip())
    except ValidationError as error:
        raise refuse(Code.INVALID, field_errors(error)[0].message, "reason") from None


def _said(action: Action, key: ServiceKey, change: Affected | None) -> str:
    others = len(change.services) - 1 if change else 0
    beneath = f", and {others} beneath it" if others > 0 else ""
    later = "" if change is None or change.complete else "; the rest follows by itself"
    return f"{key.service_type.value.capitalize()} {key.service_id} is {_DONE[action.name]}{beneath}{later}."
