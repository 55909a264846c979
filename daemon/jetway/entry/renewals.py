"""The renewal door: a host asks over NATS for new credentials, and is answered in its own inbox and nowhere else.

As with heartbeats, the server checks no permission on a reply subject, and the daemon's own rights are wide.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from functools import partial

import structlog

from jetway.core.errors import PortError, RefusedError
from jetway.core.grants import RENEW_PREFIX
from jetway.core.heartbeat import MalformedError, parse_subject
from jetway.core.renewal import RenewalAnswer, RenewalRefusal, encode_answer, parse_request
from jetway.entry.shares import cost, refuse_the_servers
from jetway.ports import HeartbeatMessage, Replies
from jetway.services.allowance import Allowance
from jetway.services.renew import Renewer

log = structlog.get_logger()

_AT_ONCE, _AT_ONCE_EACH = 256, 4
"""Renewals under way, in all and of one host; another one is dropped and counted, and its host asks again."""
_CHECKING_BYTES = 64 * 1024
"""What a request costs beside its bytes, to parse, check and answer it: 80 are read in five seconds."""


class RenewalDoor:
    """Parses messages under `jetway.renew` and hands them to the renewer."""

    def __init__(self, renewer: Renewer, replies: Replies, shares: Allowance) -> None:
        """`shares` are those of `jetway.entry.shares`: heartbeats and renewals of a host have one."""
        self._renewer = renewer
        self._replies = replies
        self._shares = shares
        self._working: set[asyncio.Task[None]] = set()
        self._working_for: Counter[str] = Counter()

    def take(self, message: HeartbeatMessage) -> None:
        """Take one message in. Never raises for anything that a sender can do."""
        address = message.subject.removeprefix(f"{RENEW_PREFIX}.")
        refused = refuse_the_servers(message, address, self._shares)
        if refused or not self._shares.take(address, cost(message)):
            self._renewer.count(refused or "too_much")
            return
        try:
            lineage = parse_subject(message.subject, RENEW_PREFIX)
        except MalformedError:
            self._renewer.count("malformed")
            return
        if not message.reply.startswith(lineage.inbox_prefix):
            self._renewer.count("foreign_reply")
            return
        if len(self._working) >= _AT_ONCE or self._working_for[address] >= _AT_ONCE_EACH:
            self._renewer.count("dropped")
            return
        self._shares.charge(address, _CHECKING_BYTES)
        task = asyncio.get_running_loop().create_task(self._answer(message), name="renewal")
        self._working.add(task)
        self._working_for[address] += 1
        task.add_done_callback(partial(self._answered, address))

    def _answered(self, address: str, task: asyncio.Task[None]) -> None:
        self._working.discard(task)
        self._working_for[address] -= 1
        if not self._working_for[address]:
            del self._working_for[address]

    async def drain(self) -> None:
        """Wait for renewals under way."""
        if self._working:
            await asyncio.wait(self._working, timeout=2)

    async def _answer(self, message: HeartbeatMessage) -> None:
        try:
            await self._replies.reply(message.reply, encode_answer(await self._renew(message)))
        except PortError as error:
            self._renewer.count("answer_failed")
            log.info("a renewal's answer was not sent", action="renewal_answer_failed", error=str(error))
        except Exception:
            self._renewer.count("failed")
            log.exception("a renewal was not handled", action="renewal_failed")

    async def _renew(self, message: HeartbeatMessage) -> RenewalAnswer | RenewalRefusal:
        try:
            return await self._renewer.renew(parse_request(message.data, message.subject))
        except MalformedError as error:
            self._renewer.count("malformed")
            return RenewalRefusal(error="malformed", detail=str(error))
        except RefusedError as error:
            return RenewalRefusal(error=error.refused.code.value, detail=error.refused.why)
        except PortError as error:
            self._renewer.count("unavailable")
            log.info("a renewal could not be made", action="renewal_unavailable", error=str(error))
            return RenewalRefusal(
                error="unavailable", detail="the gateway cannot write now: ask again shortly"
            )
