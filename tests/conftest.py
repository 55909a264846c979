"""Fixtures of all tests."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Iterator
from typing import Any
from unittest.mock import patch

import pytest
import structlog
from hypothesis import settings

# A shared machine with two cores is slow at times: a deadline per example says nothing about the code.
settings.register_profile("jetway", deadline=None)
settings.load_profile("jetway")

# A task that was told to stop may need a moment for its last steps. What outlives this has been forgotten.
_GRACE_SECONDS = 5.0


@pytest.fixture(autouse=True)
def _tasks_end_with_the_test(request: pytest.FixtureRequest) -> None:
    """Make an async test fail if a task outlives it and its fixtures.

    Autouse fixtures come first and are finished last, so other fixtures have had their chance to stop
    theirs. Tests without a loop are left alone.
    """
    if inspect.iscoroutinefunction(getattr(request.node, "obj", None)):
        request.getfixturevalue("_leaked_tasks")


@pytest.fixture
async def _leaked_tasks() -> AsyncIterator[None]:
    before = asyncio.all_tasks()
    yield
    leaked = asyncio.all_tasks() - before - {asyncio.current_task()}
    if not leaked:
        return
    _, leaked = await asyncio.wait(leaked, timeout=_GRACE_SECONDS)
    if leaked:
        names = ", ".join(sorted(f"{task.get_name()} ({_where(task)})" for task in leaked))
        pytest.fail(f"tasks outlive the test: {names}")


def _where(task: asyncio.Task[object]) -> str:
    return getattr(task.get_coro(), "__qualname__", repr(task.get_coro()))


@pytest.fixture(autouse=True)
def _logs_stay_capturable() -> Iterator[None]:
    """Code under test sets up the process's logs: without caching, and not for the tests that come after."""
    configure = structlog.configure

    def without_cache(**options: Any) -> None:
        configure(**{**options, "cache_logger_on_first_use": False})

    with patch.object(structlog, "configure", without_cache):
        yield
    structlog.reset_defaults()
