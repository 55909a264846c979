"""Flapping and clones: one state and one entry of the trail each, however often it happens."""

from __future__ import annotations

import pytest

from jetway.core.errors import UnavailableError
from jetway.core.heartbeat import BatchEntry, Payload
from jetway.core.ids import ServiceKey, ServiceType
from jetway.core.record import ServiceStatus
from jetway.services.catalogue import ServiceView
from jetway.services.fence import TAKEOVER_SECONDS
from jetway.services.pace import Pace
from support.builders import AGENT, LINEAGES
from support.house import House, running_house

TURN = 0.1
LINEAGE = LINEAGES[ServiceType.AGENT]


async def view(house: House, key: ServiceKey = AGENT) -> ServiceView:
    await house.liveness.sweep()
    await house.troubles.look()
    await house.settle()
    return house.catalogue.get(key)


async def fall_silent_and_return(house: House, times: int) -> None:
    for _ in range(times):
        house.clock.advance(60 + TURN)
        await house.liveness.sweep()
        await house.beat(LINEAGE)


async def test_a_service_that_flaps_is_one_trouble_until_it_is_steady_again() -> None:
    async with running_house() as house:
        await house.activate_tree()
        await fall_silent_and_return(house, 3)
        assert not (await view(house)).flapping, "six changes"
        await fall_silent_and_return(house, 20)
        assert (await view(house)).flapping
        assert len(house.events("flapping")) == 1
        assert house.events("flapping")[0].service_id == "a1"
        for _ in range(20):
            house.clock.advance(30)
            await house.beat(LINEAGE)
        assert not (await view(house)).flapping
        await view(house)
        assert [len(house.events(name)) for name in ("flapping", "flapping_ended")] == [1, 1]


async def test_a_surge_is_not_flapping() -> None:
    async with running_house() as house:
        await house.activate_tree()
        house.clock.advance(90 + TURN)
        await house.liveness.sweep()
        assert not (await view(house)).flapping
        assert (await view(house)).liveness == "offline"


@pytest.mark.parametrize("word", ["instance_id", "source_ip"])
async def test_two_hosts_that_beat_as_one_are_noticed_with_the_second_heartbeat_of_either(word: str) -> None:
    async with running_house() as house:
        await house.activate_tree()
        for who in ("one", "two"):
            house.clock.advance(15)
            await house.beat(LINEAGE, Payload(**{word: who}))
        assert (await view(house)).clones == (), "this may be a restart"
        for who in ("one", "two", "one", "two"):
            house.clock.advance(15)
            await house.beat(LINEAGE, Payload(**{word: who}))
            assert (await view(house)).clones == ("one", "two")
        (event,) = house.events("clone_suspected")
        assert (event.service_id, event.metadata) == ("a1", {"suspects": ["one", "two"]})


async def test_clones_are_over_when_only_one_of_them_is_left() -> None:
    async with running_house() as house:
        await house.activate_tree()
        for who in ("one", "two", "one", "one", "one"):
            house.clock.advance(20)
            await house.beat(LINEAGE, Payload(instance_id=who))
        assert (await view(house)).clones == ("one", "two")
        for _ in range(4):
            house.clock.advance(20)
            await house.beat(LINEAGE, Payload(instance_id="one"))
        assert (await view(house)).clones == ()


async def test_restarts_addresses_of_one_instance_and_relays_are_no_clones() -> None:
    async with running_house() as house:
        await house.activate_tree()
        for number in range(20):
            house.clock.advance(10)
            await house.beat(LINEAGE, Payload(instance_id=f"run-{number}"))
        for number in range(20):
            house.clock.advance(10)
            address = f"192.0.2.{number % 2}"  # a gateway with two addresses before it
            await house.beat(LINEAGE, Payload(instance_id="last", source_ip=address))
            await house.beat(LINEAGE, Payload(source_ip="198.51.100.1"))
        assert (await view(house)).clones == ()
        assert house.events("clone_suspected") == []


async def test_a_daemon_that_does_not_lead_tells_the_trail_nothing() -> None:
    async with running_house() as house:
        await house.activate_tree()
        house.fence.leads = lambda: False
        for who in ("one", "two", "one"):
            await house.beat(LINEAGE, Payload(instance_id=who))
        assert house.catalogue.get(AGENT).clones == ("one", "two"), "but it shows it"
        house.clock.advance(TAKEOVER_SECONDS)
        await house.troubles.look()
        house.fence.leads = lambda: True
        await house.troubles.look()
        await house.settle()
        assert house.events("clone_suspected") == []


@pytest.mark.parametrize(("seconds", "another"), [(TAKEOVER_SECONDS - 1, True), (60, False)])
async def test_what_the_leader_may_not_have_told_is_told_by_the_next(seconds: float, another: bool) -> None:
    async with running_house() as house:
        await house.activate_tree()
        house.fence.leads, house.fence.another_leads = lambda: False, lambda: another
        for who in ("one", "two", "one"):
            await house.beat(LINEAGE, Payload(instance_id=who))
        house.clock.advance(seconds)
        await house.troubles.look()
        house.fence.leads = lambda: True
        await house.troubles.look()
        await house.settle()
        assert len(house.events("clone_suspected")) == 1


async def test_an_entry_waits_while_the_trail_is_away() -> None:
    async with running_house() as house:
        await house.activate_tree()
        house.audit.fail_next("append", UnavailableError("NATS is away"))
        for who in ("one", "two", "one"):
            await house.beat(LINEAGE, Payload(instance_id=who))
        await house.troubles.look()
        await house.settle()
        assert house.events("clone_suspected") == []
        await view(house)
        assert len(house.events("clone_suspected")) == 1


async def test_a_service_that_is_gone_leaves_no_trouble_behind() -> None:
    async with running_house() as house:
        await house.activate_tree()
        for who in ("one", "two", "one"):
            await house.beat(LINEAGE, Payload(instance_id=who))
        assert house.catalogue.get(AGENT).clones
        await house.revoke(AGENT)
        assert house.status(AGENT) == ServiceStatus.REVOKED
        house.index.forget(AGENT)
        assert house.troubles.clones(AGENT) == ()
        await house.troubles.look()


async def test_a_service_that_goes_while_the_others_are_looked_at_breaks_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keys = (LINEAGE.key, LINEAGES[ServiceType.CHECKER].key)
    async with running_house() as house:
        await house.activate_tree()
        for who in ("one", "two", "one"):
            for key in keys:
                await house.beat(LINEAGES[key.service_type], Payload(instance_id=who))
        assert all(house.troubles.clones(key) for key in keys)

        async def breathe(_pace: Pace) -> None:
            for key in keys:
                house.troubles.forget(key)

        monkeypatch.setattr(Pace, "breathe", breathe)
        await house.troubles.look()
        assert not any(house.troubles.clones(key) for key in keys)


async def test_a_service_heard_directly_and_by_a_relay_with_other_addresses_is_no_clone() -> None:
    async with running_house() as house:
        await house.activate_tree()
        relayed = BatchEntry(service_type=ServiceType.AGENT, source_ip="198.51.100.1")
        for _ in range(10):
            house.clock.advance(10)
            await house.beat(LINEAGE, Payload(source_ip="192.0.2.1"))
            await house.beat(LINEAGE, relayed)
        assert (await view(house)).clones == ()
        for address in ("192.0.2.1", "192.0.2.2", "192.0.2.1"):
            house.clock.advance(10)
            await house.beat(LINEAGE, relayed.model_copy(update={"source_ip": address}))
        assert (await view(house)).clones == ("192.0.2.1", "192.0.2.2"), "both by the relay"
