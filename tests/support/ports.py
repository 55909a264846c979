"""Ports for what is told a port beforehand, or comes back on the one it had."""

from __future__ import annotations

import contextlib
import itertools
import random
import socket
from collections.abc import Iterator
from pathlib import Path

_FIRST = 12_000
_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_port() -> int:
    """A port that nobody has, and that nobody else gets while this process lives.

    The kernel gives it to nobody who asks for any port, nor to a connection that goes out: it lies below the
    range of those. And no other process of these tests takes it, because a name that only one can have is held.
    """
    return next(_ports)


def _free_ports() -> Iterator[int]:
    last = _first_ephemeral()
    if last <= _FIRST:  # this system has no such range: as good as it gets
        yield from map(_any_port, itertools.repeat(None))
    turn = random.randrange(last - _FIRST)
    for number in range(last - _FIRST):
        port = _FIRST + (turn + number) % (last - _FIRST)
        if _is_free(port) and _claimed(port):
            yield port


def _first_ephemeral() -> int:
    """The first port that the kernel chooses by itself; 0 where it does not say."""
    try:
        return int(_EPHEMERAL.read_text().split()[0])
    except OSError:
        return 0


def _claimed(port: int) -> bool:
    """Whether it is now ours, until this process ends: the name is of the same network as the port."""
    name = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        name.bind(f"\0jetway-tests-port-{port}")
    except OSError:
        name.close()
        return False
    name.detach()  # it is never closed: the kernel does that
    return True


def _is_free(port: int) -> bool:
    with socket.socket() as probe, contextlib.suppress(OSError):
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: one in TIME_WAIT is free
        probe.bind(("", port))
        return True
    return False


def _any_port(_: None) -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


_ports = _free_ports()
