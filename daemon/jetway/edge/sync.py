"""Keep the mirror up to date over one connection: hear the changes, then read what is there.

In this order: a change between the two is then heard, at worst twice, and the mirror sorts that out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import structlog
from nats.aio.msg import Msg

from jetway.edge.errors import EdgeError
from jetway.edge.joined import Joined
from jetway.edge.link import Link, LinkError
from jetway.edge.mirror import Applied, Mirror

log = structlog.get_logger()

_READS_AT_ONCE = 16
_READ_TIMEOUT = 10.0
"""Seconds: sixteen answers share a link that may be slow."""
_MARKERS = frozenset({"DEL", "PURGE"})


class Sync:
    """One connection's news for the mirror."""

    def __init__(self, link: Link, joined: Joined, mirror: Mirror, own_changed: Callable[[], None]) -> None:
        self._link = link
        self._joined = joined
        self._mirror = mirror
        self._own_changed = own_changed
        self._slots = asyncio.Semaphore(_READS_AT_ONCE)
        self._unread: set[str] = set()
        """Children that were asked for and gave no answer: they alone are asked for again."""
        self._failures = 0
        """How many in a row gave none."""

    async def listen(self) -> None:
        """Subscribe to the live subjects; the server has them when this returns. Raises LinkError."""
        for subject in self._joined.config.live_subjects:
            await self._link.subscribe(subject, self._on_live)
        await self._link.flush()

    async def read_own(self) -> None:
        """Read the own document as it stands. Raises LinkError."""
        await self._read(self._joined.own_key)

    async def read_children(self, *, only_changes: bool) -> None:
        """Read the children's documents: all of them, or those that came or went, or gave no answer before.

        Raises LinkError where one gave none, once the others were read.
        """
        listed, present = self._mirror.listed_children(), self._mirror.present_children()
        strays = present - listed
        wanted = (listed - present) | strays if only_changes else listed | strays
        self._unread = wanted | (self._unread & listed)
        self._failures = 0
        # A child without document and marker is forgotten only when its parent's document leaves it out too.
        droppable = strays if self._mirror.own is not None else set()
        reads = [self._read_child(key, forget_missing=key in droppable) for key in sorted(self._unread)]
        failed = [each for each in await asyncio.gather(*reads, return_exceptions=True) if each]
        if failed:
            raise failed[0]

    async def _read_child(self, key: str, *, forget_missing: bool) -> None:
        async with self._slots:
            if self._failures >= _READS_AT_ONCE:
                raise LinkError("there is no answer")  # of whom many gave none, the others will not either
            try:
                await self._read(key, forget_missing=forget_missing)
            except LinkError:
                self._failures += 1
                raise
        self._failures = 0
        self._unread.discard(key)

    async def _on_live(self, message: Msg) -> None:
        key = message.subject.removeprefix(self._joined.live_prefix)
        # Any host can have the server send the answer to a question of its own here: it names another key.
        if (message.headers or {}).get("Nats-Subject") != f"$KV.{self._joined.config.watch_bucket}.{key}":
            log.warning("not a change of this document", action="config_foreign", key=key)
            return
        self._apply(key, message)

    async def _read(self, key: str, *, forget_missing: bool = False) -> None:
        bucket, api = self._joined.config.watch_bucket, self._joined.config.js_api
        subject = f"$KV.{bucket}.{key}"
        message = await self._link.request(f"{api}.DIRECT.GET.KV_{bucket}.{subject}", timeout=_READ_TIMEOUT)
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
        sequence, own = _number(headers.get("Nats-Sequence", "")), self._mirror.own
        try:
            if headers.get("KV-Operation") in _MARKERS:
                applied = self._mirror.remove(key, sequence)
            else:
                applied = self._mirror.put(key, message.data, sequence)
        except (OSError, EdgeError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            log.error("cannot write a copy", action="copy_failed", key=key, reason=reason)
            if self._mirror.own != own:
                self._own_changed()
            return
        self._say(key, applied)
        if key == self._joined.own_key and applied in (Applied.WRITTEN, Applied.REMOVED):
            self._own_changed()

    def _say(self, key: str, applied: Applied) -> None:
        if applied in (Applied.WRITTEN, Applied.REMOVED):
            log.info("document " + applied.value, action=f"config_{applied.value}", key=key)
        elif applied in (Applied.MALFORMED, Applied.FULL):
            log.warning("document left out", action=f"config_{applied.value}", key=key)


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() else 0
