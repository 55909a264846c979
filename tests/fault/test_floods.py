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
from dataclasses import dataclass
from pathlib import Path

import pytest
from nats.aio.client import Client
from nats.errors import NoRespondersError
from nats.errors import TimeoutError as NatsTimeoutError

from support.daemon import SERVICES, Daemon, eventually

NewDaemon = Callable[..., Awaitable[Daemon]]

HOSTS = 50
INTERVAL_SECONDS = 30
"""Of the peaceful hosts, as it is where nobody says another. Verdicts are no measure: while the daemon is behind,
it judges nobody."""
AGAIN_SECONDS = 5
"""A host that is not answered asks again: what waits for the daemon is lost where its connection is."""
FLOOD_SECONDS = 8.0

CONNECTIONS = 4
"""Of the hostile host: over one alone the NATS server can slow it down."""
_FLOODER = """
import asyncio, sys, nats
async def quiet(error):
    pass
async def flood(url, creds, frame, sent):
    at_once = max(1, 1_000_000 // len(frame))
    while True:
        try:
            client = await nats.connect(url, user_credentials=creds, error_cb=quiet, allow_reconnect=False)
            while client.is_connected:
                await client._send_command(frame * at_once)
                await client._flush_pending()
                await client.flush(timeout=60)
                sent[0] += at_once
                print(sent[0], flush=True)
        except Exception:
            await asyncio.sleep(0.2)
async def main():
    url, creds, connections = *sys.argv[1:3], int(sys.argv[3])
    frame, sent = sys.stdin.buffer.read(), [0]
    print(0, flush=True)
    async with asyncio.TaskGroup() as group:
        for _ in range(connections):
            group.create_task(flood(url, creds, frame, sent))
asyncio.run(main())
"""
"""Sends one message, as the protocol has it, as fast as the server takes it. Never gives up."""


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
def flooding(daemon: Daemon, host: Host, frame: bytes, log: Path) -> Iterator[Callable[[], int]]:
    """Flood from a process of its own, which has as much of the machine as the daemon; how many it sent."""
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-c", _FLOODER, daemon.nats_url, str(host.creds), str(CONNECTIONS)],
            stdin=subprocess.PIPE,
            stdout=out,
        )
    assert process.stdin is not None
    process.stdin.write(frame)
    process.stdin.close()
    try:
        yield lambda: int((log.read_text().split() or ["0"])[-1])
        assert process.poll() is None, "the flood ended by itself"
    finally:
        process.kill()
        process.wait()


class Peaceful:
    """Hosts that do what hosts should, and ask for an answer each time."""

    def __init__(self, daemon: Daemon, hosts: list[Host]) -> None:
        self._daemon = daemon
        self._hosts = hosts
        self._clients: list[Client] = []

    async def __aenter__(self) -> Peaceful:
        for host in self._hosts:
            client = Client()
            await client.connect(
                self._daemon.nats_url,
                user_credentials=str(host.creds),
                inbox_prefix=f"_INBOX_poller_{host.name}",
                allow_reconnect=False,
                connect_timeout=30,
            )
            self._clients.append(client)
        return self

    async def __aexit__(self, *_: object) -> None:
        for client in self._clients:
            await client.close()

    async def beat(self) -> None:
        """All of them; raises TimeoutError unless each is answered within its interval."""
        async with asyncio.timeout(INTERVAL_SECONDS), asyncio.TaskGroup() as group:
            for host, client in zip(self._hosts, self._clients, strict=True):
                group.create_task(self._beat(host, client))

    @staticmethod
    async def _beat(host: Host, client: Client) -> None:
        while True:
            try:
                answer = await client.request(host.subject, b"", timeout=AGAIN_SECONDS)
            except NoRespondersError:
                await asyncio.sleep(0.1)
            except NatsTimeoutError:
                pass
            else:
                assert json.loads(answer.data)["status"] == "active"
                return


def message(subject: str, payload: bytes, headers: bytes = b"") -> bytes:
    """As the protocol has it."""
    if not headers:
        return b"PUB %b %d\r\n%b\r\n" % (subject.encode(), len(payload), payload)
    sizes = (len(headers), len(headers) + len(payload))
    return b"HPUB %b %d %d\r\n%b%b\r\n" % (subject.encode(), *sizes, headers, payload)


def big() -> bytes:
    """A heartbeat as large, and as dear to read, as one may be."""
    payload = json.dumps({"metadata": {f"k{n}": [n, {"a": "b"}] for n in range(2300)}}).encode()
    assert 60_000 < len(payload) <= 64 * 1024
    return payload


def many_headers() -> bytes:
    """64 KiB of them."""
    return b"NATS/1.0\r\n" + b"".join(b"k%d:v\r\n" % n for n in range(6500)) + b"\r\n"


def batch() -> bytes:
    """As many heartbeats as one message may have, of services that nobody knows."""
    entries = [{"service_type": "agent", "agent_id": f"made-up-{n}"} for n in range(1000)]
    return json.dumps({"heartbeats": entries}).encode()


def require_begun(sent: Callable[[], int]) -> None:
    assert sent()


def require_shut_out(daemon: Daemon, name: str) -> None:
    """That one was, and nobody else; again where it took longer than a minute, and as often as it is told."""
    told = [event["service_id"] for event in daemon.get("/api/admin/events?type=flooded")["items"]]
    assert told and set(told) == {name}
    assert daemon.metric("jetway_floods_total") == len(told)


@pytest.mark.parametrize(
    ("kind", "payload", "headers"),
    [
        ("own", b"", b""),
        ("batch", json.dumps({"heartbeats": [1] * 1000}).encode(), b""),
        ("own", big(), b""),
        ("own", b"x" * (64 * 1024), b""),
        ("own", b"", many_headers()),
        ("batch", batch(), b""),
        ("renew", b"{}", b""),
        ("renew", b"x" * (1000 * 1000), b""),
    ],
    ids=[
        "small",
        "small and malformed batches",
        "large",
        "large and malformed",
        "headers",
        "batches",
        "renewals",
        "large renewals",
    ],
)
async def test_a_flood_makes_nobody_late(
    new_daemon: NewDaemon, tmp_path: Path, kind: str, payload: bytes, headers: bytes
) -> None:
    daemon = await new_daemon(JETWAY_NATS__CREDENTIALS="required")
    hosts = [await asyncio.to_thread(join, daemon, tmp_path, f"site-{n}") for n in range(HOSTS)]
    hostile = await asyncio.to_thread(join, daemon, tmp_path, "hostile")
    subjects = {"batch": "edge.heartbeat.batch.hostile", "renew": "jetway.renew.poller.hostile"}
    frame = message(subjects.get(kind, hostile.subject), payload, headers)
    async with Peaceful(daemon, hosts) as peaceful:
        await peaceful.beat()
        took: list[float] = []
        with flooding(daemon, hostile, frame, tmp_path / "flood") as sent:
            await asyncio.to_thread(eventually, lambda: require_begun(sent))
            ends = time.monotonic() + FLOOD_SECONDS
            while time.monotonic() < ends:
                began = time.monotonic()
                await peaceful.beat()
                await asyncio.to_thread(daemon.get, f"{SERVICES}/pollers?limit=200")
                took.append(time.monotonic() - began)
                await asyncio.sleep(0.2)
            count = sent()
        print(f"\n{count} messages of {len(frame)} bytes; {len(took)} rounds, the slowest {max(took):.2f} s")
    print(f"the daemon lost its connection {daemon.metric('jetway_nats_reconnects'):g} times")
    assert daemon.metric("jetway_heartbeats_dropped") == 0
    await asyncio.to_thread(eventually, lambda: require_shut_out(daemon, "hostile"))
    daemon.check_log()
    assert await asyncio.to_thread(daemon.stop) == 0
