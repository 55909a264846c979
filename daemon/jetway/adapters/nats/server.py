"""The embedded server: nats-server as a child of the daemon, started again when it dies.

It asks for credentials where it is given accounts, and speaks TLS where it is given a certificate. It runs in a
session of its own, so that Ctrl-C on the terminal reaches the daemon alone, which then stops it in order. It does
not outlive the daemon: on Linux the kernel ends it when the daemon is killed, and whatever is left all the same is
found at the next start.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog

from jetway.adapters.nats.accounts import ADMIN_FILE, Accounts
from jetway.adapters.nats.process import (
    command,
    find_binary,
    find_leftover,
    free_port,
    is_taken,
    room,
    without_secrets,
)
from jetway.adapters.nats.serverlog import ServerLog
from jetway.adapters.nats.storedir import OPEN_ACCOUNT, move_to_account
from jetway.core.errors import StartupError
from jetway.ports import Clock
from jetway.setting_types import split_address

log = structlog.get_logger()

_READY_SECONDS = 30.0
_STOP_SECONDS = 8.0
_KILLED_SECONDS = 5.0
_FIRST_BACKOFF, _LAST_BACKOFF = 0.1, 10.0
_STEADY_SECONDS = 60.0
_FIRST_MENDING, _LAST_MENDING = 2.0, 60.0
_ROOM_BYTES = 16 * 1024 * 1024
"""On a disk with less a new start would fail as the last one did."""
_LINE_LIMIT = 64 * 1024

_CONFIG = """\
# Written by the daemon at every start; changes here are lost.
server_name: "jetway"
listen: "{listen}"
logtime: false
# The default of 1 MB is one heartbeat batch, and less than a record made of the largest request body.
max_payload: 4MB
# A daemon that is busy for a while must not be dropped as too slow.
write_deadline: "30s"
jetstream {{
    # The server adds "jetstream" to this path.
    store_dir: {directory}
    # What was acknowledged survives a power cut.
    sync_interval: always
    # Only short-lived consumers are kept in memory.
    max_memory_store: 64MB
}}
"""
_TLS_CONFIG = """\
tls {{
    cert_file: {cert}
    key_file: {key}
    # A slow link needs several round trips.
    timeout: 10
}}
"""


@dataclass(frozen=True, slots=True)
class ServerTls:
    """The server's certificate, with what leads to its authority, and its key."""

    cert: Path
    key: Path


class _PortInUseError(StartupError):
    """Another program listens there."""


class EmbeddedServer:
    """Runs nats-server for one daemon. `listen` is host:port; port 0 takes a free one and keeps it."""

    def __init__(
        self,
        state_dir: Path,
        listen: str,
        clock: Clock,
        *,
        binary: Path | None = None,
        accounts: Accounts | None = None,
        tls: ServerTls | None = None,
    ) -> None:
        self._directory = state_dir / "nats"
        self._accounts = accounts
        self._tls = tls
        self._host, self._port = split_address(listen)
        self._clock = clock
        self._binary = binary
        self._process: asyncio.subprocess.Process | None = None
        self._log = ServerLog(clock)
        self._reader: asyncio.Task[None] | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._mender: asyncio.Task[None] | None = None
        self._lock: int | None = None
        self._ready = asyncio.Event()
        self.restarts = 0
        """How often it was started again after it had died."""
        self.on_exit: list[Callable[[int], None]] = []
        """Called with the exit code when it dies by itself; must not block."""

    @property
    def running(self) -> bool:
        """Whether it is up and has said that it is ready."""
        return self._process is not None and self._process.returncode is None and self._ready.is_set()

    @property
    def trouble(self) -> str:
        """Why it takes no writes; empty while it does. It is started again once that can help."""
        return (
            f"the NATS server cannot write: {self._log.last_problem}"
            if self._log.store_failed.is_set()
            else ""
        )

    @property
    def pid(self) -> int | None:
        """Its process id, while there is one."""
        return self._process.pid if self._process and self._process.returncode is None else None

    @property
    def port(self) -> int:
        """The port it listens on; known once it is started."""
        return self._port

    @property
    def address(self) -> str:
        """host:port."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{host}:{self._port}"

    @property
    def url(self) -> str:
        """Where clients on this machine connect."""
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self._host)  # noqa: S104 - it is replaced
        address = f"{host}:{self._port}" if host else self.address
        return f"{'tls' if self._tls else 'nats'}://{address}"

    async def start(self) -> None:
        """Start it and wait until it is ready. Raises StartupError naming the setting to change."""
        self._binary = self._binary or find_binary()
        self._take_directory()
        try:
            await self._stop_leftover()
            any_port = self._port == 0
            if not any_port and is_taken(self._host, self._port):
                raise self._in_use()
            account = self._accounts.store_account if self._accounts else OPEN_ACCOUNT
            move_to_account(self._directory / "jetstream", account)
            await (self._spawn_anywhere() if any_port else self._spawn_configured())
        except BaseException:
            await self.stop()
            raise
        loop = asyncio.get_running_loop()
        self._supervisor = loop.create_task(self._supervise(), name="nats-server")
        self._mender = loop.create_task(self._mend(), name="nats-server-mender")
        log.info("the NATS server is ready", action="nats_server_started", address=self.address, pid=self.pid)

    def reload(self) -> None:
        """Have it read its certificate again; connections live on."""
        pid = self.pid
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGHUP)

    async def stop(self) -> None:
        """Stop it: in order within 8 s, else by force. Safe to call again."""
        tasks = [task for task in (self._mender, self._supervisor) if task is not None]
        self._mender = self._supervisor = None
        for task in tasks:
            task.cancel()
            await asyncio.wait([task])
        await self._end_process()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _take_directory(self) -> None:
        """Hold the directory, so that "left over" can only mean: of a daemon that is no more."""
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(self._directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StartupError(f"state_dir: {self._directory} cannot be written: {error.strerror}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(lock)
            raise StartupError(
                f"state_dir: the NATS server in {self._directory} runs for another daemon"
            ) from error
        self._lock = lock

    async def _stop_leftover(self) -> None:
        pid = find_leftover(self._pid_file, self._config_file)
        if pid is None:
            return
        log.warning("stopping a NATS server that was left over", action="nats_server_leftover", pid=pid)
        for number, seconds in ((signal.SIGTERM, _STOP_SECONDS), (signal.SIGKILL, _KILLED_SECONDS)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
            deadline = self._clock.monotonic() + seconds
            while find_leftover(self._pid_file, self._config_file) is not None:
                if self._clock.monotonic() > deadline:
                    break
                await asyncio.sleep(0.05)
            else:
                return
        raise StartupError(f"nats: an earlier NATS server (pid {pid}) does not end")

    @property
    def _config_file(self) -> Path:
        return (self._directory / "server.conf").absolute()

    @property
    def _pid_file(self) -> Path:
        return self._directory / "server.pid"

    def _write_config(self) -> None:
        text = _CONFIG.format(listen=self.address, directory=_quoted(self._directory))
        if self._tls:
            text += _TLS_CONFIG.format(cert=_quoted(self._tls.cert), key=_quoted(self._tls.key))
        try:
            if self._accounts:
                text += self._accounts.prepare()
            else:
                # Its being there says that the server asks for credentials.
                (self._directory / ADMIN_FILE).unlink(missing_ok=True)
            _write_private(self._config_file, text)
        except OSError as error:
            raise StartupError(f"state_dir: {error.filename} cannot be written: {error.strerror}") from error

    async def _spawn_anywhere(self) -> None:
        """On a port that is free, and on another one where somebody takes that before the server does."""
        for tries_left in (2, 1, 0):
            self._port = free_port(self._host)
            try:
                await self._spawn_configured()
            except _PortInUseError:
                if not tries_left:
                    raise
                await self._end_process()
            else:
                return

    async def _spawn_configured(self) -> None:
        self._write_config()
        await self._spawn()

    async def _spawn(self) -> None:
        self._ready.clear()
        assert self._binary is not None  # noqa: S101 - set by start()
        self._process = await asyncio.create_subprocess_exec(
            *command(self._binary, self._config_file),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
            limit=_LINE_LIMIT,
            env=without_secrets(os.environ),
        )
        self._reader = asyncio.get_running_loop().create_task(
            self._read(self._process), name="nats-server-log"
        )
        _write_private(self._pid_file, f"{self._process.pid}\n")
        try:
            async with asyncio.timeout(_READY_SECONDS):
                await self._ready.wait()
        except TimeoutError:
            raise StartupError(f"nats: the server was not ready in {_READY_SECONDS:g} s") from None
        if self._process.returncode is not None or self._log.failed:
            raise (
                self._in_use()
                if "address already in use" in self._log.last_problem
                else StartupError(
                    f"nats: the server did not start: {self._log.last_problem or 'no reason given'}"
                )
            )

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stderr is not None  # noqa: S101 - it is a pipe
        self._log.reset()
        while True:
            try:
                line = await process.stderr.readline()
            except ValueError:
                continue  # longer than the limit: the reader has dropped it
            if not line:
                break
            if self._log.take(line):
                self._ready.set()
        await process.wait()
        self._log.failed = self._log.failed or not self._ready.is_set()
        self._ready.set()

    async def _supervise(self) -> None:
        backoff = _FIRST_BACKOFF
        while True:
            assert self._process is not None  # noqa: S101 - set by start()
            started = self._clock.monotonic()
            code = await self._process.wait()
            self._ready.clear()
            log.error(
                "the NATS server died", action="nats_server_died", code=code, reason=self._log.last_problem
            )
            for callback in self.on_exit:
                callback(code)
            if self._clock.monotonic() - started > _STEADY_SECONDS:
                backoff = _FIRST_BACKOFF
            backoff = await self._restart(backoff)

    async def _restart(self, backoff: float) -> float:
        """Until it runs again; the backoff to go on with."""
        while True:
            await asyncio.sleep(backoff)
            backoff = min(backoff * 2, _LAST_BACKOFF)
            try:
                await self._end_process()
                await self._spawn_configured()
            except (StartupError, OSError) as error:
                log.error(
                    "the NATS server does not start", action="nats_server_restart_failed", reason=str(error)
                )
                continue
            self.restarts += 1
            log.warning("the NATS server runs again", action="nats_server_restarted", restarts=self.restarts)
            return backoff

    async def _mend(self) -> None:
        """Start it again after a write that failed, once there is room: by itself it never writes again."""
        pause, mended_at = _FIRST_MENDING, 0.0
        while True:
            await self._log.store_failed.wait()
            steady = self._clock.monotonic() - mended_at > _STEADY_SECONDS
            pause = _FIRST_MENDING if steady else min(pause * 2, _LAST_MENDING)
            await asyncio.sleep(pause)
            if await asyncio.to_thread(room, self._directory) < _ROOM_BYTES:
                continue
            self._log.store_failed.clear()
            mended_at = self._clock.monotonic()
            log.warning("the NATS server could not write: starting it again", action="nats_server_mended")
            await _end(self._process)

    async def _end_process(self) -> None:
        process, self._process = self._process, None
        await _end(process)
        reader, self._reader = self._reader, None
        if reader is not None:
            await asyncio.wait([reader], timeout=_KILLED_SECONDS)
            reader.cancel()
        self._ready.clear()
        if process is not None:
            self._pid_file.unlink(missing_ok=True)

    def _in_use(self) -> StartupError:
        return _PortInUseError(
            f"nats.listen: {self.address} is in use by another program; choose another port"
        )


async def _end(process: asyncio.subprocess.Process | None) -> None:
    """In order within 8 s, else by force."""
    if process is None or process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(_STOP_SECONDS):
            await process.wait()
    except TimeoutError:
        log.error("the NATS server did not stop in time", action="nats_server_killed", pid=process.pid)
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def _quoted(path: Path) -> str:
    return json.dumps(str(path.absolute()), ensure_ascii=False)


def _write_private(file: Path, text: str) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        os.fchmod(descriptor, 0o600)
        stream.write(text)
