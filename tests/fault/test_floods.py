"""One hostile host floods: the others' heartbeats are heard in time, and everybody else is served.

A real daemon, a real NATS server that asks for credentials, and a host that has them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from nats.aio.client import Client

from support.daemon import SERVICES, Daemon

NewDaemon = Callable[..., Awaitable[Daemon]]

HOSTS = 50
INTERVAL_SECONDS = 2
"""Of the peaceful hosts, who beat twice in it: one is late after two intervals."""
FLOOD_SECONDS = 8.0

_FLOODER = """
import asyncio, sys, nats
async def quiet(error):
    print(error, file=sys.stderr)
async def main():
    url, creds, subject, payload = *sys.argv[1:4], sys.stdin.buffer.read()
    client = await nats.connect(url, user_credentials=creds, error_cb=quiet, pending_size=8 * 1024 * 1024)
    sent = 0
    print("ready", flush=True)
    while True:
        for _ in range(max(1, 1_000_000 // (len(payload) + 100))):
            await client.publish(subject, payload)
            sent += 1
        await client.flush(timeout=60)
        print(sent, flush=True)
asyncio.run(main())
"""
"""Sends as fast as the server takes it, and says how much that was."""


@dataclass(frozen=True, slots=True)
class Host:
    """A host that has joined."""

    name: str
    subject: str
    creds: Path


def join(daemon: Daemon, folder: Path, name: str) -> Host:
    """A poller with credentials that the gateway made."""
    made = daemon.create("poller", name, heartbeat_interval_seconds=INTERVAL_SECONDS)
    answer = daemon.redeem(made["token"]).json
    creds = folder / f"{name}.creds"
    creds.write_text(answer["nats"]["creds"])
    return Host(name, answer["heartbeat"]["subject"], creds)


@contextlib.contextmanager
def flooding(daemon: Daemon, host: Host, payload: bytes, log: Path) -> Iterator[Callable[[], int]]:
    """Flood from a process of its own, which has as much of the machine as the daemon; how many it sent."""
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-c", _FLOODER, daemon.nats_url, str(host.creds), host.subject],
            stdin=subprocess.PIPE,
            stdout=out,
        )
    assert process.stdin is not None
    process.stdin.write(payload)
    process.stdin.close()
    try:
        yield lambda: int(log.read_text().split()[-1])
        assert process.poll() is None, "the flood ended by itself"
    finally:
        process.kill()
        process.wait()


class Peaceful:
    """Hosts that do what hosts should."""

    def __init__(self, daemon: Daemon, hosts: list[Host]) -> None:
        self._daemon = daemon
        self._hosts = hosts
        self._clients: list[Client] = []

    async def __aenter__(self) -> Peaceful:
        for host in self._hosts:
            client = Client()
            await client.connect(
                self._daemon.nats_url, user_credentials=str(host.creds), allow_reconnect=False
            )
            self._clients.append(client)
        return self

    async def __aexit__(self, *_: object) -> None:
        for client in self._clients:
            await client.close()

    async def beat(self) -> None:
        """All of them, once."""
        for host, client in zip(self._hosts, self._clients, strict=True):
            await client.publish(host.subject, b"")
        await asyncio.gather(*(client.flush(timeout=30) for client in self._clients))


async def liveness(daemon: Daemon) -> dict[str, str]:
    answer = await asyncio.to_thread(daemon.get, f"{SERVICES}/pollers?limit=200")
    return {item["service_id"]: item["liveness"] for item in answer["items"]}


def big() -> bytes:
    """A heartbeat as large, and as dear to read, as one may be."""
    payload = json.dumps({"metadata": {f"k{n}": [n, {"a": "b"}] for n in range(2300)}}).encode()
    assert 60_000 < len(payload) <= 64 * 1024
    return payload


def batch() -> bytes:
    """As many heartbeats as one message may have, of services that nobody knows."""
    entries = [{"service_type": "agent", "agent_id": f"made-up-{n}"} for n in range(1000)]
    return json.dumps({"heartbeats": entries}).encode()


@pytest.mark.parametrize(
    ("kind", "payload"),
    [("own", b""), ("own", big()), ("own", b"x" * (64 * 1024)), ("batch", batch())],
    ids=["small", "large", "large and malformed", "batches"],
)
async def test_a_flood_of_heartbeats_makes_nobody_late(
    new_daemon: NewDaemon, tmp_path: Path, kind: str, payload: bytes
) -> None:
    daemon = await new_daemon(JETWAY_NATS__CREDENTIALS="required")
    hosts = [await asyncio.to_thread(join, daemon, tmp_path, f"site-{n}") for n in range(HOSTS)]
    hostile = await asyncio.to_thread(join, daemon, tmp_path, "hostile")
    if kind == "batch":
        hostile = replace(hostile, subject="edge.heartbeat.batch.hostile")
    async with Peaceful(daemon, hosts) as peaceful:
        await peaceful.beat()
        await asyncio.sleep(0.5)
        found: list[dict[str, str]] = []
        answered: list[float] = []
        with flooding(daemon, hostile, payload, tmp_path / "flood") as sent:
            ends = time.monotonic() + FLOOD_SECONDS
            while time.monotonic() < ends:
                await peaceful.beat()
                began = time.monotonic()
                found.append(await liveness(daemon))
                answered.append(time.monotonic() - began)
                await asyncio.sleep(max(0.0, INTERVAL_SECONDS / 2 - (time.monotonic() - began)))
            count = sent()
        print(f"{count} messages of {len(payload)} bytes; a list took at most {max(answered):.2f} s")
    late = {name for each in found for name, verdict in each.items() if verdict not in ("online",)}
    assert late <= {"hostile"}
    assert count > 1000, "that was no flood"
    assert daemon.metric("jetway_heartbeats_dropped") == 0
    assert daemon.metric("jetway_nats_reconnects") == 0
    daemon.check_log()
    assert await asyncio.to_thread(daemon.stop) == 0
