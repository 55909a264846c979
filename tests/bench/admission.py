"""Admission: how fast `jetway.known` and its HTTP twin answer among many services."""

from __future__ import annotations

import asyncio
import json
import os
from functools import partial

import aiohttp
import nats
from nats.aio.client import Client

from bench.seed import lineages, seed_services
from bench.stage import Stage, row, stage, timed
from jetway.core.ids import ServiceType

_MANY = int(os.environ.get("JETWAY_TEST_BENCH_SERVICES", "250000"))
_CALLS = 10_000
_AT_ONCE = (1, 64)


def run() -> None:
    """Measure and print."""
    with stage() as daemon:
        asyncio.run(seed_services(daemon.nats_url, _MANY))
        daemon.wait_for_services(_MANY)
        asyncio.run(_measure(daemon))


def _asked() -> list[str]:
    """Pollers to ask about: every tenth of them is unknown."""
    pollers = [x.poller_id for x in lineages(_MANY) if x.service_type is ServiceType.POLLER]
    return [f"nobody-{i}" if i % 10 == 0 else pollers[i % len(pollers)] for i in range(_CALLS)]


async def _measure(daemon: Stage) -> None:
    link = await nats.connect(daemon.nats_url)
    connector = aiohttp.TCPConnector(limit=0)
    headers = {"Authorization": f"Bearer {daemon.token}"}
    async with aiohttp.ClientSession(daemon.url, headers=headers, connector=connector) as session:
        for at_once in _AT_ONCE:
            await _report(daemon, "jetway.known", partial(_ask_nats, link), at_once)
            await _report(daemon, "GET admission", partial(_ask_http, session), at_once)
    await link.close()


async def _report(daemon: Stage, what: str, ask: partial[object], at_once: int) -> None:
    before = daemon.metrics()
    took = await timed([partial(ask, name) for name in _asked()], at_once)
    figure = f"{took.per_second:,.0f}/s, p50 {took.p50_ms:.2f} ms, p99 {took.p99_ms:.2f} ms"
    row(f"{what}, {at_once} at once", figure, f"of {_MANY:,}; loop p99 {daemon.stall_p99(before)}")


async def _ask_nats(link: Client, name: str) -> None:
    answer = await link.request("jetway.known", json.dumps({"poller_id": name}).encode(), timeout=10)
    assert json.loads(answer.data)["known"] is not name.startswith("nobody"), name


async def _ask_http(session: aiohttp.ClientSession, name: str) -> None:
    async with session.get(f"/api/admin/admission/pollers/{name}") as answer:
        assert (await answer.json())["known"] is not name.startswith("nobody"), name
