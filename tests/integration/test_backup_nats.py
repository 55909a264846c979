"""The ledger's image and its loader on a real server."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from datetime import timedelta

import pytest

from jetway.adapters.clock import RandomIdentifiers, SystemClock
from jetway.adapters.nats.bucket import Bucket
from jetway.adapters.nats.image import NatsImage, buckets
from jetway.adapters.nats.jetstream import JetStream
from jetway.adapters.nats.layout import Layout
from jetway.adapters.nats.loader import NatsLoader
from jetway.adapters.nats.meta import LedgerMeta, MetaStore
from jetway.adapters.nats.names import Names, stream_of
from jetway.adapters.nats.stores import NatsAuditLog
from jetway.adapters.nats.views import NatsViews
from jetway.core.backup import REGISTRY, SECTIONS, Line
from jetway.core.errors import ConflictError, StartupError
from jetway.core.ids import ServiceType
from jetway.core.record import encode_record
from support.builders import record
from support.database_rows import event
from support.nats_server import Gateway, NatsServer, connect_to, gateway, gateway_on, nats_server

__all__ = ["gateway", "nats_server"]

META = LedgerMeta("l-1", 99, "2026-03-04T05:06:07.890Z")


async def walked(image: NatsImage, section: str) -> list[Line]:
    async with aclosing(image.walk(section)) as batches:
        return [line async for lines in batches for line in lines]


async def trail_of(image: NatsImage, limit: int = 0) -> list[Line]:
    async with aclosing(image.walk_trail(limit)) as batches:
        return [line async for lines in batches for line in lines]


def loader_on(jetstream: JetStream, names: Names | None = None) -> NatsLoader:
    names = names or Names()
    store = MetaStore(jetstream, names, SystemClock(), RandomIdentifiers())
    return NatsLoader(jetstream, Layout(names, 1, timedelta(days=90)), store)


def agents(count: int) -> Sequence[Line]:
    made = [record(ServiceType.AGENT, service_id=f"a{number}") for number in range(count)]
    return [Line(str(each.key), encode_record(each)) for each in made]


def test_every_bucket_that_is_no_view_is_in_a_backup() -> None:
    layout = Layout(Names("x_"), 1, timedelta(days=90))
    made = {
        s["name"] for s in layout.streams((2, 12, 0)) if s["name"].startswith("KV_") and "sources" not in s
    }
    assert made == {stream_of(bucket) for bucket in buckets(Names("x_")).values()}


async def test_an_empty_ledger_is_walked_to_its_end(gateway: Gateway) -> None:
    image = NatsImage(gateway.jetstream, gateway.names)
    assert [await walked(image, section) for section in SECTIONS] == [[]] * len(SECTIONS)
    assert await trail_of(image) == []
    assert await image.settle_trail() == 0


async def test_what_is_written_meanwhile_comes_once_more_and_what_is_deleted_as_deleted(
    gateway: Gateway,
) -> None:
    bucket = Bucket(gateway.jetstream, gateway.names.config_bucket)
    for number in range(1200):
        await bucket.write(f"k{number}", b"old", 0)
    lines: list[Line] = []
    async with aclosing(NatsImage(gateway.jetstream, gateway.names).walk("config")) as batches:
        async for some in batches:
            if not lines:
                await bucket.write("k0", b"new", (await bucket.read("k0")).sequence)
                await bucket.delete("k1", (await bucket.read("k1")).sequence)
            lines += some
    newest = {line.key: line for line in lines}
    assert len(newest) == 1200
    assert newest["k0"] == Line("k0", b"new", again=True)
    assert newest["k1"] == Line("k1", None, again=True)
    assert {line.data for key, line in newest.items() if key not in ("k0", "k1")} == {b"old"}


async def test_the_ledgers_identity_lease_and_marks_stay_out(gateway: Gateway) -> None:
    bucket = Bucket(gateway.jetstream, gateway.names.meta_bucket)
    for key in ("lease", "token_key"):
        await bucket.write(key, b"1", 0)
    assert await walked(NatsImage(gateway.jetstream, gateway.names), "meta") == [Line("token_key", b"1")]


async def test_a_loaded_ledger_opens_with_its_trail_before_what_comes_after(nats_server: NatsServer) -> None:
    connection = await connect_to(nats_server)
    jetstream = JetStream(connection)
    loader, image = loader_on(jetstream), NatsImage(jetstream, Names())
    history = [Line(f"registry.events.agent.a{n}", b"{}") for n in range(700)]
    history.append(Line("registry.events.agent.a0", None))
    try:
        assert not await loader.is_complete(META.ledger_id, META.epoch)
        await loader.begin(b"{}")
        await loader.load(REGISTRY, agents(700))
        await loader.load_trail(history)
        assert await trail_of(image, len(history)) == history
        with pytest.raises(StartupError, match="run `jetway restore` again"):
            async with gateway_on(nats_server):
                raise AssertionError("a daemon came in")
        await loader.open_trail()
        await loader.complete(META)
        await loader.end()
        assert await loader.is_complete(META.ledger_id, META.epoch)

        async with gateway_on(nats_server) as opened:
            assert (opened.meta.ledger_id, opened.meta.epoch) == ("l-1", 99)
            assert await image.settle_trail() == 0
            found = await trail_of(image)
            assert found[: len(history)] == history
            assert {line.key for line in found[len(history) :]} == {
                f"registry.events.agent.a{n}" for n in range(700)
            }
            assert len(await walked(image, REGISTRY)) == 700
            assert {
                name: state.ahead for name, state in (await NatsViews(jetstream, Names()).state()).items()
            } == {
                "events": 0,
                "config_watch": 0,
            }
    finally:
        await connection.close()


async def test_an_attempt_that_was_cut_off_is_begun_anew(nats_server: NatsServer) -> None:
    connection = await connect_to(nats_server)
    jetstream = JetStream(connection)
    try:
        await loader_on(jetstream).begin(b"first")
        await loader_on(jetstream).load(REGISTRY, agents(3))
        again = loader_on(jetstream)
        await again.begin(b"second")
        await again.load(REGISTRY, agents(2))
        assert len(await walked(NatsImage(jetstream, Names()), REGISTRY)) == 2
        with pytest.raises(ConflictError):
            await again.load(REGISTRY, agents(1))
    finally:
        await connection.close()


async def test_a_server_that_has_a_ledger_is_left_alone(gateway: Gateway) -> None:
    await gateway.ledger.write(record(ServiceType.AGENT), 0)
    with pytest.raises(StartupError, match="there is a ledger at the server already"):
        await loader_on(gateway.jetstream).begin(b"{}")
    assert len(await walked(NatsImage(gateway.jetstream, gateway.names), REGISTRY)) == 1
    # Another gateway on the same server is another ledger.
    await loader_on(gateway.jetstream, Names("other_")).begin(b"{}")


async def test_a_daemon_that_comes_in_between_is_not_overrun(nats_server: NatsServer) -> None:
    connection = await connect_to(nats_server)
    jetstream = JetStream(connection)
    try:
        loader = loader_on(jetstream)
        await loader.begin(b"{}")
        await Bucket(jetstream, Names().meta_bucket).write("ledger", b"{}", 0)
        with pytest.raises(ConflictError):
            await loader.complete(META)
    finally:
        await connection.close()


async def test_entries_outside_the_ledger_that_the_trail_has_not_taken_are_counted(gateway: Gateway) -> None:
    """A purge, a token, a refused redemption: they come by a stream of their own."""
    image = NatsImage(gateway.jetstream, gateway.names)
    await gateway.ledger.write(record(ServiceType.AGENT, revision=1), 0)
    assert await image.settle_trail() == 0
    events = dict((await gateway.jetstream.call("STREAM.INFO.REGISTRY_EVENTS"))["config"])
    sources = events["sources"]
    ledger = [source for source in sources if source["name"] == "KV_registry"]
    await gateway.jetstream.call("STREAM.UPDATE.REGISTRY_EVENTS", {**events, "sources": ledger})
    audit = NatsAuditLog(gateway.jetstream, gateway.names)
    for number in range(3):
        await audit.append(event(event_id=f"e{number}", service_id="", revision=0))
    assert await image.settle_trail(0.2) == 3
    await gateway.jetstream.call("STREAM.UPDATE.REGISTRY_EVENTS", {**events, "sources": sources})
    assert await image.settle_trail() == 0
    subjects = [line.key for line in await trail_of(image)]
    assert sum("gateway" in subject for subject in subjects) == 3
