"""A subscription that outlives the link it was made on."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

_TURN_SECONDS = 0.005
"""How long messages are handed on before everybody else gets a turn."""
_PAUSE_SECONDS = 0.0005
"""After so long without a message others have had theirs: what came together is handed on together."""

Handler = Callable[[Msg], None]
"""Takes a message; must not block."""


@dataclass(slots=True, eq=False)
class Subscription:
    """A subscription that outlives the link. `dropped` counts messages that found it full."""

    subject: str
    handler: Handler
    pending_messages: int
    pending_bytes: int
    queue: str = ""
    """Of several who subscribe with the same name, one gets each message; empty: everybody gets all."""
    dropped: int = 0
    _client: Client | None = field(default=None, repr=False)
    _current: Any = field(default=None, repr=False)

    async def attach(self, client: Client) -> None:
        """Subscribe on this client."""

        turn_ends = handled = 0.0

        async def deliver(message: Msg) -> None:
            nonlocal turn_ends, handled
            began = monotonic()
            if began - handled > _PAUSE_SECONDS:
                turn_ends = began + _TURN_SECONDS
            self.handler(message)
            handled = monotonic()
            # nats-py hands on all that waits without a pause: in a flood nobody else would get a turn.
            if handled > turn_ends:
                await asyncio.sleep(0)
                turn_ends = monotonic() + _TURN_SECONDS

        self._client = client
        self._current = await client.subscribe(
            self.subject,
            queue=self.queue,
            cb=deliver,
            pending_msgs_limit=self.pending_messages,
            pending_bytes_limit=self.pending_bytes,
        )

    def is_on(self, client: Client) -> bool:
        """Whether it stands on this client."""
        return self._client is client

    def is_behind(self, current: object) -> bool:
        """Whether this is the library's object of the present link."""
        return self._current is current

    async def detach(self) -> None:
        """Unsubscribe, if the link stands."""
        current, self._current = self._current, None
        if current is not None:
            with contextlib.suppress(NatsError, OSError):
                await current.unsubscribe()
