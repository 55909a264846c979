"""That open pages are told of changes: of theirs alone, in turns, and by one watcher for all."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from jetway.core.errors import RefusedError
from jetway.core.ids import ServiceKey, ServiceType
from jetway.entry.web import pulse as module
from jetway.entry.web.pulse import Listener, Pulse
from jetway.services.catalogue import Catalogue
from jetway.services.index import Index
from jetway.services.watch import Watch

POLLER, AGENT = ServiceKey(ServiceType.POLLER, "p1"), ServiceKey(ServiceType.AGENT, "a1")


class Nobody:
    def record(self, key: ServiceKey) -> None:
        return None


@pytest.fixture
def watch() -> Watch:
    return Watch(Index())


@pytest.fixture
def pulse(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> Pulse:
    monkeypatch.setattr(module, "COALESCE_SECONDS", 0.01)
    return Pulse(watch, cast("Catalogue", Nobody()))


async def told(listener: Listener) -> bool:
    return await listener.next(30)


async def quiet(listener: Listener) -> bool:
    return not await listener.next(0.1)


async def test_a_page_is_told_of_what_it_is_about(watch: Watch, pulse: Pulse) -> None:
    with (
        pulse.listening("") as every,
        pulse.listening("agent.*") as kind,
        pulse.listening("poller.p1") as one,
    ):
        watch.tell(AGENT)
        assert await told(every) and await told(kind)
        assert await quiet(one)
        watch.tell(POLLER)
        assert await told(one)


async def test_one_watches_for_all_and_only_while_somebody_listens(watch: Watch, pulse: Pulse) -> None:
    with pulse.listening(""), pulse.listening(""):
        assert len(watch) == 1
    assert len(watch) == 0
    with pulse.listening("") as again:
        watch.tell(AGENT)
        assert await told(again)
    assert len(watch) == 0


async def test_many_take_turns_and_nobody_is_left_out(
    watch: Watch, pulse: Pulse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TOLD_A_TURN", 1)
    monkeypatch.setattr(module, "COALESCE_SECONDS", 0.3)
    with pulse.listening("") as first, pulse.listening("") as second, pulse.listening("") as third:
        watch.tell(AGENT)
        assert await told(first)
        assert not second._news.is_set() and not third._news.is_set()
        watch.tell(AGENT)  # the first waits behind those that were not told yet
        assert await told(second)
        assert await told(third)
        assert await told(first)


async def test_a_burst_is_told_once_a_turn(watch: Watch, pulse: Pulse) -> None:
    with pulse.listening("") as listener:
        for _ in range(1000):
            watch.tell(AGENT)
        assert await told(listener)
        assert await quiet(listener)


async def test_all_are_let_go_when_the_daemon_stops(watch: Watch, pulse: Pulse) -> None:
    with pulse.listening("agent.a1") as listener:
        await asyncio.sleep(0)
        watch.close()
        assert await told(listener)
        assert listener.closed


async def test_open_pages_are_bounded(pulse: Pulse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_LISTENERS", 1)
    with pulse.listening(""), pytest.raises(RefusedError), pulse.listening(""):
        pass
