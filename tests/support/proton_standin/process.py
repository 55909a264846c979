"""The stand-in as a test holds it: a child process that can be killed and started again on its data."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote

import pytest

from support.ports import free_port
from support.proton_standin.faults import Fault, Moment

_TESTS = Path(__file__).resolve().parents[2]
_EVERYTHING = ""


def require_chdb() -> None:
    """Skip the test where chDB is not installed. In CI (`JETWAY_CI=1`) its absence is a failure."""
    if importlib.util.find_spec("chdb"):
        return
    reason = "chdb is not installed: run python3 dev.py install proton-standin"
    if os.environ.get("JETWAY_CI") == "1":
        pytest.fail(f"{reason}; CI must not pass this over")
    pytest.skip(reason)


class ProtonStandin:
    """A server that behaves as Proton does, on a loopback port that it keeps over restarts.

    Use it in a `with` or `async with` block, which starts it and ends it, its data with it. All methods are
    blocking and quick, but for `start`, which takes a second.

    A write shows in `table()` after `visible_after` seconds. With a certificate and its key (PEM files) it speaks
    TLS alone. `memory` is the most that the engine may use, in bytes.
    """

    def __init__(
        self,
        *,
        visible_after: float = 0.0,
        user: str = "default",
        password: str = "",
        certificate: Path | None = None,
        key: Path | None = None,
        memory: int = 1_500_000_000,
    ) -> None:
        self.user = user
        self.password = password
        self.host = "127.0.0.1"
        self.port = free_port()
        self.faults = FaultSwitch(self)
        self._visible_after = visible_after
        self._tls = {"certificate": str(certificate or ""), "key": str(key or "")}
        self._memory = memory
        self._folder: Path | None = None
        self._process: subprocess.Popen[str] | None = None
        self._asking = threading.Lock()

    # --- where it is

    @property
    def url(self) -> str:
        """With user and password, for the database `default`."""
        return self.url_of("default")

    def url_of(self, database: str) -> str:
        """With user and password, for another database."""
        secret = f":{quote(self.password, safe='')}" if self.password else ""
        return f"proton://{quote(self.user, safe='')}{secret}@{self.host}:{self.port}/{database}"

    @property
    def folder(self) -> Path:
        """Its data, while it has any."""
        assert self._folder, "it was never started, or is closed"
        return self._folder

    # --- its life

    def start(self) -> None:
        """Start it, on the data that it had, and return when it takes connections."""
        assert self._process is None, "it runs already"
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="proton-standin-"))
        with (self.folder / "stderr").open("ab") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "support.proton_standin.server"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd=_TESTS,
                env={**os.environ, "TZ": "UTC", "PYTHONPATH": str(_TESTS)},
            )
        self.port = self._ask(self._arguments())["port"]

    def _arguments(self) -> dict[str, Any]:
        return {
            "folder": str(self.folder),
            "port": self.port,
            "user": self.user,
            "password": self.password,
            "visible_after": self._visible_after,
            "memory": self._memory,
            **self._tls,
        }

    def kill(self) -> None:
        """It dies at once, as in a crash; its data stay."""
        process = self._taken()
        if process:
            process.kill()
            _reap(process)

    def stop(self) -> None:
        """It ends in order; its data stay. Safe to call again."""
        process = self._taken()
        if process is None:
            return
        assert process.stdin
        try:
            process.stdin.write('{"do": "stop"}\n')
            process.stdin.flush()
            process.wait(20)
        except (OSError, subprocess.TimeoutExpired):
            process.kill()
        _reap(process)

    def restart(self) -> None:
        """Kill it, and start it on the same port and data."""
        self.kill()
        self.start()

    def _taken(self) -> subprocess.Popen[str] | None:
        process, self._process = self._process, None
        return process

    def close(self) -> None:
        """Stop it and delete its data."""
        self.stop()
        if self._folder:
            shutil.rmtree(self._folder)
            self._folder = None

    def __enter__(self) -> ProtonStandin:
        require_chdb()
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> ProtonStandin:
        return await asyncio.to_thread(self.__enter__)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.close)

    # --- what it is told

    @property
    def visible_after(self) -> float:
        """Seconds until a write shows in table()."""
        return self._visible_after

    @visible_after.setter
    def visible_after(self, seconds: float) -> None:
        self._visible_after = seconds
        if self._process:
            self.tell("visible_after", seconds=seconds)

    def drop_connections(self) -> None:
        """Every client loses its connection at once; new ones are taken."""
        self.tell("drop_connections")

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return int(self.tell("look")["connections"])

    @property
    def statements(self) -> list[str]:
        """The last statements that came in, since the last start."""
        return list(self.tell("statements")["statements"])

    def tell(self, what: str, **arguments: Any) -> dict[str, Any]:
        """Give one command, and return the answer."""
        return self._ask({"do": what, **arguments})

    def _ask(self, command: dict[str, Any]) -> dict[str, Any]:
        with self._asking:
            process = self._process
            assert process and process.stdin and process.stdout, "it does not run"
            process.stdin.write(json.dumps(command) + "\n")
            process.stdin.flush()
            answer = process.stdout.readline()
        assert answer, f"it ended: {(self.folder / 'stderr').read_text()[-4000:]}"
        found: dict[str, Any] = json.loads(answer)
        return found


def _reap(process: subprocess.Popen[str]) -> None:
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe:
            pipe.close()


class FaultSwitch:
    """What is to go wrong with the statements that match a regular expression."""

    def __init__(self, standin: ProtonStandin) -> None:
        self._standin = standin

    def drop(
        self, matching: str = _EVERYTHING, *, moment: Moment = "before", times: int = 1, skip: int = 0
    ) -> None:
        """The connection is lost before the statement is executed, or after: applied, but not answered."""
        self.add(Fault("drop", matching, moment, times, skip))

    def error(
        self,
        code: int,
        message: str = "injected by the test",
        matching: str = _EVERYTHING,
        *,
        moment: Moment = "before",
        times: int = 1,
        skip: int = 0,
    ) -> None:
        """The server answers with an error, instead of executing the statement or after it."""
        self.add(Fault("error", matching, moment, times, skip, code=code, message=message))

    def slow(
        self,
        seconds: float,
        matching: str = _EVERYTHING,
        *,
        moment: Moment = "before",
        times: int = 1,
        skip: int = 0,
    ) -> None:
        """The answer comes late; with `moment="after"`, what it answers is done in time."""
        self.add(Fault("slow", matching, moment, times, skip, seconds=seconds))

    def half_block(self, matching: str = _EVERYTHING, *, times: int = 1, skip: int = 0) -> None:
        """Half of the answer comes, then the connection is lost."""
        self.add(Fault("half_block", matching, times=times, skip=skip))

    def add(self, fault: Fault) -> None:
        """Let this go wrong."""
        self._standin.tell("fault", fault=fault.as_json())

    def clear(self) -> None:
        """Nothing goes wrong any more."""
        self._standin.tell("clear_faults")

    @property
    def fired(self) -> int:
        """How many statements were hit since the last start."""
        return int(self._standin.tell("look")["fired"])
