"""Messages from and to edge hosts and webhooks."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple, Protocol

_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class HeartbeatMessage(NamedTuple):
    """A message on a heartbeat subject, as it arrived. A tuple, for tens of thousands may come in a second."""

    subject: str
    data: bytes
    reply: str = ""
    headers: Mapping[str, str] = _NO_HEADERS


class Replies(Protocol):
    """Answers to requests."""

    async def reply(self, subject: str, data: bytes) -> None:
        """Send, without waiting for anything."""
        ...


class Answers(Protocol):
    """Answers to questions, which say in headers what became of them."""

    async def answer(self, subject: str, data: bytes, headers: Mapping[str, str]) -> None:
        """Send, without waiting for anything. Raises PortError."""
        ...


class Ears(Protocol):
    """What hears heartbeats."""

    @property
    def dropped(self) -> int:
        """Messages that came and were lost because there were too many."""
        ...

    async def echo(self, timeout: float) -> None:
        """Return once a message sent now has come back the way that heartbeats come.

        Raises UnavailableError when none comes back in time.
        """
        ...


class AlertSender(Protocol):
    """Somebody outside who wants to know of troubles."""

    async def send(self, alert_id: str, kind: str, body: bytes) -> None:
        """One attempt. Raises RejectedError where another one is of no use, else UnavailableError."""
        ...
