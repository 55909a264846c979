"""Admission: who is known, in which mode, and what is counted and logged of it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from structlog.testing import capture_logs

from jetway.core.errors import UnavailableError
from jetway.core.record import Approval, ServiceStatus, Source
from jetway.services.admit import Admission, Admitted, IndexAge, Mode
from jetway.services.index import Index
from jetway.services.metrics import Metrics
from support.builders import POLLER, FakeClock, record
from support.memory import MemoryLedger


class World:
    def __init__(self, mode: Mode = "enforce", known: tuple[str, ...] = ()) -> None:
        self.index, self.clock, self.metrics = Index(), FakeClock(), Metrics()
        self.admission = Admission(self.index, self.clock, self.metrics, mode=mode, known_pollers=known)

    def add(self, **changes: Any) -> None:
        self.index.apply(record(POLLER.service_type, **changes))

    def refusals(self, reason: str, mode: Mode) -> float | None:
        return self.metrics.registry.get_sample_value(
            "jetway_admission_refusals_total", {"reason": reason, "mode": mode}
        )

    def hits(self, place: str) -> float | None:
        return self.metrics.registry.get_sample_value("jetway_admission_hits_total", {"place": place})


@pytest.mark.parametrize("status", [ServiceStatus.PENDING, ServiceStatus.ACTIVE, ServiceStatus.INACTIVE])
def test_a_live_poller_is_known(status: ServiceStatus) -> None:
    world = World()
    world.add(status=status)
    answer = Admitted(True, status.value, Source.EDGE_ONBOARDING.value)
    assert world.admission.ask(POLLER.service_id) == answer
    assert world.hits("registry") == 1


@pytest.mark.parametrize("status", [ServiceStatus.REVOKED, ServiceStatus.DELETED])
def test_one_that_was_taken_out_is_not_known_though_the_settings_list_it(status: ServiceStatus) -> None:
    world = World(known=(POLLER.service_id,))
    world.add(status=status)
    answer = world.admission.ask(POLLER.service_id)
    assert (answer.known, answer.status) == (False, status.value)
    assert world.refusals(status.value, "enforce") == 1
    assert world.hits("settings") == 0


def test_one_that_the_settings_list_is_known_before_it_is_in_the_registry() -> None:
    world = World(known=("static",))
    assert world.admission.ask("static") == Admitted(True, "", "config")
    assert world.hits("settings") == 1


@pytest.mark.parametrize("name", ["nobody", "No DNS label", "x" * 253, "poller.p1"])
def test_whoever_is_in_neither_is_unknown(name: str) -> None:
    world = World(known=("static",))
    assert world.admission.ask(name) == Admitted(False)
    assert world.refusals("unknown", "enforce") == 1


@pytest.mark.parametrize(
    ("approval", "known", "reason"),
    [
        (Approval.REQUIRED, False, "approval_required"),
        (Approval.REJECTED, False, "rejected"),
        (Approval.GRANTED, True, ""),
    ],
)
def test_one_that_registered_itself_is_known_once_it_is_approved(
    approval: Approval, known: bool, reason: str
) -> None:
    world = World()
    world.add(status=ServiceStatus.PENDING, approval=approval, registration_source=Source.IMPLICIT)
    assert world.admission.ask(POLLER.service_id) == Admitted(known, "pending", "implicit")
    if reason:
        assert world.refusals(reason, "enforce") == 1


def test_while_observing_everybody_is_known_and_what_would_be_refused_is_counted_and_logged() -> None:
    world = World(mode="observe")
    world.add(status=ServiceStatus.REVOKED)
    with capture_logs() as lines:
        assert world.admission.ask(POLLER.service_id).known
        assert world.admission.ask("nobody").known
    assert world.refusals("revoked", "observe") == world.refusals("unknown", "observe") == 1
    assert [(line["poller"], line["reason"], line["mode"]) for line in lines] == [
        (POLLER.service_id, "revoked", "observe"),
        ("nobody", "unknown", "observe"),
    ]


def test_switched_off_everybody_is_known_and_nothing_is_counted() -> None:
    world = World(mode="off")
    world.add(status=ServiceStatus.REVOKED)
    with capture_logs() as lines:
        assert world.admission.ask(POLLER.service_id).known
        assert world.admission.ask("nobody") == Admitted(True)
    assert not lines
    assert world.refusals("revoked", "off") == world.refusals("unknown", "off") == 0


def test_a_flood_of_refusals_is_a_few_lines_a_minute_that_say_how_many_more_there_were() -> None:
    world = World()
    with capture_logs() as lines:
        for number in range(1000):
            world.admission.ask(f"guess-{number}")
            world.admission.ask("guess-0")
    assert len(lines) == 20
    world.clock.advance(61)
    with capture_logs() as lines:
        world.admission.ask("guess-0")
    assert [line["action"] for line in lines] == ["admission_refused_more", "admission_refused"]
    assert lines[0]["calls"] == 980
    assert world.refusals("unknown", "enforce") == 2001


async def test_the_index_is_as_old_as_the_last_proof_that_it_knows_everything() -> None:
    ledger, index, clock = MemoryLedger(), Index(), FakeClock()
    age = IndexAge(index, ledger, clock)
    clock.advance(5)
    await age.prove()
    assert age.seconds == 0

    clock.advance(3)
    ledger.fail_next("last_sequence", UnavailableError("away"))
    await age.prove()
    assert age.seconds == 3

    await ledger.write(record(POLLER.service_type), 0)
    proof = asyncio.ensure_future(age.prove())
    await asyncio.sleep(0)
    assert age.seconds == 3, "what was written is not known here yet"
    index.progress.advance(await ledger.last_sequence())
    await proof
    assert age.seconds == 0
