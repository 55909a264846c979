"""A stream from some point on, for ever and without a gap; at first the newest message per subject, or all."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from jetway.adapters.nats.jetstream import STREAM_NOT_FOUND, ApiError, JetStream
from jetway.adapters.nats.pull import Delivered, Pull
from jetway.core.errors import PortError, StartupError

log = structlog.get_logger()

_INACTIVE_SECONDS = 300
"""After this the server forgets a consumer that nobody pulls from, for example one of a killed daemon."""
_DELETE_SECONDS = 1.0
_MISSING_SECONDS = 10.0
"""A member of a cluster may need a while until it knows its streams. After this it has none."""


class StreamReplacedError(StartupError):
    """The stream is not the one that was being read: deleted and made anew, or restored from a backup.

    What is in memory may be of another history. It is fatal: the program has to start again and read all.
    """


@dataclass(frozen=True, slots=True)
class Stretch:
    """Messages in order. `caught_up`: nothing newer was waiting when the last of them was delivered."""

    messages: Sequence[Delivered]
    caught_up: bool


class Tail:
    """Reads `subjects` of `stream` after the sequence `after`, with consumers that last as long as the link.

    `created`: when the stream was made, as the server tells it; empty to learn it at the first attachment.
    `whole`: every message from the beginning, not the newest per subject alone.
    `headers_only`: without their data.
    """

    def __init__(
        self,
        jetstream: JetStream,
        stream: str,
        subjects: str,
        *,
        after: int = 0,
        created: str = "",
        name: str = "",
        whole: bool = False,
        headers_only: bool = False,
    ) -> None:
        self._js = jetstream
        self._stream = stream
        self._subjects = subjects
        self._last = after
        self._first_policy = "all" if whole else "last_per_subject"
        self._headers_only = headers_only
        self._created = created
        self._expected = 1
        self._announce = False
        self._missing_since: float | None = None
        self._pull = Pull(
            jetstream,
            stream,
            task_name=f"nats-tail-{name or stream}",
            attach=self._attach,
            accept=self._accept,
            ephemeral=True,
        )

    async def next(self, limit: int = 500) -> Stretch:
        """The next messages; may be empty when the reader is caught up. Raises StreamReplacedError."""
        await self._pull.open()
        while True:
            messages = await self._pull.take(limit, None)
            drained = not self._pull.queued
            announced, self._announce = self._announce and drained, self._announce and not drained
            if messages:
                return Stretch(messages, drained and messages[-1].pending == 0)
            if announced:
                return Stretch((), caught_up=True)

    async def close(self) -> None:
        """End, and let the server forget the consumer."""
        consumer = self._pull.consumer
        await self._pull.close()
        if consumer and self._js.connection.connected:
            with contextlib.suppress(PortError):
                await self._js.call(f"CONSUMER.DELETE.{self._stream}.{consumer}", timeout=_DELETE_SECONDS)

    async def _attach(self) -> str:
        await self._check_stream()
        config: dict[str, object] = {
            "ack_policy": "none",
            "filter_subject": self._subjects,
            "inactive_threshold": _INACTIVE_SECONDS * 10**9,
            "mem_storage": True,
            "num_replicas": 1,
            "deliver_policy": self._first_policy,
            "headers_only": self._headers_only,
        }
        if self._last:
            config |= {"deliver_policy": "by_start_sequence", "opt_start_seq": self._last + 1}
        body = {"stream_name": self._stream, "config": config}
        answer = await self._js.call(f"CONSUMER.CREATE.{self._stream}", body)
        self._expected = 1
        if not answer.get("num_pending"):
            self._announce = True
            self._pull.nudge()
        return str(answer["name"])

    async def _check_stream(self) -> None:
        info = await self._find_stream()
        created, newest = str(info["created"]), int(info["state"]["last_seq"])
        if newest < self._last:
            raise StreamReplacedError(
                f"the stream {self._stream} ends at {newest}, but {self._last} was read: "
                "it was replaced or restored"
            )
        if self._created and created != self._created:
            raise StreamReplacedError(f"the stream {self._stream} was replaced at {created}")
        self._created = created

    async def _find_stream(self) -> dict[str, Any]:
        """A server that came back without the stream has lost it: waiting would not bring it back."""
        try:
            info = await self._js.call(f"STREAM.INFO.{self._stream}")
        except PortError as error:
            if not isinstance(error, ApiError) or error.err_code != STREAM_NOT_FOUND:
                self._missing_since = None
                raise
            now = asyncio.get_running_loop().time()
            self._missing_since = now if self._missing_since is None else self._missing_since
            if self._created and now - self._missing_since >= _MISSING_SECONDS:
                raise StreamReplacedError(f"the stream {self._stream} is not there any more") from error
            raise
        self._missing_since = None
        return info

    def _accept(self, message: Delivered) -> bool:
        # Nothing is acknowledged, so nothing lost on the way comes again by itself.
        if message.delivery != self._expected:
            log.warning("a gap in a delivery", action="nats_tail_gap", stream=self._stream, after=self._last)
            self._pull.lose_consumer()
            return False
        self._expected += 1
        self._last = message.sequence
        return True
