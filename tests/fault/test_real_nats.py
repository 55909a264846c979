"""The NATS server that the daemon runs itself: killed, paused, emptied, without room."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from support.daemon import Daemon
from support.fault_load import until
from support.faults import case, filled, lasting, refusal, tmpfs

NewDaemon = Callable[..., Awaitable[Daemon]]


async def test_the_embedded_server_is_killed(new_daemon: NewDaemon) -> None:
    daemon = await new_daemon()
    async with case("embedded nats-server: killed", daemon) as this:
        old = daemon.nats_pid
        with this.fault():
            os.kill(old, signal.SIGKILL)
            # Or it was back before anybody who asked could notice.
            await until(
                lambda: (
                    this.said(this.book.readyz, "503")
                    or this.said(this.book.creates, "503")
                    or "nats_server_restarted" in daemon.log_text()
                )
            )
        await this.whole()
        assert daemon.nats_pid != old
        await this.nothing_lost()
        this.nobody_judged()
        this.bounded()
        this.note(heartbeats="not heard; nobody is judged", remark="The daemon starts it again at once.")


async def test_the_embedded_server_is_paused(new_daemon: NewDaemon) -> None:
    daemon = await new_daemon()
    async with case("embedded nats-server: paused (SIGSTOP)", daemon) as this:
        server = daemon.nats_pid
        with this.fault():
            os.kill(server, signal.SIGSTOP)
            try:
                await asyncio.sleep(lasting(10, 30))
                await this.until_said(this.book.readyz, "503")
            finally:
                os.kill(server, signal.SIGCONT)
        await this.whole()
        await this.nothing_lost()
        assert this.said(this.book.readyz, "503")
        assert not this.said(this.book.healthz, "503")
        this.nobody_judged()
        this.bounded()
        this.note(heartbeats="not heard; nobody is judged")


async def test_the_embedded_server_loses_its_store_while_the_daemon_is_down(new_daemon: NewDaemon) -> None:
    daemon = await new_daemon()
    made = await asyncio.to_thread(daemon.create, "poller", "site-a")
    assert await asyncio.to_thread(daemon.stop) == 0
    store, kept = daemon.state / "nats" / "jetstream", daemon.state / "kept"
    store.rename(kept)
    name = "embedded nats-server: its store deleted while the daemon is down"
    said = await asyncio.to_thread(refusal, name, daemon)
    assert "restore NATS from a backup" in said
    # Nothing was made in place of what is missing: what is put back is what was there.
    shutil.rmtree(store)
    kept.rename(store)
    await asyncio.to_thread(daemon.start)
    assert daemon.service("poller", "site-a")["package_id"] == made["package"]["package_id"]


async def test_the_embedded_server_loses_its_store_while_the_daemon_runs(new_daemon: NewDaemon) -> None:
    daemon = await new_daemon()
    async with case("embedded nats-server: its store deleted while the daemon runs", daemon) as this:
        server, store, kept = daemon.nats_pid, daemon.state / "nats" / "jetstream", daemon.state / "kept"
        with this.fault():
            os.kill(server, signal.SIGSTOP)
            await asyncio.to_thread(store.rename, kept)
            os.kill(server, signal.SIGKILL)
            killed = time.monotonic()
            assert await asyncio.to_thread(daemon.wait, 60) == 1
        assert this.said(this.book.readyz, "503")
        assert "is not there any more" in daemon.log_text()
        assert "Traceback" not in daemon.log_text()
        said = await asyncio.to_thread(refusal, f"{this.name}, at the next start", daemon)
        assert "restore NATS from a backup" in said
        assert not any(each.at > killed and each.what.startswith("201") for each in this.book.creates)
        await asyncio.to_thread(shutil.rmtree, store)
        await asyncio.to_thread(kept.rename, store)
        await asyncio.to_thread(daemon.start)
        this.ended = asyncio.get_running_loop().time()
        await this.whole()
        await this.nothing_lost()
        this.nobody_judged()
        this.bounded()
        this.note(
            heartbeats="nobody is judged",
            after=f"restored from a backup and started: {this.whole_after}",
            remark="The daemon ends with status 1 once the store has been missing for 10 s.",
        )


async def test_the_embedded_server_has_no_room_left(new_daemon: NewDaemon, tmp_path: Path) -> None:
    with tmpfs(tmp_path / "daemon-0" / "state" / "nats", 48) as small:
        daemon = await new_daemon()
        async with case("embedded nats-server: disk full", daemon) as this:
            with this.fault():
                async with filled(small):
                    await this.until_felt()
                    await asyncio.sleep(lasting(3, 20))
                    await this.until_said(this.book.readyz, "503")
            await this.whole()
            await this.reconcile()
            await this.nothing_lost(trail=False)
            this.nobody_judged()
            this.bounded()
            assert this.said(this.book.readyz, "503")
            assert "nats_server_mended" in daemon.log_text()
            this.note(
                heartbeats="heard; nobody is judged",
                remark="Once there is room the daemon starts the server again: by itself it would go on refusing. "
                "The stream of events, a view that the server keeps, may miss a revision that was written in the "
                "moment when the disk became full, so here only the table of events is compared, after a "
                "reconcile, which appends to the stream what it misses.",
            )
        await asyncio.to_thread(daemon.stop)
