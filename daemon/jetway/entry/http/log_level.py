"""The log's level at run time."""

from __future__ import annotations

from typing import Literal

import structlog
from pydantic import BaseModel, ConfigDict, Field

from jetway.core.times import Timestamp
from jetway.entry.http.api import Call, route
from jetway.entry.http.auth import Role
from jetway.entry.http.doors import Doors
from jetway.entry.http.models import Answer
from jetway.logs import LONGEST_SECONDS, LogLevels

log = structlog.get_logger()

Level = Literal["debug", "info", "warning", "error"]
_PATH = "/api/admin/log-level"


class ChangeLogLevel(BaseModel):
    """What is logged for a while."""

    model_config = ConfigDict(extra="forbid")

    level: Level
    seconds: int = Field(default=900, ge=1, le=LONGEST_SECONDS, description="Then it falls back by itself.")


class LogLevel(Answer):
    """What this daemon logs."""

    level: Level
    configured: Level = Field(description="What it falls back to.")
    until: Timestamp | None = Field(description="When it falls back; null while nothing was changed.")


class LogLevelRoutes:
    """The routes of /api/admin/log-level."""

    def __init__(self, doors: Doors) -> None:
        self._levels = doors.log_levels

    @route("GET", _PATH, tag="system", role=Role.VIEWER)
    async def get_log_level(self) -> LogLevel:
        """What this daemon logs now."""
        return _render(self._levels)

    @route("PUT", _PATH, tag="system", role=Role.ADMIN)
    async def put_log_level(self, body: ChangeLogLevel, call: Call) -> LogLevel:
        """Log more, or less, for a while: on the daemon that is asked, and not beyond its restart."""
        self._levels.change(body.level, body.seconds)
        # A warning, so that it is read at nearly any level.
        log.warning(
            "the log level was changed",
            action="log_level",
            level=body.level,
            seconds=body.seconds,
            actor=call.caller.actor,
        )
        return _render(self._levels)


def _render(levels: LogLevels) -> LogLevel:
    return LogLevel.model_validate(
        {"level": levels.level, "configured": levels.configured, "until": levels.until}
    )
