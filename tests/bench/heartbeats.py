"""Heartbeats: how many the daemon accounts for, against what nats-py receives when it does nothing with them."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from statistics import median

import nats

from bench.seed import seed_services
from bench.stage import Stage, row, stage

_SERVICES = 1000
_MESSAGES = 300_000
_BURST = 10_000
_ROUNDS = 3
_PATIENCE_SECONDS = 120
_TO_ACTIVE = 'to="active"'

_PUBLISHER = """
import asyncio, json, sys, nats
async def main():
    url, count, payload = sys.argv[1], int(sys.argv[2]), sys.argv[3].encode()
    subjects = json.loads(sys.stdin.read())
    nc = await nats.connect(url, pending_size=8 * 1024 * 1024)
    for number in range(count):
        await nc.publish(subjects[number % len(subjects)], payload)
        if number % 2000 == 0:
            await nc.flush()
    await nc.flush()
    await nc.close()
asyncio.run(main())
"""

_RECEIVER = """
import asyncio, sys, time, nats
async def main():
    seen, done = 0, asyncio.Event()
    async def count(message):
        nonlocal seen
        seen += 1
        if seen >= int(sys.argv[2]): done.set()
    nc = await nats.connect(sys.argv[1])
    await nc.subscribe("bare.>", cb=count, pending_msgs_limit=-1, pending_bytes_limit=-1)
    await nc.flush()
    print("ready", flush=True)
    began = time.process_time()
    await done.wait()
    print(time.process_time() - began, flush=True)
    await nc.close()
asyncio.run(main())
"""


def _publish(url: str, subjects: list[str], count: int, payload: str) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-c", _PUBLISHER, url, str(count), payload], stdin=subprocess.PIPE
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps(subjects).encode())
    process.stdin.close()
    return process


def _bare_rate(daemon: Stage, payload: str) -> tuple[float, float]:
    """Messages per second that a nats-py callback receives which only counts, and CPU µs each."""
    command = [sys.executable, "-c", _RECEIVER, daemon.nats_url, str(_MESSAGES)]
    receiver = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert receiver.stdout is not None
    receiver.stdout.readline()
    began = time.perf_counter()
    publisher = _publish(
        daemon.nats_url, [f"bare.agent.p.a{i}" for i in range(_SERVICES)], _MESSAGES, payload
    )
    cpu = float(receiver.stdout.readline())
    seconds = time.perf_counter() - began
    publisher.wait()
    receiver.wait()
    return _MESSAGES / seconds, cpu / _MESSAGES * 1e6


@dataclass(frozen=True, slots=True)
class Accounted:
    """What a flood of heartbeats came to."""

    per_second: float
    cpu_us: float
    stall_p99: str


def _daemon_rate(daemon: Stage, subjects: list[str], payload: str) -> Accounted:
    """Let it count to the last one."""
    start = daemon.total("jetway_heartbeats_total")
    before, cpu, began = daemon.metrics(), daemon.cpu_seconds(), time.perf_counter()
    publisher = _publish(daemon.nats_url, subjects, _MESSAGES, payload)
    publisher.wait()
    while (accounted := daemon.total("jetway_heartbeats_total") - start) < _MESSAGES:
        if time.perf_counter() - began > 120:
            raise RuntimeError(f"{accounted:,.0f} of {_MESSAGES:,} were accounted for")
        time.sleep(0.02)
    seconds = time.perf_counter() - began
    cpu_us = (daemon.cpu_seconds() - cpu) / _MESSAGES * 1e6
    return Accounted(_MESSAGES / seconds, cpu_us, daemon.stall_p99(before))


async def _first_heartbeats(daemon: Stage, subjects: list[str]) -> float:
    """Seconds until all of these services are active, who beat again every half a minute as services do."""
    link = await nats.connect(daemon.nats_url)
    began = time.perf_counter()
    while (waited := time.perf_counter() - began) < _PATIENCE_SECONDS:
        for subject in subjects:
            await link.publish(subject, b"")
        await link.flush()
        if await _all_active(daemon, len(subjects)):
            await link.close()
            return time.perf_counter() - began
    raise RuntimeError(f"not all are active after {waited:.0f} s")


async def _all_active(daemon: Stage, count: int) -> bool:
    """Whether so many became active within half a minute. Asks seldom: asking is work for the daemon."""
    for _ in range(150):
        metrics = daemon.metrics().items()
        name = "service_registry_state_transitions_total"
        if (
            sum(value for (metric, labels), value in metrics if metric == name and _TO_ACTIVE in labels)
            >= count
        ):
            return True
        await asyncio.sleep(0.2)
    return False


_SAID = {"timestamp": "2026-11-23T09:10:11.123Z", "healthy": True, "version": "1.2.3", "interval_seconds": 30}


def run() -> None:
    """Measure and print."""
    payload = json.dumps(_SAID)
    with stage() as daemon:
        subjects = asyncio.run(seed_services(daemon.nats_url, _BURST))
        daemon.wait_for_services(_BURST)
        before = daemon.metrics()
        seconds = asyncio.run(_first_heartbeats(daemon, subjects))
        figure = f"all active after {seconds:.1f} s"
        row(f"{_BURST:,} first heartbeats at once", figure, f"loop p99 {daemon.stall_p99(before)}")
        _rates(daemon, subjects[:_SERVICES], payload)


def _rates(daemon: Stage, subjects: list[str], payload: str) -> None:
    """Turn and turn about, for the machine is not equally fast all the time; the medians are printed."""
    kinds = (("heartbeats accounted for", payload), ("empty heartbeats accounted for", ""))
    bare: list[tuple[float, float]] = []
    taken: dict[str, list[Accounted]] = {what: [] for what, _ in kinds}
    for _ in range(_ROUNDS):
        bare.append(_bare_rate(daemon, payload))
        for what, said in kinds:
            taken[what].append(_daemon_rate(daemon, subjects, said))
    note = (
        f"{len(payload)} bytes each; this and what follows: medians of {_ROUNDS} rounds, turn and turn about"
    )
    bare_cpu = median([cpu for _, cpu in bare])
    figure = f"{median([rate for rate, _ in bare]):,.0f}/s"
    row("nats-py receiving and doing nothing", figure, f"{bare_cpu:.1f} µs CPU each; {note}")
    for what, runs in taken.items():
        share = median([run.per_second / alone for run, (alone, _) in zip(runs, bare, strict=True)])
        cpu = median([run.cpu_us for run in runs])
        stalls = ", ".join(run.stall_p99 for run in runs)
        figure = f"{median([run.per_second for run in runs]):,.0f}/s"
        row(
            what,
            figure,
            f"{share:.0%} of bare, {bare_cpu / cpu:.0%} by CPU; {cpu:.1f} µs CPU each; loop p99 {stalls}",
        )
