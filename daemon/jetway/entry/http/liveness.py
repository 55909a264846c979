"""The liveness of one service over the last hours or days."""

from __future__ import annotations

from pydantic import Field

from jetway.core.ids import ServiceId, ServiceKey, ServiceType
from jetway.core.liveness import Liveness
from jetway.core.spans import SpanState
from jetway.core.times import Timestamp
from jetway.entry.http import fields as f
from jetway.entry.http.api import route
from jetway.entry.http.auth import Role
from jetway.entry.http.doors import Doors
from jetway.entry.http.models import Answer
from jetway.entry.http.requests import Taken
from jetway.entry.http.services import Plural
from jetway.services.past import MOST_HOURS, LivenessPast

_PATH = "/api/admin/services/{plural:pollers|agents|checkers}/{service_id}/liveness"


class GetLiveness(Taken):
    """Over which time."""

    hours: f.QueryNumber = Field(
        default=24, ge=1, le=MOST_HOURS, description=f"The last so many hours; {MOST_HOURS} are kept."
    )


class LivenessSpan(Answer):
    """For a while the liveness was one and the same."""

    state: SpanState = Field(
        description="A liveness; `not_heard` where heartbeats could not be heard, so that silence says nothing; "
        "`unknown` where nothing is kept."
    )
    since: Timestamp
    until: Timestamp


class LivenessHistory(Answer):
    """A service's liveness over a time."""

    service_type: ServiceType
    service_id: str
    liveness: Liveness = Field(description="As it stands now.")
    since: Timestamp
    until: Timestamp
    spans: list[LivenessSpan] = Field(
        description="One after another, the oldest first; from the registration on where that was later."
    )
    seconds: dict[SpanState, float] = Field(description="How long each state that occurred lasted in all.")


class LivenessRoutes:
    """The route /api/admin/services/…/liveness."""

    def __init__(self, doors: Doors) -> None:
        self._past = doors.past

    @route("GET", _PATH, tag="services", role=Role.VIEWER, heavy=True)
    async def get_service_liveness(
        self, plural: Plural, service_id: ServiceId, query: GetLiveness
    ) -> LivenessHistory:
        """When a service was online, late or offline, as far as this gateway heard.

        It outlasts a restart; of a service that turned more than 48 times only the last ones are kept.
        """
        return _render(self._past.read(ServiceKey(plural.service_type, service_id), query.hours))


def _render(past: LivenessPast) -> LivenessHistory:
    return LivenessHistory(
        service_type=past.record.service_type,
        service_id=past.record.service_id,
        liveness=past.liveness,
        since=past.since,
        until=past.until,
        spans=[LivenessSpan.model_validate(span) for span in past.spans],
        seconds={SpanState(state): round(sum_.total_seconds(), 3) for state, sum_ in past.lasted().items()},
    )
