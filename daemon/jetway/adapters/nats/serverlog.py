"""What nats-server says, in the daemon's own log."""

from __future__ import annotations

import asyncio
import re

import structlog

from jetway.adapters.nats.quiet import QuietLog
from jetway.ports import Clock

log = structlog.get_logger()

_LINE = re.compile(r"^\[\d+\] (?:[\d/]+ [\d:.]+ )?\[(?P<level>[A-Z]{3})\] ?(?P<text>.*)$")
_READY = "Server is ready"
_STORE_FAILED = ("failed to store a msg", "Critical write error", "no space left on device")
# Such a line quotes what a client calls itself, and so can say anything.
_OF_A_CLIENT = re.compile(r"\S+ - [a-z]+:\d+ - ")
_TEXT_LIMIT = 500
_LINES_PER_WINDOW = 100
_WINDOW_SECONDS = 10.0


class ServerLog:
    """Passes lines on, at most 100 in ten seconds, and remembers the last problem.

    Informative lines go to debug: a start alone makes two dozen. Of those about clients one in ten seconds is
    shown: whoever reaches the server can cause them at will.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._window = clock.monotonic()
        self._lines = 0
        self._clients = QuietLog(clock)
        self.last_problem = ""
        self.failed = False
        self.store_failed = asyncio.Event()
        """Set when it could not write: it then refuses to until it is started again, whatever the disk does."""

    def reset(self) -> None:
        """A new process begins."""
        self.last_problem = ""
        self.failed = False
        self.store_failed.clear()

    def take(self, line: bytes) -> bool:
        """Pass a line on; whether it says that the server is ready."""
        text = line.decode(errors="replace").rstrip()[:_TEXT_LIMIT]
        match = _LINE.match(text)
        # Before its log is set up the server writes plain text: what is wrong in its configuration.
        level, text = (match["level"], match["text"]) if match else ("ERR", text)
        if _OF_A_CLIENT.match(text):
            self._clients.warning(text, action="nats_server_client")
            return False
        if level in ("ERR", "FTL"):
            self.last_problem = text
            if any(words in text for words in _STORE_FAILED):
                self.store_failed.set()
        self._pass_on(level, text)
        return text == _READY

    def _pass_on(self, level: str, text: str) -> None:
        now = self._clock.monotonic()
        if now - self._window > _WINDOW_SECONDS:
            if self._lines > _LINES_PER_WINDOW:
                left_out = self._lines - _LINES_PER_WINDOW
                log.warning("lines of the NATS server were left out", action="nats_server", left_out=left_out)
            self._window, self._lines = now, 0
        self._lines += 1
        if self._lines > _LINES_PER_WINDOW:
            return
        write = {"ERR": log.error, "FTL": log.error, "WRN": log.warning}.get(level, log.debug)
        write(text, action="nats_server")
