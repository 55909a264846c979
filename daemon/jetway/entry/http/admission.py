"""Admission over HTTP: the twin of `jetway.known`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from jetway.entry.http.api import route
from jetway.entry.http.auth import Role
from jetway.entry.http.doors import Doors
from jetway.entry.http.models import Answer
from jetway.services.admit import LONGEST_NAME

PollerName = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:@-]*$", max_length=LONGEST_NAME)
]
"""Wider than an id: a core server asks about whatever calls itself a poller."""


class Admitted(Answer):
    """Whether a poller is known."""

    known: bool
    status: str = Field(description="The service's; empty where the registry does not have it.")
    source: str = Field(description="How it came in; empty where it is unknown.")


class AdmissionRoutes:
    """The route /api/admin/admission/pollers/{poller_id}."""

    def __init__(self, doors: Doors) -> None:
        self._admission = doors.admission

    @route("GET", "/api/admin/admission/pollers/{poller_id}", tag="admission", role=Role.VIEWER)
    async def get_admission(self, poller_id: PollerName) -> Admitted:
        """Is this poller known? Answered from memory; as `admission.mode` has it."""
        found = self._admission.ask(poller_id)
        return Admitted(known=found.known, status=found.status, source=found.source)
