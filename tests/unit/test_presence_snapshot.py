"""What was heard, over a restart: the snapshot file, and what a daemon makes of it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from jetway.adapters.presence_file import PresenceFile
from jetway.core.errors import UnavailableError
from jetway.core.heard import Interval
from jetway.core.heartbeat import Payload
from jetway.core.ids import ServiceKey, ServiceType
from jetway.core.liveness import Liveness
from jetway.core.turns import Turn, pack
from jetway.ports import PresenceSnapshot, RememberedService
from jetway.services.keeping import PresenceKeeper
from support.builders import AGENT, LINEAGES, NOW, POLLER
from support.house import House, running_house

LINEAGE = LINEAGES[ServiceType.AGENT]
SERVICES = [
    RememberedService(ServiceKey(ServiceType.AGENT, f"a{number}"), NOW, verdict, interval, 1 + number % 2)
    for number in range(400)
    for verdict, interval in ((Liveness.ONLINE, None), (Liveness.OFFLINE, 7))
]
HEARD = (Interval(NOW - timedelta(days=2), NOW - timedelta(days=1)), Interval(NOW - timedelta(hours=1), NOW))


@pytest.fixture
def file(tmp_path: Path) -> PresenceFile:
    return PresenceFile(tmp_path / "presence.snapshot", "ledger-1", 5)


def test_what_was_saved_is_loaded(file: PresenceFile) -> None:
    assert file.load() is None
    turned = [one._replace(turns=bytes(range(8 * number))) for number, one in enumerate(SERVICES[:5])]
    for services, since in ((SERVICES, None), ([], NOW), (turned, NOW)):
        file.save(PresenceSnapshot(HEARD, iter(services), since))
        assert file.load() == PresenceSnapshot(HEARD, services, since)
    assert file.path.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in file.path.parent.iterdir()] == [file.path.name]


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_one_that_is_damaged_or_cut_is_passed_over_with_a_warning(file: PresenceFile, share: float) -> None:
    file.save(PresenceSnapshot(HEARD, SERVICES))
    whole = file.path.read_bytes()
    place = int(len(whole) * share)
    for damaged in (whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :], whole[:place]):
        file.path.write_bytes(damaged)
        with capture_logs() as logs:
            assert file.load() is None
        assert [line["action"] for line in logs] == ["presence_snapshot_unused"]


def test_another_ledgers_or_epochs_is_not_read(file: PresenceFile) -> None:
    file.save(PresenceSnapshot(HEARD, SERVICES))
    assert PresenceFile(file.path, "ledger-2", 5).load() is None
    assert PresenceFile(file.path, "ledger-1", 6).load() is None


def test_a_file_that_cannot_be_written_is_named_and_leaves_the_old_one(file: PresenceFile) -> None:
    file.save(PresenceSnapshot(HEARD, SERVICES))

    def broken() -> object:
        yield SERVICES[0]
        raise UnavailableError("in the middle")

    with pytest.raises(UnavailableError):
        file.save(PresenceSnapshot(HEARD, broken()))  # type: ignore[arg-type]
    assert file.load() == PresenceSnapshot(HEARD, SERVICES)
    missing = PresenceFile(file.path.parent / "missing" / "x", "ledger-1", 5)
    with pytest.raises(UnavailableError, match="missing"):
        missing.save(PresenceSnapshot(HEARD, []))


async def restart(house: House, file: PresenceFile, *, orderly: bool = False, away: float = 0) -> int:
    """Save, end, let time pass, begin anew. In order, or by a crash right after a save."""
    await PresenceKeeper(house.presence, house.index, house.changes, file).save()
    if orderly:
        await house.row_writer.flush_presence()
    await house.crash()
    house.clock.advance(away)
    await house.start()
    house.presence.deaf()
    restored = await PresenceKeeper(house.presence, house.index, house.changes, file).restore()
    house.presence.listening()
    await house.liveness.sweep()
    return restored


@pytest.mark.parametrize("orderly", [True, False])
async def test_verdicts_and_silence_go_on_over_a_restart(file: PresenceFile, orderly: bool) -> None:
    async with running_house() as house:
        await house.activate_tree()
        house.clock.advance(91)
        await house.beat(LINEAGE, Payload(interval_seconds=10))
        await house.liveness.sweep()
        assert house.liveness.of(POLLER) is Liveness.OFFLINE
        house.clock.advance(5)
        seen = house.presence.presence(POLLER).last_seen
        assert seen is not None
        silent = house.presence.silence_seconds(seen)
        assert await restart(house, file, orderly=orderly, away=3600) == 3
        await house.row_writer.remember()
        assert house.presence.silence_seconds(seen) == pytest.approx(silent, abs=0.1)
        assert house.liveness.of(POLLER) is Liveness.OFFLINE, "it was, and nothing was heard of it since"
        assert house.liveness.of(AGENT) is Liveness.ONLINE
        assert house.catalogue.get(AGENT).interval_seconds == 10, "its own word is kept"
        house.clock.advance(19)
        await house.liveness.sweep()
        assert house.liveness.of(AGENT) is Liveness.ONLINE, "one whole window after the gap"
        house.clock.advance(11.1)
        await house.liveness.sweep()
        assert house.liveness.of(AGENT) is Liveness.OFFLINE


async def test_a_days_silence_is_found_although_the_daemon_is_restarted_every_few_hours(
    file: PresenceFile,
) -> None:
    async with running_house() as house:
        await house.activate_tree()
        for _ in range(3):
            house.clock.advance(timedelta(hours=7))
            await restart(house, file, away=3 * 3600)
            await house.row_writer.remember()
            assert (await house.sweeper.mark_inactive()).changed == 0, "21 of 30 hours were listened to"
        house.clock.advance(timedelta(hours=3, minutes=1))
        assert (await house.sweeper.mark_inactive()).changed == 3


async def test_what_was_heard_after_the_last_flush_reaches_the_database(file: PresenceFile) -> None:
    async with running_house() as house:
        await house.activate_tree()
        await house.row_writer.flush_presence()
        house.clock.advance(20)
        await house.beat(LINEAGE)
        await restart(house, file)
        assert await house.row_writer.flush_presence() == 1
        row = house.row(AGENT)
        assert row is not None
        assert row.last_seen == house.presence.presence(AGENT).last_seen


async def test_without_a_snapshot_the_database_stands_in_and_everybody_has_a_window(
    file: PresenceFile,
) -> None:
    async with running_house() as house:
        await house.activate_tree()
        await house.row_writer.flush_presence()
        house.clock.advance(91)
        await house.liveness.sweep()
        await PresenceKeeper(house.presence, house.index, house.changes, file).save()
        file.path.write_bytes(b"\0" * 500)
        await house.crash()
        await house.start()
        assert await PresenceKeeper(house.presence, house.index, house.changes, file).restore() == 0
        await house.row_writer.remember()
        house.clock.advance(59)
        await house.liveness.sweep()
        assert house.liveness.of(AGENT) is Liveness.ONLINE


async def test_who_is_gone_or_has_another_incarnation_is_not_restored(file: PresenceFile) -> None:
    async with running_house() as house:
        await house.activate_tree()
        stale = [
            RememberedService(AGENT, NOW, Liveness.OFFLINE, None, 7),
            RememberedService(ServiceKey(ServiceType.AGENT, "gone"), NOW, Liveness.ONLINE, None, 1),
        ]
        file.save(PresenceSnapshot(HEARD, stale))
        await house.crash()
        await house.start()
        assert await PresenceKeeper(house.presence, house.index, house.changes, file).restore() == 0
        assert house.liveness.of(AGENT) is Liveness.NEVER


async def test_a_failing_disk_is_told_once_and_the_next_save_works(file: PresenceFile) -> None:
    async with running_house() as house:
        await house.activate_tree()
        broken = PresenceFile(file.path.parent / "missing" / "x", "ledger-1", 5)
        keeper = PresenceKeeper(house.presence, house.index, house.changes, broken)
        with capture_logs() as logs:
            await keeper.save()
            await keeper.save()
        assert [line["action"] for line in logs] == ["presence_unsaved"]
        broken.path.parent.mkdir()
        await keeper.save()
        assert broken.load() is not None


def states(house: House, key: ServiceKey, hours: int = 24) -> list[tuple[str, float]]:
    """What its liveness was, and for how many seconds."""
    return [
        (span.state.value, (span.until - span.since).total_seconds())
        for span in house.past.read(key, hours).spans
    ]


async def test_what_a_services_liveness_was_outlasts_a_restart(file: PresenceFile) -> None:
    async with running_house() as house:
        await house.activate_tree()
        house.clock.advance(91)
        await house.liveness.sweep()
        house.clock.advance(9)
        await house.beat(LINEAGE)
        house.clock.advance(20)
        before = states(house, AGENT)
        assert before == [("online", 91), ("offline", 9), ("online", 20)]
        await restart(house, file, away=3600)
        assert states(house, AGENT) == [*before, ("not_heard", 3600)]
        house.clock.advance(61)
        await house.liveness.sweep()
        house.clock.advance(5)
        assert states(house, AGENT) == [*before, ("not_heard", 3600), ("online", 61), ("late", 5)]
        assert house.past.read(AGENT).lasted()["online"] == timedelta(seconds=91 + 20 + 61)
        await restart(house, file)
        assert states(house, AGENT)[:3] == before, "also what was restored is kept"


async def test_without_what_was_kept_the_past_is_not_made_up(file: PresenceFile) -> None:
    async with running_house() as house:
        await house.activate_tree()
        await house.row_writer.flush_presence()
        house.clock.advance(600)
        await house.crash()
        await house.start()
        await house.row_writer.remember()
        house.clock.advance(10)
        assert states(house, AGENT) == [("not_heard", 600), ("online", 10)]


async def test_a_snapshot_of_an_earlier_version_tells_when_was_heard_and_no_turns(file: PresenceFile) -> None:
    async with running_house() as house:
        await house.activate_tree()
        house.clock.advance(300)
        known = RememberedService(AGENT, house.clock.now(), Liveness.ONLINE, None, 1)
        await house.crash()
        end = house.clock.now()
        file.save(PresenceSnapshot((Interval(NOW, end),), [known]))
        await house.start()
        await PresenceKeeper(house.presence, house.index, house.changes, file).restore()
        house.clock.advance(10)
        assert states(house, AGENT) == [("unknown", 300), ("online", 10)]


async def test_a_turn_in_the_moment_of_saving_is_not_lost(file: PresenceFile) -> None:
    end = NOW + timedelta(seconds=50)
    turn = pack(Turn(NOW + timedelta(seconds=20), Liveness.OFFLINE, Liveness.ONLINE))
    async with running_house() as house:
        await house.activate_tree()
        house.clock.advance(50)
        kept = [RememberedService(AGENT, NOW, Liveness.OFFLINE, None, 1, turn)]
        await house.crash()
        file.save(PresenceSnapshot((Interval(NOW, end),), kept, NOW - timedelta(days=1)))
        await house.start()
        await PresenceKeeper(house.presence, house.index, house.changes, file).restore()
        house.clock.advance(10)
        assert states(house, AGENT) == [("offline", 20), ("online", 30), ("offline", 10)]


def test_turns_that_are_not_whole_are_passed_over_with_all_the_rest(file: PresenceFile) -> None:
    file.save(PresenceSnapshot(HEARD, [SERVICES[0]._replace(turns=b"1234567")]))
    with capture_logs() as logs:
        assert file.load() is None
    assert [line["action"] for line in logs] == ["presence_snapshot_unused"]


async def test_who_waits_for_approval_is_known_as_before_after_a_restart(file: PresenceFile) -> None:
    async with running_house() as house:
        await house.activate(POLLER)
        who = Payload(instance_id="run-1", source_ip="192.0.2.7")
        for _ in range(3):
            house.clock.advance(10)
            await house.beat(LINEAGE, who)
            await house.beat(LINEAGES[ServiceType.POLLER], who)
        before = house.presence.seen(AGENT)
        assert before is not None
        assert await restart(house, file) == 2
        waits, known = house.presence.seen(AGENT), house.presence.seen(POLLER)
        assert waits is not None
        assert known is not None
        told = (waits.beats, waits.instance_id, waits.source_ip)
        assert told == (before.beats, "run-1", "192.0.2.7") != (0, "run-1", "192.0.2.7")
        assert (known.beats, known.instance_id) == (0, ""), "nobody has to decide about that one"


def test_what_is_kept_of_those_who_wait_is_loaded_with_their_turns_and_without(file: PresenceFile) -> None:
    services = [
        SERVICES[0]._replace(beats=3, instance_id="run-1", source_ip="192.0.2.7"),
        SERVICES[1]._replace(beats=1, turns=bytes(8)),
        SERVICES[2],
    ]
    file.save(PresenceSnapshot(HEARD, services, NOW))
    assert file.load() == PresenceSnapshot(HEARD, services, NOW)


async def test_who_flapped_before_a_restart_flaps_on_and_is_not_told_again(file: PresenceFile) -> None:
    async with running_house() as house:
        await house.activate_tree()
        for _ in range(4):
            house.clock.advance(60.1)
            await house.liveness.sweep()
            await house.beat(LINEAGE)
        await house.troubles.look()
        await house.settle()
        assert (house.troubles.is_flapping(AGENT), len(house.events("flapping"))) == (True, 1)
        await restart(house, file)
        await house.troubles.recall()
        assert house.troubles.is_flapping(AGENT)
        assert not house.troubles.is_flapping(POLLER)
        for _ in range(2):
            house.clock.advance(60.1)
            await house.liveness.sweep()
            await house.beat(LINEAGE)
        await house.troubles.look()
        await house.settle()
        assert len(house.events("flapping")) == 1
        for _ in range(25):
            house.clock.advance(30)
            await house.beat(LINEAGE)
        await house.troubles.look()
        await house.settle()
        assert len(house.events("flapping_ended")) == 1, "its end is told as well"
