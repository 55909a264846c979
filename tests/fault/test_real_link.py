"""Somebody else's NATS server, and the way to it: killed for longer, emptied, cut off, swallowed, slow."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from support.daemon import Daemon
from support.faults import Case, case, lasting, refusal
from support.nats_server import NatsServer
from support.proxy import Proxy

NewDaemon = Callable[..., Awaitable[Daemon]]


def external(url: str) -> dict[str, str]:
    return {"JETWAY_NATS__MODE": "external", "JETWAY_NATS__URLS": f'["{url}"]'}


@pytest.fixture
async def proxy(nats_server: NatsServer) -> AsyncIterator[Proxy]:
    """Between the daemon and its NATS server; edge hosts have a way of their own."""
    made = Proxy(nats_server.port)
    await made.start()
    yield made
    await made.stop()


def beyond(proxy: Proxy) -> dict[str, str]:
    return external(f"nats://127.0.0.1:{proxy.port}")


async def require_whole(this: Case, server: NatsServer) -> None:
    await this.whole()
    await this.nothing_lost(server.url)
    this.nobody_judged()
    this.bounded()


async def test_an_external_server_is_away_for_a_while(new_daemon: NewDaemon, nats_server: NatsServer) -> None:
    daemon = await new_daemon(**external(nats_server.url))
    async with case("external nats-server: killed, and started again later", daemon) as this:
        with this.fault():
            await nats_server.kill()
            await asyncio.sleep(lasting(5, 60))
            await this.until_said(this.book.readyz, "503")
            await this.until_said(this.book.creates, "503 `unavailable`")
            await nats_server.start()
        await require_whole(this, nats_server)
        assert this.said(this.book.creates, "503 `unavailable`")
        assert this.said(this.book.readyz, "503")
        this.note(heartbeats="not heard; nobody is judged")


async def test_an_external_server_comes_back_empty_handed(
    new_daemon: NewDaemon, nats_server: NatsServer
) -> None:
    daemon = await new_daemon(**external(nats_server.url))
    store, kept = nats_server.directory / "jetstream", nats_server.directory / "kept"
    async with case("external nats-server: restarted empty-handed while the daemon runs", daemon) as this:
        with this.fault():
            await nats_server.kill()
            await asyncio.to_thread(store.rename, kept)
            killed = time.monotonic()
            await nats_server.start()
            assert await asyncio.to_thread(daemon.wait, 60) == 1
        assert this.said(this.book.readyz, "503")
        assert not any(each.at > killed and each.what.startswith("201") for each in this.book.creates)
        assert "is not there any more" in daemon.log_text()
        said = await asyncio.to_thread(refusal, f"{this.name}, at the next start", daemon)
        assert "restore NATS from a backup" in said
        assert not any((store / "$G" / "streams").glob("*"))
        await nats_server.kill()
        await asyncio.to_thread(shutil.rmtree, store)
        await asyncio.to_thread(kept.rename, store)
        await nats_server.start()
        await asyncio.to_thread(daemon.start)
        this.ended = asyncio.get_running_loop().time()
        await this.whole()
        await this.nothing_lost()
        this.nobody_judged()
        this.bounded()
        this.note(
            heartbeats="nobody is judged",
            after=f"restored from a backup and started: {this.whole_after}",
            remark="The daemon ends with status 1 once the ledger has been missing for 10 s, makes nothing in its "
            "place, and refuses to start until it is there.",
        )


async def test_the_connection_is_cut(new_daemon: NewDaemon, nats_server: NatsServer, proxy: Proxy) -> None:
    daemon = await new_daemon(**beyond(proxy))
    async with case("connection to NATS: cut, new ones refused", daemon, nats_server.url) as this:
        with this.fault():
            await proxy.cut()
            await asyncio.sleep(lasting(5, 120))
            await this.until_said(this.book.readyz, "503")
            await proxy.mend()
        await require_whole(this, nats_server)
        assert this.said(this.book.readyz, "503")
        this.note(heartbeats="not heard; nobody is judged")


async def test_the_connection_swallows_everything(
    new_daemon: NewDaemon, nats_server: NatsServer, proxy: Proxy
) -> None:
    daemon = await new_daemon(**beyond(proxy))
    async with case("connection to NATS: half-open, nothing passes", daemon, nats_server.url) as this:
        with this.fault():
            proxy.swallow()
            await asyncio.sleep(lasting(9, 120))
            await this.until_said(this.book.readyz, "503")
            await proxy.drop()
            await proxy.mend()
        await require_whole(this, nats_server)
        assert this.said(this.book.readyz, "503")
        this.note(heartbeats="not heard; nobody is judged")


async def test_the_connection_is_slow(new_daemon: NewDaemon, nats_server: NatsServer, proxy: Proxy) -> None:
    daemon = await new_daemon(**beyond(proxy))
    async with case("connection to NATS: 100 ms slower each way", daemon, nats_server.url) as this:
        with this.fault():
            proxy.delay(0.1)
            await asyncio.sleep(lasting(4, 20))
            await this.until_said(this.book.creates, "201")
            proxy.delay(0)
        await require_whole(this, nats_server)
        assert this.said(this.book.creates, "201")
        this.note(heartbeats="heard")
