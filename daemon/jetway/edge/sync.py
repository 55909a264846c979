"""Keep the mirror up to date over one connection: hear the changes, then read what is there.

In this order: a change between the two is then heard, at worst twice, and the mirror sorts that out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping

import structlog
from nats.aio.msg import Msg

from jetway.edge.joined import Joined
from jetway.edge.link import Link, LinkError
from jetway.edge.mirror import Applied, Mirror

log = structlog.get_logger()

_READS_AT_ONCE = 16
_MARKERS = frozenset({"DEL", "PURGE"})


class Sync:
    """One connection's news for the mirror."""

    def __init__(self, link: Link, joined: Joined, mirror: Mirror, own_changed: Callable[[], None]) -> None:
        self._link = link
        self._joined = joined
        self._mirror = mirror
        self._own_changed = own_changed
        self._slots = asyncio.Semaphore(_READS_AT_ONCE)

    async def listen(self) -> None:
        """Subscribe to the live subjects; the server has them when this returns. Raises LinkError."""
        for subject in self._joined.config.live_subjects:
            await self._link.subscribe(subject, self._on_live)
        await self._link.flush()

    async def read_own(self) -> None:
        """Read the own document as it stands. Raises LinkError."""
        await self._read(self._joined.own_key)

    async def read_children(self, *, only_changes: bool) -> None:
        """Read the children's documents: all of them, or those that came or went. Raises LinkError."""
        listed, present = self._mirror.listed_children(), self._mirror.present_children()
        strays = present - listed
        wanted = (listed - present) | strays if only_changes else listed | strays
        # A child without document and marker is forgotten only when its parent's document leaves it out too.
        droppable = strays if self._mirror.own is not None else set()
        await _together(self._read(key, forget_missing=key in droppable) for key in sorted(wanted))

    async def _on_live(self, message: Msg) -> None:
        key = message.subject.removeprefix(self._joined.live_prefix)
        # Any host can have the server send the answer to a question of its own here: it names another key.
        if (message.headers or {}).get("Nats-Subject") != f"$KV.{self._joined.config.watch_bucket}.{key}":
            log.warning("not a change of this document", action="config_foreign", key=key)
            return
        self._apply(key, message)

    async def _read(self, key: str, *, forget_missing: bool = False) -> None:
        bucket = self._joined.config.watch_bucket
        subject = f"$KV.{bucket}.{key}"
        async with self._slots:
            message = await self._link.request(f"$JS.API.DIRECT.GET.KV_{bucket}.{subject}")
        headers = message.headers or {}
        status = headers.get("Status", "")
        if status == "404":
            if forget_missing:
                self._say(key, self._mirror.forget(key))
            return
        if status or headers.get("Nats-Subject") != subject:
            raise LinkError(f"reading {key}: {headers.get('Description') or 'an answer of another kind'}")
        self._apply(key, message)

    def _apply(self, key: str, message: Msg) -> None:
        headers: Mapping[str, str] = message.headers or {}
        sequence = _number(headers.get("Nats-Sequence", ""))
        try:
            if headers.get("KV-Operation") in _MARKERS:
                applied = self._mirror.remove(key, sequence)
            else:
                applied = self._mirror.put(key, message.data, sequence)
        except OSError as error:
            log.error("cannot write a copy", action="copy_failed", key=key, reason=error.strerror)
            return
        self._say(key, applied)
        if key == self._joined.own_key and applied in (Applied.WRITTEN, Applied.REMOVED):
            self._own_changed()

    def _say(self, key: str, applied: Applied) -> None:
        if applied in (Applied.WRITTEN, Applied.REMOVED):
            log.info("document " + applied.value, action=f"config_{applied.value}", key=key)
        elif applied in (Applied.MALFORMED, Applied.FULL):
            log.warning("document left out", action=f"config_{applied.value}", key=key)


async def _together(reads: Iterable[Coroutine[None, None, None]]) -> None:
    """Run all; the first failure ends the others."""
    try:
        async with asyncio.TaskGroup() as group:
            for read in reads:
                group.create_task(read)
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() else 0
