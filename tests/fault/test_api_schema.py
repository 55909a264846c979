"""Every operation that the API describes, called with everything that its description allows and forbids.

schemathesis does the calling, in a process of its own, against the running daemon: all its phases and all its
checks, with an administrator's token. A finding is mended in the product, or let pass in `api_schema_hooks` with
the reason. JETWAY_TEST_API_EXAMPLES calls for more than the usual number of cases of each operation, and
JETWAY_TEST_API_SEED for others.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.daemon import Daemon, environment, eventually

HERE = Path(__file__).resolve().parent
EXAMPLES = os.environ.get("JETWAY_TEST_API_EXAMPLES", "4")
SEED = os.environ.get("JETWAY_TEST_API_SEED", "20")
WAITING = [f"waiting-{number}" for number in range(20)]
"""Pollers that registered themselves, to be approved or rejected."""
SETTINGS = {
    "JETWAY_HTTP__FAILURES_PER_MINUTE": "1000000",  # all of it comes from one address, most of it wrong
    "JETWAY_HTTP__DETAIL_FOR_ALL": "true",
}


CONFIGURATION = """
[headers]
Authorization = "Bearer ${JETWAY_TEST_TOKEN}"

[phases.examples]
fill-missing = true

[checks.negative_data_rejection]
# Beyond the usual ones 410, 412 and 413: what is asked for is over, or another version, or the request is too
# large to be looked at.
expected-statuses = [400, 401, 403, 404, 405, 406, 409, 410, 412, 413, 415, 422, 429]
"""


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    made = Daemon(tmp_path_factory.mktemp("daemon"), **SETTINGS)
    try:
        made.start()
        yield made
        assert made.stop() == 0
        made.check_log()
    finally:
        made.discard()


@pytest.fixture(scope="module")
def known(daemon: Daemon) -> dict[str, list[str]]:
    """Services that are there from the beginning; beside them there are pollers that wait for approval."""
    daemon.create("poller", "first-poller")
    daemon.create("agent", "first-agent", "first-poller")
    daemon.create("checker", "first-checker", "first-agent", checker_config={"hosts": ["192.0.2.1"]})

    async def beat() -> None:
        async with daemon.nats() as client:
            for name in WAITING:
                await client.publish(f"edge.heartbeat.poller.{name}", b"")
            await client.flush()

    def all_wait() -> None:
        assert daemon.get("/api/admin/services/stats")["awaiting_approval"] == len(WAITING)

    asyncio.run(beat())
    eventually(all_wait)
    return {"poller": ["first-poller"], "agent": ["first-agent"], "checker": ["first-checker"]}


@pytest.fixture(scope="module")
def prepared(daemon: Daemon) -> list[str]:
    """Packages for pollers that wait, under other ids."""
    created = [daemon.create("poller", f"prepared-{number}") for number in range(10)]
    return [each["package"]["package_id"] for each in created]


@pytest.fixture(scope="module")
def revoked(daemon: Daemon) -> list[str]:
    """Pollers that can be deleted, or reissued."""
    names = [f"revoked-{number}" for number in range(20)]
    for name in names:
        daemon.create("poller", name)
        answer = daemon.call("POST", f"/api/admin/services/pollers/{name}/status", {"status": "revoked"})
        assert answer.status == 200, answer.body
    return names


@pytest.fixture(scope="module")
def report(
    daemon: Daemon,
    known: dict[str, list[str]],
    prepared: list[str],
    revoked: list[str],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Any]:
    """What schemathesis says at its end."""
    folder = tmp_path_factory.mktemp("schemathesis")
    (folder / "schemathesis.toml").write_text(CONFIGURATION)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "run", f"{daemon.url}/openapi.json"),
            *("--phases", "examples,coverage,fuzzing,stateful", "--checks", "all", "--mode", "all"),
            *("--max-examples", EXAMPLES, "--seed", SEED, "--workers", "1", "--continue-on-failure"),
            *("--request-timeout", "30", "--report", "json", "--report-json-path", "report.json"),
        ],
        cwd=folder,
        env=environment(
            SCHEMATHESIS_HOOKS="api_schema_hooks",
            PYTHONPATH=os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]),
            JETWAY_TEST_TOKEN=daemon.token,
            JETWAY_TEST_KNOWN_SERVICES=json.dumps(known),
            JETWAY_TEST_WAITING_POLLERS=json.dumps(WAITING),
            JETWAY_TEST_PREPARED_PACKAGES=json.dumps(prepared),
            JETWAY_TEST_REVOKED_POLLERS=json.dumps(revoked),
            NO_COLOR="1",
        ),
        capture_output=True,
        text=True,
        timeout=3600,
        check=False,
    )
    # Printed here, it stands beside whatever fails; some bodies are very long.
    print("\n".join(line[:500] for line in (done.stdout + done.stderr).splitlines()))
    assert (folder / "report.json").exists(), "schemathesis did not get to its end"
    found: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return found | {"exit_code": done.returncode}


def test_nothing_is_found(report: dict[str, Any], daemon: Daemon) -> None:
    assert report["failures"] == []
    assert report["test_cases"]["errored"] == 0
    assert report["exit_code"] == 0
    daemon.check_log()


def test_all_of_it_was_called(report: dict[str, Any], daemon: Daemon) -> None:
    paths = daemon.get("/openapi.json")["paths"]
    described = sum(len(methods) for methods in paths.values())
    assert report["complete"]
    assert report["operations"]["tested"] == described
    assert report["operations"]["skipped"] == 0
    assert {phase["status"] for phase in report["phases"].values()} == {"success"}


def test_every_operation_was_reached(report: dict[str, Any], daemon: Daemon) -> None:
    """A run in which everything is refused would find nothing either."""
    done = set()
    for line in daemon.call("GET", "/metrics").body.decode().splitlines():
        found = re.match(r'jetway_http_requests_total{method="(\w+)",route="(.*)",status="2\d\d"}', line)
        if found:
            done.add((found[1].lower(), found[2]))
    paths = daemon.get("/openapi.json")["paths"]
    described = {(method, path) for path, methods in paths.items() for method in methods}
    assert described <= done
