"""The demo: all of it real, and nothing of it left behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.daemon import environment, eventually, jetway, processes_with


@pytest.fixture
def scratch(tmp_path: Path) -> Iterator[Path]:
    """Where the demo makes its throw-away directory; neither that nor a process is left."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    yield folder
    assert not processes_with(str(folder))
    assert not list(folder.iterdir())


def test_once_shows_three_active_services_and_ends_with_0(scratch: Path) -> None:
    done = jetway("demo", "--once", TMPDIR=str(scratch))
    assert done.returncode == 0, done.stdout + done.stderr
    shown = [line for line in done.stdout.splitlines() if line.endswith("active online")]
    assert [line.lstrip("│└─ ").split()[0] for line in shown] == ["poller", "agent", "checker"]
    assert "jw1." not in done.stdout + done.stderr
    assert "jwa_" not in done.stdout + done.stderr


def test_the_users_own_settings_do_not_reach_the_demo(scratch: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    done = jetway(
        "demo", "--once", TMPDIR=str(scratch), JETWAY_STATE_DIR=str(mine), JETWAY_NATS__MODE="external"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert not mine.exists()


def test_a_taken_port_is_named(scratch: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        done = jetway("demo", "--once", "--port", port, TMPDIR=str(scratch))
    assert done.returncode == 1
    assert port in done.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("until", "number"),
    [
        ("starting the daemon", signal.SIGINT),
        ("all three services are active", signal.SIGINT),
        ("all three services are active", signal.SIGTERM),
    ],
)
def test_ctrl_c_leaves_nothing_behind(
    scratch: Path, tmp_path: Path, until: str, number: signal.Signals
) -> None:
    output = tmp_path / "output"
    with output.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "jetway", "demo"],
            env=environment(TMPDIR=str(scratch)),
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )

    def reached() -> None:
        assert process.poll() is None, output.read_text()
        assert until in output.read_text()

    try:
        eventually(reached, 60)
        os.killpg(process.pid, number)  # as a terminal does: to the whole foreground group
        assert process.wait(30) == 0, output.read_text()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    assert "Traceback" not in output.read_text()
