"""Logs: every line has an action, and the level can be changed for a while."""

from __future__ import annotations

import ast
import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from jetway.logs import LogLevels, set_level
from support import REPOSITORY
from support.virtual_time import run_virtually

SOURCES = sorted((REPOSITORY / "daemon" / "jetway").rglob("*.py"))
LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}


def calls_without_action(source: str) -> list[int]:
    """Lines of `log.info(...)`, or `getattr(log, ...)(...)`, without `action=`."""
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call)
        and _logs(node.func)
        and not any(keyword.arg == "action" for keyword in node.keywords)
    ]


def _logs(function: ast.expr) -> bool:
    if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name):
        return function.value.id == "log" and function.attr in LEVELS
    if isinstance(function, ast.Call) and isinstance(function.func, ast.Name):
        first = function.args[0] if function.args else None
        return function.func.id == "getattr" and isinstance(first, ast.Name) and first.id == "log"
    return False


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(REPOSITORY / "daemon")))
def test_every_log_line_has_an_action(path: Path) -> None:
    assert calls_without_action(path.read_text(encoding="utf-8")) == []


def test_a_line_without_one_would_be_found() -> None:
    source = 'log.info("x")\nlog.info("y", action="y")\ngetattr(log, level)("z")\n'
    assert calls_without_action(source) == [1, 3]


@pytest.fixture(autouse=True)
def level_kept() -> Iterator[None]:
    names = (None, "apscheduler", "asyncio", "nats", "aiohttp.access")
    before = [logging.getLogger(name).level for name in names]
    yield
    for name, level in zip(names, before, strict=True):
        logging.getLogger(name).setLevel(level)


def test_another_level_holds_for_a_while_and_falls_back() -> None:
    async def change() -> None:
        set_level("info")
        levels = LogLevels("info")
        levels.change("debug", 60)
        assert logging.getLogger().level == logging.DEBUG
        assert logging.getLogger("nats").level == logging.WARNING
        await asyncio.sleep(59)
        assert levels.level == "debug" and levels.until is not None
        levels.change("error", 60)
        await asyncio.sleep(59)
        assert logging.getLogger().level == logging.ERROR, "the first change's end is not the second's"
        await asyncio.sleep(2)
        assert logging.getLogger().level == logging.INFO
        assert (levels.level, levels.until) == ("info", None)

    run_virtually(change())


def test_it_falls_back_when_the_daemon_stops() -> None:
    async def change() -> None:
        levels = LogLevels("warning")
        levels.change("debug", 3600)
        levels.fall_back()
        levels.fall_back()
        assert logging.getLogger().level == logging.WARNING

    run_virtually(change())
