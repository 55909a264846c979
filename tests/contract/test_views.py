"""What every account of the server's views must tell."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from jetway.adapters.nats.documents import NatsDocuments
from jetway.adapters.nats.layout import Layout
from jetway.adapters.nats.schema import Schema
from jetway.adapters.nats.stores import NatsAuditLog
from jetway.adapters.nats.views import NatsViews
from jetway.ports import Documents, Ledger, Views, ViewState
from support.builders import record, transition, uid
from support.database_rows import event
from support.memory import MemoryDocuments, MemoryLedger, MemoryViews
from support.nats_server import Gateway, NatsServer, gateway_on

SECONDS = 30


@dataclass
class Subject:
    views: Views
    ledger: Ledger
    documents: Documents


@pytest.fixture
async def real(tmp_path: Path) -> AsyncIterator[Gateway]:
    server = NatsServer(tmp_path / "nats-server")
    await server.start()
    try:
        async with gateway_on(server) as gateway:
            yield gateway
    finally:
        await server.stop()


@pytest.fixture(params=["memory", "nats"])
def subject(request: pytest.FixtureRequest) -> Subject:
    if request.param == "memory":
        ledger = MemoryLedger()
        return Subject(MemoryViews(ledger), ledger, MemoryDocuments())
    gateway: Gateway = request.getfixturevalue("real")
    documents = NatsDocuments(gateway.jetstream, gateway.names)
    return Subject(NatsViews(gateway.jetstream, gateway.names), gateway.ledger, documents)


async def until(views: Views, name: str, well: Callable[[ViewState], bool]) -> ViewState:
    async with asyncio.timeout(SECONDS):
        while True:
            state = (await views.state())[name]
            if well(state):
                return state
            await asyncio.sleep(0.02)


async def test_views_of_nothing_are_not_behind(subject: Subject) -> None:
    for state in (await subject.views.state()).values():
        assert state == ViewState(behind=0, ahead=0, taken=0, last=0)


async def test_the_trail_follows_the_ledger(subject: Subject) -> None:
    sequence = 0
    for number in range(1, 6):
        changed = record(revision=number, transition=transition(transition_id=uid(number)))
        sequence = await subject.ledger.write(changed, sequence)

    state = await until(subject.views, "events", lambda state: state.taken >= sequence)

    assert state == ViewState(behind=0, ahead=0, taken=sequence, last=5)


async def test_keys_that_are_no_documents_leave_the_view_behind_nothing(real: Gateway) -> None:
    documents, views = NatsDocuments(real.jetstream, real.names), NatsViews(real.jetstream, real.names)
    await documents.write("config/pollers/p1.json", b"{}", 0)
    await documents.write("a-note", b"{}", 0)

    assert (await until(views, "config_watch", lambda state: state.taken > 0)).behind == 0


async def test_a_source_that_lost_what_its_view_has_seen_is_told(real: Gateway) -> None:
    documents, views = NatsDocuments(real.jetstream, real.names), NatsViews(real.jetstream, real.names)
    for number in range(3):
        await documents.write(f"config/pollers/p{number}.json", b"{}", 0)
    await until(views, "config_watch", lambda state: state.taken == 3)

    await real.jetstream.call("STREAM.DELETE.KV_config")
    await Schema(real.jetstream, Layout(real.names, 1, timedelta(days=90))).ensure()
    await documents.write("config/pollers/p0.json", b"{}", 0)

    assert (await views.state())["config_watch"].ahead == 2


async def test_a_view_that_is_made_anew_is_behind_until_it_has_caught_up(real: Gateway) -> None:
    documents, views = NatsDocuments(real.jetstream, real.names), NatsViews(real.jetstream, real.names)
    for number in range(3):
        await documents.write(f"config/pollers/p{number}.json", b"{}", 0)
    await until(views, "config_watch", lambda state: state.taken == 3)

    await real.jetstream.call("STREAM.DELETE.KV_config_watch")
    await Schema(real.jetstream, Layout(real.names, 1, timedelta(days=90))).ensure()

    state = (await views.state())["config_watch"]
    assert state.behind == 3 - state.taken
    assert await until(views, "config_watch", lambda state: state.behind == 0) == ViewState(0, 0, 3, 3)


async def test_what_happens_outside_the_ledger_is_followed_too(real: Gateway) -> None:
    audit, views = NatsAuditLog(real.jetstream, real.names), NatsViews(real.jetstream, real.names)
    sequence = await real.ledger.write(record(revision=1), 0)
    await until(views, "events", lambda state: state.taken == sequence)
    await audit.append(event(service_id="", revision=0))

    state = await until(views, "events", lambda state: state.last == 2)

    assert state == ViewState(behind=0, ahead=0, taken=sequence, last=2)


async def test_what_is_told_to_be_taken_is_stored(real: Gateway) -> None:
    """The server's own account of a source runs before what the view has stored."""
    views = NatsViews(real.jetstream, real.names)
    sequence = 0
    for number in range(1, 60):
        changed = record(revision=number, transition=transition(transition_id=uid(number)))
        sequence = await real.ledger.write(changed, sequence)
        state = (await views.state())["events"]
        info = await real.jetstream.call(f"STREAM.INFO.{real.names.events_stream}")
        assert state.taken == state.last <= int(info["state"]["last_seq"])
