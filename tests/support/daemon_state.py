"""What a daemon keeps, read without it: the ledger, the config documents, the trail, and the tables."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar
from urllib.parse import quote

from nats.aio.client import Client
from nats.errors import TimeoutError as NatsTimeoutError
from nats.js.api import DeliverPolicy
from nats.js.errors import NotFoundError

from support.daemon import SERVICES, Daemon

T = TypeVar("T")

TABLES = {"poller": "pollers", "agent": "agents", "checker": "checkers"}
_SAME_IN_ROWS = (
    "label",
    "site",
    "status",
    "status_reason",
    "approval",
    "registration_source",
    "created_by",
    "first_registered",
    "first_seen",
    "incarnation",
    "epoch",
    "revision",
    "poller_id",
)
_SAME_IN_DOCUMENTS = ("status", "label", "parent_id", "poller_id", "site", "epoch", "revision")
_SAME_IN_PACKAGES = (
    "status",
    "generation",
    "created_by",
    "created_at",
    "delivered_at",
    "delivered_to",
    "activated_at",
)


async def eventually_async(check: Callable[[], Awaitable[T]], seconds: float = 30.0) -> T:
    """The result of `check` once it raises no AssertionError."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return await check()
        except AssertionError:
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(0.05)


async def messages(client: Client, stream: str, subject: str) -> list[Any]:
    """Everything that the stream holds on `subject`, oldest first."""
    stream_api = client.jetstream(timeout=30)
    try:
        # Not its count: that of the server is wrong after a write that failed.
        last = (await stream_api.get_last_msg(stream, subject)).seq
    except NotFoundError:
        return []
    subscription = await stream_api.subscribe(
        subject, stream=stream, ordered_consumer=True, deliver_policy=DeliverPolicy.ALL
    )
    found: list[Any] = []
    try:
        while not found or found[-1].metadata.sequence.stream != last:
            found.append(await subscription.next_msg(timeout=30))
    except NatsTimeoutError as error:
        raise AssertionError(f"{stream} did not deliver what it holds") from error
    finally:
        await subscription.unsubscribe()
    return found


async def history(client: Client, prefix: str = "") -> list[dict[str, Any]]:
    """Every revision of every record in the ledger, in order."""
    return [
        json.loads(m.data) for m in await messages(client, f"KV_{prefix}registry", f"$KV.{prefix}registry.>")
    ]


async def documents(client: Client, prefix: str = "") -> dict[str, Any]:
    """The config documents that stand there, by key."""
    start = f"$KV.{prefix}config."
    newest_of = {m.subject: m for m in await messages(client, f"KV_{prefix}config", f"{start}>")}
    found = {
        subject.removeprefix(start): json.loads(m.data)
        for subject, m in newest_of.items()
        if "KV-Operation" not in (m.headers or {})
    }
    return {key: document for key, document in found.items() if key.startswith("config/")}


def newest(revisions: list[dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    """The records as they are now."""
    return {(r["service_type"], r["service_id"]): r for r in revisions}


async def require_all_equal(
    daemon: Daemon, client: Client, *, trail: bool = True
) -> dict[tuple[str, str], dict[str, Any]]:
    """Documents, rows and events say what the ledger says, no more and no less; the records.

    Without `trail` the stream of events is left out, not the table.
    """
    revisions = await history(client)
    records = newest(revisions)
    _require_documents(records, await documents(client))
    _require_rows(records, daemon)
    _require_packages(records, daemon)
    if trail:
        await _require_trail(revisions, client)
    _require_events(revisions, daemon)
    return records


def document_key(record: dict[str, Any]) -> str:
    """Where the document of a record stands."""
    kind, own, parent = record["service_type"], record["service_id"], record["parent_id"]
    if kind == "poller":
        return f"config/pollers/{own}.json"
    if kind == "agent":
        return f"config/pollers/{parent}/agents/{own}.json"
    return f"config/agents/{parent}/checkers/{own}.json"


def _require_documents(records: dict[tuple[str, str], dict[str, Any]], found: dict[str, Any]) -> None:
    standing = [record for record in records.values() if record["status"] != "deleted"]
    assert set(found) == {document_key(record) for record in standing}
    for record in standing:
        document = found[document_key(record)]
        assert _part(document, _SAME_IN_DOCUMENTS) == _part(record, _SAME_IN_DOCUMENTS)
        assert document["children"] == _children(record, standing)


def _children(parent: dict[str, Any], records: list[dict[str, Any]]) -> list[dict[str, str]]:
    below = {"poller": "agent", "agent": "checker"}.get(parent["service_type"])
    ids = sorted(
        r["service_id"]
        for r in records
        if r["service_type"] == below and r["parent_id"] == parent["service_id"]
    )
    return [{"type": str(below), "id": each} for each in ids]


def _require_rows(records: dict[tuple[str, str], dict[str, Any]], daemon: Daemon) -> None:
    for kind, table in TABLES.items():
        rows = {row[f"{kind}_id"]: row for row in daemon.rows(f"SELECT * FROM {table}")}
        mine = {own: record for (of, own), record in records.items() if of == kind}
        assert set(rows) == set(mine)
        for own, record in mine.items():
            assert _part(rows[own], _SAME_IN_ROWS) == _part(record, _SAME_IN_ROWS)
            assert rows[own]["package_id"] == (record["package"] or {"package_id": ""})["package_id"]
    counted = {row["poller_id"]: row["agent_count"] for row in daemon.rows("SELECT * FROM pollers")}
    agents = [r for r in records.values() if r["service_type"] == "agent" and r["status"] != "deleted"]
    assert counted == {own: 0 for of, own in records if of == "poller"} | Counter(
        r["parent_id"] for r in agents
    )


def _require_packages(records: dict[tuple[str, str], dict[str, Any]], daemon: Daemon) -> None:
    rows = {row["package_id"]: row for row in daemon.rows("SELECT * FROM edge_packages")}
    packages = {
        package["package_id"]: package
        for record in records.values()
        for package in (record["package"], *record["earlier_packages"])
        if package
    }
    assert set(rows) == set(packages)
    for package_id, package in packages.items():
        assert _part(rows[package_id], _SAME_IN_PACKAGES) == _part(package, _SAME_IN_PACKAGES)


async def _require_trail(revisions: list[dict[str, Any]], client: Client) -> None:
    """Each revision stands once in the trail."""
    trail = await messages(client, "REGISTRY_EVENTS", "registry.events.*.*")
    told = [json.loads(m.data) for m in trail if not m.subject.startswith("registry.events.gateway.")]
    assert Counter(map(_version, told)) == Counter(map(_version, revisions))


def _require_events(revisions: list[dict[str, Any]], daemon: Daemon) -> None:
    """Each event of a revision stands once in the table."""
    expected = Counter((*_version(r), event) for r in revisions for event in r["transition"]["events"])
    rows = daemon.rows(
        "SELECT service_type, service_id, epoch, revision, event_type FROM service_registration_events"
        " WHERE revision > 0"
    )
    assert Counter(tuple(row.values()) for row in rows) == expected
    assert set(expected.values()) <= {1}


def _version(record: dict[str, Any]) -> tuple[str, str, int, int]:
    return record["service_type"], record["service_id"], record["epoch"], record["revision"]


def _part(of: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: of[name] for name in names}


async def fingerprint(daemon: Daemon, client: Client) -> dict[str, Any]:
    """Whatever a refused call must leave as it was; the trail may move, and last_seen: see `last_seen`."""
    stream_api = client.jetstream(timeout=30)
    last = {
        stream: (await stream_api.stream_info(stream)).state.last_seq
        for stream in ("KV_registry", "KV_config")
    }
    rows = {
        table: daemon.rows(f"SELECT {kind}_id, status, revision FROM {table}")
        for kind, table in TABLES.items()
    }
    packages = daemon.rows("SELECT package_id, status, revision FROM edge_packages")
    return {**last, **rows, "edge_packages": packages}


def last_seen(daemon: Daemon) -> dict[str, Any]:
    """When every service was heard last, as the API shows it."""
    seen: dict[str, Any] = {}
    for kind in TABLES:
        cursor = ""
        while cursor is not None:
            page = daemon.get(
                f"{SERVICES}/{kind}s?limit=200" + (f"&cursor={quote(cursor)}" if cursor else "")
            )
            seen |= {f"{kind}.{each['service_id']}": each["last_seen"] for each in page["items"]}
            cursor = page["next_cursor"]
    return seen


async def _require_settled(client: Client) -> None:
    """What was acknowledged before has reached its document and its row."""
    for durable in ("documents", "rows"):
        info = await client.jetstream(timeout=30).consumer_info("KV_registry", durable)
        assert (info.num_pending, info.num_ack_pending) == (0, 0)


@asynccontextmanager
async def unchanged(daemon: Daemon, *, heard: bool = True) -> AsyncIterator[Client]:
    """Fail if ledger, documents or rows are not the same afterwards, nor, unless `heard`, who was heard when."""
    async with daemon.nats() as client:
        await eventually_async(lambda: _require_settled(client))
        before = await fingerprint(daemon, client)
        seen = {} if heard else last_seen(daemon)
        yield client
        assert await fingerprint(daemon, client) == before
        assert heard or last_seen(daemon) == seen
