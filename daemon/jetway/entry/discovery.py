"""Discovery, as NATS micro services have it: who is there, what it answers, and how much it has.

The library's own service is not used: it lives and dies with one connection, answers to whatever subject it is
told to, and tells the text of any exception. The documents are those that it makes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

from jetway import __version__
from jetway.core.times import rfc3339
from jetway.entry.questions import Endpoint, Told
from jetway.ports import HeartbeatMessage

_AT_ONCE = 100
_DESCRIPTION = "Jetway, the onboarding gateway for edge services: is a poller known, what is in the registry."
Verb = Literal["PING", "INFO", "STATS"]
_VERBS: Sequence[Verb] = ("PING", "INFO", "STATS")


class Discovery:
    """Tells of one daemon's endpoints. `instance` is its own name among several daemons."""

    def __init__(
        self, name: str, instance: str, queue: str, endpoints: Sequence[Endpoint], started: datetime
    ) -> None:
        self._queue = queue
        self._endpoints = endpoints
        self._started = rfc3339(started)
        self._identity = {"name": name, "id": instance, "version": __version__, "metadata": {}}

    @property
    def subjects(self) -> Sequence[str]:
        """Where it is asked: everybody, all of this name, or this one."""
        name, instance = self._identity["name"], self._identity["id"]
        ends = ("", f".{name}", f".{name}.{instance}")
        return [f"$SRV.{verb}{end}" for verb in _VERBS for end in ends]

    def endpoint(self) -> Endpoint:
        """The door's side of it."""
        return Endpoint(
            name="discovery", subject="$SRV", description="", answer=self._answer, at_once=_AT_ONCE
        )

    async def _answer(self, message: HeartbeatMessage) -> Told:
        verb = message.subject.split(".")[1]
        document: dict[str, Any] = {"type": f"io.nats.micro.v1.{verb.lower()}_response", **self._identity}
        if verb == "INFO":
            document |= {"description": _DESCRIPTION, "endpoints": [self._info(x) for x in self._endpoints]}
        elif verb == "STATS":
            document |= {"started": self._started, "endpoints": [self._stats(x) for x in self._endpoints]}
        return Told(json.dumps(document).encode())

    def _info(self, endpoint: Endpoint) -> Mapping[str, Any]:
        return self._of(endpoint) | {"metadata": {"description": endpoint.description}}

    def _stats(self, endpoint: Endpoint) -> Mapping[str, Any]:
        tally = endpoint.tally
        return self._of(endpoint) | {
            "num_requests": tally.requests,
            "num_errors": tally.errors,
            "last_error": tally.last_error,
            "processing_time": tally.nanoseconds,
            "average_processing_time": tally.nanoseconds // max(1, tally.requests),
            "data": None,
        }

    def _of(self, endpoint: Endpoint) -> dict[str, Any]:
        return {"name": endpoint.name, "subject": endpoint.subject, "queue_group": self._queue}
