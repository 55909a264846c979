"""What systemd is told, seen from its end of the socket."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from jetway.adapters.systemd import Notifier


@pytest.fixture(params=["path", "abstract"])
def service_manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    path = str(tmp_path / "notify") if request.param == "path" else f"@jetway-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(path.replace("@", "\0", 1))
        receiver.settimeout(2)
        yield receiver, path


def test_every_message(service_manager: tuple[socket.socket, str]) -> None:
    receiver, path = service_manager
    notifier = Notifier.from_environment({"NOTIFY_SOCKET": path})
    assert notifier.enabled
    notifier.status("3 services,\nREADY=1 zürich")
    notifier.ready()
    notifier.watchdog()
    notifier.stopping()
    assert [receiver.recv(200).decode() for _ in range(4)] == [
        "STATUS=3 services, READY=1 zürich",
        "READY=1",
        "WATCHDOG=1",
        "STOPPING=1",
    ]


def _tell_all(notifier: Notifier) -> None:
    notifier.ready()
    notifier.status("x\ud800")
    notifier.stopping()
    notifier.watchdog()


@pytest.mark.parametrize(
    "address",
    ["", "relative", "vsock:2:1234", "/nowhere/notify", "/" + "x" * 200, "@" + "x" * 200, "@", "/a\0b", "\0"],
)
def test_nobody_listens(address: str) -> None:
    _tell_all(Notifier.from_environment({"NOTIFY_SOCKET": address}))


def test_without_the_variable_nothing_happens() -> None:
    notifier = Notifier.from_environment({})
    assert not notifier.enabled
    assert notifier.watchdog_interval is None
    _tell_all(notifier)


def test_a_full_queue_does_not_hold_anybody_up(service_manager: tuple[socket.socket, str]) -> None:
    _, path = service_manager
    notifier = Notifier(path)
    for _ in range(2000):
        notifier.status("x" * 500)


@pytest.mark.parametrize(
    ("env", "interval"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": str(os.getpid())}, 0.5),
        ({"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "x"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-1"}, None),
        ({"WATCHDOG_USEC": "²"}, None),
        ({"WATCHDOG_USEC": ""}, None),
    ],
)
def test_half_of_the_watchdogs_patience(env: dict[str, str], interval: float | None) -> None:
    assert Notifier.from_environment(env).watchdog_interval == interval
