"""Who is due: counted whole, named in part, by what ends first."""

from __future__ import annotations

import dataclasses
from datetime import datetime, timedelta
from typing import Any

import pytest

from jetway.core.ids import ServiceType
from jetway.core.record import Approval, Package, PackageStatus, ServiceRecord, ServiceStatus
from jetway.services import due as module
from jetway.services.census import CensusTerms
from jetway.services.due import DueReader, Matter
from jetway.services.index import Index
from support.builders import NOW, FakeClock, certificate, identity, package, record, transition

HOUR = timedelta(hours=1)


class World:
    def __init__(self) -> None:
        self.index, self.clock = Index(), FakeClock()
        self.reader = DueReader(self.index, self.clock, CensusTerms())

    def add(self, service_id: str, **changes: Any) -> ServiceRecord:
        fresh = {"transition": transition(at=NOW)}
        made = dataclasses.replace(record(ServiceType.POLLER), service_id=service_id, **(fresh | changes))
        self.index.apply(made)
        return made

    async def named(self, matter: Matter) -> list[str]:
        self.clock.advance(1)
        return [due.record.service_id for due in (await self.reader.report()).named[matter]]


def ends(nats: datetime, of_certificate: datetime) -> dict[str, Any]:
    made = dataclasses.replace(
        identity(), nats_expires_at=nats, certificates=(certificate(expires_at=of_certificate),)
    )
    return {"identity": made, "status": ServiceStatus.ACTIVE}


def unredeemed(left: timedelta, lasts: timedelta, **changes: Any) -> Package:
    return package(token_expires_at=NOW + left, created_at=NOW + left - lasts, **changes)


async def test_credentials_are_named_by_their_end_and_those_that_ended_are_counted_apart() -> None:
    world = World()
    late = NOW + timedelta(days=20)
    world.add("soon", **ends(NOW + 5 * HOUR, late))
    world.add("over", **ends(late, NOW - HOUR))
    world.add("both", **ends(NOW + 2 * HOUR, NOW + 6 * HOUR))
    world.add("fine", **ends(late, late))
    world.add("gone", **(ends(NOW - HOUR, NOW - HOUR) | {"status": ServiceStatus.REVOKED}))
    assert await world.named(Matter.CREDENTIALS) == ["over", "both", "soon", "both"]
    report = await world.reader.report()
    assert (report.counts[Matter.CREDENTIALS], report.ended) == (4, 1)
    assert [due.what for due in report.named[Matter.CREDENTIALS]] == [
        "certificate",
        "nats",
        "nats",
        "certificate",
    ]


async def test_tokens_that_end_unredeemed_are_warned_of_in_their_last_quarter_or_day() -> None:
    world = World()
    day, month = timedelta(days=1), timedelta(days=30)
    for name, left, lasts in (
        ("early", 7 * HOUR, day),
        ("quarter", 5 * HOUR, day),
        ("long", 23 * HOUR, month),
        ("longer", 25 * HOUR, month),
        ("over", -HOUR, day),
    ):
        world.add(name, package=unredeemed(left, lasts))
    world.add("redeemed", package=unredeemed(HOUR, day, status=PackageStatus.DELIVERED))
    assert await world.named(Matter.TOKENS) == ["quarter", "long"]


async def test_who_is_stuck_is_named_unless_it_waits_for_approval() -> None:
    world = World()
    old = {"transition": transition(at=NOW - 25 * HOUR)}
    world.add("stuck", **old)
    world.add("stuck-longer", transition=transition(at=NOW - 30 * HOUR))
    world.add("announced", approval=Approval.REQUIRED, **old)
    world.add("fresh")
    world.add("active", status=ServiceStatus.ACTIVE, **old)
    assert await world.named(Matter.STUCK) == ["stuck-longer", "stuck"]


async def test_a_token_that_ended_does_not_make_the_wait_shorter() -> None:
    world = World()
    ended = unredeemed(-HOUR, timedelta(days=1), status=PackageStatus.EXPIRED)
    world.add("expired", package=ended, transition=transition(at=NOW - HOUR))
    assert await world.named(Matter.STUCK) == ["expired"]
    (due,) = (await world.reader.report()).named[Matter.STUCK]
    assert due.at == NOW - 25 * HOUR


async def test_all_are_counted_and_the_first_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_NAMED", 3)
    monkeypatch.setattr(module, "_SLICE", 2)
    world = World()
    for number in (4, 1, 3, 0, 2):
        world.add(f"s{number}", transition=transition(at=NOW - (30 - number) * HOUR))
    assert await world.named(Matter.STUCK) == ["s0", "s1", "s2"]
    assert (await world.reader.report()).counts[Matter.STUCK] == 5


async def test_a_report_serves_everybody_for_a_moment() -> None:
    world = World()
    first = await world.reader.report()
    world.add("stuck", transition=transition(at=NOW - 25 * HOUR))
    assert await world.reader.report() is first
    assert await world.named(Matter.STUCK) == ["stuck"]
