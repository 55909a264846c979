"""What every benchmark needs: a real daemon of its own, its metrics, its memory, and a load beside it."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jetway.adapters.nats.process import find_binary, free_port

_START_SECONDS = 180.0
_METRIC = re.compile(r"^([a-zA-Z_:]+)(?:\{([^}]*)\})? ([-+.eE0-9NaInf]+)$", re.MULTILINE)


@dataclass(slots=True)
class Stage:
    """A running daemon."""

    folder: Path
    settings: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    url: str = ""
    nats_url: str = ""
    token: str = ""
    started_in: float = 0.0
    """Seconds from the start of the process until it served."""

    def start(self) -> None:
        """Start it and wait until it serves."""
        told = self.folder / "state" / "daemon.json"
        told.unlink(missing_ok=True)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("JETWAY_")}
        own = {
            "JETWAY_STATE_DIR": str(self.folder / "state"),
            "JETWAY_HTTP__LISTEN": "127.0.0.1:0",
            "JETWAY_NATS__LISTEN": "127.0.0.1:0",
            "JETWAY_LOG__LEVEL": "warning",
        }
        began = time.perf_counter()
        with (self.folder / "daemon.log").open("ab") as log:
            command = [sys.executable, "-m", "jetway", "serve"]
            everything = {**kept, **own, **self.settings}
            self.process = subprocess.Popen(command, env=everything, stdout=log, stderr=log)
        while not told.exists():
            if self.process.poll() is not None or time.perf_counter() - began > _START_SECONDS:
                raise RuntimeError((self.folder / "daemon.log").read_text()[-3000:])
            time.sleep(0.01)
        self.started_in = time.perf_counter() - began
        where = json.loads(told.read_bytes())
        self.url, self.nats_url = where["url"], where["nats_urls"][0]
        self.token = (self.folder / "state" / "admin.token").read_text().strip()

    def stop(self) -> None:
        """Stop it in order."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(30)
        self.process = None

    def get(self, path: str) -> Any:
        """What the API answers."""
        return json.loads(self._read(path))

    def _read(self, path: str) -> str:
        link = http.client.HTTPConnection(self.url.removeprefix("http://"), timeout=120)
        try:
            link.request("GET", path, headers={"Authorization": f"Bearer {self.token}"})
            return link.getresponse().read().decode()
        finally:
            link.close()

    def metrics(self) -> dict[tuple[str, str], float]:
        """(name, labels) → value."""
        text = self._read("/metrics")
        return {(m[1], m[2] or ""): float(m[3]) for m in _METRIC.finditer(text)}

    def wait_for_services(self, count: int) -> None:
        """Wait until so many services are known, and their documents, rows and events written."""
        lag = "jetway_projection_lag_records"
        while self.get("/api/admin/services/stats")["total"] < count:
            time.sleep(0.2)
        time.sleep(11)  # the gauge is set every ten seconds
        while any(value for (name, _), value in self.metrics().items() if name == lag):
            time.sleep(0.5)

    def total(self, name: str) -> float:
        """A metric summed over its labels."""
        return sum(value for (metric, _), value in self.metrics().items() if metric == name)

    def memory_mib(self) -> float:
        """The daemon's resident memory, its NATS server not included."""
        return self._status_mib("VmRSS")

    def peak_mib(self) -> float:
        """The most that it was since its start."""
        return self._status_mib("VmHWM")

    def _status_mib(self, what: str) -> float:
        assert self.process is not None
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.findall(rf"{what}:\s+(\d+)", status)[0]) / 1024

    def cpu_seconds(self) -> float:
        """The daemon's processor time so far, its NATS server not included."""
        assert self.process is not None
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def starved_seconds(self) -> float:
        """How long the daemon's event loop was ready to run and had no processor, so far."""
        assert self.process is not None
        pid = self.process.pid
        return int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()[1]) / 1e9

    def stall_p99(self, before: dict[tuple[str, str], float]) -> str:
        """The bucket in which the 99th percentile of the event loop's lateness lies since `before`."""
        name = "jetway_event_loop_stall_seconds_bucket"
        after = self.metrics()
        grown = {
            float(labels.split('"')[1].replace("+Inf", "inf")): value - before.get((metric, labels), 0.0)
            for (metric, labels), value in after.items()
            if metric == name
        }
        total = grown.get(float("inf"), 0.0)
        for bound in sorted(grown):
            if total and grown[bound] >= 0.99 * total:
                return f"≤ {bound * 1000:g} ms"
        return "-"


@contextmanager
def stage(**settings: str) -> Iterator[Stage]:
    """A daemon with an empty state directory, stopped and removed at the end."""
    with tempfile.TemporaryDirectory(prefix="jetway-bench-") as name:
        running = Stage(Path(name), settings)
        running.start()
        try:
            yield running
        finally:
            running.stop()


@contextmanager
def lax_nats() -> Iterator[str]:
    """A NATS server that syncs every two minutes, by its address: where it is not writing that is measured."""
    with tempfile.TemporaryDirectory(prefix="jetway-bench-nats-") as name:
        port = free_port("127.0.0.1")
        config = Path(name) / "server.conf"
        store = f'store_dir: "{name}", sync_interval: "2m"'
        config.write_text(f'listen: "127.0.0.1:{port}"\nmax_payload: 4MB\njetstream {{ {store} }}\n')
        with (Path(name) / "log").open("ab") as log:
            server = subprocess.Popen([str(find_binary()), "-c", str(config)], stdout=log, stderr=log)
        try:
            yield f"nats://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait(30)


@dataclass(frozen=True, slots=True)
class Timing:
    """Many calls at some concurrency."""

    per_second: float
    p50_ms: float
    p99_ms: float


async def timed(calls: Sequence[Callable[[], Awaitable[None]]], at_once: int) -> Timing:
    """Run all calls, `at_once` of them at a time."""
    gate, taken = asyncio.Semaphore(at_once), []

    async def one(call: Callable[[], Awaitable[None]]) -> None:
        async with gate:
            began = time.perf_counter()
            await call()
            taken.append(time.perf_counter() - began)

    began = time.perf_counter()
    await asyncio.gather(*map(one, calls))
    seconds = time.perf_counter() - began
    taken.sort()
    return Timing(len(taken) / seconds, taken[len(taken) // 2] * 1000, taken[int(len(taken) * 0.99)] * 1000)


class Load:
    """What the daemon did since this was made, in words for a note."""

    def __init__(self, daemon: Stage) -> None:
        self._daemon = daemon
        self._before = daemon.metrics()
        self._cpu, self._starved = daemon.cpu_seconds(), daemon.starved_seconds()
        self._began = time.perf_counter()

    def told(self) -> str:
        """Its share of a processor, how long others kept it from one, how late its loop was."""
        seconds = time.perf_counter() - self._began
        busy = (self._daemon.cpu_seconds() - self._cpu) / seconds
        starved = (self._daemon.starved_seconds() - self._starved) / seconds
        late = self._daemon.stall_p99(self._before)
        return f"{busy:.0%} of a processor, kept from one {starved:.0%} of the time; loop p99 {late}"


def row(what: str, figure: str, note: str = "") -> None:
    """One line of the table, printed as soon as it is known."""
    print(f"| {what} | {figure} | {note} |", flush=True)
