"""The database file: locked, full, read-only, corrupt, deleted. It is derived, so it is a lag and no outage."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from support.daemon import Daemon
from support.faults import Case, case, filled, lasting, refusal, remount, tmpfs

REMADE = (
    "Earlier rows and events are made anew by reconcile, for which the test asks; by itself the daemon does so a "
    "minute after its start."
)
NewDaemon = Callable[..., Awaitable[Daemon]]


@pytest.fixture
def apart(tmp_path: Path) -> Iterator[Path]:
    """The first daemon's database stands in a small file system of its own, by way of a link."""
    state = tmp_path / "daemon-0" / "state"
    with tmpfs(tmp_path / "small", 16) as small:
        state.mkdir(parents=True, mode=0o700)
        (small / "registry.db").touch(0o600)
        (state / "registry.db").symlink_to(small / "registry.db")
        yield small


def overwrite(file: Path, start: int) -> None:
    """Random bytes over everything from `start` on."""
    with file.open("r+b") as stream:
        size = os.fstat(stream.fileno()).st_size
        stream.seek(start)
        stream.write(os.urandom(max(0, size - start)))


def require_no_outage(this: Case) -> None:
    """Whatever ails the rows, creations are acknowledged, reads answered, heartbeats heard."""
    assert {each.what.split(",")[0] for each in this.meanwhile(this.book.creates)} <= {"201"}
    assert {each.what for each in this.meanwhile(this.book.reads)} == {"200"}
    # A ledger without an answer for two seconds, on a machine that stands still, is told; no other reason is good.
    down = [each.what for each in this.meanwhile(this.book.readyz) if each.what.startswith("503")]
    assert len(down) <= 3, down
    assert set(down) <= {"503 unavailable (nats)"}, down
    assert this.said(this.book.readyz, "200 degraded")
    this.nobody_judged()
    this.bounded()


async def test_another_process_holds_the_write_lock(new_daemon: NewDaemon) -> None:
    daemon = await new_daemon()
    async with case("database: locked by another process", daemon) as this:
        file = daemon.state / "registry.db"
        with (
            this.fault(),
            contextlib.closing(sqlite3.connect(file, timeout=60, isolation_level=None)) as other,
        ):
            other.execute("BEGIN IMMEDIATE")
            await asyncio.sleep(lasting(7, 30))
            await this.until_said(this.book.readyz, "200 degraded")
            other.execute("ROLLBACK")
        await this.whole()
        await this.nothing_lost()
        require_no_outage(this)
        this.note(heartbeats="heard")


async def test_the_database_is_full(apart: Path, new_daemon: NewDaemon) -> None:
    daemon = await new_daemon()
    async with case("database: disk full", daemon) as this:
        with this.fault():
            async with filled(apart):
                await this.until_felt()
                await asyncio.sleep(lasting(3, 30))
                await this.until_said(this.book.readyz, "200 degraded")
        await this.whole()
        await this.nothing_lost()
        require_no_outage(this)
        this.note(heartbeats="heard")
    await asyncio.to_thread(daemon.stop)


async def test_the_database_is_read_only_at_the_start(apart: Path, new_daemon: NewDaemon) -> None:
    daemon = await new_daemon()
    made = await asyncio.to_thread(daemon.create, "poller", "site-a")
    assert await asyncio.to_thread(daemon.stop) == 0
    remount(apart, "ro")
    said = await asyncio.to_thread(refusal, "database: read-only at the start", daemon)
    assert "registry.db" in said
    assert "ead-only" in said
    remount(apart, "rw")
    await asyncio.to_thread(daemon.start)
    assert daemon.service("poller", "site-a")["package_id"] == made["package"]["package_id"]
    assert await asyncio.to_thread(daemon.stop) == 0


async def test_the_database_is_corrupt_at_the_start(new_daemon: NewDaemon) -> None:
    daemon = await new_daemon()
    async with case("database: corrupt at the start, then moved away", daemon) as this:
        await this.load.stop()
        assert await asyncio.to_thread(daemon.stop) == 0
        file = daemon.state / "registry.db"
        overwrite(file, 0)
        said = await asyncio.to_thread(refusal, "database: corrupt at the start", daemon)
        assert "registry.db" in said
        await asyncio.to_thread(file.rename, file.with_name("corrupt.db"))
        await asyncio.to_thread(daemon.start)
        await this.reconcile()
        await this.nothing_lost()


async def test_the_database_becomes_corrupt(new_daemon: NewDaemon) -> None:
    daemon = await new_daemon()
    async with case("database: bytes overwritten while the daemon runs", daemon) as this:
        file = daemon.state / "registry.db"
        with this.fault():
            # Into the file itself and not into pages that SQLite remembers.
            with contextlib.closing(sqlite3.connect(file, timeout=60)) as other:
                other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            overwrite(file, 4096)
            await this.until_felt()
            await asyncio.sleep(lasting(3, 30))
            await this.until_said(this.book.readyz, "200 degraded")
            require_no_outage(this)
            moved = list(daemon.state.glob("registry.db*"))
            await asyncio.to_thread(daemon.stop)
            for each in moved:
                with contextlib.suppress(FileNotFoundError):
                    each.rename(each.with_name(f"corrupt-{each.name}"))
        await asyncio.to_thread(daemon.start)
        await this.whole()
        await this.reconcile()
        await this.nothing_lost()
        this.bounded()
        after = f"file moved away, daemon restarted: {this.whole_after}"
        this.note(heartbeats="heard", after=after, remark=REMADE)


async def test_the_database_is_deleted(new_daemon: NewDaemon) -> None:
    daemon = await new_daemon()
    async with case("database: file deleted while the daemon runs", daemon) as this:
        with this.fault():
            for each in daemon.state.glob("registry.db*"):
                each.unlink()
            await this.until_felt()
            await asyncio.sleep(lasting(3, 30))
            await this.until_said(this.book.readyz, "200 degraded")
            require_no_outage(this)
            await asyncio.to_thread(daemon.stop)
        await asyncio.to_thread(daemon.start)
        await this.whole()
        await this.reconcile()
        await this.nothing_lost()
        this.bounded()
        after = f"daemon restarted: {this.whole_after}"
        this.note(heartbeats="heard", after=after, remark=REMADE)
