"""A message that the stream of events lost on a real server: found, told, and made again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.aio.client import Client

from jetway.adapters.nats.layout import Layout
from jetway.adapters.nats.names import Names
from jetway.core.rows import events_of
from jetway.services.findings import ReconcileReport
from jetway.settings import Settings
from support.builders import AGENT
from support.real_house import RealHouse, real_house

EVENTS = "REGISTRY_EVENTS"
SECONDS = 60


@pytest.fixture
async def real(tmp_path: Path) -> AsyncIterator[RealHouse]:
    async with real_house(tmp_path) as real:
        await real.activate_tree()
        yield real


@pytest.fixture
async def client(real: RealHouse) -> AsyncIterator[Client]:
    client = await nats.connect(real.nats_url)
    yield client
    await client.close()


async def ask(client: Client, endpoint: str, body: object = None) -> dict[str, Any]:
    data = b"" if body is None else json.dumps(body).encode()
    answer = await client.request(f"$JS.API.{endpoint}", data, timeout=30)
    told: dict[str, Any] = json.loads(answer.data)
    assert "error" not in told, told
    return told


async def lose(client: Client, real: RealHouse, revision: int) -> set[str]:
    """The stream is made anew, so that a message can be taken out of it; the ids of the events that were in it."""
    wanted = next(s for s in Layout.of(Settings(), Names()).streams((2, 12, 0)) if s["name"] == EVENTS)
    before = (await ask(client, f"STREAM.INFO.{EVENTS}"))["state"]["messages"]
    await ask(client, f"STREAM.DELETE.{EVENTS}")
    await ask(client, f"STREAM.CREATE.{EVENTS}", {**wanted, "deny_delete": False, "deny_purge": False})
    async with asyncio.timeout(SECONDS):
        while (await ask(client, f"STREAM.INFO.{EVENTS}"))["state"]["messages"] < before:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    history = await real.house.recorder.ledger.history(AGENT)
    lost = next(record for record in history if record.revision == revision)
    last = (await ask(client, f"STREAM.INFO.{EVENTS}"))["state"]["last_seq"]
    for sequence in range(1, last + 1):
        message = await client.jetstream(timeout=30).get_msg(EVENTS, sequence)
        if (
            message.subject == f"registry.events.{AGENT}"
            and json.loads(message.data or b"")["revision"] == revision
        ):
            await ask(client, f"STREAM.MSG.DELETE.{EVENTS}", {"seq": sequence, "no_erase": True})
    return {event.event_id for event in events_of(lost)}


async def reconcile(real: RealHouse) -> ReconcileReport:
    async with asyncio.timeout(SECONDS):
        return await real.house.reconciler.run()


async def ids_beside(client: Client) -> set[str]:
    """Of the events that came otherwise than by the ledger."""
    last = (await ask(client, f"STREAM.INFO.{EVENTS}"))["state"]["last_seq"]
    found = set()
    for sequence in range(1, last + 1):
        try:
            message = await client.jetstream(timeout=30).get_msg(EVENTS, sequence)
        except nats.js.errors.NotFoundError:
            continue
        if (message.subject or "").startswith("registry.events.gateway."):
            found.add(json.loads(message.data or b"")["event_id"])
    return found


async def test_a_revision_that_the_stream_lost_is_told_and_made_again_once(
    real: RealHouse, client: Client
) -> None:
    report = await reconcile(real)
    assert (report.gaps_found, report.errors) == (0, ())
    lost = await lose(client, real, 2)
    report = await reconcile(real)
    assert (report.gaps_found, report.gaps_mended, report.gaps_open) == (1, 1, 0), report
    assert report.findings[0].endswith("agent.a1 revision 2")
    assert report.findings[0].startswith("audit stream gap: write ")
    await real.settle()
    assert lost <= await ids_beside(client)
    report = await reconcile(real)
    assert (report.gaps_found, report.findings, report.errors) == (0, (), ())
