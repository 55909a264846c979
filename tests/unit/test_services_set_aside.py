"""A row that the database refuses is found, set aside, named and tried again; the others go on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from jetway.core.errors import ExhaustedError, PortError, RejectedError, UnavailableError
from jetway.core.heartbeat import Payload
from jetway.core.ids import ServiceKey, ServiceType
from jetway.core.rows import Event, PackageRow, ServiceRow
from jetway.services import issue, project
from jetway.services.metrics import Metrics
from jetway.services.set_aside import SetAside
from jetway.services.sieve import PATIENCE
from support.builders import AGENT, LINEAGES, POLLER
from support.drift import reconcile
from support.house import ALICE, House, running_house

Row = ServiceRow | PackageRow | Event
REFUSED = RejectedError("the database refused what it was given: label is too odd")
P2 = ServiceKey(ServiceType.POLLER, "p2")
AWAY = UnavailableError("the database hung up")


@pytest.fixture
async def house(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[House]:
    monkeypatch.setattr(project, "_FIRST_BACKOFF", 0)
    monkeypatch.setattr(project, "_LAST_BACKOFF", 0)
    monkeypatch.setattr(issue, "PROJECTION_SECONDS", 0.02)
    async with running_house() as house:
        house.settling.patience = 10.0
        yield house


def of(key: ServiceKey, error: PortError) -> Callable[[Row], PortError | None]:
    """The service's own row is refused, and nothing else."""

    def refuses(row: Row) -> PortError | None:
        poisoned = isinstance(row, ServiceRow) and ServiceKey(row.service_type, row.service_id) == key
        return error if poisoned else None

    return refuses


def nothing(row: Row) -> PortError | None:
    return None


def counted(house: House, kind: str) -> float:
    value: float | None = house.metrics.registry.get_sample_value(
        "service_registry_rows_set_aside", {"kind": kind}
    )
    assert value is not None
    return value


# --- found among the others


async def test_a_refused_row_does_not_stop_the_others(house: House) -> None:
    """Not those beneath it either, whose changes write its row as well."""
    house.database.refuses = of(POLLER, REFUSED)
    await house.create()
    await house.create(AGENT)
    await house.create(service_id="p2")
    await house.settle()
    assert house.row(POLLER) is None
    assert house.row(AGENT) is not None
    assert house.row(P2) is not None
    assert house.trail_of(POLLER) == ["registered", "issued"]
    assert len(house.database.packages) == 3
    assert [str(refusal) for refusal in house.set_aside.all()] == [f"poller.p1 revision 1: {REFUSED}"]
    assert counted(house, "poller") == 1
    assert counted(house, "agent") == 0


async def test_among_many_the_one_is_found_and_the_order_kept(house: House) -> None:
    await house.stall("rows")
    for number in range(40):
        await house.create(service_id=f"s{number:02}")
    house.database.refuses = of(ServiceKey(ServiceType.POLLER, "s17"), REFUSED)
    house.resume("rows")
    await house.settle()
    names = [key.service_id for key in house.database.services]
    assert names == [f"s{number:02}" for number in range(40) if number != 17]
    assert len(house.database.packages) == 40


async def test_a_refused_package_keeps_its_service_in(house: House) -> None:
    house.database.refuses = lambda row: REFUSED if isinstance(row, PackageRow) else None
    issued = await house.create()
    await house.settle()
    assert house.row(POLLER) is not None
    assert counted(house, "package") == 1
    assert str(issued.package.package_id) in str(house.set_aside.all()[0])


async def test_a_refused_event_does_not_stop_the_trail(house: House) -> None:
    house.database.refuses = lambda row: (
        REFUSED if isinstance(row, Event) and row.event_type == "issued" else None
    )
    await house.activate()
    await house.settle()
    assert house.trail_of(POLLER) == ["registered", "delivered", "activated"]
    assert counted(house, "event") == 1
    house.database.refuses = nothing
    await reconcile(house)
    assert house.trail_of(POLLER) == ["registered", "issued", "delivered", "activated"]
    assert len(house.set_aside) == 0


async def test_it_is_told_once_and_by_name(house: House) -> None:
    house.database.refuses = of(POLLER, REFUSED)
    with capture_logs() as logs:
        await house.create()
        for number in range(3):
            await house.create(AGENT, service_id=f"a{number}")
        await house.settle()
    told = [entry for entry in logs if entry["action"] == "row_set_aside"]
    assert [(entry["row"], entry["revision"], entry["kind"]) for entry in told] == [
        ("poller.p1", 1, "poller")
    ]


async def test_what_is_set_aside_is_not_tried_with_every_heartbeat(house: House) -> None:
    await house.activate()
    house.database.refuses = of(POLLER, REFUSED)
    await house.beat(LINEAGES[ServiceType.POLLER], Payload(version="odd"))
    assert await house.row_writer.flush_presence() == 1
    before = house.database.calls.count("write_rows")
    await house.beat(LINEAGES[ServiceType.POLLER])
    assert await house.row_writer.flush_presence() == 1
    assert house.database.calls.count("write_rows") == before


# --- tried again


async def test_a_newer_revision_is_tried_again(house: House) -> None:
    house.database.refuses = of(POLLER, REFUSED)
    issued = await house.create()
    await house.settle()
    house.database.refuses = nothing
    await house.redeem(issued.token)
    await house.settle()
    assert house.row(POLLER) is not None
    assert (len(house.set_aside), counted(house, "poller")) == (0, 0)


async def test_a_newer_revision_that_is_refused_too_is_told_again(house: House) -> None:
    house.database.refuses = of(POLLER, REFUSED)
    issued = await house.create()
    await house.redeem(issued.token)
    await house.settle()
    assert [refusal.version[1] for refusal in house.set_aside.all()] == [2]


async def test_reconcile_names_it_and_mends_it_once_it_can(house: House) -> None:
    house.database.refuses = of(POLLER, REFUSED)
    await house.create()
    await house.create(AGENT)
    await house.settle()
    report = await reconcile(house)
    assert report.errors == ("rows that the database refuses: 1",)
    assert report.rows_mended == 0
    assert report.findings == (f"row set aside: poller.p1 revision 1: {REFUSED}",)
    house.database.refuses = nothing
    report = await reconcile(house)
    assert house.row(POLLER) is not None
    assert (report.findings, report.errors) == ((), ())
    assert len(house.set_aside) == 0


async def test_reproject_goes_on_over_a_refused_row(house: House) -> None:
    await house.activate_tree()
    await house.settle()
    house.database.services.clear()
    house.database.refuses = of(POLLER, REFUSED)
    house.reprojector.start(ALICE)
    while house.reprojector.state.state == "running":
        await house.settle()
    state = house.reprojector.state
    assert (state.state, state.error, state.done, state.written) == ("done", "", 3, 2)
    assert {key.service_id for key in house.database.services} == {"a1", "c1"}


async def test_a_refused_row_of_a_service_that_is_gone_is_forgotten(house: House) -> None:
    house.database.refuses = of(POLLER, REFUSED)
    await house.create()
    await house.settle()
    await house.ledger.purge(POLLER)
    await house.settle()
    await reconcile(house)
    assert len(house.set_aside) == 0


# --- whose fault it is


async def test_a_database_that_refuses_everything_sets_nothing_aside(house: House) -> None:
    """What it took before it refuses now: it is not the rows, and the projection holds its place."""
    await house.activate()
    await house.create(service_id="p2")
    await house.settle()
    house.database.refuses = lambda row: REFUSED if isinstance(row, ServiceRow) else None
    await house.create(AGENT)
    for _ in range(200):
        await asyncio.sleep(0)
    assert len(house.set_aside) == 0
    assert house.projections.rows.failing_since is not None
    house.database.refuses = nothing
    await house.settle()
    assert house.row(AGENT) is not None


@pytest.mark.parametrize("error", [PortError("code 999"), AWAY], ids=["unknown", "unavailable"])
async def test_an_error_that_does_not_say_whose_fault_it_is_is_borne_and_then_looked_into(
    house: House, error: PortError
) -> None:
    await house.create(service_id="p2")
    await house.settle()
    house.database.refuses = of(POLLER, error)
    await house.create()
    await house.create(AGENT)
    await house.settle()
    assert house.database.calls.count("check") == 1
    assert house.database.calls.count("write_rows") > PATIENCE
    assert house.row(AGENT) is not None
    assert [str(refusal) for refusal in house.set_aside.all()] == [f"poller.p1 revision 1: {error}"]


async def test_a_full_disk_is_no_rows_fault_though_it_takes_rows_that_need_no_room(house: House) -> None:
    await house.create(service_id="p2")
    await house.settle()
    house.database.refuses = of(POLLER, ExhaustedError("the disk is full"))
    await house.create()
    for _ in range(400):
        await asyncio.sleep(0)
    assert house.database.calls.count("write_rows") > PATIENCE
    assert len(house.set_aside) == 0
    house.database.refuses = nothing
    await house.settle()
    assert house.row(POLLER) is not None


async def test_a_database_that_is_away_sets_nothing_aside(house: House) -> None:
    await house.create()
    await house.settle()
    house.database.away = True
    await house.create(AGENT)
    for _ in range(200):
        await asyncio.sleep(0)
    assert len(house.set_aside) == 0
    house.database.away = False
    await house.settle()
    assert house.row(AGENT) is not None


async def test_a_database_that_goes_away_while_the_row_is_looked_for_sets_nothing_aside(house: House) -> None:
    await house.create(service_id="p2")
    await house.settle()
    await house.stall("rows")
    await house.create()
    await house.create(AGENT)
    house.database.fail_next("write_rows", REFUSED)
    for _ in range(3):
        house.database.fail_next("write_rows", AWAY)
    house.resume("rows")
    await house.settle()
    assert len(house.set_aside) == 0
    assert house.row(AGENT) is not None


# --- bounded


def row(house: House, name: str) -> ServiceRow:
    found = house.row(POLLER)
    assert found is not None
    return replace(found, service_id=name)


async def test_no_more_than_the_limit_is_set_aside(house: House) -> None:
    await house.create()
    await house.settle()
    table = SetAside(Metrics(), limit=2)
    for name in ("x1", "x2", "x2"):
        table.put(row(house, name), REFUSED)
    with pytest.raises(PortError, match="2 rows are set aside already"):
        table.put(row(house, "x3"), REFUSED)
    assert [refusal.name for refusal in table.all()] == ["poller.x1", "poller.x2"]
    table.take(row(house, "x1"))
    table.put(row(house, "x3"), REFUSED)
    assert len(table) == 2


async def test_what_was_refused_of_a_service_holds_nobody_back_who_has_its_id_after_the_purge(
    house: House,
) -> None:
    await house.create()
    await house.settle()
    house.database.refuses = of(POLLER, REFUSED)
    await house.revoke(POLLER)
    await house.settle()
    assert len(house.set_aside) == 1
    house.database.refuses = nothing
    await house.ledger.purge(POLLER)
    await house.settle()
    await house.create()
    await house.settle()
    created = house.row(POLLER)
    assert created is not None and created.status == "pending"
    assert len(house.set_aside) == 0


async def test_only_an_older_or_equal_version_is_held_back(house: House) -> None:
    await house.create()
    await house.settle()
    table = SetAside(Metrics())
    refused = replace(row(house, "x1"), epoch=2, revision=3)
    table.put(refused, RejectedError("no" * 1000))
    assert table.holds(refused)
    assert table.holds(replace(refused, epoch=1, revision=9))
    assert not table.holds(replace(refused, revision=4))
    assert not table.holds(replace(refused, service_id="x2"))
    assert len(table.all()[0].reason) == 300


async def test_who_asks_is_not_told_that_such_a_row_is_written(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(issue, "PROJECTION_SECONDS", 30.0)
    house.database.refuses = of(POLLER, REFUSED)
    issued, other = await house.create(), await house.create(service_id="p2")
    assert (issued.projection["row"], other.projection["row"]) == ("queued", "written")
    assert issued.projection["document"] == "written"
