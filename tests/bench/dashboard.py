"""The dashboard over many services: its pages, and many open ones while services change.

The daemon's HTTP door with its index in memory, without NATS and a database; who asks is another process.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import structlog

from bench.seed import lineages, record_of
from bench.stage import row
from jetway.core.heartbeat import Payload
from jetway.core.ids import Lineage, ServiceType
from support.http_world import World, http_world

_MANY = int(os.environ.get("JETWAY_TEST_BENCH_SERVICES", "100000"))
_TIMES = 20
_STREAMS = 200
_CHANGES_PER_SECOND = 1000
_STREAM_SECONDS = 20
_TICK = 0.005
_PAGES = (
    "/ui/",
    "/ui/services",
    "/ui/services?type=agent",
    "/ui/services?type=agent&status=pending",
    "/ui/services?type=agent&site=p7&label=rack%3D12",
    "/ui/services?type=agent&liveness=never",
    "/ui/services?type=agent&q=a77",
    "/ui/services?type=agent&sort=label",
    "/ui/services?type=agent&sort=-last_seen",
    "/ui/services?type=agent&approval=required",
    "/ui/quarantine",
    "/ui/tree",
    "/ui/tree?open=poller.p0&open=poller.p1&open=poller.p10",
    "/ui/services/bulk?type=agent&site=p7&scope=all&action=revoke",
)

_ASK = """
import http.client, json, sys, time
url, cookie, times, paths = json.loads(sys.stdin.read())
link = http.client.HTTPConnection(url, timeout=60)
for path in paths:
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        link.request("GET", path, headers={"Cookie": cookie})
        answer = link.getresponse()
        size = len(answer.read())
        assert answer.status == 200, (path, answer.status)
        taken.append(time.perf_counter() - began)
    print(json.dumps([path, sorted(taken), size]), flush=True)
"""
_LISTEN = """
import asyncio, json, sys, time
url, cookie, streams, seconds = json.loads(sys.stdin.read())
host, port = url.split(":")
asked = f"Host: {url}\\r\\nCookie: {cookie}\\r\\nConnection: close\\r\\n\\r\\n"
async def read(taken):
    began = time.perf_counter()
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"GET /ui/services?type=agent HTTP/1.1\\r\\n{asked}".encode())
    assert b"200" in (await reader.read()).split(b"\\r\\n", 1)[0]
    writer.close()
    taken.append(time.perf_counter() - began)
async def listen(taken):
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"GET /ui/live HTTP/1.1\\r\\nHost: {url}\\r\\nCookie: {cookie}\\r\\n\\r\\n".encode())
    try:
        while line := await reader.readline():
            if line.startswith(b"event: changed"):
                await read(taken)
    finally:
        writer.close()
async def main():
    taken = []
    work = [asyncio.create_task(listen(taken)) for _ in range(streams)]
    await asyncio.sleep(2)
    print("open", flush=True)
    await asyncio.sleep(seconds)
    print(json.dumps(sorted(taken)), flush=True)
    for task in work:
        task.cancel()
asyncio.run(main())
"""


class Stalls:
    """How late the event loop is, sampled two hundred times a second."""

    def __init__(self) -> None:
        self.late: list[float] = []

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[Stalls]:
        """From here on, anew."""
        self.late.clear()
        task = asyncio.create_task(self._watch())
        try:
            yield self
        finally:
            task.cancel()

    async def _watch(self) -> None:
        while True:
            began = time.perf_counter()
            await asyncio.sleep(_TICK)
            self.late.append(time.perf_counter() - began - _TICK)

    def __str__(self) -> str:
        late = sorted(self.late)
        p99 = late[int(len(late) * 0.99)]
        return f"loop late p99 {p99 * 1000:.0f} ms, at most {late[-1] * 1000:.0f} ms"


def run() -> None:
    """Measure and print."""
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    with tempfile.TemporaryDirectory(prefix="jetway-bench-") as name:
        asyncio.run(_measure(Path(name)))


async def _measure(folder: Path) -> None:
    async with http_world(folder) as world:
        await _fill(world)
        cookie = await _sign_in(world)
        await _ask(world, cookie)
        await _stream(world, cookie)


async def _fill(world: World) -> None:
    """Pollers, each with a hundred agents, each with a checker; every second service was heard."""
    before = _memory_mib()
    for number, lineage in enumerate(_lineages(_MANY)):
        world.ledger.index.apply(record_of(lineage), number + 1)
        if number % 2:
            world.presence.note(lineage.key, Payload(), world.clock.now())
        if number % 500 == 0:
            await asyncio.sleep(0)
    world.ledger.index.progress.advance(_MANY)
    grown = _memory_mib() - before
    row(
        f"memory with {_MANY:,} services", f"{_memory_mib():.0f} MiB", f"{grown:.0f} MiB of them the services"
    )


def _lineages(count: int) -> list[Lineage]:
    found: list[Lineage] = []
    for lineage in lineages(count):
        found.append(lineage)
        if lineage.service_type is ServiceType.AGENT:
            name = f"c{lineage.service_id[1:]}"
            found.append(Lineage(ServiceType.CHECKER, lineage.poller_id, lineage.agent_id, name))
        if len(found) >= count:
            break
    return found[:count]


async def _sign_in(world: World) -> str:
    form, headers = {"token": world.tokens["admin"]}, {"Sec-Fetch-Site": "same-origin"}
    url = f"{world.server.url}/ui/sign-in"
    async with world.session.post(url, data=form, headers=headers, allow_redirects=False) as answer:
        found = re.match(r"[^;]+", answer.headers["Set-Cookie"])
        assert found and answer.status == 303
        return found[0]


async def _ask(world: World, cookie: str) -> None:
    stalls = Stalls()
    process = await _started(_ASK, [world.server.url.removeprefix("http://"), cookie, _TIMES, _PAGES])
    assert process.stdout is not None
    for _ in _PAGES:
        async with stalls.watched():
            cpu = time.process_time()
            line = await process.stdout.readline()
            used = (time.process_time() - cpu) / _TIMES * 1000
        path, taken, size = json.loads(line)
        figure = f"p50 {taken[_TIMES // 2] * 1000:.0f} ms, p95 {taken[int(_TIMES * 0.95)] * 1000:.0f} ms"
        row(f"`{path}`", figure, f"{used:.0f} ms CPU each; {size // 1024} KiB; {stalls}")
    await process.wait()


async def _stream(world: World, cookie: str) -> None:
    before, stalls, changes = _memory_mib(), Stalls(), Changes(world)
    given = [world.server.url.removeprefix("http://"), cookie, _STREAMS, _STREAM_SECONDS]
    process = await _started(_LISTEN, given)
    assert process.stdout is not None
    await process.stdout.readline()
    opened, cpu = _memory_mib(), time.process_time()
    async with stalls.watched():
        changing = asyncio.create_task(changes.go_on())
        taken = json.loads(await process.stdout.readline())
        changing.cancel()
    busy = (time.process_time() - cpu) / _STREAM_SECONDS
    await process.wait()
    row(f"{_STREAMS} open pages, nothing changes", f"{before:.0f} → {opened:.0f} MiB", "before and with them")
    rate = f"{changes.made / _STREAM_SECONDS:,.0f} changes/s, {len(taken) / _STREAM_SECONDS:.0f} readings/s in all"
    answers = f"p50 {taken[len(taken) // 2] * 1000:.0f} ms, p95 {taken[int(len(taken) * 0.95)] * 1000:.0f} ms"
    note = (
        f"{answers}; {busy:.0%} of a processor, the changes included; {stalls}; then {_memory_mib():.0f} MiB"
    )
    row(f"{_STREAMS} open pages, {_STREAM_SECONDS} s of changes", rate, note)


class Changes:
    """A thousand new versions a second, of one service after the other."""

    def __init__(self, world: World) -> None:
        self.made = 0
        self._index = world.ledger.index

    async def go_on(self) -> None:
        """For ever."""
        records, began = list(self._index.records.values()), time.perf_counter()
        while True:
            due = int((time.perf_counter() - began) * _CHANGES_PER_SECOND)
            for number in range(self.made, due):
                record = records[number % len(records)]
                newer = replace(record, revision=record.revision + 1 + number // len(records))
                self._index.apply(newer, _MANY + number + 1)
            self.made = due
            self._index.progress.advance(_MANY + due)
            await asyncio.sleep(0.01)


async def _started(script: str, given: list[object]) -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, stdin=pipe, stdout=pipe, limit=1024 * 1024
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps(given).encode())
    process.stdin.close()
    return process


def _memory_mib() -> float:
    return int(re.findall(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text())[0]) / 1024
