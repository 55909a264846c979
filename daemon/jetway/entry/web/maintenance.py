"""Maintenance: which windows are open or to come, a new one, the end of one."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from aiohttp import web
from pydantic import ValidationError

from jetway.core.errors import Code, RefusedError, refuse
from jetway.core.maintenance import MaintenanceWindow
from jetway.core.record import ServiceRecord
from jetway.entry.http.auth import Role
from jetway.entry.http.doors import Doors
from jetway.entry.http.maintenance import NewMaintenance
from jetway.entry.http.problems import STATUS, field_errors
from jetway.entry.web import suggestions
from jetway.entry.web.pages import page
from jetway.entry.web.sign_in import HOME, within
from jetway.entry.web.visit import Visit
from jetway.services.maintenance import Maintenance, NewWindow
from jetway.services.window import Page

PAGE = "/ui/maintenance"
TERMS = (
    ("1800", "30 minutes"),
    ("3600", "1 hour"),
    ("7200", "2 hours"),
    ("14400", "4 hours"),
    ("28800", "8 hours"),
    ("86400", "1 day"),
    ("259200", "3 days"),
    ("604800", "7 days"),
)
_SHOWN = 50
_CONCERNED = 20
_LONGEST_SECONDS = 366 * 86_400
_SUBJECTS = ("service", "site", "label")


class MaintenancePages:
    """The page /ui/maintenance."""

    def __init__(self, doors: Doors) -> None:
        self._maintenance = doors.maintenance
        self._catalogue = doors.catalogue

    @page("GET", PAGE)
    async def table(self, visit: Visit) -> web.StreamResponse:
        """The windows, by their beginning, and a form for a new one."""
        query = visit.request.query
        given = {name: query.get(name, "")[:320] for name in _SUBJECTS}
        return await self._show(visit, given, {})

    @page("POST", PAGE, Role.OPERATOR)
    async def begin(self, visit: Visit) -> web.StreamResponse:
        """Keep a window, or show the form again with what is wrong."""
        form = visit.form
        try:
            asked = _read(form, visit.now)
            window = await self._maintenance.begin(visit.caller, asked)
        except ValidationError as error:
            wrong = {each.field: each.message for each in field_errors(error)}
            return await self._show(visit, form, wrong, 422)
        except RefusedError as error:
            wrong = {error.refused.field or "service": error.refused.why}
            return await self._show(visit, form, wrong, STATUS[error.refused.code])
        begun = "is planned" if asked.since and asked.since > visit.now else "has begun"
        return visit.go(_back(form), f"Maintenance of {_about(window)} {begun}.")

    @page("POST", PAGE + "/{window_id}/end", Role.OPERATOR)
    async def end(self, visit: Visit) -> web.StreamResponse:
        """End it now, or call it off. One that has ended meanwhile is no mistake."""
        try:
            await self._maintenance.end(visit.caller, visit.part("window_id"))
        except RefusedError as error:
            if error.refused.code is not Code.NOT_FOUND:
                raise
            return visit.go(_back(visit.form), "That maintenance had ended already.")
        return visit.go(_back(visit.form), "The maintenance has ended.")

    async def _show(
        self, visit: Visit, given: Mapping[str, str], wrong: Mapping[str, str], status: int = 200
    ) -> web.StreamResponse:
        may = visit.may("operator")
        return visit.show(
            "maintenance.html",
            status,
            page=_page(self._maintenance, visit.request.query.get("cursor", "")),
            given={**given, **_subject(given)},
            wrong=wrong,
            terms=TERMS,
            sites=await suggestions.sites(self._catalogue) if may else [],
            labels=await suggestions.labels(self._catalogue) if may else [],
        )


def windows_of(maintenance: Maintenance, record: ServiceRecord) -> list[MaintenanceWindow]:
    """The windows, open or to come, that concern a service: the first 20."""
    return [window for window in maintenance.windows() if window.concerns(record)][:_CONCERNED]


def _page(maintenance: Maintenance, cursor: str) -> Page[MaintenanceWindow]:
    windows = maintenance.windows()
    start = int(cursor) if cursor.isdecimal() and len(cursor) < 6 else 0
    end = start + _SHOWN
    return Page(windows[start:end], str(end) if end < len(windows) else None, len(windows))


def _read(form: Mapping[str, str], now: datetime) -> NewWindow:
    """What is asked for. Raises RefusedError or ValidationError, each naming the field."""
    values: dict[str, object] = {name: form.get(name, "").strip() for name in _SUBJECTS}
    values |= _subject(form)
    values["reason"] = form.get("reason", "").strip()
    since = _time(form, "since")
    values["since"] = since
    values["until"] = _time(form, "until") or _end(since or now, form.get("lasts", ""))
    asked = NewMaintenance.model_validate(values)
    return NewWindow(
        service=asked.service,
        site=asked.site,
        label=asked.label,
        since=asked.since,
        until=asked.until,
        reason=asked.reason,
    )


def _subject(form: Mapping[str, str]) -> dict[str, str]:
    """`site A` of a service's page, which lets one choose."""
    about, _, named = form.get("subject", "").partition(" ")
    return {about: named} if about in _SUBJECTS else {}


def _time(form: Mapping[str, str], name: str) -> datetime | None:
    """A field of a date and a time of day, in UTC."""
    text = form.get(name, "").strip()
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text[:40])
    except ValueError:
        raise refuse(Code.INVALID, "must be a time in UTC such as 2026-11-23T14:30", name) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _end(since: datetime, lasts: str) -> datetime:
    if not lasts.isdecimal() or not 60 <= int(lasts[:9]) <= _LONGEST_SECONDS:
        raise refuse(Code.INVALID, "must be between a minute and 366 days, in seconds", "lasts")
    try:
        return since + timedelta(seconds=int(lasts))
    except OverflowError:
        raise refuse(Code.INVALID, "must be a time that this calendar has", "since") from None


def _about(window: MaintenanceWindow) -> str:
    if window.service:
        return window.service
    return f"site {window.site}" if window.site else f"label {window.label}"


def _back(form: Mapping[str, str]) -> str:
    """Where the form came from."""
    goal = within(form.get("back", ""))
    return PAGE if goal == HOME else goal
