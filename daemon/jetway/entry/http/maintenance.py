"""Maintenance windows: which there are, a new one, the end of one."""

from __future__ import annotations

from typing import Annotated

from pydantic import AwareDatetime, Field, StringConstraints

from jetway.core.maintenance import MaintenanceWindow
from jetway.core.times import Timestamp
from jetway.entry.http import fields as f
from jetway.entry.http.api import Call, route
from jetway.entry.http.auth import Role
from jetway.entry.http.doors import Doors
from jetway.entry.http.models import Answer
from jetway.entry.http.problems import PATTERN_WORDS
from jetway.entry.http.requests import Taken
from jetway.services.maintenance import NewWindow

_TAG = "maintenance"
_ALL = "/api/admin/maintenance"
_KEY = r"^((poller|agent|checker)\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)?$"
PATTERN_WORDS |= {_KEY: "must be a service as type.id, such as agent.core-switch-room"}


class NewMaintenance(Taken):
    """When silence is expected, and of whom: exactly one of `service`, `site` and `label`."""

    service: Annotated[str, StringConstraints(max_length=80, pattern=_KEY)] = Field(
        default="", description="`agent.core-switch-room`: it, and all that stands beneath it."
    )
    site: f.Line = ""
    label: Annotated[str, StringConstraints(max_length=320)] = Field(default="", description="`key=value`.")
    since: AwareDatetime | None = Field(default=None, description="null: from now on.")
    until: AwareDatetime
    reason: f.Line = ""


class Maintenance(Answer):
    """A maintenance window. It silences alerts; what is heard and what is not goes on being told."""

    window_id: str
    service: str
    site: str
    label: str
    since: Timestamp
    until: Timestamp
    reason: str
    created_by: str
    created_at: Timestamp


class MaintenanceList(Answer):
    """The windows that are open or to come."""

    items: list[Maintenance]
    next_cursor: str | None
    total: int


class MaintenanceRoutes:
    """The routes of /api/admin/maintenance."""

    def __init__(self, doors: Doors) -> None:
        self._maintenance = doors.maintenance

    @route("GET", _ALL, tag=_TAG, role=Role.VIEWER)
    async def list_maintenance(self) -> MaintenanceList:
        """The maintenance windows that are open or to come, by their beginning."""
        items = [_render(window) for window in self._maintenance.windows()]
        return MaintenanceList(items=items, next_cursor=None, total=len(items))

    @route("POST", _ALL, tag=_TAG, role=Role.OPERATOR, status=201, errors=(404, 429, 503))
    async def begin_maintenance(self, body: NewMaintenance, call: Call) -> Maintenance:
        """Silence alerts for a while, of one service, a site or whoever carries a label."""
        asked = NewWindow(
            service=body.service,
            site=body.site,
            label=body.label,
            since=body.since,
            until=body.until,
            reason=body.reason,
        )
        return _render(await self._maintenance.begin(call.caller, asked))

    @route("DELETE", _ALL + "/{window_id}", tag=_TAG, role=Role.OPERATOR, errors=(503,))
    async def end_maintenance(self, window_id: f.PackageId, call: Call) -> None:
        """End a maintenance window now, or call off one that is to come. 204."""
        await self._maintenance.end(call.caller, window_id)


def _render(window: MaintenanceWindow) -> Maintenance:
    return Maintenance.model_validate(window)
