"""Hearing: a heartbeat of the daemon's own proves it; what is not proven is not counted against anybody."""

from __future__ import annotations

from jetway.core.errors import UnavailableError
from jetway.core.heartbeat import EMPTY
from jetway.core.liveness import Hearing, Liveness, Thresholds
from jetway.services.hearing import HearingWatch
from jetway.services.presence import PresenceTable
from support.builders import AGENT, NOW, FakeClock, record


class Ears:
    """Implements `ports.Ears`: hears unless it is told not to, and takes no time."""

    def __init__(self) -> None:
        self.dropped = 0
        self.covered = False

    async def echo(self, timeout: float) -> None:
        if self.covered:
            raise UnavailableError("nothing came back")


class World:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.ears = Ears()
        self.table = PresenceTable(self.clock, default_interval=30, thresholds=Thresholds())
        self.table.listening()
        self.watch = HearingWatch(self.ears, self.table, self.clock)
        self.table.note(AGENT, EMPTY, NOW)

    async def pass_seconds(self, seconds: int) -> Liveness:
        for _ in range(seconds):
            self.clock.advance(1)
            await self.watch.prove()
        return self.table.liveness(record())


async def test_while_all_is_heard_silence_counts() -> None:
    world = World()
    assert await world.pass_seconds(61) is Liveness.LATE
    assert await world.pass_seconds(30) is Liveness.OFFLINE
    assert world.watch.trouble == ""


async def test_a_server_that_stands_still_makes_nobody_late_and_is_told() -> None:
    world = World()
    await world.pass_seconds(50)
    world.ears.covered = True
    assert await world.pass_seconds(600) is Liveness.ONLINE
    assert "600 s" in world.watch.trouble
    world.ears.covered = False
    assert await world.pass_seconds(59) is Liveness.ONLINE
    assert world.watch.trouble == ""
    assert await world.pass_seconds(2) is Liveness.LATE


async def test_a_daemon_that_was_stopped_makes_nobody_late_from_the_first_moment_on() -> None:
    world = World()
    await world.pass_seconds(50)
    world.clock.advance(600)
    assert world.table.liveness(record()) is Liveness.ONLINE  # asked before anything else runs
    assert await world.pass_seconds(59) is Liveness.ONLINE
    assert await world.pass_seconds(32) is Liveness.OFFLINE


async def test_a_short_hiccup_is_no_gap() -> None:
    world = World()
    await world.pass_seconds(10)
    began = world.table.hearing
    world.clock.advance(2)
    await world.watch.prove()
    assert began is not None
    told = world.table.hearing
    assert told is not None
    assert (told.since, told.until) == (began.since, began.until), "one proof after a pause is not enough"
    world.clock.advance(0.25)
    await world.watch.prove()
    now = world.clock.monotonic()
    assert world.table.hearing == Hearing(began.since, now, now)


async def test_after_messages_were_dropped_silence_counts_anew() -> None:
    world = World()
    await world.pass_seconds(80)
    world.ears.dropped += 1
    assert await world.pass_seconds(59) is Liveness.ONLINE
    assert await world.pass_seconds(2) is Liveness.LATE


async def test_a_lost_link_ends_no_sooner_than_it_is_told() -> None:
    world = World()
    world.table.deaf()
    assert await world.pass_seconds(600) is Liveness.ONLINE
    assert world.table.hearing is None


async def test_a_server_that_stands_still_from_the_start_makes_nobody_late() -> None:
    world = World()
    world.ears.covered = True
    assert await world.pass_seconds(600) is Liveness.ONLINE
    world.ears.covered = False
    assert await world.pass_seconds(59) is Liveness.ONLINE
    assert await world.pass_seconds(2) is Liveness.LATE


async def test_how_long_nothing_was_heard_is_a_number_and_nought_while_all_is_heard() -> None:
    world = World()
    await world.pass_seconds(50)
    assert world.watch.age_seconds == 0
    world.clock.advance(2)
    assert world.watch.age_seconds == 0, "a hiccup is no gap"
    world.ears.covered = True
    await world.pass_seconds(100)
    assert world.watch.age_seconds == 102
    world.ears.covered = False
    await world.pass_seconds(1)
    assert world.watch.age_seconds == 0
