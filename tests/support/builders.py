"""Builders of records, commands and contexts: a fixed time, ids that count up, and no randomness."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from jetway.core import commands as c
from jetway.core import lifecycle
from jetway.core.errors import Refused
from jetway.core.identity import CertificateFacts, Identity
from jetway.core.ids import Lineage, ServiceKey, ServiceType
from jetway.core.record import (
    Approval,
    EventType,
    Package,
    PackageStatus,
    ServiceRecord,
    ServiceStatus,
    Source,
    Transition,
)

NOW = datetime(2026, 3, 4, 5, 6, 7, 890_000, UTC)
"""The moment at which the tests' clocks begin, in whole milliseconds as records have it."""
EPOCH = 7
DAY = timedelta(days=1)

POLLER = ServiceKey(ServiceType.POLLER, "p1")
AGENT = ServiceKey(ServiceType.AGENT, "a1")
CHECKER = ServiceKey(ServiceType.CHECKER, "c1")

LINEAGES = {
    ServiceType.POLLER: Lineage(ServiceType.POLLER, "p1"),
    ServiceType.AGENT: Lineage(ServiceType.AGENT, "p1", "a1"),
    ServiceType.CHECKER: Lineage(ServiceType.CHECKER, "p1", "a1", "c1"),
}


def uid(number: int) -> str:
    """The `number`th made-up UUID."""
    return f"00000000-0000-4000-8000-{number:012d}"


PACKAGE_ID = uid(901)
"""The package that `record` carries."""
NEW_PACKAGE_ID = uid(902)
"""The package that `issue` and `reissue` ask for."""


class FakeClock:
    """Implements `ports.Clock`: stands still until it is moved."""

    def __init__(self, start: datetime = NOW) -> None:
        self._now = start
        self._monotonic = 1000.0

    def now(self) -> datetime:
        """The wall clock."""
        return self._now

    def monotonic(self) -> float:
        """Moves with `advance` alone."""
        return self._monotonic

    def advance(self, by: timedelta | float) -> datetime:
        """Let time pass, in seconds or as a timedelta; the time then."""
        step = by if isinstance(by, timedelta) else timedelta(seconds=by)
        self._now += step
        self._monotonic += step.total_seconds()
        return self._now

    def set_wall(self, moment: datetime) -> None:
        """Somebody sets the wall clock; no time passes."""
        self._now = moment


class CountingIdentifiers:
    """Implements `ports.Identifiers`: UUIDs that count up."""

    def __init__(self) -> None:
        self._count = 0

    def new_id(self) -> str:
        """The next one."""
        self._count += 1
        return uid(self._count)


def context(now: datetime = NOW, **changes: Any) -> c.Context:
    """A context that says something in every field."""
    values: dict[str, Any] = {
        "actor": "alice",
        "transition_id": uid(1),
        "epoch": EPOCH,
        "source_ip": "192.0.2.9",
        "request_id": "req-1",
    }
    return c.Context(now=now, **(values | changes))


def spec(service_type: ServiceType = ServiceType.AGENT, **changes: Any) -> c.ServiceSpec:
    """What a person says about the service of that type: p1, a1 beneath it, c1 beneath that."""
    lineage = LINEAGES[service_type]
    values: dict[str, Any] = {
        "service_id": lineage.service_id,
        "label": f"The {service_type.value}",
        "parent_id": lineage.parent_id,
        "poller_id": lineage.poller_id,
        "site": "A",
        "checker_kind": "snmp" if service_type is ServiceType.CHECKER else "",
    }
    return c.ServiceSpec(service_type=service_type, **(values | changes))


def new_package(package_id: str = NEW_PACKAGE_ID, **changes: Any) -> c.NewPackage:
    """A package to be issued, good for a day."""
    return c.NewPackage(package_id=package_id, **({"token_expires_at": NOW + DAY} | changes))


def package(status: PackageStatus = PackageStatus.ISSUED, **changes: Any) -> Package:
    """A package as it looks in that status."""
    values: dict[str, Any] = {
        "package_id": PACKAGE_ID,
        "generation": 1,
        "token_expires_at": NOW + DAY,
        "created_by": "alice",
        "created_at": NOW - DAY,
    }
    if status in (PackageStatus.DELIVERED, PackageStatus.ACTIVATED):
        values |= {"delivered_at": NOW - timedelta(hours=2), "delivered_to": "edge-1 (192.0.2.1)"}
    if status is PackageStatus.ACTIVATED:
        values |= {"activated_at": NOW - timedelta(hours=1), "activated_from": "192.0.2.1"}
    if status is PackageStatus.REVOKED:
        values |= {"revoked_at": NOW - timedelta(hours=1)}
    return Package(status=status, **(values | changes))


NATS_KEY = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4"
"""The user key that `identity` has."""


def certificate(number: int = 1, **changes: Any) -> CertificateFacts:
    """What is kept of the `number`th certificate, good for thirty days."""
    values: dict[str, Any] = {
        "serial": f"{number:040x}",
        "sha256": f"{number:064x}",
        "expires_at": NOW + 30 * DAY,
        "key_sha256": f"{number + 1000:064x}",
    }
    return CertificateFacts(**(values | changes))


def identity(**changes: Any) -> Identity:
    """An identity that was handed out a moment ago, with all that is kept for a retry."""
    values: dict[str, Any] = {
        "package_id": PACKAGE_ID,
        "issued_at": NOW - timedelta(hours=2),
        "nats_public_key": NATS_KEY,
        "nats_expires_at": NOW + 30 * DAY,
        "spiffe_id": "spiffe://jetway/agent/p1/a1",
        "certificates": (certificate(),),
        "nats_jwt": "the.jwt.text",
        "certificate_pem": "the certificate",
        "sealed_seed": "v1.key.sealed",
    }
    return Identity(**(values | changes))


def record(
    service_type: ServiceType = ServiceType.AGENT,
    status: ServiceStatus = ServiceStatus.PENDING,
    **changes: Any,
) -> ServiceRecord:
    """The record of that type's service at revision 3. Without `package` it has none."""
    lineage = LINEAGES[service_type]
    values: dict[str, Any] = {
        "service_id": lineage.service_id,
        "epoch": EPOCH,
        "revision": 3,
        "label": f"The {service_type.value}",
        "parent_id": lineage.parent_id,
        "poller_id": lineage.poller_id,
        "site": "A",
        "checker_kind": "snmp" if service_type is ServiceType.CHECKER else "",
        "registration_source": Source.EDGE_ONBOARDING,
        "approval": Approval.NONE,
        "created_by": "alice",
        "first_registered": NOW - DAY,
        "transition": transition(to_status=status),
    }
    return ServiceRecord(service_type=service_type, status=status, **(values | changes))


def transition(**changes: Any) -> Transition:
    """A transition."""
    values: dict[str, Any] = {
        "transition_id": uid(800),
        "events": (EventType.REGISTERED,),
        "actor": "alice",
        "at": NOW - DAY,
        "to_status": ServiceStatus.PENDING,
    }
    return Transition(**(values | changes))


def after(start: ServiceRecord | None, command: c.Command, ctx: c.Context | None = None) -> ServiceRecord:
    """The record that the command makes; the test fails where it is refused."""
    outcome = lifecycle.step(start, command, ctx or context())
    assert isinstance(outcome, ServiceRecord), outcome
    return outcome


def refusal(start: ServiceRecord | None, command: c.Command, ctx: c.Context | None = None) -> Refused:
    """Why the command is refused; the test fails where it is not."""
    outcome = lifecycle.step(start, command, ctx or context())
    assert isinstance(outcome, Refused), outcome
    return outcome


def moved_to(start: ServiceRecord, poller_id: str) -> ServiceRecord:
    """The same agent beneath another poller."""
    return replace(start, poller_id=poller_id, parent_id=poller_id)
