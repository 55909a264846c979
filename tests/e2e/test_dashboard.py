"""The Grafana dashboard: each of its queries, asked of a real Prometheus that scrapes a daemon."""

from __future__ import annotations

import json
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from support import REPOSITORY, require_program
from support.daemon import Daemon, eventually, fresh
from support.ports import free_port

DASHBOARD = json.loads((REPOSITORY / "config" / "grafana" / "jetway.json").read_text(encoding="utf-8"))
QUERIES = [(panel["title"], target["expr"]) for panel in DASHBOARD["panels"] for target in panel["targets"]]
_STOP_SECONDS = 20.0

Ask = Callable[[str], list[Any]]


async def live(daemon: Daemon) -> None:
    """Something of everything that is counted."""
    poller = fresh("p")
    daemon.redeem(daemon.create("poller", poller)["token"])
    daemon.redeem("jw1.no.token")
    async with daemon.nats() as client:
        for _ in range(2):
            await client.publish(f"edge.heartbeat.poller.{poller}", b"{}")
            await client.publish("edge.heartbeat.agent.no", b"{}")
        await client.flush()
    eventually(lambda: _is_active(daemon, poller))
    for name in (poller, "nobody"):
        daemon.get(f"/api/admin/admission/pollers/{name}")
    daemon.call("POST", "/api/admin/jobs/expire-packages/runs", {"dry_run": False})


def _is_active(daemon: Daemon, poller: str) -> None:
    assert daemon.service("poller", poller)["status"] == "active"


@pytest.fixture(scope="module")
def prometheus(daemon: Daemon, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    """A Prometheus that scrapes the daemon every second; asks it one query."""
    program, folder = require_program("prometheus"), tmp_path_factory.mktemp("prometheus")
    scrape = {
        "job_name": "jetway",
        "scrape_interval": "1s",
        "scrape_timeout": "1s",
        "static_configs": [{"targets": [daemon.url.removeprefix("http://")]}],
    }
    config = folder / "prometheus.yml"  # JSON is YAML
    config.write_text(json.dumps({"scrape_configs": [scrape]}))
    address = f"127.0.0.1:{free_port()}"
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                program,
                f"--config.file={config}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address={address}",
            ],
            stdout=log,
            stderr=log,
        )
    try:
        served = eventually(partial(_is_ready, process, address, folder), 60)
        assert served, (folder / "log").read_text()[-2000:]
        yield lambda query: _ask(address, query)
    finally:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(_STOP_SECONDS)


def _is_ready(process: subprocess.Popen[bytes], address: str, folder: Path) -> bool:
    """Whether it serves; False where it has ended instead. Fails while it is neither."""
    if process.poll() is not None:
        return False
    try:
        with urllib.request.urlopen(f"http://{address}/-/ready", timeout=30) as answer:
            assert answer.status == 200
            return True
    except OSError as error:
        raise AssertionError((folder / "log").read_text()[-2000:]) from error


def _ask(address: str, query: str) -> list[Any]:
    url = f"http://{address}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
    with urllib.request.urlopen(url, timeout=60) as answer:
        told = json.load(answer)
    assert told["status"] == "success", told
    found: list[Any] = told["data"]["result"]
    return found


def resolved(query: str) -> str:
    """As Grafana asks it, for all gateways."""
    return query.replace("$instance", ".*").replace("$__rate_interval", "1m")


def _answers(ask: Ask, query: str) -> None:
    assert ask(query), f"nothing is found by {query}"


async def test_every_query_finds_something(daemon: Daemon, prometheus: Ask) -> None:
    await live(daemon)
    # A rate needs two samples of a series that is there from the first of them on.
    eventually(lambda: _answers(prometheus, "jetway_job_runs_total"))
    for title, query in QUERIES:
        assert "$" not in resolved(query), title
        eventually(partial(_answers, prometheus, resolved(query)), 60)


def test_the_dashboard_can_be_taken_in_as_it_is() -> None:
    assert DASHBOARD["title"] == "Jetway"
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"]) > 15
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in DASHBOARD["panels"]}
    assert len(places) == len(DASHBOARD["panels"]), "no panel lies on another one"
    assert all(
        target["datasource"]["uid"] == "${source}" for p in DASHBOARD["panels"] for target in p["targets"]
    )
