"""How far the leading daemon's projections are, told to the others.

A daemon that does not lead answers a creation with what the leader has written; without this it could only wait.
A lost message costs nothing but a `queued` in an answer.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable

from nats.aio.msg import Msg

from jetway.adapters.nats.connection import Connection
from jetway.adapters.nats.names import Names
from jetway.core.errors import PortError


class NatsProgress:
    """Says and hears `{"projection", "position"}` on one subject."""

    def __init__(self, connection: Connection, names: Names) -> None:
        self._connection = connection
        self._subject = f"{names.prefix}jetway.progress"

    async def say(self, projection: str, position: int) -> None:
        """Tell the others. Where NATS is away there is nobody to tell."""
        with contextlib.suppress(PortError):
            message = {"projection": projection, "position": position}
            await self._connection.publish(self._subject, json.dumps(message).encode())

    async def hear(self, handler: Callable[[str, int], None]) -> None:
        """Call `handler(projection, position)` for all that is said, our own words included."""

        def take(message: Msg) -> None:
            with contextlib.suppress(ValueError, KeyError, TypeError):
                said = json.loads(message.data)
                handler(str(said["projection"]), int(said["position"]))

        await self._connection.subscribe(self._subject, take, pending_messages=1000)
