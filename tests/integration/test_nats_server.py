"""The embedded server: a child that is ready, restarted, stopped, and never left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from jetway.adapters.clock import SystemClock
from jetway.adapters.nats import process
from jetway.adapters.nats.connection import Connection, ConnectionOptions
from jetway.adapters.nats.jetstream import JetStream
from jetway.adapters.nats.process import find_binary
from jetway.adapters.nats.server import EmbeddedServer
from jetway.adapters.nats.serverlog import ServerLog
from jetway.core.errors import StartupError
from support.builders import FakeClock
from support.ports import free_port


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[EmbeddedServer]:
    server = EmbeddedServer(tmp_path, "127.0.0.1:0", SystemClock())
    yield server
    await server.stop()


async def eventually(holds: Callable[[], bool], seconds: float = 30.0) -> None:
    async with asyncio.timeout(seconds):
        while not holds():  # noqa: ASYNC110 - there is nothing to wait on
            await asyncio.sleep(0.01)


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


async def test_a_started_server_takes_clients_and_has_jetstream(server: EmbeddedServer) -> None:
    await server.start()
    assert server.running
    connection = Connection(ConnectionOptions((server.url,)), SystemClock())
    await connection.connect()
    try:
        assert "limits" in await JetStream(connection).call("INFO")
        assert connection.server_version >= (2, 12, 0)
    finally:
        await connection.close()


async def test_its_files_are_for_the_owner_alone(server: EmbeddedServer, tmp_path: Path) -> None:
    await server.start()

    config = tmp_path / "nats" / "server.conf"
    assert stat.S_IMODE(config.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "nats").stat().st_mode) == 0o700
    assert (tmp_path / "nats" / "jetstream").is_dir()
    text = config.read_text()
    assert "sync_interval: always" in text
    assert 'write_deadline: "30s"' in text


async def test_a_stopped_server_leaves_no_process_and_no_pid_file(
    server: EmbeddedServer, tmp_path: Path
) -> None:
    await server.start()
    pid = server.pid
    assert pid is not None

    await server.stop()

    assert not server.running
    assert not is_alive(pid)
    assert not (tmp_path / "nats" / "server.pid").exists()
    await server.stop()


async def test_it_is_out_of_reach_of_the_terminal(server: EmbeddedServer) -> None:
    await server.start()

    assert server.pid is not None
    assert os.getpgid(server.pid) != os.getpgid(0)


async def test_a_port_in_use_is_named_with_its_setting(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"

        with pytest.raises(StartupError, match=rf"nats\.listen: {address} is in use"):
            await EmbeddedServer(tmp_path, address, SystemClock()).start()


async def test_any_port_is_another_one_where_somebody_takes_the_first(
    server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        first, found = taken.getsockname()[1], []

        def free_port(host: str) -> int:
            found.append(first if not found else process.free_port(host))
            return found[-1]

        monkeypatch.setattr("jetway.adapters.nats.server.free_port", free_port)
        await server.start()

    assert len(found) == 2
    assert server.running
    assert server.port == found[-1] != first


async def test_no_more_than_three_ports_are_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port, tries = taken.getsockname()[1], []

        def free_port(host: str) -> int:
            tries.append(host)
            return int(port)

        monkeypatch.setattr("jetway.adapters.nats.server.free_port", free_port)
        with pytest.raises(StartupError, match=f"127.0.0.1:{port} is in use"):
            await EmbeddedServer(tmp_path, "127.0.0.1:0", SystemClock()).start()
    assert len(tries) == 3


async def test_an_address_of_another_machine_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match=r"nats\.listen: 192\.0\.2\.1:4222"):
        await EmbeddedServer(tmp_path, "192.0.2.1:4222", SystemClock()).start()


async def test_a_server_that_dies_is_started_again_on_the_same_port(server: EmbeddedServer) -> None:
    codes: list[int] = []
    server.on_exit.append(codes.append)
    await server.start()
    first, port = server.pid, server.port
    assert first is not None

    os.kill(first, signal.SIGKILL)
    await eventually(lambda: server.restarts == 1 and server.running)

    assert server.pid != first
    assert server.port == port
    assert codes == [-signal.SIGKILL]


async def test_a_second_daemon_cannot_take_the_same_directory(server: EmbeddedServer, tmp_path: Path) -> None:
    await server.start()

    with pytest.raises(StartupError, match="another daemon"):
        await EmbeddedServer(tmp_path, "127.0.0.1:0", SystemClock()).start()

    assert server.running


async def test_a_program_that_does_not_start_is_told(tmp_path: Path) -> None:
    broken = tmp_path / "nats-server"
    broken.write_text("#!/bin/sh\necho no such luck >&2\nexit 3\n")
    broken.chmod(0o755)

    with pytest.raises(StartupError, match="no such luck"):
        await EmbeddedServer(tmp_path, "127.0.0.1:0", SystemClock(), binary=broken).start()


async def test_a_server_that_was_left_over_is_stopped(tmp_path: Path) -> None:
    port = free_port()
    server = EmbeddedServer(tmp_path, f"127.0.0.1:{port}", SystemClock())
    await server.start()
    await server.stop()
    config = str(tmp_path / "nats" / "server.conf")
    left = await asyncio.create_subprocess_exec(str(find_binary()), "-c", config, stderr=subprocess.DEVNULL)
    try:
        (tmp_path / "nats" / "server.pid").write_text(f"{left.pid}\n")
        await eventually(lambda: _listens(port))

        await server.start()

        assert server.running
        assert server.pid != left.pid
        assert await left.wait() is not None
    finally:
        await server.stop()
        if left.returncode is None:
            left.kill()
            await left.wait()


async def test_a_process_that_only_has_the_old_pid_is_left_alone(
    server: EmbeddedServer, tmp_path: Path
) -> None:
    stranger = await asyncio.create_subprocess_exec("sleep", "60")
    try:
        (tmp_path / "nats").mkdir()
        (tmp_path / "nats" / "server.pid").write_text(f"{stranger.pid}\n")

        await server.start()

        assert is_alive(stranger.pid)
    finally:
        stranger.kill()
        await stranger.wait()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs the parent-death signal of Linux")
async def test_it_does_not_outlive_a_killed_daemon(tmp_path: Path) -> None:
    script = (
        "import asyncio\n"
        "from pathlib import Path\n"
        "from jetway.adapters.clock import SystemClock\n"
        "from jetway.adapters.nats.server import EmbeddedServer\n"
        "async def main():\n"
        f"    server = EmbeddedServer(Path({str(tmp_path)!r}), '127.0.0.1:0', SystemClock())\n"
        "    await server.start()\n"
        "    print(server.pid, flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    daemon = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
    )
    try:
        assert daemon.stdout is not None
        async with asyncio.timeout(60):
            while not (line := (await daemon.stdout.readline()).strip()).isdigit():
                assert line, "the daemon ended"
        pid = int(line)
        assert is_alive(pid)
    finally:
        daemon.kill()
        await daemon.wait()

    await eventually(lambda: not is_alive(pid))


async def test_its_lines_come_in_the_log(server: EmbeddedServer) -> None:
    with capture_logs() as lines:
        await server.start()

    said = [line for line in lines if line["action"] == "nats_server"]
    assert {line["log_level"] for line in said} == {"debug"}
    assert "Server is ready" in {line["event"] for line in said}


def test_a_flood_of_lines_is_cut_and_counted() -> None:
    clock = FakeClock()
    with capture_logs() as lines:
        server_log = ServerLog(clock)
        for _ in range(1000):
            server_log.take(b"[1] [WRN] again\n")
        clock.advance(11)
        server_log.take(b"[1] [ERR] " + b"x" * 10_000)

    assert len(lines) == 102
    assert lines[100]["left_out"] == 900
    assert len(lines[101]["event"]) <= 500
    assert server_log.last_problem.startswith("xxx")


def test_what_a_client_calls_itself_is_taken_for_no_failure_and_fills_no_log() -> None:
    line = b'[1] [ERR] 192.0.2.1:5 - cid:7 - "v1:no space left on device" - authentication error\n'
    with capture_logs() as lines:
        server_log = ServerLog(FakeClock())
        for _ in range(1000):
            server_log.take(line)
        server_log.take(b"[1] [ERR] our own trouble\n")
    assert not server_log.store_failed.is_set()
    assert server_log.last_problem == "our own trouble"
    assert [line["log_level"] for line in lines] == ["warning", "error"]


async def test_a_server_that_could_not_write_is_started_again_once_there_is_room(
    server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = 0
    monkeypatch.setattr("jetway.adapters.nats.server._FIRST_MENDING", 0.01)
    monkeypatch.setattr("jetway.adapters.nats.server._LAST_MENDING", 0.01)
    monkeypatch.setattr("jetway.adapters.nats.server.room", lambda _: room)
    await server.start()
    server._log.take(b"[1] [ERR] Filestore [KV_registry] Critical write error: no space left on device\n")
    await asyncio.sleep(0.1)
    assert server.restarts == 0
    room = 1 << 30
    async with asyncio.timeout(30):
        while not (server.restarts and server.running):  # noqa: ASYNC110 - there is nothing to wait on
            await asyncio.sleep(0.01)
    assert server.restarts == 1
    assert not server._log.store_failed.is_set()


async def test_a_server_without_a_stop_in_order_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jetway.adapters.nats.server._STOP_SECONDS", 0.2)
    server = EmbeddedServer(tmp_path, "127.0.0.1:0", SystemClock())
    await server.start()
    pid = server.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)

    async with asyncio.timeout(30):
        await server.stop()

    assert not is_alive(pid)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
