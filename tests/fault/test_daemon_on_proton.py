"""The daemon itself on Proton, by way of the stand-in: served, killed, frozen, restarted, adopted, imported from.

What is written stands in NATS first, so a Proton that is away or silent is a lag and no outage.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from support import daemon as support
from support.daemon import Daemon, eventually, jetway
from support.proton_database import own_database
from support.proton_standin import ProtonStandin, require_chdb
from support.proton_standin.driver import connect

NewDaemon = Callable[..., Awaitable[Daemon]]
FAST = {"JETWAY_HEARTBEAT__FLUSH_INTERVAL": "1s"}
KEYED = "SETTINGS mode='versioned_kv', version_column='_tp_time'"
OTHERS = (
    "registration_source string DEFAULT 'implicit', status string DEFAULT 'active',"
    " metadata string DEFAULT '{}'"
)
EARLIER_PRODUCT = (
    f"CREATE STREAM pollers (poller_id string, {OTHERS}) PRIMARY KEY (poller_id) {KEYED}",
    f"CREATE STREAM agents (agent_id string, poller_id string, {OTHERS}) PRIMARY KEY (agent_id) {KEYED}",
    "CREATE STREAM checkers (checker_id string, agent_id string, poller_id string, checker_kind string,"
    f" {OTHERS}) PRIMARY KEY (checker_id) {KEYED}",
)
SECONDS = 60.0


@dataclass(frozen=True)
class Proton:
    """A server, and a database of its own on it."""

    server: ProtonStandin
    url: str

    def select(self, sql: str) -> list[tuple[Any, ...]]:
        with connect(self.url) as client:
            return list(client.execute(sql))

    def run(self, *statements: str) -> None:
        with connect(self.url) as client:
            for statement in statements:
                client.execute(statement)

    def statuses(self, kind: str = "poller") -> dict[str, str]:
        """What somebody sees who queries Proton by hand."""
        found = self.select(f"SELECT {kind}_id, status FROM table({kind}s)")
        assert len(found) == len(dict(found)), f"a key shows twice: {found}"
        return {key: status for key, status in found if status != "purged"}


@pytest.fixture(autouse=True)
def _slow_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A first start migrates, and Proton shows what was written only later."""
    monkeypatch.setattr(support, "START_SECONDS", 120.0)


@pytest.fixture(scope="module")
def server() -> Iterator[ProtonStandin]:
    require_chdb()
    with ProtonStandin(visible_after=0.5) as running:
        yield running


@pytest.fixture
def proton(server: ProtonStandin) -> Iterator[Proton]:
    with own_database(server.url) as target:
        yield Proton(server, server.url_of(target.database))


@contextlib.contextmanager
def frozen(server: ProtonStandin) -> Iterator[None]:
    """It takes connections, by its kernel, and says nothing."""
    process = server._process
    assert process is not None
    os.kill(process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process.pid, signal.SIGCONT)


def database_of(daemon: Daemon) -> Any:
    answer = daemon.call("GET", "/readyz", token="")
    assert answer.status == 200, "whatever ails the rows is a lag"
    return answer.json["components"]["database"]


def require_database(daemon: Daemon, state: str) -> None:
    assert database_of(daemon)["state"] == state


def require_statuses(proton: Proton, expected: dict[str, str]) -> None:
    assert proton.statuses() == expected


def require_document(daemon: Daemon, name: str) -> None:
    async def stored() -> bool:
        async with daemon.nats() as client:
            bucket = await client.jetstream(timeout=30).key_value("config")
            return f"config/pollers/{name}.json" in await bucket.keys()

    assert asyncio.run(stored())


def require_no_lag(daemon: Daemon) -> None:
    for projection in ("rows", "events"):
        assert daemon.metric("jetway_projection_lag_records", projection=projection) == 0


async def soon(check: Callable[..., None], *arguments: Any) -> None:
    await asyncio.to_thread(eventually, lambda: check(*arguments), SECONDS)


async def test_it_serves_while_proton_is_killed_frozen_and_restarted_and_catches_up(
    proton: Proton, new_daemon: NewDaemon
) -> None:
    daemon = await new_daemon(JETWAY_DATABASE__URL=proton.url, **FAST)
    daemon.expected_errors |= {"projection_waits"}

    def create(name: str) -> None:
        said = daemon.create("poller", name)["projection"]["document"]
        assert said in ("written", "queued")
        if said == "queued":  # a busy machine may take longer than an answer waits
            eventually(lambda: require_document(daemon, name), SECONDS)

    await asyncio.to_thread(create, "before")
    await soon(require_statuses, proton, {"before": "pending"})
    await soon(require_database, daemon, "ok")

    await asyncio.to_thread(proton.server.kill)
    await asyncio.to_thread(create, "killed")
    await soon(require_database, daemon, "degraded")
    events = await asyncio.to_thread(daemon.call, "GET", "/api/admin/events")
    assert events.status == 503
    await asyncio.to_thread(proton.server.start)
    await soon(require_statuses, proton, {"before": "pending", "killed": "pending"})

    with frozen(proton.server):
        await asyncio.to_thread(create, "frozen")
        await soon(require_database, daemon, "degraded")
        detail = (await asyncio.to_thread(database_of, daemon))["detail"]
        assert "did not answer within" in detail or "does not answer" in detail
        events = await asyncio.to_thread(daemon.call, "GET", "/api/admin/events")
        assert events.status == 503
        purge = {"retention_days": 0, "dry_run": True}
        assert (
            await asyncio.to_thread(daemon.call, "POST", "/api/admin/services/purge", purge)
        ).status == 200
    everybody = dict.fromkeys(("before", "killed", "frozen"), "pending")
    await soon(require_statuses, proton, everybody)
    await soon(require_database, daemon, "ok")
    await soon(require_no_lag, daemon)

    with frozen(proton.server):
        await asyncio.to_thread(create, "late")
        daemon.terminate()
        assert await asyncio.to_thread(daemon.wait, SECONDS) == 0
        assert await asyncio.to_thread(daemon.start), "nor does a start wait for it"
        await asyncio.to_thread(create, "later")
    await soon(require_statuses, proton, everybody | {"late": "pending", "later": "pending"})
    await soon(require_no_lag, daemon)
    assert await asyncio.to_thread(daemon.stop) == 0


async def test_an_id_that_is_purged_and_used_again_at_once_has_the_new_row(
    proton: Proton, new_daemon: NewDaemon
) -> None:
    daemon = await new_daemon(JETWAY_DATABASE__URL=proton.url, **FAST)

    def use_again() -> int:
        package = daemon.create("poller", "p")["package"]["package_id"]
        assert (
            daemon.call("POST", f"/api/admin/edge-packages/{package}/revoke", {"reason": "x"}).status == 200
        )
        assert daemon.call("DELETE", "/api/admin/services/pollers/p").status in (200, 204)
        purge = {"retention_days": 0, "dry_run": False}
        assert daemon.call("POST", "/api/admin/services/purge", purge).status == 200
        daemon.create("poller", "p")
        return int(daemon.service("poller", "p")["revision"])

    revision = await asyncio.to_thread(use_again)

    def require_row() -> None:
        found = proton.select("SELECT status, revision FROM table(pollers)")
        assert found == [("pending", revision)]
        counted = proton.select("SELECT service_type, status, service_count FROM service_counts")
        assert counted == [("poller", "pending", 1)]

    await soon(require_row)


async def test_migrations_are_told_and_applied_by_the_command(proton: Proton, tmp_path: Path) -> None:
    settings = {"JETWAY_STATE_DIR": str(tmp_path / "state"), "JETWAY_DATABASE__URL": proton.url}

    async def migrate(*arguments: str) -> str:
        done = await asyncio.to_thread(lambda: jetway("migrate", *arguments, **settings))
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "pending  0001_registry.sql" in await migrate("--status")
    assert proton.select("SHOW STREAMS") == [], "looking changes nothing"
    assert "applied  0001_registry.sql" in await migrate()
    assert "the schema is current" in await migrate("--status")


async def test_a_deployment_of_another_product_is_adopted_and_imported_from(
    proton: Proton, new_daemon: NewDaemon, tmp_path: Path
) -> None:
    proton.run(*EARLIER_PRODUCT)
    day = 86_400_000
    with connect(proton.url) as client:
        into = "INSERT INTO pollers (poller_id, metadata, _tp_time) VALUES"
        for number in (20_000, 20_001, 20_002):
            client.execute(into, [("old", "null", number * day)])
        client.execute(
            "INSERT INTO agents (agent_id, poller_id, metadata) VALUES", [("a", "old", '{"rack": "7"}')]
        )

    daemon = await new_daemon(JETWAY_DATABASE__URL=proton.url, **FAST)

    def adopted() -> bool:
        return any(line.action == "stream_adopted" for line in daemon.log_lines())

    for _ in range(3):  # a start waits two seconds for Proton: a busy machine may take longer
        if not adopted():
            await asyncio.to_thread(daemon.restart)
    assert adopted()
    await asyncio.to_thread(daemon.create, "poller", "new")

    def require_rows() -> None:
        found = proton.select(
            "SELECT poller_id, status FROM table(pollers) ORDER BY _tp_time DESC LIMIT 1 BY poller_id"
        )
        assert dict(found) == {"old": "active", "new": "pending"}

    await soon(require_rows)
    url_file = tmp_path / "proton.url"
    url_file.touch(0o600)
    url_file.write_text(proton.url)

    def bring_in() -> Any:
        done = daemon.command("import", "--proton-url-file", str(url_file), "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    said = await asyncio.to_thread(bring_in)
    assert daemon.service("poller", "old")["status"] == "pending"
    assert daemon.service("agent", "a")["metadata"] == {"rack": "7"}
    assert "refused" not in said or '"refused": 0' in said
    assert await asyncio.to_thread(daemon.stop) == 0
    daemon.check_log()
