"""Maintenance windows: of whom, when, by whom; they hide no fact."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from jetway.core.errors import Code, ConflictError, RefusedError
from jetway.core.ids import ServiceKey, ServiceType
from jetway.core.maintenance import MaintenanceWindow
from jetway.services.maintenance import MOST_WINDOWS, Maintenance, NewWindow
from support.builders import AGENT, CHECKER, NOW, POLLER, record
from support.house import ALICE, House, running_house

HOUR = timedelta(hours=1)


def covered(house: House) -> list[str]:
    """Whom a window covers now."""
    return sorted(str(key) for key in house.index.records if house.catalogue.get(key).in_maintenance)


async def test_a_window_covers_the_service_and_what_stands_beneath_it_for_its_time() -> None:
    async with running_house() as house:
        await house.activate_tree()
        asked = NewWindow(service="agent.a1", since=NOW + HOUR, until=NOW + 2 * HOUR, reason="new switch")
        window = await house.maintenance.begin(ALICE, asked)
        assert (window.created_by, window.reason) == ("alice", "new switch")
        assert covered(house) == []
        house.clock.advance(HOUR)
        assert covered(house) == [str(AGENT), str(CHECKER)]
        house.clock.advance(HOUR)
        assert covered(house) == []
        assert list(house.maintenance.windows()) == []


@pytest.mark.parametrize(
    ("terms", "expected"),
    [
        ({"site": "North"}, ["agent.north"]),
        ({"label": "rack=12"}, ["agent.racked"]),
        ({"label": "rack="}, ["agent.empty"]),
    ],
)
async def test_a_window_can_be_of_a_site_or_a_label(terms: dict[str, str], expected: list[str]) -> None:
    async with running_house() as house:
        plain = record()
        for name, changes in (
            ("north", {"site": "North"}),
            ("racked", {"labels": {"rack": "12"}}),
            ("empty", {"labels": {"rack": ""}}),
            ("plain", {}),
        ):
            house.index.apply(replace(plain, service_id=name, **({"site": "", "labels": {}} | changes)))  # type: ignore[arg-type]
        await house.maintenance.begin(ALICE, NewWindow(**terms, until=NOW + HOUR))  # type: ignore[arg-type]
        assert covered(house) == expected


async def test_it_hides_no_fact() -> None:
    async with running_house() as house:
        await house.activate_tree()
        await house.maintenance.begin(ALICE, NewWindow(service="poller.p1", until=NOW + HOUR))
        house.clock.advance(91)
        await house.liveness.sweep()
        view = house.catalogue.get(POLLER)
        assert (view.in_maintenance, view.liveness) == (True, "offline")


async def test_beginning_and_ending_stand_in_the_trail_and_ending_is_at_once() -> None:
    async with running_house() as house:
        await house.activate_tree()
        window = await house.maintenance.begin(ALICE, NewWindow(service="poller.p1", until=NOW + HOUR))
        await house.maintenance.end(ALICE, window.window_id)
        assert covered(house) == []
        with pytest.raises(RefusedError) as refused:
            await house.maintenance.end(ALICE, window.window_id)
        assert refused.value.refused.code is Code.NOT_FOUND
        await house.settle()
        for name in ("maintenance_begun", "maintenance_ended"):
            (event,) = house.events(name)
            assert (event.actor, event.service_id, event.metadata["service"]) == ("alice", "p1", "poller.p1")


async def test_another_daemons_windows_are_known_after_a_while_and_survive_a_restart() -> None:
    async with running_house() as house:
        await house.activate_tree()
        other = Maintenance(house.maintenance_store, house.index, None, house.clock, house.identifiers)  # type: ignore[arg-type]
        await house.maintenance.begin(ALICE, NewWindow(service="poller.p1", until=NOW + HOUR))
        assert list(other.windows()) == []
        await other.load()
        assert other.windows() == house.maintenance.windows()


async def test_a_clock_that_is_ahead_takes_no_window_from_the_others() -> None:
    """Neither where another window is begun, nor where they are read."""
    async with running_house() as house:
        first = await house.maintenance.begin(ALICE, NewWindow(site="x", until=NOW + HOUR))
        house.clock.advance(9 * HOUR)
        second = await house.maintenance.begin(ALICE, NewWindow(site="x", until=NOW + 12 * HOUR))
        await house.maintenance.load()
        assert list(house.maintenance_store.windows) == [first.window_id, second.window_id]
        assert list(house.maintenance.windows()) == [second]


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        (NewWindow(until=NOW + HOUR), "service"),
        (NewWindow(site="x", label="a=b", until=NOW + HOUR), "service"),
        (NewWindow(service="agent", until=NOW + HOUR), "service"),
        (NewWindow(label="rack", until=NOW + HOUR), "label"),
        (NewWindow(label="=12", until=NOW + HOUR), "label"),
        (NewWindow(site="x", until=NOW), "until"),
        (NewWindow(site="x", since=NOW + HOUR, until=NOW + HOUR), "until"),
        (NewWindow(site="x", since=NOW - 2 * HOUR, until=NOW - HOUR), "until"),
        (NewWindow(site="x", until=NOW + timedelta(days=400)), "until"),
    ],
)
async def test_what_makes_no_sense_is_refused_by_name(asked: NewWindow, field: str) -> None:
    async with running_house() as house:
        with pytest.raises(RefusedError) as refused:
            await house.maintenance.begin(ALICE, asked)
        assert (refused.value.refused.code, refused.value.refused.field) == (Code.INVALID, field)
        assert house.maintenance_store.windows == {}


async def test_there_are_only_so_many_windows_and_only_of_services_that_there_are() -> None:
    async with running_house() as house:
        unknown = str(ServiceKey(ServiceType.AGENT, "nobody"))
        with pytest.raises(RefusedError, match="nobody"):
            await house.maintenance.begin(ALICE, NewWindow(service=unknown, until=NOW + HOUR))
        for number in range(MOST_WINDOWS):
            await house.maintenance.begin(ALICE, NewWindow(site=str(number), until=NOW + HOUR))
        with pytest.raises(RefusedError, match="already"):
            await house.maintenance.begin(ALICE, NewWindow(site="x", until=NOW + HOUR))


async def test_what_is_over_is_forgotten_in_the_store_after_a_day() -> None:
    async with running_house() as house:
        store, maintenance = house.maintenance_store, house.maintenance
        await maintenance.begin(ALICE, NewWindow(site="x", until=NOW + HOUR))
        kept = await maintenance.begin(ALICE, NewWindow(site="x", until=NOW + 99 * HOUR))
        house.clock.advance(24 * HOUR)
        await maintenance.load()
        assert len(store.windows) == 2, "this daemon's clock may be ahead"
        house.clock.advance(HOUR)
        await maintenance.load()
        assert list(store.windows) == [kept.window_id]


async def test_very_many_that_are_over_are_forgotten_sooner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jetway.services.maintenance._MOST_OVER", 2)
    async with running_house() as house:
        made = [
            await house.maintenance.begin(ALICE, NewWindow(site="x", until=NOW + (each + 1) * HOUR))
            for each in range(5)
        ]
        house.clock.advance(4 * HOUR)
        await house.maintenance.load()
        kept = [window.window_id for window in made[2:]]
        assert list(house.maintenance_store.windows) == kept, "two that are over, and the one that is not"


async def test_a_window_that_another_daemon_forgets_as_well_is_no_trouble(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running_house() as house:
        await house.maintenance.begin(ALICE, NewWindow(site="x", until=NOW + HOUR))
        house.clock.advance(30 * HOUR)

        async def conflicts(_window_id: str) -> None:
            raise ConflictError("somebody else was first")

        monkeypatch.setattr(house.maintenance_store, "remove", conflicts)
        await house.maintenance.load()
        assert house.maintenance.windows() == []


async def test_of_many_windows_only_those_are_looked_at_that_are_about_the_service(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running_house() as house:
        await house.activate_tree()
        for number in range(MOST_WINDOWS - 1):
            terms = ({"site": f"s{number}"}, {"label": f"rack={number}"})[number % 2]
            await house.maintenance.begin(ALICE, NewWindow(**terms, until=NOW + HOUR))  # type: ignore[arg-type]
        await house.maintenance.begin(ALICE, NewWindow(service="agent.a1", until=NOW + HOUR))
        looked: list[str] = []
        is_open = MaintenanceWindow.is_open

        def look(window: MaintenanceWindow, now: datetime) -> bool:
            looked.append(window.service)
            return is_open(window, now)

        monkeypatch.setattr(MaintenanceWindow, "is_open", look)
        assert covered(house) == [str(AGENT), str(CHECKER)]
        assert looked == ["agent.a1"] * 2
