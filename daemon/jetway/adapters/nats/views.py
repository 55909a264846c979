"""The views that the server keeps, against the streams that they are made of.

A source's `lag` reads 0 while it is hundreds behind: it is what the server last heard. Its `seq` runs before what
is stored. What counts is the newest message that the view has: it names the sequence that it had in its origin. A
view that is *ahead* of its origin has seen writes that the origin lost (a power cut, a restored backup); it
would pass over new ones until the origin is there again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jetway.adapters.nats.jetstream import JetStream, Stored
from jetway.adapters.nats.ledger import ChangeDecoder
from jetway.adapters.nats.names import EVENTS_PREFIX, GATEWAY_EVENTS_PREFIX, Names, stream_of, subject_of
from jetway.adapters.nats.passed_over import LedgerGaps, origin_of
from jetway.adapters.nats.pull import Delivered
from jetway.core.ids import ServiceType
from jetway.ports import Change, PassedOver, ViewState


@dataclass(frozen=True, slots=True)
class _Source:
    stream: str
    becomes: Sequence[str]
    """Under which subjects of the view."""
    takes: str = ""
    """Which subjects of it, where it is not all."""


class NatsViews:
    """Implements `ports.Views`."""

    def __init__(self, jetstream: JetStream, names: Names) -> None:
        self._js = jetstream
        self._ledger = stream_of(names.registry_bucket)
        self._decoder = ChangeDecoder(names.registry_bucket)
        self._gaps = LedgerGaps(jetstream, names)
        config, watch = names.config_bucket, names.watch_bucket
        ledger = _Source(
            stream_of(names.registry_bucket), [f"{EVENTS_PREFIX}{kind.value}.>" for kind in ServiceType]
        )
        audit = _Source(names.audit_stream, [f"{GATEWAY_EVENTS_PREFIX}>"])
        documents = _Source(stream_of(config), [subject_of(watch, ">")], takes=subject_of(config, "*.json"))
        self._views: Mapping[str, tuple[str, Sequence[_Source]]] = {
            "events": (names.events_stream, (ledger, audit)),
            "config_watch": (stream_of(watch), (documents,)),
        }

    async def state(self) -> Mapping[str, ViewState]:
        """By name: `events` (of the ledger) and `config_watch` (of the config bucket)."""
        states = await asyncio.gather(*(self._state(*view) for view in self._views.values()))
        return dict(zip(self._views, states, strict=True))

    async def passed_over(self) -> PassedOver:
        """What the view `events` passed over."""
        return await self._gaps.look()

    async def origin(self, sequence: int) -> Change | None:
        """What the ledger still has at that sequence."""
        stored = await self._js.read_next(self._ledger, ">", sequence)
        if stored is None or stored.sequence != sequence:
            return None
        headers = dict(stored.headers)
        return self._decoder.decode(Delivered(stored.subject, stored.data, "", "", sequence, 0, 0, headers))

    async def wanted(self, name: str) -> Sequence[int]:
        """Of each source of a view, the sequence of the newest message that the view is to take from there."""
        return [(await self._end(source))[0] for source in self._views[name][1]]

    async def taken(self, name: str) -> Sequence[int]:
        """Of each source of a view, the sequence up to which the view holds what it takes from there."""
        return (await self._taken(*self._views[name]))[0]

    async def _taken(self, view: str, sources: Sequence[_Source]) -> tuple[Sequence[int], _Stored]:
        stored = _Stored(self._js, view, await self._js.call(f"STREAM.INFO.{view}"))
        newest = await stored.read(">")
        return [await stored.taken(source, newest) for source in sources], stored

    async def _state(self, view: str, sources: Sequence[_Source]) -> ViewState:
        # The view is asked first: what it takes between the two questions must not look like being ahead.
        taken, stored = await self._taken(view, sources)
        ends = [await self._end(source) for source in sources]
        return ViewState(
            behind=sum(max(0, wanted - done) for done, (wanted, _) in zip(taken, ends, strict=True)),
            ahead=max(max(0, done - last) for done, (_, last) in zip(taken, ends, strict=True)),
            taken=taken[0],
            last=stored.last,
        )

    async def _end(self, source: _Source) -> tuple[int, int]:
        """The sequences of the newest message that the view takes, and of the newest at all."""
        state = (await self._js.call(f"STREAM.INFO.{source.stream}"))["state"]
        last = int(state["last_seq"])
        if not source.takes:
            return last if state["messages"] else 0, last
        newest = await self._js.read_last(source.stream, source.takes)
        return newest.sequence if newest else 0, last


class _Stored:
    """What one view holds, looked at once."""

    def __init__(self, jetstream: JetStream, view: str, info: Mapping[str, Any]) -> None:
        self._js = jetstream
        self._view = view
        self._told = {source["name"]: int(source.get("seq", 0)) for source in info.get("sources") or ()}
        self._has_aged = int(info["state"]["first_seq"]) > 1
        self.last = 0
        """The newest sequence that was met."""

    async def taken(self, source: _Source, newest: Stored | None) -> int:
        """The source's sequence up to which the view holds what it takes from there."""
        origin = _origin(newest, source.stream)
        if newest is not None and not origin:  # it is another source's
            origin = max([_origin(await self.read(subject), source.stream) for subject in source.becomes])
        # Where all of it is older than the view keeps, the server's own account is what is left.
        return origin or (self._told.get(source.stream, 0) if self._has_aged else 0)

    async def read(self, subject: str) -> Stored | None:
        """The newest message on the subject."""
        stored = await self._js.read_last(self._view, subject)
        self.last = max(self.last, stored.sequence if stored else 0)
        return stored


def _origin(stored: Stored | None, stream: str) -> int:
    """The sequence that the message had in `stream`; 0 where it is from elsewhere."""
    return origin_of(stored.headers, stream) if stored else 0
