"""The demo: all of it real, and nothing of it left behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import urllib.request
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
    eventually(lambda: require_nothing_left(folder))


def require_nothing_left(folder: Path) -> None:
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
        assert process.wait(90) == 0, output.read_text()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    assert "Traceback" not in output.read_text()


def test_it_says_where_the_dashboard_is_and_how_to_sign_in(scratch: Path, tmp_path: Path) -> None:
    """The token itself is not shown: its file is there for as long as the demo runs."""
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

    def told(words: str) -> str:
        return next(
            line.partition(words)[2] for line in output.read_text().splitlines() if line.startswith(words)
        )

    def reached() -> None:
        assert process.poll() is None, output.read_text()
        assert "the API is at" in output.read_text()

    try:
        eventually(reached, 60)
        address = told("the dashboard is at ")
        token = Path(told("sign in there with the API token in ")).read_text().strip()
        with urllib.request.urlopen(address, timeout=20) as page:  # noqa: S310 - the demo's own address
            assert b"<html" in page.read()
        request = urllib.request.Request(  # noqa: S310
            address.removesuffix("/ui/") + "/api/admin/services/tree",
            headers={"Authorization": f"Bearer {token}"},
        )
        with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310
            assert answer.status == 200
        assert token not in output.read_text()
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(90)
