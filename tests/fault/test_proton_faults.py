"""Proton killed, slowed, cut off and restarted at random while services come and go: nothing lost or doubled.

The house is in memory but for its registry database: the Proton adapter on the stand-in. The ledger is whole by
construction, so what the database holds afterwards must be what is derived from the ledger, and each event once.

JETWAY_TEST_PROTON_SERVICES is the number of services: 600 here, 4,000 in CI; 10,000 take some minutes.
JETWAY_TEST_PROTON_SEED is the seed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

from jetway.adapters.database.proton import ProtonDatabase
from jetway.core.errors import UnavailableError
from jetway.core.heartbeat import EMPTY, Beat
from jetway.core.ids import ServiceKey, ServiceType
from jetway.core.record import ServiceStatus
from jetway.core.rows import Event, PackageRow, ServiceRow, package_rows
from jetway.ports import EventQuery
from support.house import House, running_house
from support.invariants import check_at_rest, histories, records
from support.proton_database import opened, own_database
from support.proton_standin import ProtonStandin
from support.proton_standin.driver import connect

IN_CI = os.environ.get("JETWAY_CI") == "1"
SERVICES = int(os.environ.get("JETWAY_TEST_PROTON_SERVICES", "4000" if IN_CI else "600"))
SEED = int(os.environ.get("JETWAY_TEST_PROTON_SEED", "4"))
AGENTS_PER_POLLER = 9
_POLLERS_AT_ONCE = 6
_DEADLINE = 2.0
"""Seconds that the adapter waits for an answer: less than the longest slow answer here."""
_SETTLED_WITHIN = 600.0
_MEMORY_LIMIT, _TOO_SLOW = 241, 159

Trouble = Callable[["Storm"], None]


async def test_rows_and_events_are_the_ledgers_whatever_befell_proton() -> None:
    async with ProtonStandin() as standin:
        with own_database(standin.url) as target:
            async with _house_on(target) as house:
                storm = Storm(standin, random.Random(SEED))
                raging = asyncio.create_task(storm.rage(), name="storm")
                await _live_and_be_revoked(house)
                storm.may_end.set()
                await raging
                await _settle(house)
                assert storm.befell.keys() == TROUBLES.keys(), f"not everything befell it: {storm.befell}"
                assert standin.visible_after == 0.0
                async with opened(target, deadline=_SETTLED_WITHIN) as patient:
                    house.database = await _everything(house, patient)
                check_at_rest(house)
                _check_one_row_a_key(standin.url_of(target.database), house)
    print(f"seed {SEED}: {len(records(house))} services, {dict(storm.befell)}")


# --- the storm


@dataclass
class Storm:
    """One trouble after the other, each kind once, then a lull; over and over, until it may end."""

    standin: ProtonStandin
    random: random.Random
    befell: Counter[str] = field(default_factory=Counter)
    may_end: asyncio.Event = field(default_factory=asyncio.Event)

    async def rage(self) -> None:
        """Until all kinds were there and it may end."""
        while not self.may_end.is_set() or len(self.befell) < len(TROUBLES):
            for name in self.random.sample(sorted(TROUBLES), len(TROUBLES)):
                await asyncio.sleep(self.random.uniform(0.05, 0.5))
                await asyncio.to_thread(TROUBLES[name], self)
                self.befell[name] += 1
            await asyncio.sleep(self.random.uniform(1.0, 2.0))
        await asyncio.to_thread(self._clear)

    def _clear(self) -> None:
        self.standin.faults.clear()
        self.standin.visible_after = 0.0

    def moment(self) -> Any:
        """Before the statement is executed, or after."""
        return self.random.choice(("before", "after"))


def _kill(storm: Storm) -> None:
    storm.standin.restart()


def _stop(storm: Storm) -> None:
    storm.standin.stop()
    storm.standin.start()


def _lose_connections(storm: Storm) -> None:
    storm.standin.drop_connections()


def _drop(storm: Storm) -> None:
    storm.standin.faults.drop(moment=storm.moment(), times=storm.random.randint(1, 4))


def _refuse(storm: Storm) -> None:
    code = storm.random.choice((_MEMORY_LIMIT, _TOO_SLOW))
    storm.standin.faults.error(code, moment=storm.moment(), times=storm.random.randint(1, 4))


def _slow(storm: Storm) -> None:
    seconds = storm.random.choice((0.1, 0.5, 2 * _DEADLINE))
    storm.standin.faults.slow(seconds, moment=storm.moment(), times=storm.random.randint(1, 3))


def _half_block(storm: Storm) -> None:
    storm.standin.faults.half_block(times=storm.random.randint(1, 3))


def _lag(storm: Storm) -> None:
    storm.standin.visible_after = storm.random.choice((0.0, 0.3, 3.0))


TROUBLES: dict[str, Trouble] = {
    "killed": _kill,
    "restarted": _stop,
    "connections lost": _lose_connections,
    "statement dropped": _drop,
    "statement refused": _refuse,
    "slow answer": _slow,
    "half a block": _half_block,
    "shown late": _lag,
}


# --- what the services do meanwhile


@contextlib.asynccontextmanager
async def _house_on(target: Any) -> AsyncIterator[House]:
    """The house in memory, its rows and events in Proton."""
    async with opened(target, deadline=_SETTLED_WITHIN) as patient:
        await patient.migrate()
    async with (
        opened(target, deadline=_DEADLINE) as database,
        running_house(implicit_limit=SERVICES) as house,
    ):
        await house.crash()
        house.database = database  # type: ignore[assignment]
        # Proton drops events after 90 days, by its own clock.
        house.clock.set_wall(datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1))
        await house.start()
        yield house


async def _live_and_be_revoked(house: House) -> None:
    """Pollers, each with its agents: created, delivered, heard, and revoked together."""
    several = asyncio.Semaphore(_POLLERS_AT_ONCE)

    async def family(number: int) -> None:
        async with several:
            poller = ServiceKey(ServiceType.POLLER, f"p{number}")
            await _activate(house, poller)
            for agent in range(AGENTS_PER_POLLER):
                key = ServiceKey(ServiceType.AGENT, f"p{number}-a{agent}")
                await _activate(house, key, parent_id=poller.service_id)
            await house.revoke(poller)

    async with asyncio.TaskGroup() as families:
        for number in range(max(1, SERVICES // (1 + AGENTS_PER_POLLER))):
            families.create_task(family(number))


async def _activate(house: House, key: ServiceKey, **changes: Any) -> None:
    house.clock.advance(0.01)
    issued = await house.create(key, **changes)
    house.clock.advance(0.01)
    await house.redeem(issued.token)
    house.clock.advance(0.01)
    heard = asyncio.Event()
    house.observer.observe(Beat(issued.record.lineage, EMPTY), house.clock.now(), lambda _: heard.set())
    await heard.wait()
    assert house.status(key) == ServiceStatus.ACTIVE


async def _settle(house: House) -> None:
    """Until everything that waited is written, without a hand, and what memory holds of heartbeats is flushed."""
    async with asyncio.timeout(_SETTLED_WITHIN):
        for projector in house.projections.all:
            while await projector.lag():  # noqa: ASYNC110 - there is nothing to wait on
                await asyncio.sleep(0.05)
        while not await _flushed(house):  # noqa: ASYNC110 - likewise
            await asyncio.sleep(0.5)


async def _flushed(house: House) -> bool:
    """As the job does it, which tries again where the machine was too slow for the adapter's short deadline."""
    try:
        await house.row_writer.flush_presence()
    except UnavailableError:
        return False
    return True


# --- what the database holds afterwards


async def _everything(house: House, database: ProtonDatabase) -> Any:
    """All rows and events that are read, in the shape in which the invariants look at them."""
    versions = await database.find_row_versions()
    services: dict[ServiceKey, ServiceRow] = {}
    for keys in _pages(sorted(versions, key=str)):
        services |= await database.load_rows(keys)
    known = {row.package_id for each in histories(house).values() for r in each for row in package_rows(r)}
    packages: dict[str, PackageRow] = {}
    for ids in _pages(sorted(known)):
        packages |= await database.load_packages(ids)
    return SimpleNamespace(services=services, packages=packages, events=await _events(database))


def _pages(values: Sequence[Any]) -> list[Sequence[Any]]:
    return [values[start : start + 500] for start in range(0, len(values), 500)]


async def _events(database: ProtonDatabase) -> dict[str, Event]:
    """All of them, read page by page: none twice."""
    found: dict[str, Event] = {}
    query = EventQuery(limit=1000)
    while True:
        page = await database.find_events(query)
        assert not found.keys() & {event.event_id for event in page.events}, "an event is read twice"
        found |= {event.event_id: event for event in page.events}
        if not page.more:
            assert page.total == len(found)
            return found
        last = page.events[-1]
        query = EventQuery(limit=1000, before=(last.timestamp, last.event_id))


def _check_one_row_a_key(url: str, house: House) -> None:
    """As somebody sees it who queries Proton by hand."""
    with connect(url) as client:
        for kind in (ServiceType.POLLER, ServiceType.AGENT):
            table, key = f"{kind.value}s", f"{kind.value}_id"
            wanted = sum(record.service_type is kind for record in records(house).values())
            counted = client.execute(f"SELECT count(), unique_exact({key}) FROM table({table})")
            assert counted == [(wanted, wanted)], f"{table}: {counted} rows and keys, {wanted} services"
            alive = client.execute(f"SELECT count() FROM table({table}) WHERE status != 'revoked'")
            assert alive == [(0,)], f"{table}: {alive} are not revoked"
