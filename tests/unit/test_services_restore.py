"""Looking through a backup, loading it, holding it against what stands there: over a ledger in memory."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Sequence

import pytest

from jetway.core.backup import (
    FILES,
    REGISTRY,
    SECTIONS,
    TRAIL,
    BadBackupError,
    Line,
    Manifest,
    next_epoch,
)
from jetway.core.commands import Context
from jetway.core.errors import PortError
from jetway.core.ids import ServiceType
from jetway.core.record import EventType, ServiceRecord, ServiceStatus, decode_record, encode_record
from jetway.core.rows import events_of
from jetway.ports import BackupPart
from jetway.services.backup import back_up
from jetway.services.restore import Restore, inspect
from support.builders import NOW, CountingIdentifiers, record

NEW_EPOCH = 99


class Memory:
    """An image and a loader: what was loaded can be walked. `loses` is a key that it forgets."""

    def __init__(self, loses: str = "", alters: str = "", lacking: int = 0) -> None:
        self.sections: dict[str, dict[str, bytes]] = {section: {} for section in SECTIONS}
        self.trail: list[Line] = []
        self.open = False
        self._loses, self._alters, self._lacking = loses, alters, lacking

    async def load(self, section: str, lines: Sequence[Line]) -> None:
        for line in lines:
            assert line.data is not None
            assert line.key not in self.sections[section], "twice"
            if line.key != self._loses:
                self.sections[section][line.key] = line.data + (b" " if line.key == self._alters else b"")

    async def load_trail(self, lines: Sequence[Line]) -> None:
        assert not self.open
        self.trail += [line for line in lines if line.key != self._loses]

    async def open_trail(self) -> None:
        self.open = True

    async def walk(self, section: str) -> AsyncGenerator[Sequence[Line], None]:
        yield [Line(key, data) for key, data in self.sections[section].items()]

    async def walk_trail(self, limit: int = 0) -> AsyncGenerator[Sequence[Line], None]:
        yield self.trail[: limit or None]

    async def settle_trail(self, seconds: float = 30.0) -> int:
        return self._lacking


class Pages:
    """A backup in memory."""

    def __init__(self, *parts: BackupPart) -> None:
        self.manifest = Manifest(
            product="0.1.0", created_at=NOW, ledger_id="l-1", epoch=7, ledger_created_at="t"
        )
        self._parts = list(parts)

    def parts(self) -> Iterator[BackupPart]:
        return iter(self._parts)

    def add_file(self, name: str, data: bytes) -> None:
        self._parts.append(BackupPart(FILES, name=name, data=data))

    def add_lines(self, section: str, lines: Sequence[Line]) -> None:
        self._parts.append(BackupPart(section, tuple(lines)))


KEYS = BackupPart(FILES, name="keys/token-secret.key", data=b"k")


def line(made: ServiceRecord, *, again: bool = False) -> Line:
    return Line(str(made.key), encode_record(made), again)


AGENT = record(ServiceType.AGENT, revision=5)
NEWER = record(ServiceType.AGENT, revision=6, label="newer")
POLLER = record(ServiceType.POLLER, revision=3)
GONE = record(ServiceType.CHECKER, revision=2, status=ServiceStatus.DELETED)
PAGES = (
    KEYS,
    BackupPart("config", (Line("config/pollers/p1.json", b"1"), Line("config/pollers/x.json", b"2"))),
    BackupPart("config", (Line("config/pollers/p1.json", b"3", again=True),)),
    BackupPart("config", (Line("config/pollers/x.json", None, again=True),)),
    BackupPart(REGISTRY, (line(AGENT), line(POLLER), line(GONE))),
    BackupPart(REGISTRY, (line(NEWER, again=True),)),
    BackupPart(TRAIL, (Line("registry.events.agent.a1", b"e1"), Line("registry.events.agent.a1", b"e2"))),
)


async def restore(pages: Pages, memory: Memory) -> Restore:
    contents = inspect(pages)
    context = Context(now=NOW, actor="restore", transition_id="", epoch=NEW_EPOCH)
    run = Restore(pages, contents, context, CountingIdentifiers())
    await run.load(memory, lambda _section, _count: None)
    await run.check_trail(memory)
    await memory.open_trail()
    await run.check(memory)
    return run


async def test_the_last_line_of_a_key_counts_and_what_was_deleted_is_gone() -> None:
    memory = Memory()
    run = await restore(Pages(*PAGES), memory)
    assert memory.sections["config"] == {"config/pollers/p1.json": b"3"}
    restored = {key: decode_record(data) for key, data in memory.sections[REGISTRY].items()}
    assert {key: (each.revision, each.status) for key, each in restored.items()} == {
        "agent.a1": (7, NEWER.status),
        "poller.p1": (4, POLLER.status),
        "checker.c1": (3, ServiceStatus.DELETED),
    }
    assert [entry.data for entry in memory.trail] == [b"e1", b"e2"]
    assert (run.tallies["config"].count, run.tallies[REGISTRY].count, run.tallies[TRAIL].count) == (1, 3, 2)


async def test_a_restored_record_is_newer_than_all_before_and_says_where_it_is_from() -> None:
    memory = Memory()
    await restore(Pages(*PAGES), memory)
    made = decode_record(memory.sections[REGISTRY]["agent.a1"])
    assert made.version == (NEW_EPOCH, 7) > (AGENT.epoch, 10_000)
    assert made.label == "newer"
    (event,) = events_of(made)
    assert (event.event_type, event.actor) == (EventType.RESTORED.value, "restore")
    assert event.metadata == {"backup_epoch": NEWER.epoch, "backup_revision": 6}
    ids = {decode_record(data).transition.transition_id for data in memory.sections[REGISTRY].values()}
    assert len(ids) == 3


@pytest.mark.parametrize(
    ("memory", "says"),
    [
        (Memory(loses="agent.a1"), "registry: 3 were restored, but 2 stand there"),
        (Memory(alters="poller.p1"), "registry: what stands there is not what was restored"),
        (Memory(loses="registry.events.agent.a1"), "trail: 2 were restored, but 0 stand there"),
        (Memory(alters="config/pollers/p1.json"), "config: what stands there"),
    ],
)
async def test_what_stands_there_otherwise_is_told(memory: Memory, says: str) -> None:
    with pytest.raises(PortError, match=says):
        await restore(Pages(*PAGES), memory)


@pytest.mark.parametrize(
    ("part", "says"),
    [
        (BackupPart(REGISTRY, (Line("agent.a1", b"{}"),)), "agent.a1 holds no record"),
        (BackupPart(REGISTRY, (Line("agent.b1", encode_record(AGENT)),)), "holds the record of agent.a1"),
        (BackupPart(REGISTRY, (Line("nobody", b"{}"),)), "holds no record"),
        (BackupPart("config", (Line("a key", b""),)), "is no key"),
        (BackupPart("config", (Line("config/>", b""),)), "is no key"),
        (BackupPart("elsewhere", (Line("a", b""),)), "does not know"),
    ],
)
def test_what_cannot_be_restored_is_found_before_anything_is_written(part: BackupPart, says: str) -> None:
    with pytest.raises(BadBackupError, match=says):
        inspect(Pages(KEYS, part))


def test_a_backup_without_keys_is_none() -> None:
    with pytest.raises(BadBackupError, match="no keys"):
        inspect(Pages(*PAGES[1:]))


async def test_a_backup_of_what_was_restored_holds_the_same() -> None:
    memory = Memory(lacking=3)
    first = await restore(Pages(*PAGES), memory)
    copy = Pages()
    walked = await back_up(memory, copy, {"keys/token-secret.key": b"k"})
    assert walked.lacking == 3
    assert walked.lines == {section: tally.count for section, tally in first.tallies.items()}
    again = Memory()
    second = await restore(copy, again)
    assert second.tallies["config"].digest == first.tallies["config"].digest
    assert decode_record(again.sections[REGISTRY]["agent.a1"]).revision == 8


@pytest.mark.parametrize(
    ("backup", "seen", "now", "epoch"),
    [(100, 0, 500, 500), (100, 0, 50, 101), (100, 900, 500, 901), (700, 600, 500, 701)],
)
def test_the_epoch_is_above_all_that_is_known(backup: int, seen: int, now: int, epoch: int) -> None:
    """A clock that was set back does not bring an old epoch again."""
    assert next_epoch(backup, seen, now) == epoch
