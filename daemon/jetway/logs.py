"""Logs: structlog through stdlib logging, to standard error. Every line has a stable `action=` key.

Secrets cannot reach a line: fields whose names say that they hold one are masked, and so is anything in a text
that looks like one of our tokens.
"""

from __future__ import annotations

import asyncio
import logging
import re
import sys
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

_SECRET_FIELD = re.compile(r"token|secret|password|creds|authorization|private|seed", re.IGNORECASE)
_SECRET_TEXT = re.compile(
    r"jw1\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+|jwa_[A-Za-z0-9_-]{16,}|\bS[UAO][A-Z2-7]{56}\b|://[^/\s:@]+:[^/\s@]+@"
)
_HARMLESS_FIELDS = frozenset({"token_name", "tokens"})
MASK = "[hidden]"
LONGEST_SECONDS = 86_400
"""For which the level may be changed at run time."""

log = structlog.get_logger()


def mask(text: str) -> str:
    """The text without anything that looks like a secret of ours, or a password in a URL."""
    return _SECRET_TEXT.sub(lambda m: f"://{MASK}@" if m[0].startswith("://") else MASK, text)


def hide_secrets(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """A structlog processor: masks by field name and by what a text looks like."""
    for name, value in event.items():
        if _SECRET_FIELD.search(name) and name not in _HARMLESS_FIELDS:
            event[name] = MASK
        elif isinstance(value, str):
            event[name] = mask(value)
    return event


class _Masked(logging.Formatter):
    """A formatter that masks whatever another formatter made, tracebacks included."""

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self._inner = inner

    def format(self, record: logging.LogRecord) -> str:
        return mask(self._inner.format(record))


def set_up_logs(level: str, form: Literal["auto", "json", "console"]) -> None:
    """Send all logs, those of libraries included, to standard error in one form."""
    console = form == "console" or (form == "auto" and sys.stderr.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        hide_secrets,
    ]
    renderer: Any = structlog.dev.ConsoleRenderer() if console else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    finish: list[Processor] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
    if not console:
        finish.append(structlog.processors.format_exc_info)
    formatter = structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=[*finish, renderer])
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Masked(formatter))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    set_level(level)


def set_level(level: str) -> None:
    """Log from this level on; what libraries say beneath warnings is never of use."""
    root = logging.getLogger()
    root.setLevel(level.upper())
    for noisy in ("apscheduler", "asyncio", "nats", "aiohttp.access"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, root.level))


class LogLevels:
    """Another level for a while. It falls back by itself: `debug` that nobody remembers fills a disk."""

    def __init__(self, configured: str) -> None:
        self.configured = configured
        self.level = configured
        self.until: datetime | None = None
        """When it falls back; None while nothing was changed."""
        self._timer: asyncio.TimerHandle | None = None

    def change(self, level: str, seconds: float) -> None:
        """Log from `level` on for so long."""
        self._cancel()
        self.level, self.until = level, datetime.now(UTC) + timedelta(seconds=seconds)
        set_level(level)
        self._timer = asyncio.get_running_loop().call_later(seconds, self.fall_back)

    def fall_back(self) -> None:
        """Log as the settings have it. Safe to call again."""
        self._cancel()
        if self.until is None:
            return
        self.level, self.until = self.configured, None
        set_level(self.configured)
        log.info("the log level fell back", action="log_level_fell_back", level=self.configured)

    def _cancel(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
