"""What one pass over all services tells to Prometheus."""

from __future__ import annotations

import asyncio
import dataclasses
from datetime import timedelta
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from jetway.core.heartbeat import EMPTY
from jetway.core.ids import ServiceType
from jetway.core.liveness import Liveness, Thresholds
from jetway.core.record import Approval, ServiceStatus
from jetway.services import census
from jetway.services.census import Census, CensusTerms
from jetway.services.index import Index
from jetway.services.liveness import Verdicts
from jetway.services.metrics import Metrics
from jetway.services.presence import PresenceTable
from support.builders import AGENT, CHECKER, NOW, POLLER, FakeClock, certificate, identity, record


class World:
    def __init__(self, **terms: Any) -> None:
        self.index, self.clock, self.registry = Index(), FakeClock(), CollectorRegistry()
        self.presence = PresenceTable(self.clock, default_interval=30, thresholds=Thresholds())
        self.verdicts = Verdicts(self.index, self.presence, self.clock, Metrics())
        self.presence.listening()
        self.registry.register(Census(self.index, self.presence, self.clock, CensusTerms(**terms)))

    def add(self, kind: ServiceType, **changes: Any) -> None:
        self.index.apply(record(kind, **changes))

    def pass_seconds(self, seconds: float) -> None:
        self.clock.advance(seconds)
        asyncio.run(self.verdicts.sweep())

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)


def test_silences_are_a_histogram_by_type_and_verdicts_are_counted() -> None:
    world = World()
    world.add(ServiceType.POLLER, status=ServiceStatus.ACTIVE)
    world.add(ServiceType.AGENT, status=ServiceStatus.ACTIVE)
    world.add(ServiceType.CHECKER, status=ServiceStatus.REVOKED)
    world.presence.note(AGENT, EMPTY, world.clock.now())
    world.presence.note(CHECKER, EMPTY, world.clock.now())
    world.pass_seconds(100)
    name = "service_registry_heartbeat_ages_seconds_bucket"
    assert world.value(name, type="agent", le="90.0") == 0
    assert world.value(name, type="agent", le="120.0") == 1
    assert world.value(name, type="agent", le="+Inf") == 1
    assert world.value(name, type="checker", le="+Inf") == 0, "it was taken out"
    assert world.value("service_registry_liveness", type="agent", liveness="offline") == 1
    assert world.value("service_registry_liveness", type="poller", liveness="never") == 1
    assert world.value("service_registry_heartbeat_age_seconds", type="agent", id=AGENT.service_id) is None


def test_services_have_series_of_their_own_on_request_up_to_a_limit() -> None:
    world = World(per_service=True, per_service_limit=1)
    for kind, key in ((ServiceType.POLLER, POLLER), (ServiceType.AGENT, AGENT)):
        world.add(kind, status=ServiceStatus.ACTIVE)
        world.presence.note(key, EMPTY, world.clock.now())
    world.clock.advance(7)
    name = "service_registry_heartbeat_age_seconds"
    assert world.value(name, type="poller", id=POLLER.service_id) == 7
    assert world.value(name, type="agent", id=AGENT.service_id) is None
    assert world.value("service_registry_heartbeat_age_left_out") == 1


def test_who_waits_for_too_long_is_stuck() -> None:
    since = NOW - record(ServiceType.POLLER).updated_at
    world = World(stuck_after=since + timedelta(hours=1))
    world.add(ServiceType.POLLER)
    world.add(ServiceType.AGENT, approval=Approval.REQUIRED)
    world.add(ServiceType.CHECKER, status=ServiceStatus.ACTIVE)
    assert world.value("service_registry_stuck_pending", type="poller") == 0
    world.clock.advance(3601)
    assert world.value("service_registry_stuck_pending", type="poller") == 1
    assert world.value("service_registry_stuck_pending", type="checker") == 0
    assert world.value("service_registry_quarantined", type="agent") == 1


def test_credentials_that_end_within_a_week_are_counted_by_what_they_are() -> None:
    world = World(credentials_lifetime=timedelta(days=4))
    soon, late = NOW + timedelta(days=6), NOW + timedelta(days=20)
    ends = dataclasses.replace(identity(), nats_expires_at=soon, certificates=(certificate(expires_at=soon),))
    world.add(ServiceType.POLLER, status=ServiceStatus.ACTIVE, identity=ends)
    lasts = dataclasses.replace(
        identity(), nats_expires_at=late, certificates=(certificate(expires_at=late),)
    )
    world.add(ServiceType.AGENT, status=ServiceStatus.ACTIVE, identity=lasts)
    name = "service_registry_credentials_expiring"
    assert world.value(name, type="poller", what="certificate") == 1
    assert world.value(name, type="poller", what="nats") == 0, "six days are long for what lasts four"
    assert world.value(name, type="agent", what="certificate") == 0
    world.clock.advance(timedelta(days=5, hours=1))
    assert world.value(name, type="poller", what="nats") == 1


def test_one_census_serves_scrapes_that_follow_each_other() -> None:
    world = World()
    assert world.value("service_registry_liveness", type="poller", liveness="never") == 0
    world.add(ServiceType.POLLER)
    assert world.value("service_registry_liveness", type="poller", liveness="never") == 0
    world.clock.advance(5)
    assert world.value("service_registry_liveness", type="poller", liveness="never") == 1


def test_every_verdict_of_every_type_has_a_series_also_where_there_is_nobody() -> None:
    world = World()
    for kind in ServiceType:
        for verdict in Liveness:
            assert world.value("service_registry_liveness", type=kind.value, liveness=verdict.value) == 0


def test_a_gap_in_the_hearing_brings_nobody_back() -> None:
    world = World()
    world.add(ServiceType.AGENT, status=ServiceStatus.ACTIVE)
    world.presence.note(AGENT, EMPTY, world.clock.now())
    world.pass_seconds(100)
    name = "service_registry_liveness"
    assert world.value(name, type="agent", liveness="offline") == 1
    world.presence.deaf()
    world.pass_seconds(100)
    assert world.value(name, type="agent", liveness="offline") == 1, "while nothing is heard"
    world.presence.listening()
    world.pass_seconds(10)
    assert world.value(name, type="agent", liveness="offline") == 1, "and after it"
    assert world.value(name, type="agent", liveness="online") == 0
    world.presence.note(AGENT, EMPTY, world.clock.now())
    world.pass_seconds(10)
    assert world.value(name, type="agent", liveness="online") == 1


def test_who_was_rejected_is_neither_stuck_nor_silent() -> None:
    world = World(stuck_after=timedelta(hours=1))
    world.add(ServiceType.AGENT, approval=Approval.REJECTED)
    world.presence.note(AGENT, EMPTY, world.clock.now())
    world.pass_seconds(7 * 86_400)
    assert world.value("service_registry_stuck_pending", type="agent") == 0
    assert world.value("service_registry_liveness", type="agent", liveness="offline") == 0
    assert world.value("service_registry_quarantined", type="agent") == 0


def test_the_pass_over_many_services_gives_others_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    breaths: list[float] = []
    monkeypatch.setattr("jetway.services.census.time.sleep", breaths.append)
    plain = record(ServiceType.POLLER)
    for number in range(2 * census._SLICE):
        world.index.apply(dataclasses.replace(plain, service_id=f"p{number}"))
    name = "service_registry_liveness"
    assert world.value(name, type="poller", liveness="never") == 2 * census._SLICE
    assert len(breaths) == 2
