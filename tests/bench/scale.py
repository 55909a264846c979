"""Many services: memory, start, what lists cost while heartbeats flow; and a bulk of packages, on the disk each.

The many are written to a NATS server that does not sync every write, for that is not what is measured of them.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from bench.seed import lineages, seed_services
from bench.stage import Load, Stage, lax_nats, row, stage

_MANY = int(os.environ.get("JETWAY_TEST_BENCH_SERVICES", "100000"))
_BULK = 10_000
_BEATING_SHARE = 10
"""Every tenth service beats, ten times as often as usual: as many heartbeats as from all at 30 s."""
_INTERVAL_SECONDS = 3
_ALL_SECONDS = 60
"""Once from each of many services takes so long."""
_LISTS = (
    "pollers?limit=50",
    "agents?limit=50",
    "agents?limit=50&status=pending",
    "agents?limit=50&site=p7&label=rack=12",
    "agents?limit=50&liveness=online",
    "agents?limit=50&q=a77",
    "agents?limit=50&sort=-last_seen",
    "agents?limit=50&sort=label",
    "stats",
)
_TIMES = 20

_STEADY = """
import asyncio, json, sys, time, nats
async def main():
    url, interval = sys.argv[1], float(sys.argv[2])
    subjects = json.loads(sys.stdin.read())
    nc = await nats.connect(url)
    began, sent = time.monotonic(), 0
    while True:
        due = int((time.monotonic() - began) / interval * len(subjects))
        for number in range(sent, due):
            await nc.publish(subjects[number % len(subjects)], b"")
        sent = due
        await nc.flush()
        await asyncio.sleep(0.02)
asyncio.run(main())
"""


@contextmanager
def heartbeats(url: str, subjects: list[str], interval_seconds: float) -> Iterator[None]:
    """Everybody beats at this interval, evenly spread, from a process of its own."""
    command = [sys.executable, "-c", _STEADY, url, str(interval_seconds)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(json.dumps(subjects).encode())
    process.stdin.close()
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def run() -> None:
    """Measure many services and print."""
    with (
        lax_nats() as url,
        stage(JETWAY_NATS__MODE="external", JETWAY_NATS__URLS=json.dumps([url])) as daemon,
    ):
        _grow(daemon)
        subjects = [lineage.subject("edge.heartbeat") for lineage in lineages(_MANY)[::_BEATING_SHARE]]
        with heartbeats(daemon.nats_url, subjects, _INTERVAL_SECONDS):
            _wait_for_all(daemon, len(subjects))
            _report_load(daemon, len(subjects))
            for path in _LISTS:
                _ask(daemon, path)
            row("memory with heartbeats and after these lists", f"{daemon.memory_mib():.0f} MiB")


def run_memory() -> None:
    """Measure what a daemon needs that finds many services in its ledger, while it still projects them; print."""
    with (
        lax_nats() as url,
        stage(JETWAY_NATS__MODE="external", JETWAY_NATS__URLS=json.dumps([url])) as daemon,
    ):
        small = daemon.memory_mib()
        row("memory without a service", f"{small:.0f} MiB")
        daemon.stop()
        asyncio.run(seed_services(url, _MANY))
        daemon.start()
        row(f"start with {_MANY:,} services", f"{daemon.started_in:.1f} s", "until HTTP is served")
        _row_of_memory(daemon, small, "at once")
        subjects = [lineage.subject("edge.heartbeat") for lineage in lineages(_MANY)]
        with heartbeats(url, subjects, _ALL_SECONDS):
            time.sleep(_ALL_SECONDS)
        _row_of_memory(daemon, small, f"after {_ALL_SECONDS} s in which each sent a heartbeat")


def _row_of_memory(daemon: Stage, small: float, when: str) -> None:
    now = daemon.memory_mib()
    note = (
        f"{(now - small) / _MANY * 10_000:.0f} MiB per 10,000; the highest so far {daemon.peak_mib():.0f} MiB"
    )
    row(f"memory with {_MANY:,} services, {when}", f"{now:.0f} MiB", note)


def run_bulk() -> None:
    """Measure a bulk of packages and print."""
    with stage() as daemon:
        _create_many(daemon)


def _grow(daemon: Stage) -> None:
    asyncio.run(seed_services(daemon.nats_url, 100))
    time.sleep(5)
    small = daemon.memory_mib()
    row("memory with 100 services, idle", f"{small:.0f} MiB")
    began = time.perf_counter()
    asyncio.run(seed_services(daemon.nats_url, _MANY, skip=100))
    daemon.wait_for_services(_MANY)
    seconds = time.perf_counter() - began
    figure = f"{seconds:.0f} s with the time to write them"
    row(f"{_MANY:,} services, documents and rows caught up", figure, f"{_MANY / seconds:,.0f}/s")
    daemon.stop()
    daemon.start()
    row(f"start with {_MANY:,} services", f"{daemon.started_in:.1f} s", "until HTTP is served")
    grown = daemon.memory_mib() - small
    note = f"{grown / _MANY * 10_000:.0f} MiB per 10,000"
    row(f"memory with {_MANY:,} services", f"{daemon.memory_mib():.0f} MiB", note)


def _wait_for_all(daemon: Stage, count: int) -> None:
    """Until each of them was heard once, and the writing that follows from it is over: it activates them."""
    began = time.perf_counter()
    while (online := daemon.get("/api/admin/services/stats")["by_liveness"].get("online", 0)) < count:
        if time.perf_counter() - began > 300:
            raise RuntimeError(f"{online:,} of {count:,} are online")
        time.sleep(1)
    daemon.wait_for_services(_MANY)


def _report_load(daemon: Stage, count: int) -> None:
    """What heartbeats alone cost."""
    load = Load(daemon)
    time.sleep(15)
    row(f"{count / _INTERVAL_SECONDS:,.0f} heartbeats/s alone", "-", load.told())


def _ask(daemon: Stage, path: str) -> None:
    """How long this list takes while heartbeats flow, and how late the loop is meanwhile."""
    load, taken = Load(daemon), []
    for _ in range(_TIMES):
        began = time.perf_counter()
        daemon.get(f"/api/admin/services/{path}")
        taken.append((time.perf_counter() - began) * 1000)
    taken.sort()
    figure = f"p50 {taken[_TIMES // 2]:.0f} ms, p95 {taken[int(_TIMES * 0.95)]:.0f} ms"
    row(f"GET services/{path}", figure, f"of {_MANY:,}; {load.told()}")


def _create_many(daemon: Stage) -> None:
    """One request for ten thousand packages, answered when all of them are durable."""
    rows = [{"component_type": "poller", "label": f"bulk {i}"} for i in range(_BULK)]
    load, cpu, began = Load(daemon), daemon.cpu_seconds(), time.perf_counter()
    link = http.client.HTTPConnection(daemon.url.removeprefix("http://"), timeout=600)
    headers = {
        "Authorization": f"Bearer {daemon.token}",
        "Content-Type": "application/json",
        "Idempotency-Key": "bench",
    }
    try:
        link.request("POST", "/api/admin/edge-packages/bulk", json.dumps({"rows": rows}), headers)
        answer = link.getresponse()
        report = json.loads(answer.read())
    finally:
        link.close()
    seconds = time.perf_counter() - began
    assert report.get("created") == _BULK, f"{answer.status}: {report.get('created')} of {_BULK:,} created"
    figure = f"{seconds:.1f} s, {_BULK / seconds:,.0f}/s"
    spent = (daemon.cpu_seconds() - cpu) / _BULK * 1000
    row(f"a bulk of {_BULK:,} packages", figure, f"{spent:.2f} ms CPU each; {load.told()}")
