"""The demo: everything at once, in a throw-away directory, on free ports, and all of it real.

It starts the daemon with its NATS server as `jetway serve` would, then plays operator and installer: it creates
a package for a poller, an agent and a checker over HTTP, redeems each with `jetway join`, and lets `jetway run`
send heartbeats. What is shown is what the API answers.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jetway.cli.client import Client
from jetway.cli.errors import CommandError

_START_SECONDS = 45.0
_ACTIVE_SECONDS = 45.0
_STOP_SECONDS = 15.0
_HEARTBEAT_SECONDS = 2
_STOPPING = (signal.SIGINT, signal.SIGTERM)

_SERVICES: tuple[dict[str, Any], ...] = (
    {"component_type": "poller", "label": "Site A", "site": "A"},
    {"component_type": "agent", "label": "Core switch room", "parent_id": "site-a"},
    {
        "component_type": "checker",
        "label": "Uplink ping",
        "parent_id": "core-switch-room",
        "checker_kind": "icmp",
        "checker_config": {"targets": ["192.0.2.1"], "interval_seconds": 10},
    },
)


@dataclass(slots=True)
class Stage:
    """The demo's processes and what they left behind."""

    folder: Path
    client: Client | None = None
    processes: list[tuple[str, subprocess.Popen[bytes], Path]] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        """The environment of our processes: none of the user's own settings reach the demo."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("JETWAY_")}
        return {**kept, "JETWAY_STATE_DIR": str(self.folder / "state"), "JETWAY_LOG__FORMAT": "json"}

    def start(self, name: str, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
        """Start `jetway ARGUMENTS` in the background, its output in a file of its own."""
        log = self.folder / f"{name}.log"
        # A process that was started and not noted yet would outlive us.
        with log.open("wb") as output, _held_back():
            process = subprocess.Popen(
                [sys.executable, "-m", "jetway", *arguments],
                env={**self.environment, **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches the demo alone, which then stops them in order
            )
            self.processes.append((name, process, log))
        return process

    def stop(self) -> None:
        """Stop everything, the edge before the daemon. Whoever presses Ctrl-C again waits all the same."""
        for number in _STOPPING:
            signal.signal(number, signal.SIG_IGN)
        for _, process, _ in reversed(self.processes):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def require_all_running(self) -> None:
        """Raise CommandError with the last words of whichever process ended."""
        for name, process, log in self.processes:
            if process.poll() is not None:
                lines = log.read_text(errors="replace").strip().splitlines()[-3:]
                raise CommandError(f"{name} ended with status {process.returncode}: " + " / ".join(lines))


def demo_command(*, once: bool, port: int) -> int:
    """Run the demo; the exit status."""
    from jetway.cli.demo_view import View

    # Also where a script started us in the background, which ignores Ctrl-C, and when we are told to terminate:
    # otherwise the processes of the demo would outlive it.
    for number in _STOPPING:
        signal.signal(number, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="jetway-demo-") as name, ExitStack() as stack:
        stage = Stage(Path(name))
        stack.callback(stage.stop)
        view = stack.enter_context(View(live=not once).shown())
        try:
            _play(stage, view, port)
            if not once:
                _watch(stage, view)
        except KeyboardInterrupt:
            view.say("stopping")
            return 0 if not once else 130
    return 0


@contextmanager
def _held_back() -> Iterator[None]:
    """Whoever wants to stop the demo is heard when the block is done."""
    came: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _frame: came.append(number)) for number in _STOPPING
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if came:
        raise KeyboardInterrupt


def _play(stage: Stage, view: Any, port: int) -> None:
    began = time.monotonic()
    view.say("starting the daemon with its NATS server")
    stage.client = client = _start_daemon(stage, port)
    view.say(f"the dashboard is at {client.endpoint.url}/ui/")
    view.say(f"sign in there with the API token in {stage.folder / 'state' / 'admin.token'}")
    view.say(f"the API is at {client.endpoint.url}, its description at {client.endpoint.url}/docs")
    for service in _SERVICES:
        _onboard(stage, client, service, view)
    _wait_until_active(stage, client, view)
    view.say(f"all three services are active, {time.monotonic() - began:.1f} s after the start")


def _start_daemon(stage: Stage, port: int) -> Client:
    _require_free(port)
    stage.start("daemon", "serve", JETWAY_HTTP__LISTEN=f"127.0.0.1:{port}", JETWAY_NATS__LISTEN="127.0.0.1:0")
    state = stage.folder / "state"
    for _ in _until(_START_SECONDS, "the daemon did not become ready"):
        stage.require_all_running()
        try:
            url = json.loads((state / "daemon.json").read_bytes())["url"]
            token = (state / "admin.token").read_text().strip()
        except (OSError, ValueError, KeyError):
            continue
        return _client(url, token)
    raise AssertionError("unreachable")


def _client(url: str, token: str) -> Client:
    from jetway.edge.exchange import parse_url

    return Client(parse_url(url), token)


def _require_free(port: int) -> None:
    if not port:
        return
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise CommandError(
                f"port {port} cannot be used: {error.strerror}; choose another with --port"
            ) from None


def _onboard(stage: Stage, client: Client, service: dict[str, Any], view: Any) -> None:
    """Create the package as an operator does, redeem and run it as an installer does."""
    body = {**service, "heartbeat_interval_seconds": _HEARTBEAT_SECONDS}
    answer = client.create("/api/admin/edge-packages", body)
    name = f"{service['component_type']} {answer['service']['service_id']}"
    view.say(f"{name}: package created, pending; its config document is in NATS")
    folder = stage.folder / answer["service"]["service_id"]
    joined = subprocess.run(
        [sys.executable, "-m", "jetway", "join", "--dir", str(folder)],
        env=stage.environment,
        input=answer["token"].encode(),
        capture_output=True,
        timeout=_ACTIVE_SECONDS,
        check=False,
    )
    if joined.returncode != 0:
        raise CommandError(f"{name} could not join: {joined.stderr.decode(errors='replace').strip()}")
    view.say(f"{name}: token redeemed over HTTP by `jetway join`")
    stage.start(answer["service"]["service_id"], "run", "--dir", str(folder))


def _wait_until_active(stage: Stage, client: Client, view: Any) -> None:
    for _ in _until(_ACTIVE_SECONDS, "not all three services became active in time"):
        stage.require_all_running()
        tree = client.get("/api/admin/services/tree")
        view.show(tree)
        if _states(tree["items"]) == [("active", "online")] * len(_SERVICES):
            return


def _watch(stage: Stage, view: Any) -> None:
    """Show what is, until Ctrl-C."""
    view.say("heartbeats go on every two seconds; Ctrl-C stops everything and removes it")
    client = stage.client
    while client is not None:
        stage.require_all_running()
        view.show(client.get("/api/admin/services/tree"), client.get("/api/admin/events", {"limit": 8}))
        time.sleep(1.0)


def _states(nodes: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Status and liveness of each, parents first."""
    return [
        state for node in nodes for state in ((node["status"], node["liveness"]), *_states(node["children"]))
    ]


def _until(seconds: float, why: str) -> Iterator[None]:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        yield
        time.sleep(0.1)
    raise CommandError(why)
