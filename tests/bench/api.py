"""Creations and redemptions over HTTP, durable: each waits for its document and its row.

Redemptions with keys get NATS credentials and a certificate, as every edge host beyond loopback does. The keys and
requests are made before the clock starts: that is the hosts' work.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import aiohttp

from bench.stage import Stage, row, stage, timed
from jetway.edge.keys import HostKeys, make

_COUNTS = {1: 300, 8: 1500, 64: 3000}


async def _create(session: aiohttp.ClientSession, body: dict[str, Any], tokens: list[str]) -> None:
    async with session.post("/api/admin/edge-packages", json=body) as answer:
        created = await answer.json()
        assert answer.status == 201, created
        tokens.append(created["token"])


async def _redeem(session: aiohttp.ClientSession, token: str, keys: HostKeys | None) -> None:
    body: dict[str, Any] = {"token": token, "host": {"hostname": "bench"}}
    if keys is not None:
        body |= {"nats_public_key": keys.nats_public_key, "csr_pem": keys.csr_pem}
    async with session.post("/api/edge/redeem", json=body) as answer:
        assert answer.status == 200, await answer.text()
        credentials = (await answer.json())["nats"]["creds"]
        assert bool(credentials) is (keys is not None)


async def _measure(daemon: Stage, *, with_keys: bool) -> None:
    headers = {"Authorization": f"Bearer {daemon.token}"}
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(daemon.url, headers=headers, connector=connector) as session:
        for at_once, count in _COUNTS.items():
            tokens: list[str] = []
            bodies = [{"component_type": "poller", "label": f"poller {at_once} {i}"} for i in range(count)]
            creations = [partial(_create, session, body, tokens) for body in bodies]
            if with_keys:
                await timed(creations, at_once)  # measured without
            else:
                await _report(daemon, f"create, {at_once} at once", creations, at_once)
            keys = [make("", 1, f"p{i}") if with_keys else None for i in range(count)]
            redemptions = [partial(_redeem, session, *pair) for pair in zip(tokens, keys, strict=True)]
            kind = " with JWT and certificate" if with_keys else ""
            await _report(daemon, f"redeem{kind}, {at_once} at once", redemptions, at_once)


async def _report(
    daemon: Stage, what: str, calls: Sequence[Callable[[], Awaitable[None]]], at_once: int
) -> None:
    before, cpu = daemon.metrics(), daemon.cpu_seconds()
    took = await timed(calls, at_once)
    spent = (daemon.cpu_seconds() - cpu) / len(calls) * 1000
    figure = f"{took.per_second:,.0f}/s, p50 {took.p50_ms:.1f} ms, p99 {took.p99_ms:.1f} ms"
    row(what, figure, f"{spent:.2f} ms CPU each; loop p99 {daemon.stall_p99(before)}")


def run() -> None:
    """Measure and print."""
    with stage() as daemon:
        asyncio.run(_measure(daemon, with_keys=False))
    with stage(JETWAY_NATS__CREDENTIALS="required") as daemon:
        asyncio.run(_measure(daemon, with_keys=True))
