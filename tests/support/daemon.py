"""The installed command as a subprocess: `jetway serve` with a state directory of its own and free ports.

Nothing of the product is imported here: what these tests see is what an operator and an edge host see.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import http.client
import json
import os
import signal
import sqlite3
import ssl
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import nats
from nats.aio.client import Client

from support.ports import free_port

T = TypeVar("T")

TOO_SLOW = frozenset({"stop_timeout", "task_stuck", "nats_server_killed"})
"""Actions of what is said where a disk takes longer than a step of a stop may: for tests that stop under load."""
START_SECONDS = 60.0
STOP_SECONDS = 10.0
"""How long a daemon may take to stop, under load as well: what the test of that asks of it."""
END_SECONDS = 60.0
"""How long the other tests wait for its end, on whatever machine."""
COMMAND_SECONDS = 120.0
PACKAGES = "/api/admin/edge-packages"
SERVICES = "/api/admin/services"
REDEEM = "/api/edge/redeem"

running: list[Daemon] = []
"""Daemons that a test has not ended yet: their logs go with the report of a failure."""


def eventually(check: Callable[[], T], seconds: float = 30.0) -> T:
    """The result of `check` once it holds, that is, once it raises no AssertionError."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return check()
        except AssertionError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.02)


def environment(**settings: str) -> dict[str, str]:
    """This environment without any setting of ours but those given."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("JETWAY_")}
    return {**kept, "PYTHONUNBUFFERED": "1", **settings}


def jetway(*arguments: str, given: str | bytes = b"", **settings: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    done = subprocess.run(
        [sys.executable, "-m", "jetway", *arguments],
        env=environment(**settings),
        input=given.encode() if isinstance(given, str) else given,
        capture_output=True,
        timeout=COMMAND_SECONDS,
        check=False,
    )
    out, err = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
    return subprocess.CompletedProcess(done.args, done.returncode, out, err)


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line of the daemon's log."""

    level: str
    action: str
    text: str


class Daemon:
    """One `jetway serve`, to be ended by whoever started it."""

    def __init__(self, folder: Path, **settings: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.state = folder / "state"
        self.log_file = folder / "daemon.log"
        self.settings = {
            "JETWAY_STATE_DIR": str(self.state),
            "JETWAY_HTTP__LISTEN": f"127.0.0.1:{free_port()}",
            "JETWAY_LOG__FORMAT": "json",
            **settings,
        }
        if settings.get("JETWAY_NATS__MODE") != "external":
            # One that died comes back where it was: nobody may have its port meanwhile.
            self.settings.setdefault("JETWAY_NATS__LISTEN", f"127.0.0.1:{free_port()}")
        self.process: subprocess.Popen[bytes] | None = None
        self.url = ""
        self.nats_url = ""
        self.token = ""
        self.secrets: set[str] = set()
        """What must never stand in the log: every token that passed through here."""
        self.expected_errors: set[str] = set()
        """Actions of log lines that may have the level error, because the test makes them happen."""
        self._checked = 0

    # --- its life

    def start(self) -> Daemon:
        """Start it, and return when it serves."""
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "jetway", "serve"],
                env=environment(**self.settings),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        if self not in running:  # it is there still where the start before was refused
            running.append(self)
        told = eventually(self._told, START_SECONDS)
        self.url, self.nats_url = told["url"], told["nats_urls"][0]
        with contextlib.suppress(FileNotFoundError):  # absent where others made the first token
            self.token = (self.state / "admin.token").read_text().strip()
            self.secrets.add(self.token)
        return self

    def _told(self) -> Any:
        """What this very process has written; what a killed one left does not count."""
        assert self.process is not None
        if self.process.poll() is not None:
            raise RuntimeError(f"the daemon ended with {self.process.returncode}:\n{self.log_text()[-3000:]}")
        try:
            told = json.loads((self.state / "daemon.json").read_bytes())
        except (OSError, ValueError):
            told = {}
        assert told.get("pid") == self.process.pid, "the daemon does not serve yet"
        return told

    def terminate(self) -> None:
        """Ask it to stop."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)

    def wait(self, seconds: float = END_SECONDS) -> int:
        """Its exit code, which must come in time."""
        assert self.process is not None
        code = self.process.wait(seconds)
        if self in running:
            running.remove(self)
        return code

    def stop(self) -> int:
        """Stop it in order; the exit code. Safe to call again."""
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.terminate()
        return self.wait()

    def kill_all(self) -> None:
        """End daemon and NATS server at one moment, as a power cut would."""
        assert self.process is not None
        server = self.nats_pid
        os.kill(self.process.pid, signal.SIGSTOP)  # so that it does not live to see the server's end
        os.kill(server, signal.SIGKILL)
        self.process.kill()
        self.wait()
        eventually(lambda: require_gone(server))

    def restart(self) -> Daemon:
        """Stop it if it runs, and start it on the same state."""
        self.stop()
        return self.start()

    def discard(self) -> None:
        """End it however that goes: the last resort of a fixture."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()  # the kernel ends its NATS server
            self.process.wait()
        if self in running:
            running.remove(self)

    @property
    def nats_pid(self) -> int:
        """The NATS server that it runs."""
        return int((self.state / "nats" / "server.pid").read_text())

    # --- its log

    def log_text(self) -> str:
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def log_lines(self) -> list[LogLine]:
        return [_log_line(line) for line in self.log_text().splitlines()]

    def check_log(self) -> None:
        """Fail for a secret or an unexpected error among the lines since the last check."""
        text = self.log_text()
        fresh, self._checked = text[self._checked :], len(text)
        for secret in self.secrets:
            assert secret not in fresh, "the log holds a secret"
        lines = [_log_line(line) for line in fresh.splitlines()]
        bad = [
            line.text for line in lines if line.level == "error" and line.action not in self.expected_errors
        ]
        assert not bad, "errors in the log:\n" + "\n".join(bad)
        assert "Traceback" not in fresh

    # --- HTTP

    def call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        raw: bytes | Iterable[bytes] | None = None,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """One call. `token` None is the administrator's, an empty one is none at all."""
        connection = self._connection()
        sent = {"Content-Type": "application/json"} if body is not None or raw is not None else {}
        bearer = self.token if token is None else token
        if bearer:
            sent["Authorization"] = f"Bearer {bearer}"
        data = json.dumps(body).encode() if body is not None else raw
        try:
            connection.request(method, path, body=data, headers={**sent, **(headers or {})})
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            answer = Answer(response.status, found, response.read())
        finally:
            connection.close()
        self._remember_secret(answer)
        return answer

    def _connection(self) -> http.client.HTTPConnection:
        """A new one; with https it trusts this daemon's authority alone."""
        address = urlsplit(self.url)
        host = address.hostname or ""
        if address.scheme == "http":
            return http.client.HTTPConnection(host, address.port, timeout=60)
        context = ssl.create_default_context(cafile=self.state / "keys" / "ca.pem")
        return http.client.HTTPSConnection(host, address.port, timeout=60, context=context)

    def _remember_secret(self, answer: Answer) -> None:
        if answer.status == 201 and b'"token"' in answer.body:
            self.secrets.add(answer.json["token"])

    def get(self, path: str) -> Any:
        """What stands there."""
        answer = self.call("GET", path)
        assert answer.status == 200, answer.body
        return answer.json

    def create(self, kind: str, service_id: str, parent_id: str = "", **fields: Any) -> Any:
        """A package; the whole answer."""
        body = {"component_type": kind, "label": service_id, "component_id": service_id, **fields}
        if parent_id:
            body["parent_id"] = parent_id
        if kind == "checker":
            body.setdefault("checker_kind", "icmp")
            body.setdefault("checker_config", {"targets": ["192.0.2.1"]})
        answer = self.call("POST", PACKAGES, body)
        assert answer.status == 201, answer.body
        return answer.json

    def require_written(self, created: Any) -> None:
        """Document and row of what was created: they stand if the answer says so, else they do a little later.

        An answer waits two seconds for them. A busy machine may take longer; then it says that they are queued.
        """
        said, service = created["projection"], created["service"]
        assert set(said.values()) <= {"written", "queued"}, said
        if said["row"] == "queued":
            table, own = f"{service['service_type']}s", f"{service['service_type']}_id"
            query = f"SELECT revision FROM {table} WHERE {own} = '{service['service_id']}'"
            eventually(lambda: _require(bool(self.rows(query)), "there is no row"), 60)
        if said["document"] == "queued":
            time.sleep(11)  # the gauge is set every 10 s
            lag = "jetway_projection_lag_records"
            eventually(lambda: _require(not self.metric(lag, projection="documents"), "documents wait"), 60)

    def redeem(self, token: str, *, accept: str = "application/json", **fields: Any) -> Answer:
        """Redeem as an installer, without an API token."""
        return self.call("POST", REDEEM, {"token": token, **fields}, token="", headers={"Accept": accept})

    def service(self, kind: str, service_id: str) -> Any:
        """A service as the API shows it."""
        return self.get(f"{SERVICES}/{kind}s/{service_id}")

    def package(self, package_id: str) -> Any:
        """A package as the API shows it."""
        return self.get(f"{PACKAGES}/{package_id}")

    def metric(self, name: str, **labels: str) -> float:
        """The value of one time series; 0 where there is none yet."""
        wanted = {f'{key}="{value}"' for key, value in labels.items()}
        for line in self.call("GET", "/metrics", token="").body.decode().splitlines():
            series, _, value = line.rpartition(" ")
            found, _, given = series.partition("{")
            if found == name and wanted <= set(given.rstrip("}").split(",")):
                return float(value)
        return 0.0

    # --- NATS, the database, the command

    @asynccontextmanager
    async def nats(self, inbox: str = "_INBOX", **options: Any) -> AsyncIterator[Client]:
        """A client of NATS that knows nothing of us."""
        patient = {"connect_timeout": 30, **options}
        client = await nats.connect(self.nats_url, inbox_prefix=inbox.encode(), error_cb=_ignore, **patient)
        try:
            yield client
        finally:
            await client.close()

    def rows(self, query: str) -> list[dict[str, Any]]:
        """What an SQL query answers, asked of the database itself."""
        with contextlib.closing(
            sqlite3.connect(f"file:{self.state / 'registry.db'}?mode=ro", uri=True, timeout=30)
        ) as database:
            database.row_factory = sqlite3.Row
            return [dict(row) for row in database.execute(query)]

    def command(self, *arguments: str, given: str = "", **settings: str) -> subprocess.CompletedProcess[str]:
        """Run a client command on this daemon's own host."""
        return jetway(*arguments, given=given, **{**self.settings, **settings})

    def json_of(self, *arguments: str) -> Any:
        """What a command prints with --json; it must succeed."""
        done = self.command(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


def _require(holds: bool, why: str) -> None:
    assert holds, why


def nats_key() -> str:
    """A made-up public key of a NATS user, different every time."""
    key = bytes([20 << 3]) + os.urandom(32)
    return base64.b32encode(key + binascii.crc_hqx(key, 0).to_bytes(2, "little")).rstrip(b"=").decode()


def fresh(prefix: str) -> str:
    """An id that no other test uses."""
    return f"{prefix}-{uuid.uuid4().hex[:10]}"


def processes_with(text: str) -> list[str]:
    """Command lines of the processes that mention `text` in it or in their environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line, env = (folder / "cmdline").read_bytes(), (folder / "environ").read_bytes()
        except OSError:
            continue
        if folder.name != str(os.getpid()) and text.encode() in line + env:
            found.append(line.replace(b"\0", b" ").decode(errors="replace"))
    return found


def _log_line(text: str) -> LogLine:
    try:
        fields = json.loads(text)
    except ValueError:
        return LogLine("", "", text)
    if not isinstance(fields, dict):
        return LogLine("", "", text)
    return LogLine(str(fields.get("level", "")), str(fields.get("action", "")), text)


def require_gone(pid: int) -> None:
    """Fail while a process runs."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return
    assert state == "Z", f"process {pid} still runs"


async def _ignore(_error: Exception) -> None:
    """The server going away is what these tests are about."""
