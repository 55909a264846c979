"""The guard against leaked tasks bites: a guard that never fails proves nothing."""

from __future__ import annotations

import pytest

from support import REPOSITORY

pytest_plugins = ["pytester"]

LEAKY = """
import asyncio

forgotten = set()

async def sleeper():
    await asyncio.sleep(60)

async def test_forgets():
    forgotten.add(asyncio.create_task(sleeper(), name="forgotten"))

async def test_cancels_late():
    task = asyncio.create_task(sleeper())
    forgotten.add(task)
    asyncio.get_running_loop().call_later(0.05, task.cancel)

def test_without_a_loop():
    pass
"""


@pytest.fixture
def guarded(pytester: pytest.Pytester) -> pytest.Pytester:
    pytester.makeconftest((REPOSITORY / "tests" / "conftest.py").read_text(encoding="utf-8"))
    pytester.makeini(
        """
        [pytest]
        asyncio_mode = auto
        asyncio_default_fixture_loop_scope = function
        filterwarnings = error
        """
    )
    return pytester


def test_a_forgotten_task_fails_its_test(guarded: pytest.Pytester) -> None:
    guarded.makepyfile(LEAKY)
    result = guarded.runpytest_subprocess("-p", "no:cacheprovider")
    # The failure is one of the teardown: the test itself has passed.
    result.assert_outcomes(passed=3, errors=1)
    result.stdout.fnmatch_lines(["*tasks outlive the test: forgotten (sleeper)*"])
