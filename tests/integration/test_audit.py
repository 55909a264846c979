"""The audit trail on a real server: untouched it verifies clean, and whatever is done to it is named."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import JsonValue

from jetway.adapters.authority.checkpoints import CheckpointSigner, open_signer
from jetway.adapters.checkpoint_files import CheckpointFiles
from jetway.adapters.clock import RandomIdentifiers, SystemClock
from jetway.adapters.nats.jetstream import OPERATION
from jetway.adapters.nats.stores import NatsAuditLog
from jetway.adapters.nats.trail import NatsTrail
from jetway.core.errors import StartupError
from jetway.core.ids import ServiceKey, ServiceType
from jetway.core.record import EventType, ServiceStatus
from jetway.core.restoration import Restoration
from jetway.services.audit import AuditVerifier, Verified
from jetway.services.checkpoints import Checkpoints
from jetway.services.restores import signed_facts
from jetway.services.trail import Trail
from support.builders import AGENT
from support.house import ALICE
from support.nats_server import Gateway, NatsServer, gateway_on
from support.real_house import RealHouse, real_house

Message = tuple[str, bytes | None]
EVENTS, LEDGER = "REGISTRY_EVENTS", "KV_registry"
FORGOTTEN = ServiceKey(ServiceType.AGENT, "a9")
AGENT_ENTRY = "registry.events.agent.a1"


@dataclass
class World:
    """A house whose services were through something, and what stands guard over its trail."""

    real: RealHouse | None
    gateway: Gateway
    signer: CheckpointSigner
    files: CheckpointFiles

    @property
    def reader(self) -> NatsTrail:
        return NatsTrail(self.gateway.jetstream, self.gateway.names, self.gateway.meta)

    async def checkpoint(self) -> None:
        trail = Trail(
            NatsAuditLog(self.gateway.jetstream, self.gateway.names), SystemClock(), RandomIdentifiers()
        )
        made = await Checkpoints(self.reader, self.signer, self.files, trail, SystemClock(), 0).make()
        assert made is not None
        await self.settle()

    async def settle(self) -> None:
        assert self.real is not None
        await self.real.settle()

    async def verify(self, kept: timedelta = timedelta(days=90)) -> Verified:
        oldest = datetime.now(UTC) - kept
        verifier = AuditVerifier(
            self.reader, self.signer, await self.files.load(), oldest, settle_seconds=0.1
        )
        return await verifier.run()

    async def messages(self, stream: str) -> list[Message]:
        found: list[Message] = []
        sequence = 0
        while (stored := await self.gateway.jetstream.read_next(stream, ">", sequence + 1)) is not None:
            sequence = stored.sequence
            found.append((stored.subject, None if stored.is_marker else stored.data))
        return found

    async def replace(self, stream: str, messages: list[Message]) -> None:
        """What whoever owns the server can do: the same stream, with other contents."""
        js = self.gateway.jetstream
        config = (await js.call(f"STREAM.INFO.{stream}"))["config"]
        for field in ("sources", "metadata", "deny_delete", "deny_purge"):
            config.pop(field, None)
        config["subjects"] = ["registry.events.>"] if stream == EVENTS else ["$KV.registry.>"]
        await js.call(f"STREAM.DELETE.{stream}")
        await js.call(f"STREAM.CREATE.{stream}", config)
        for subject, data in messages:
            await js.publish(subject, data or b"", headers={OPERATION: "DEL"} if data is None else None)

    async def forge(self, stream: str, change: Callable[[list[Message]], list[Message]]) -> None:
        await self.replace(stream, change(await self.messages(stream)))

    async def purge(self) -> None:
        assert self.real is not None
        house = self.real.house
        await house.administrator.override(
            ALICE, FORGOTTEN, ServiceStatus.REVOKED, reason="old", cascade=True
        )
        await self.settle()
        swept = await house.purger.run(older_than=timedelta(0))
        assert swept.changed == 1
        await self.settle()


@asynccontextmanager
async def world(folder: Path) -> AsyncIterator[World]:
    """A house that runs, with a tree that is active."""
    async with real_house(folder) as real:
        await real.activate_tree()
        await real.create_agent(FORGOTTEN.service_id)
        await real.settle()
        async with _world(folder, _At(real.nats_url), real) as it:
            yield it


@asynccontextmanager
async def aftermath(folder: Path) -> AsyncIterator[World]:
    """What the house left in NATS, and nobody there to see what is done to it."""
    server = NatsServer(folder / "nats-server")
    await server.start()
    try:
        async with _world(folder, server, None) as it:
            yield it
    finally:
        await server.stop()


@asynccontextmanager
async def _world(folder: Path, server: NatsServer | _At, real: RealHouse | None) -> AsyncIterator[World]:
    async with gateway_on(server) as gateway:  # type: ignore[arg-type]
        yield World(
            real, gateway, open_signer(folder / "audit-keys", None), CheckpointFiles(folder / "checkpoints")
        )


@dataclass
class _At:
    """A server that somebody else runs."""

    url: str


async def live(folder: Path, *, checkpoint: bool = False) -> None:
    """A life that ends before anything is done to its trail."""
    async with world(folder) as it:
        assert it.real is not None
        await it.real.house.api_tokens.create(ALICE, "robot", "viewer")
        await it.settle()
        if checkpoint:
            await it.checkpoint()


def change_first(subject: str, old: bytes, new: bytes) -> Callable[[list[Message]], list[Message]]:
    """The first message of the subject that holds `old`, changed."""

    def change(messages: list[Message]) -> list[Message]:
        at = next(i for i, (name, data) in enumerate(messages) if name == subject and old in (data or b""))
        changed = (subject, (messages[at][1] or b"").replace(old, new))
        return [*messages[:at], changed, *messages[at + 1 :]]

    return change


def places(messages: list[Message], subject: str) -> list[int]:
    return [i for i, (name, _) in enumerate(messages) if name == subject]


def without_second(messages: list[Message]) -> list[Message]:
    gone = places(messages, AGENT_ENTRY)[1]
    return messages[:gone] + messages[gone + 1 :]


def swapped(messages: list[Message]) -> list[Message]:
    first, second = places(messages, AGENT_ENTRY)[:2]
    moved = list(messages)
    moved[first], moved[second] = moved[second], moved[first]
    return moved


async def test_an_untouched_trail_is_whole(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        assert (await it.verify()).findings == [], "without any checkpoint"
        await it.checkpoint()
        await it.purge()
        await it.checkpoint()
        assert it.real is not None
        await it.real.create_agent("a2")
        await it.settle()
        done = await it.verify()
        assert (done.findings, done.notes, done.checkpoints) == ([], [], 2)
        assert done.revisions > done.records == 4


async def test_a_purge_after_the_last_checkpoint_is_no_break(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        await it.checkpoint()
        await it.purge()
        assert (await it.verify()).findings == []


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (change_first(AGENT_ENTRY, b"alice", b"mallo"), "agent.a1 revision 2"),
        (without_second, "agent.a1 revision 3"),
        (swapped, "agent.a1 revision 1"),
    ],
    ids=["changed", "deleted", "reordered"],
)
async def test_what_is_done_to_a_revision_in_the_trail_is_named(
    tmp_path: Path, change: Callable[[list[Message]], list[Message]], named: str
) -> None:
    await live(tmp_path)
    async with aftermath(tmp_path) as it:
        await it.forge(EVENTS, change)
        done = await it.verify()
        assert done.findings[0].startswith(named), done.findings


async def test_a_changed_revision_of_the_ledger_is_named(tmp_path: Path) -> None:
    await live(tmp_path)
    async with aftermath(tmp_path) as it:
        await it.forge(LEDGER, change_first("$KV.registry.agent.a1", b"alice", b"mallo"))
        done = await it.verify()
        assert done.findings[0].startswith("agent.a1 revision 1"), done.findings


async def test_a_hole_in_the_trail_is_named(tmp_path: Path) -> None:
    await live(tmp_path)
    async with aftermath(tmp_path) as it:
        await it.forge(EVENTS, lambda messages: messages)
        await it.gateway.jetstream.call(f"STREAM.MSG.DELETE.{EVENTS}", {"seq": 2})
        done = await it.verify()
        assert done.findings[0] == "entries 2 to 2 of the trail are missing"


async def test_a_changed_event_outside_records_does_not_fit_the_checkpoint(tmp_path: Path) -> None:
    await live(tmp_path, checkpoint=True)
    async with aftermath(tmp_path) as it:
        await it.forge(EVENTS, change_first("registry.events.gateway.api_token_created", b"alice", b"mallo"))
        done = await it.verify()
        assert done.findings[0].startswith("checkpoint 1 of"), done.findings


async def test_a_tail_that_was_cut_off_after_a_checkpoint_is_named(tmp_path: Path) -> None:
    await live(tmp_path, checkpoint=True)
    async with aftermath(tmp_path) as it:
        await it.forge(EVENTS, lambda messages: messages[:3])
        done = await it.verify()
        assert done.findings[0].startswith("checkpoint 1 of"), done.findings
        assert any(finding.startswith("agent.a1 revision") for finding in done.findings)


async def test_a_whole_other_history_does_not_fit_the_checkpoints_that_were_kept(tmp_path: Path) -> None:
    await live(tmp_path, checkpoint=True)
    async with aftermath(tmp_path) as it:
        for stream in (EVENTS, LEDGER):
            await it.replace(stream, [])
        done = await it.verify()
        assert "is not in the trail" in done.findings[0]


async def test_a_checkpoint_by_another_key_is_none(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        await it.checkpoint()
        it.signer = open_signer(tmp_path / "other-keys", None)
        done = await it.verify()
        assert "the signature is not by the gateway's key" in done.findings[0]


async def test_a_record_that_somebody_else_purged_is_named(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        entry = await it.gateway.ledger.read(AGENT)
        await it.gateway.ledger.purge(AGENT, entry.sequence)
        await it.settle()
        done = await it.verify()
        assert any("not by the gateway" in finding for finding in done.findings), done.findings


async def test_a_ledger_record_that_was_forged_with_a_head_of_its_own_is_named(tmp_path: Path) -> None:
    """Written through the front door of NATS, chained to nothing."""
    async with world(tmp_path) as it:
        stored = (await it.messages(LEDGER))[-1]
        forged = (stored[1] or b"").replace(b'"previous_sha256":"', b'"previous_sha256":"00')
        await it.gateway.jetstream.publish(stored[0], forged)
        await it.settle()
        assert (await it.verify()).breaks > 0


async def test_events_of_a_checkpoint_are_in_the_trail(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        await it.checkpoint()
        events = await it.reader.happened(EventType.CHECKPOINT)
        assert [event.actor for event in events] == ["system"]


def test_a_key_that_the_ledger_remembers_is_never_made_anew(tmp_path: Path) -> None:
    signer = open_signer(tmp_path / "keys", None)
    assert open_signer(tmp_path / "keys", signer.key_id).key_id == signer.key_id
    with pytest.raises(StartupError, match=r"checkpoint-signing\.pem is missing"):
        open_signer(tmp_path / "empty", signer.key_id)
    other = open_signer(tmp_path / "other", None)
    with pytest.raises(StartupError, match=other.key_id):
        open_signer(tmp_path / "other", signer.key_id)


def restored_event(messages: list[Message], metadata: dict[str, JsonValue]) -> Message:
    """The event of a restore, as whoever may write to the trail can make it."""
    like = next(data for name, data in messages if name == "registry.events.gateway.api_token_created")
    event = {**json.loads(like or b""), "event_type": "restored", "actor": "restore", "metadata": metadata}
    return "registry.events.gateway.restored", json.dumps(event | {"event_id": "f" * 36}).encode()


LONG_AGO: dict[str, JsonValue] = {"backup_created_at": "2000-01-01T00:00:00.000Z", "epoch": 1}
UNSIGNED = "a restore at .* that the gateway's key did not sign"


@pytest.mark.parametrize("epoch", [1, 0], ids=["another epoch", "the ledger's own epoch"])
async def test_a_pretended_restore_excuses_no_event_that_was_taken_away(tmp_path: Path, epoch: int) -> None:
    await live(tmp_path, checkpoint=True)
    async with aftermath(tmp_path) as it:
        facts = {**LONG_AGO, "epoch": epoch or it.gateway.meta.epoch}
        gone = "registry.events.gateway.api_token_created"
        await it.forge(EVENTS, lambda m: [*(each for each in m if each[0] != gone), restored_event(m, facts)])
        done = await it.verify()
        assert any(re.search(UNSIGNED, finding) for finding in done.findings), done.findings
        assert any("is missing or was changed" in finding for finding in done.findings), done.findings


async def test_a_pretended_restore_excuses_no_wiped_history(tmp_path: Path) -> None:
    await live(tmp_path, checkpoint=True)
    async with aftermath(tmp_path) as it:
        pretended = restored_event(await it.messages(EVENTS), LONG_AGO)
        await it.replace(LEDGER, [])
        await it.replace(EVENTS, [pretended])
        done = await it.verify()
        assert re.search(UNSIGNED, done.findings[0]), done.findings
        assert "is not in the trail: it was cut off or replaced" in done.findings[1]


def signed_by(signer: CheckpointSigner, restoration: Restoration) -> dict[str, JsonValue]:
    return {**LONG_AGO, **signed_facts(signer, restoration)}


async def test_a_restore_excuses_what_is_missing_from_before_it_alone(tmp_path: Path) -> None:
    await live(tmp_path, checkpoint=True)
    async with aftermath(tmp_path) as it:
        meta, now = it.gateway.meta, datetime.now(UTC)
        backup_created_at = now - timedelta(days=1)

        def facts(epoch: int, ledger_id: str, created: datetime = backup_created_at) -> Restoration:
            return Restoration(ledger_id=ledger_id, epoch=epoch, backup_created_at=created, restored_at=now)

        history = await it.messages(EVENTS)
        await it.replace(LEDGER, [])
        another = open_signer(tmp_path / "other-keys", None)
        for restoration, signer in (
            (facts(meta.epoch, meta.ledger_id), another),
            (facts(meta.epoch, "another-ledger"), it.signer),
            (facts(meta.epoch + 1, meta.ledger_id), it.signer),
        ):
            await it.replace(EVENTS, [restored_event(history, signed_by(signer, restoration))])
            done = await it.verify()
            assert re.search(UNSIGNED, done.findings[0]), restoration

        # By the key, of this ledger and its epoch: what was made in that very epoch came after it all the same,
        # and so did what the backup should have held.
        early, late = facts(meta.epoch, meta.ledger_id), facts(meta.epoch, meta.ledger_id, now)
        for restoration in (early, late):
            await it.replace(EVENTS, [restored_event(history, signed_by(it.signer, restoration))])
            done = await it.verify()
            assert any("restored at" in note for note in done.notes), done.notes
            assert any("it was cut off or replaced" in finding for finding in done.findings)


async def test_an_epoch_that_no_restore_began_is_named(tmp_path: Path) -> None:
    await live(tmp_path)
    async with aftermath(tmp_path) as it:
        epoch = it.gateway.meta.epoch
        old, new = f'"epoch":{epoch}'.encode(), f'"epoch":{epoch + 1}'.encode()

        def moved_on(messages: list[Message]) -> list[Message]:
            last = places(messages, AGENT_ENTRY)[-1]
            changed = (AGENT_ENTRY, (messages[last][1] or b"").replace(old, new))
            return [*messages[:last], changed, *messages[last + 1 :]]

        await it.forge(EVENTS, moved_on)
        done = await it.verify()
        assert f"epoch {epoch + 1}: no restore that the gateway's key signed began it" in done.findings
