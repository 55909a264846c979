"""Tells systemd how the daemon is doing: one datagram a message to `$NOTIFY_SOCKET`, see sd_notify(3).

The protocol is so small that a library would be more to keep than the code.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping


class Notifier:
    """Sends readiness, status and watchdog pings. Does nothing outside systemd; never raises, never waits."""

    def __init__(self, address: str = "", watchdog_interval: float | None = None) -> None:
        """`address`: a socket's path, or `@` and a name in Linux's abstract namespace; empty: do nothing."""
        self._address = _socket_address(address)
        self.watchdog_interval = watchdog_interval
        """Seconds between two calls of `watchdog()`, half of what systemd allows; None: it expects none."""

    @classmethod
    def from_environment(cls, env: Mapping[str, str] = os.environ) -> Notifier:
        """What systemd put into the environment of this process."""
        return cls(env.get("NOTIFY_SOCKET", ""), _watchdog_interval(env))

    @property
    def enabled(self) -> bool:
        """Whether anybody listens."""
        return bool(self._address)

    def ready(self) -> None:
        """The start is complete."""
        self._send("READY=1")

    def status(self, text: str) -> None:
        """One line for `systemctl status`."""
        self._send("STATUS=" + " ".join(text.split()))

    def stopping(self) -> None:
        """The shutdown has begun."""
        self._send("STOPPING=1")

    def watchdog(self) -> None:
        """Still alive."""
        self._send("WATCHDOG=1")

    def _send(self, message: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
                # A full queue at the other end must not hold up the event loop.
                channel.setblocking(False)
                channel.sendto(message.encode(errors="replace"), self._address)
        except (OSError, ValueError):
            # Nobody to tell: the daemon's work does not depend on it.
            return


def _socket_address(text: str) -> str:
    if text.startswith("@"):
        return "\0" + text[1:]
    return text if text.startswith("/") else ""


def _watchdog_interval(env: Mapping[str, str]) -> float | None:
    pid = env.get("WATCHDOG_PID", "")
    if pid and pid != str(os.getpid()):
        return None
    microseconds = env.get("WATCHDOG_USEC", "")
    if not (microseconds.isascii() and microseconds.isdigit()) or int(microseconds) == 0:
        return None
    return int(microseconds) / 2_000_000
