"""Alerts out: what is told, to whom, how often, and what happens where a target does not take it."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Collection
from datetime import timedelta
from typing import Any

import pytest

from jetway.core import commands as c
from jetway.core.alerts import AlertKind
from jetway.core.errors import RejectedError, UnavailableError
from jetway.core.ids import ServiceKey, ServiceType
from jetway.core.liveness import Liveness
from jetway.core.record import Approval, ServiceStatus
from jetway.services import alert_lines as module
from jetway.services import alerts as intake
from jetway.services.alert_lines import Target
from jetway.services.alerts import _STANDBY_SECONDS, Alerts
from jetway.services.index import Index
from jetway.services.liveness import LivenessChange
from jetway.services.metrics import Metrics
from support.builders import AGENT, NOW, POLLER, CountingIdentifiers, FakeClock, after, record
from support.virtual_time import run_virtually


class Receiver:
    """Implements `ports.AlertSender`: fails with what it is given, then takes everything."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.taken: list[dict[str, Any]] = []
        self.tries: list[str] = []

    async def send(self, alert_id: str, kind: str, body: bytes) -> None:
        self.tries.append(alert_id)
        if self.errors:
            raise self.errors.pop(0)
        self.taken.append(json.loads(body))


class World:
    def __init__(self, *receivers: Receiver, kinds: Collection[AlertKind] = tuple(AlertKind)) -> None:
        self.receivers = receivers or (Receiver(),)
        self.index, self.clock, self.metrics = Index(), FakeClock(), Metrics()
        self.stuck_after = NOW - record(ServiceType.POLLER).updated_at + timedelta(hours=2)
        self.alerts = Alerts(
            [Target(f"t{i}", receiver, kinds) for i, receiver in enumerate(self.receivers)],
            self.index,
            self.clock,
            CountingIdentifiers(),
            self.metrics,
            gateway="https://gw.example",
            repeat_after=timedelta(hours=1),
            stuck_after=self.stuck_after,
        )
        self.index.on_change(self.alerts.record_changed)

    def went_offline(self, kind: ServiceType = ServiceType.POLLER) -> None:
        gone = record(kind, status=ServiceStatus.ACTIVE)
        change = LivenessChange(gone, Liveness.LATE, Liveness.OFFLINE, self.clock.now())
        self.alerts.liveness_changed(change)

    def silence(self, *keys: ServiceKey) -> None:
        """These are in maintenance from now on, and nobody else."""
        since = self.clock.now()
        self.alerts.silenced_since = lambda record: since if record.key in keys else None

    def is_offline(self, kind: ServiceType = ServiceType.POLLER, **changes: Any) -> None:
        """As `went_offline`, of one that the index knows."""
        self.index.apply(record(kind, **({"status": ServiceStatus.ACTIVE} | changes)))
        self.went_offline(kind)

    def is_back(self, kind: ServiceType = ServiceType.POLLER) -> None:
        back = record(kind, status=ServiceStatus.ACTIVE)
        change = LivenessChange(back, Liveness.OFFLINE, Liveness.ONLINE, self.clock.now())
        self.alerts.liveness_changed(change)

    def told(self, seconds: float = 1.0) -> list[str]:
        """The kinds that arrived at the first target within this time."""

        async def tell() -> None:
            running = asyncio.ensure_future(self.alerts.run())
            await asyncio.sleep(seconds)
            running.cancel()
            await asyncio.wait([running])

        run_virtually(tell())
        return [each["kind"] for each in self.receivers[0].taken]

    def counted(self, kind: str, outcome: str) -> float:
        labels = {"kind": kind, "outcome": outcome}
        return self.metrics.registry.get_sample_value("jetway_alerts_total", labels) or 0.0


def test_a_service_that_goes_offline_is_told_with_what_is_known_of_it() -> None:
    world = World()
    world.went_offline()
    assert world.told() == ["offline"]
    [told] = world.receivers[0].taken
    assert (told["gateway"], told["reason"]) == ("https://gw.example", "was late, is offline")
    assert told["service"]["service_id"] == POLLER.service_id
    assert world.counted("offline", "sent") == 1


def test_the_same_of_the_same_service_is_told_once_an_hour() -> None:
    world = World()
    for _ in range(5):
        world.went_offline()
    world.went_offline(ServiceType.AGENT)
    assert world.told() == ["offline"] * 2
    world.clock.advance(3601)
    world.went_offline()
    assert world.told() == ["offline"] * 3
    assert world.counted("offline", "repeated") == 4


def test_maintenance_silences_and_another_leader_tells_what_all_see() -> None:
    world = World()
    world.silence(POLLER)
    world.went_offline()
    world.alerts.leads = lambda: False
    world.went_offline(ServiceType.AGENT)
    world.alerts.redeem_refused(record(ServiceType.AGENT), "redeemed before")
    assert world.told() == ["redeem_refused"]
    assert world.counted("offline", "silenced") == 1


def test_a_target_gets_the_kinds_that_it_asked_for() -> None:
    world = World(kinds=(AlertKind.REVOKED,))
    world.went_offline()
    active = record(ServiceType.POLLER, status=ServiceStatus.ACTIVE)
    world.index.apply(active)
    world.index.apply(after(active, c.Revoke(reason="stolen")))
    assert world.told() == ["revoked"]
    assert world.receivers[0].taken[0]["reason"] == "stolen"


def test_what_is_revoked_with_its_parent_is_told_with_its_parent() -> None:
    world = World()
    for kind in (ServiceType.POLLER, ServiceType.AGENT):
        active = record(kind, status=ServiceStatus.ACTIVE)
        world.index.apply(active)
        world.index.apply(after(active, c.Revoke(reason="stolen")))
    assert world.told() == ["revoked"]


def test_a_service_that_registered_itself_is_told_when_it_begins_to_wait() -> None:
    world = World()
    waits = record(ServiceType.POLLER, approval=Approval.REQUIRED)
    world.index.apply(waits)
    world.index.apply(dataclasses.replace(waits, revision=waits.revision + 1))
    assert world.told() == ["quarantine"]


def test_troubles_are_told_of_services_that_are_known() -> None:
    world = World()
    world.index.apply(record(ServiceType.POLLER))
    world.alerts.trouble(AlertKind.FLAPPING, POLLER, "comes and goes")
    world.alerts.trouble(AlertKind.CLONE, POLLER, "two")
    world.alerts.trouble(AlertKind.CLONE, AGENT, "nobody knows it")
    assert world.told() == ["flapping", "clone"]


def test_who_becomes_stuck_is_told_once() -> None:
    world = World()
    world.index.apply(record(ServiceType.POLLER))
    world.index.apply(record(ServiceType.AGENT, status=ServiceStatus.ACTIVE))
    assert world.told(130) == []
    world.clock.advance(timedelta(hours=2, seconds=1))
    assert world.told(130) == ["stuck_pending"]


def test_a_target_that_is_away_is_tried_again_and_holds_nobody_up() -> None:
    away = [UnavailableError("away")] * 3
    world = World(Receiver(), Receiver(*away))
    world.went_offline()
    assert world.told(10) == ["offline"]
    assert len(world.receivers[1].taken) == 1
    assert len(set(world.receivers[1].tries)) == 1, "it is the same alert"
    assert world.counted("offline", "sent") == 2


def test_a_target_that_refuses_is_not_asked_again_and_one_that_stays_away_is_given_up() -> None:
    refuses, away = Receiver(RejectedError("404")), Receiver(*[UnavailableError("away")] * 20)
    world = World(refuses, away)
    world.went_offline()
    assert world.told(600) == []
    assert (len(refuses.tries), len(away.tries)) == (1, module.ATTEMPTS)
    assert world.counted("offline", "failed") == 2


def test_what_finds_the_queue_full_is_dropped_and_counted() -> None:
    world = World()
    for number in range(module.WAITING + 5):
        world.alerts.redeem_refused(record(ServiceType.POLLER, service_id=f"p{number}"), "no")
    assert world.counted("redeem_refused", "dropped") == 5


HOUR = 3601


def test_who_went_offline_in_maintenance_is_told_when_it_ends_if_it_still_is() -> None:
    world = World()
    world.silence(POLLER, AGENT)
    world.is_offline()
    world.is_offline(ServiceType.AGENT)
    assert world.told(130) == []
    assert world.counted("offline", "silenced") == 2, "however often it was looked at"
    world.is_back(ServiceType.AGENT)
    world.silence()
    assert world.told(130) == ["offline"]
    [told] = world.receivers[0].taken
    assert told["service"]["service_id"] == POLLER.service_id


def test_who_went_offline_in_maintenance_before_a_restart_is_told_as_well() -> None:
    world = World()
    world.index.apply(record(ServiceType.POLLER, status=ServiceStatus.ACTIVE))
    world.index.apply(record(ServiceType.AGENT, status=ServiceStatus.ACTIVE))
    long_ago = {AGENT: NOW - timedelta(days=3)}
    world.silence(POLLER, AGENT)
    world.alerts.offline_since = lambda key: long_ago.get(key, NOW)
    assert world.told(130) == []
    world.silence()
    assert world.told(130) == ["offline"]
    assert world.receivers[0].taken[0]["service"]["service_id"] == POLLER.service_id


def test_who_goes_offline_again_and_stays_so_is_told_once_the_time_is_up() -> None:
    world = World()
    world.is_offline()
    assert world.told() == ["offline"]
    world.clock.advance(600)
    world.is_back()
    world.went_offline()
    assert world.told(130) == ["offline"]
    assert world.counted("offline", "repeated") == 1
    world.clock.advance(HOUR)
    assert world.told(130) == ["offline"] * 2
    world.clock.advance(HOUR)
    assert world.told(130) == ["offline"] * 2, "it was told, and nothing has changed"


def test_what_happens_while_nobody_leads_is_told_by_whoever_leads_next() -> None:
    world = World()
    world.alerts.leads = world.alerts.another_leads = lambda: False
    world.is_offline()
    world.clock.advance(600)
    assert world.told(130) == []
    world.alerts.leads = lambda: True
    assert world.told(130) == ["offline"]


def test_what_another_daemon_leads_and_tells_is_not_told_again_after_it() -> None:
    world = World()
    world.alerts.leads = lambda: False
    world.is_offline()
    world.is_offline(ServiceType.AGENT)
    world.silence(AGENT)
    world.clock.advance(_STANDBY_SECONDS)
    assert world.told(130) == []
    world.alerts.leads = lambda: True
    assert world.told(130) == []
    world.silence()
    assert world.told(130) == ["offline"], "nobody was told of that one"
    assert world.receivers[0].taken[0]["service"]["service_id"] == AGENT.service_id


def test_the_leader_that_dies_before_it_told_leaves_it_to_the_next() -> None:
    world = World()
    world.alerts.leads = lambda: False
    world.is_offline()
    world.clock.advance(_STANDBY_SECONDS - 1)
    assert world.told(130) == []
    world.alerts.leads = lambda: True
    assert world.told(130) == ["offline"]


def test_a_target_that_was_away_for_long_is_told_when_it_is_back() -> None:
    world = World(Receiver(), Receiver(*[UnavailableError("away")] * 2 * module.ATTEMPTS))
    world.is_offline()
    assert world.told(1200) == ["offline"], "the other one was told, once"
    [told] = world.receivers[1].taken
    assert told["id"] == world.receivers[0].taken[0]["id"]
    assert (world.counted("offline", "failed"), world.counted("offline", "sent")) == (2, 2)


def test_what_finds_the_queue_full_is_told_later_if_it_is_still_so() -> None:
    world = World()
    for number in range(module.WAITING + 5):
        gone = record(ServiceType.POLLER, service_id=f"p{number}", status=ServiceStatus.ACTIVE)
        world.index.apply(gone)
        change = LivenessChange(gone, Liveness.LATE, Liveness.OFFLINE, world.clock.now())
        world.alerts.liveness_changed(change)
    world.told(130)
    assert len({told["service"]["service_id"] for told in world.receivers[0].taken}) == module.WAITING + 5


def test_what_is_owed_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "REMEMBERED", 3)
    world = World()
    world.alerts.leads = lambda: False
    for number in range(5):
        gone = record(ServiceType.POLLER, service_id=f"p{number}", status=ServiceStatus.ACTIVE)
        change = LivenessChange(gone, Liveness.LATE, Liveness.OFFLINE, world.clock.now())
        world.alerts.liveness_changed(change)
    assert world.counted("offline", "dropped") == 2


def test_only_those_are_missed_that_should_be_heard() -> None:
    world = World(kinds=(AlertKind.OFFLINE,))
    for approval in Approval:
        silent = record(ServiceType.POLLER, approval=approval)
        world.alerts.liveness_changed(LivenessChange(silent, Liveness.LATE, Liveness.OFFLINE, NOW))
    revoked = record(ServiceType.AGENT, status=ServiceStatus.REVOKED)
    world.alerts.liveness_changed(LivenessChange(revoked, Liveness.LATE, Liveness.OFFLINE, NOW))
    assert world.told(130) == []


def test_who_was_rejected_is_not_stuck() -> None:
    world = World()
    world.index.apply(record(ServiceType.POLLER, approval=Approval.REJECTED))
    world.clock.advance(timedelta(days=2))
    assert world.told(130) == []
