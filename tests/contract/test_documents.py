"""What every store of documents must do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from jetway.adapters.nats.documents import NatsDocuments
from jetway.core.errors import ConflictError, PortError
from jetway.ports import Documents, StoredDocument
from support.memory import MemoryDocuments
from support.nats_server import NatsServer, gateway_on

POLLER = "config/pollers/p1.json"
AGENT = "config/pollers/p1/agents/a1.json"
TEMPLATE = "templates/checkers/snmp.json"


@pytest.fixture(params=["memory", "nats"])
async def documents(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Documents]:
    if request.param == "memory":
        yield MemoryDocuments()
        return
    server = NatsServer(tmp_path / "nats-server")
    await server.start()
    try:
        async with gateway_on(server) as gateway:
            yield NatsDocuments(gateway.jetstream, gateway.names)
    finally:
        await server.stop()


async def test_an_absent_key_has_no_data_and_sequence_zero(documents: Documents) -> None:
    assert await documents.read(POLLER) == StoredDocument(None, 0)


async def test_what_was_written_is_read(documents: Documents) -> None:
    sequence = await documents.write(POLLER, b'{"status": "pending"}', 0)

    assert await documents.read(POLLER) == StoredDocument(b'{"status": "pending"}', sequence)


async def test_a_write_over_a_newer_one_loses(documents: Documents) -> None:
    first = await documents.write(POLLER, b"1", 0)
    await documents.write(POLLER, b"2", first)

    for expected in (0, first):
        with pytest.raises(ConflictError):
            await documents.write(POLLER, b"3", expected)
        with pytest.raises(ConflictError):
            await documents.delete(POLLER, expected)

    assert (await documents.read(POLLER)).data == b"2"


async def test_a_deleted_key_has_no_data_and_can_be_written_again_over_its_marker(
    documents: Documents,
) -> None:
    sequence = await documents.write(POLLER, b"1", 0)
    await documents.delete(POLLER, sequence)

    marker = await documents.read(POLLER)

    assert marker.data is None
    assert marker.sequence > sequence
    with pytest.raises(ConflictError):
        await documents.write(POLLER, b"2", 0)
    assert await documents.write(POLLER, b"2", marker.sequence) > marker.sequence


async def test_keys_are_the_existing_ones_with_the_prefix_in_order(documents: Documents) -> None:
    for key in (TEMPLATE, AGENT, POLLER, "config/agents/a1/checkers/c1.json"):
        await documents.write(key, b"{}", 0)
    gone = await documents.write("config/pollers/gone.json", b"{}", 0)
    await documents.delete("config/pollers/gone.json", gone)

    assert await documents.keys("config/pollers/") == [POLLER, AGENT]
    assert await documents.keys("templates/") == [TEMPLATE]
    assert len(await documents.keys("")) == 4
    assert await documents.keys("nothing/") == []


async def test_what_cannot_be_a_key_is_refused(documents: Documents) -> None:
    with pytest.raises(PortError):
        await documents.write("config/a b.json", b"{}", 0)


async def _scan(documents: Documents, prefix: str) -> dict[str, StoredDocument]:
    found: dict[str, StoredDocument] = {}
    async with aclosing(documents.scan(prefix)) as batches:
        async for batch in batches:
            found.update(batch)
    return found


async def test_a_scan_of_an_empty_store_ends(documents: Documents) -> None:
    assert await _scan(documents, "config/") == {}


async def test_a_scan_finds_what_exists_beneath_the_prefix_as_it_stands(documents: Documents) -> None:
    sequence = await documents.write(POLLER, b"1", 0)
    sequence = await documents.write(POLLER, b"2", sequence)
    await documents.write(TEMPLATE, b"{}", 0)
    await documents.delete(AGENT, await documents.write(AGENT, b"{}", 0))

    assert await _scan(documents, "config/") == {POLLER: StoredDocument(b"2", sequence)}


async def test_a_scan_finds_more_than_one_delivery_holds(documents: Documents) -> None:
    keys = [f"config/pollers/p-{number}.json" for number in range(1100)]
    for start in range(0, len(keys), 50):  # a slow disk would leave some of all at once without an answer
        await asyncio.gather(*(documents.write(key, b"{}", 0) for key in keys[start : start + 50]))

    assert sorted(await _scan(documents, "config/")) == sorted(keys)


async def test_a_scan_may_be_broken_off(documents: Documents) -> None:
    await documents.write(POLLER, b"{}", 0)
    async with aclosing(documents.scan("config/")) as batches:
        async for _ in batches:
            break

    assert list(await _scan(documents, "config/")) == [POLLER]
