"""Daemons for the end-to-end tests: one a file where tests do not get in each other's way, else one a test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.register_assert_rewrite("support.daemon", "support.daemon_state")

from support import daemon as support  # noqa: E402
from support.daemon import Daemon  # noqa: E402

GENEROUS = {"JETWAY_HTTP__FAILURES_PER_MINUTE": "1000000"}
"""All tests call from one address, most of them wrongly."""

NewDaemon = Callable[..., Daemon]


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon that the tests of a file share; each uses ids of its own."""
    yield from _lent(Daemon(tmp_path_factory.mktemp("shared"), **GENEROUS))


@pytest.fixture(scope="session")
def forgetful(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon whose tokens are good for some seconds: long enough to be redeemed on a slow machine."""
    settings = {**GENEROUS, "JETWAY_LIFECYCLE__TOKEN_TTL": "15s"}
    yield from _lent(Daemon(tmp_path_factory.mktemp("forgetful"), **settings))


def _lent(made: Daemon) -> Iterator[Daemon]:
    try:
        yield made.start()
        assert made.stop() == 0
        made.check_log()
    finally:
        made.discard()


@pytest.fixture
def new_daemon(tmp_path: Path) -> Iterator[NewDaemon]:
    """Starts daemons for one test."""
    made: list[Daemon] = []

    def make(name: str = "daemon", **settings: str) -> Daemon:
        made.append(Daemon(tmp_path / name, **{**GENEROUS, **settings}))
        return made[-1].start()

    try:
        yield make
        for each in made:
            assert each.stop() == 0
            each.check_log()
    finally:
        for each in made:
            each.discard()


@pytest.fixture(autouse=True)
def _logs_are_clean() -> Iterator[None]:
    """After every test: no secret and no unexpected error in the log of a daemon that runs."""
    yield
    for each in support.running:
        each.check_log()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    """Put the end of every running daemon's log beside a failure."""
    report = yield
    if report.failed:
        for each in support.running:
            report.sections.append((f"log of {each.state.parent.name}", each.log_text()[-4000:]))
    return report


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Debian's chromium, for the tests that open pages."""
    from support.browser import launched  # the others need no playwright

    with launched() as browser:
        yield browser
