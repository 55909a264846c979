"""The daemon itself: killed, stopped for a while, its clock moved."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from support import require_program
from support.daemon import Daemon
from support.daemon_state import eventually_async
from support.fault_load import INTERVAL_SECONDS, LATE_SECONDS, until
from support.faults import case, lasting

NewDaemon = Callable[..., Awaitable[Daemon]]
HALF_AN_HOUR = timedelta(minutes=30)


async def test_the_daemon_is_killed(new_daemon: NewDaemon) -> None:
    daemon = await new_daemon()
    async with case("daemon: killed (SIGKILL), and started again", daemon) as this:
        assert daemon.process is not None
        with this.fault():
            daemon.process.kill()
            await asyncio.to_thread(daemon.wait)
            await asyncio.to_thread(daemon.start)
        await this.whole()
        await this.nothing_lost()
        this.nobody_judged()
        this.bounded()
        this.note(heartbeats="not heard; nobody is judged", remark="Its NATS server ends with it.")


async def test_the_daemon_is_stopped_for_a_while(new_daemon: NewDaemon) -> None:
    """Not one heartbeat comes from before the stop until well after it, and nobody is judged by that."""
    daemon = await new_daemon()
    async with case("daemon: paused (SIGSTOP), and continued", daemon) as this:
        assert daemon.process is not None
        this.load.beating = False
        silent_since = asyncio.get_running_loop().time()
        with this.fault():
            os.kill(daemon.process.pid, signal.SIGSTOP)
            try:
                await asyncio.sleep(lasting(20, 30))
            finally:
                os.kill(daemon.process.pid, signal.SIGCONT)
        asked = len(this.book.reads)
        await until(lambda: len(this.book.reads) >= asked + 10)
        early = [each for each in this.book.judged if each.at < this.ended + LATE_SECONDS - 0.5]
        assert not early, early[:3]
        # Silence counts again from the end of the gap.
        await until(lambda: any(each.what == "offline" for each in this.book.judged))
        offline = next(each.at for each in this.book.judged if each.what == "offline")
        assert this.ended - silent_since > 3 * INTERVAL_SECONDS, "else it would not show"
        assert offline - this.ended >= 3 * INTERVAL_SECONDS - 1
        this.load.beating = True
        await this.whole()
        await this.nothing_lost()
        this.bounded()
        this.note(heartbeats="none sent here; nobody is judged by the gap")


def faketime() -> Path:
    """The library of Debian's package, which is put before the system's own clock."""
    require_program("faketime")
    return next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))


async def seen(daemon: Daemon, path: str) -> str:
    """When a service was last heard, once it was."""
    last = (await asyncio.to_thread(daemon.get, path))["last_seen"]
    assert last
    return str(last)


@pytest.mark.parametrize(("jump", "words"), [("+3600", "forward by an hour"), ("-3600", "back by an hour")])
async def test_the_wall_clock_is_set(new_daemon: NewDaemon, tmp_path: Path, jump: str, words: str) -> None:
    library = faketime()
    file = tmp_path / "clock"
    file.write_text("+0")
    daemon = await new_daemon(
        LD_PRELOAD=str(library),
        FAKETIME_TIMESTAMP_FILE=str(file),
        FAKETIME_CACHE_DURATION="1",
        FAKETIME_FORCE_MONOTONIC_FIX="0",
        FAKETIME_DONT_FAKE_MONOTONIC="1",
    )
    async with case(f"daemon: wall clock set {words}", daemon) as this:
        before = await eventually_async(partial(seen, daemon, this.load.steady_path))
        with this.fault():
            new = file.with_name("clock-new")
            new.write_text(jump)
            new.replace(file)
            await asyncio.sleep(lasting(4, 20))
            if jump.startswith("+"):

                async def felt() -> None:
                    after = (await asyncio.to_thread(daemon.get, this.load.steady_path))["last_seen"]
                    assert datetime.fromisoformat(after) - datetime.fromisoformat(before) > HALF_AN_HOUR

                await eventually_async(felt)
        this.nobody_judged()
        # Whoever falls silent now is found out, however the clock stands.
        this.load.beating = False
        await until(lambda: any(each.what == "offline" for each in this.book.judged))
        this.load.beating = True
        await this.whole()
        await this.nothing_lost()
        this.bounded()
        remark = "Liveness goes by a clock that is never set. Tokens end by the wall clock."
        this.note(heartbeats="heard; nobody is judged by the jump", remark=remark)
