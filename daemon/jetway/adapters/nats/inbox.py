"""Questions and answers over one subscription: all of them fail at once when the link goes."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable
from typing import Protocol

from nats.aio.msg import Msg

from jetway.core.errors import OutcomeUnknownError, UnavailableError


class Publish(Protocol):
    """`Connection.publish`."""

    def __call__(
        self, subject: str, data: bytes = b"", *, reply: str = "", headers: dict[str, str] | None = None
    ) -> Awaitable[None]:
        """Send without waiting."""
        ...


class Inbox:
    """The questions in flight, by a number that is the last token of their reply subject."""

    LIMIT = 10_000
    """Questions that may be in flight at one time; a further one is refused."""

    def __init__(self, publish: Publish) -> None:
        self._publish = publish
        self._prefix = f"_INBOX.{secrets.token_hex(12)}"
        self._waiting: dict[str, asyncio.Future[Msg]] = {}
        self._count = 0

    @property
    def pattern(self) -> str:
        """What to subscribe to."""
        return f"{self._prefix}.*"

    def fresh(self) -> str:
        """Another subject for replies, outside `pattern`."""
        return f"_INBOX.{secrets.token_hex(12)}"

    def take(self, message: Msg) -> None:
        """An answer came."""
        future = self._waiting.pop(message.subject.rpartition(".")[2], None)
        if future is not None and not future.done():
            future.set_result(message)

    def fail_all(self) -> None:
        """The link is gone: no answer will come."""
        waiting, self._waiting = self._waiting, {}
        for future in waiting.values():
            if not future.done():
                future.set_exception(OutcomeUnknownError("the connection to NATS went away"))

    async def ask(self, subject: str, data: bytes, headers: dict[str, str] | None, timeout: float) -> Msg:
        """Send the question and wait up to `timeout` seconds for its answer."""
        if len(self._waiting) >= self.LIMIT:
            raise UnavailableError("too many questions to NATS are waiting for an answer")
        self._count += 1
        number = str(self._count)
        future: asyncio.Future[Msg] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        try:
            await self._publish(subject, data, reply=f"{self._prefix}.{number}", headers=headers)
            async with asyncio.timeout(timeout):
                answer = await future
        except TimeoutError as error:
            raise OutcomeUnknownError(f"NATS did not answer within {timeout:g} s") from error
        finally:
            self._waiting.pop(number, None)
        if not answer.data and (answer.headers or {}).get("Status") == "503":
            raise UnavailableError("nobody answers at NATS: JetStream is off, or the stream is not there")
        return answer
