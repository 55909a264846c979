"""Every command in every state: what becomes of the service, as the contract has it.

The tables are written by hand. Each command states what it does in every state; a test holds them to that.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta

import pytest

from jetway.core import commands as c
from jetway.core.errors import Refused
from jetway.core.identity import erase_answer, revoke_identity
from jetway.core.ids import ServiceType
from jetway.core.lifecycle import step
from jetway.core.record import Approval, Cascade, PackageStatus, ServiceRecord, ServiceStatus, Source
from support.builders import (
    DAY,
    EPOCH,
    LINEAGES,
    NATS_KEY,
    NOW,
    PACKAGE_ID,
    context,
    identity,
    new_package,
    package,
    record,
    spec,
    uid,
)

AGENT = ServiceType.AGENT
S, P = ServiceStatus, PackageStatus

RUNNING = {"cascade": Cascade.RUNNING}
IMPLICIT = {"registration_source": Source.IMPLICIT}
CONFIG = {"registration_source": Source.CONFIG}
REVOKED_IDENTITY = revoke_identity(identity(), NOW - DAY)

STATES: dict[str, ServiceRecord | None] = {
    "none": None,
    "pending-issued": record(AGENT, S.PENDING, package=package(P.ISSUED)),
    "pending-overdue": record(AGENT, S.PENDING, package=package(P.ISSUED, token_expires_at=NOW - DAY)),
    "pending-delivered": record(AGENT, S.PENDING, package=package(P.DELIVERED), identity=identity()),
    "pending-expired": record(AGENT, S.PENDING, package=package(P.EXPIRED)),
    "pending-config": record(AGENT, S.PENDING, **CONFIG),
    "pending-named": record(AGENT, S.PENDING, **IMPLICIT),
    "pending-required": record(AGENT, S.PENDING, approval=Approval.REQUIRED, **IMPLICIT),
    "pending-granted": record(AGENT, S.PENDING, approval=Approval.GRANTED, **IMPLICIT),
    "pending-rejected": record(AGENT, S.PENDING, approval=Approval.REJECTED, **IMPLICIT),
    "active": record(
        AGENT, S.ACTIVE, package=package(P.ACTIVATED), first_seen=NOW - DAY, identity=erase_answer(identity())
    ),
    "active-config": record(AGENT, S.ACTIVE, first_seen=NOW - DAY, **CONFIG),
    "active-unheard": record(AGENT, S.ACTIVE, **CONFIG),
    "active-implicit": record(AGENT, S.ACTIVE, first_seen=NOW - DAY, **IMPLICIT),
    "inactive": record(
        AGENT,
        S.INACTIVE,
        package=package(P.ACTIVATED),
        first_seen=NOW - DAY,
        identity=erase_answer(identity()),
    ),
    "inactive-implicit": record(AGENT, S.INACTIVE, first_seen=NOW - DAY, **IMPLICIT),
    "revoked": record(AGENT, S.REVOKED, package=package(P.REVOKED), revoked_identities=(REVOKED_IDENTITY,)),
    "revoked-expired": record(AGENT, S.REVOKED, package=package(P.EXPIRED)),
    "revoked-running": record(AGENT, S.REVOKED, package=package(P.REVOKED), **RUNNING),
    "revoked-implicit": record(AGENT, S.REVOKED, **IMPLICIT),
    "deleted": record(AGENT, S.DELETED, package=package(P.REVOKED), revoked_identities=(REVOKED_IDENTITY,)),
    "deleted-running": record(AGENT, S.DELETED, package=package(P.REVOKED), **RUNNING),
}

WHY = "because"

COMMANDS: dict[str, c.Command] = {
    "issue": c.Issue(spec=spec(), package=new_package()),
    "register": c.Register(spec=spec()),
    "register-known": c.Register(spec=spec(), revive=False),
    "admit-quarantine": c.Admit(lineage=LINEAGES[AGENT], approval_required=True, heard=True),
    "admit-heard": c.Admit(lineage=LINEAGES[AGENT], approval_required=False, heard=True),
    "admit-named": c.Admit(lineage=LINEAGES[AGENT], approval_required=False, heard=False),
    "redeem": c.Redeem(package_id=PACKAGE_ID, hostname="edge-1"),
    "renew": c.Renew(nats_public_key=NATS_KEY, nats_expires_at=NOW + 40 * DAY),
    "reseal": c.Reseal(sealed_before="v1.key.sealed", sealed_after="v1.other.sealed"),
    "heartbeat": c.Heartbeat(lineage=LINEAGES[AGENT]),
    "deactivate": c.Deactivate(silent_since=NOW - DAY),
    "expire-package": c.ExpirePackage(),
    "expire-pending": c.ExpirePending(),
    "archive": c.Archive(),
    "revoke": c.Revoke(reason=WHY),
    "revoke-alone": c.Revoke(reason=WHY, cascade=False, live_children=2),
    "finish-cascade": c.FinishCascade(revoked=2),
    "close": c.Close(),
    "reopen": c.Reopen(),
    "reissue": c.Reissue(package=new_package(), reason=WHY),
    "approve": c.Approve(reason=WHY),
    "reject": c.Reject(reason=WHY),
    "override-pending": c.Override(status=S.PENDING, reason=WHY),
    "override-active": c.Override(status=S.ACTIVE, reason=WHY),
    "override-inactive": c.Override(status=S.INACTIVE, reason=WHY),
    "override-revoked": c.Override(status=S.REVOKED, reason=WHY),
    "override-revoked-alone": c.Override(status=S.REVOKED, reason=WHY, cascade=False, live_children=1),
    "override-deleted": c.Override(status=S.DELETED, reason=WHY),
    "delete": c.Delete(reason=WHY),
    "delete-alone": c.Delete(reason=WHY, cascade=False, live_children=1),
    "delete-package": c.DeletePackage(package_id=PACKAGE_ID),
    "withdraw": c.Withdraw(reason=WHY),
}


@dataclass(frozen=True)
class Becomes:
    """A new revision. `-`: there is no package. None: as it was."""

    status: str
    package: str
    events: str
    approval: str | None = None
    cascade: str | None = None
    source: str | None = None


@dataclass(frozen=True)
class Refuses:
    code: str


class Same:
    """Nothing changes, and nothing is wrong with that."""


Expected = Becomes | Refuses | Same

SAME = Same()
ILLEGAL = Refuses("illegal_transition")
NOT_FOUND = Refuses("not_found")
TAKEN = Refuses("taken")
CHILDREN_LIVE = Refuses("children_live")
UNPROVEN = Refuses("proof_invalid")

WITH_PACKAGE = "pending-issued pending-overdue pending-delivered pending-expired"
SELF_MADE = "pending-named pending-required pending-granted pending-rejected"
PENDING = f"{WITH_PACKAGE} pending-config {SELF_MADE}"
HEARD = "active active-config active-implicit"
ACTIVE = f"{HEARD} active-unheard"
INACTIVE = "inactive inactive-implicit"
REVOKED = "revoked revoked-expired revoked-running revoked-implicit"
DELETED = "deleted deleted-running"

REGISTERED_BY_HAND = Becomes("pending", "-", "registered", "none", "none", "config")
ISSUED = Becomes("pending", "issued", "registered issued", "none", "none", "edge_onboarding")


def _ended(status: str, events: str) -> dict[str, Expected]:
    """Every living state ends, and with it its package; one that has expired stays expired."""
    return {
        "pending-issued pending-overdue pending-delivered": Becomes(
            status, "revoked", events, cascade="running"
        ),
        "pending-expired": Becomes(status, "expired", events, cascade="running"),
        f"pending-config {SELF_MADE}": Becomes(status, "-", events, cascade="running"),
    }


MATRIX: dict[str, dict[str, Expected]] = {
    "issue": {
        "none deleted": ISSUED,
        SELF_MADE: Becomes("pending", "issued", "adopted issued", "granted", "none", "edge_onboarding"),
        f"{WITH_PACKAGE} pending-config {ACTIVE} {INACTIVE} {REVOKED}": TAKEN,
        "deleted-running": ILLEGAL,
    },
    "register": {
        "none deleted": REGISTERED_BY_HAND,
        SELF_MADE: Becomes("pending", "-", "adopted", "granted", "none", "config"),
        "active-implicit": Becomes("active", "-", "adopted", source="config"),
        "inactive-implicit": Becomes("inactive", "-", "adopted", source="config"),
        f"{WITH_PACKAGE} pending-config active active-config active-unheard inactive {REVOKED}": TAKEN,
        "deleted-running": ILLEGAL,
    },
    "register-known": {
        "none": REGISTERED_BY_HAND,
        SELF_MADE: Becomes("pending", "-", "adopted", "granted", "none", "config"),
        "active-implicit": Becomes("active", "-", "adopted", source="config"),
        "inactive-implicit": Becomes("inactive", "-", "adopted", source="config"),
        f"{WITH_PACKAGE} pending-config active active-config active-unheard inactive {REVOKED} {DELETED}": TAKEN,
    },
    "admit-quarantine": {
        "none": Becomes("pending", "-", "registered", "required", "none", "implicit"),
        f"{PENDING} {ACTIVE} {INACTIVE} {REVOKED} {DELETED}": SAME,
    },
    "admit-heard": {
        "none": Becomes("active", "-", "registered activated", "none", "none", "implicit"),
        f"{PENDING} {ACTIVE} {INACTIVE} {REVOKED} {DELETED}": SAME,
    },
    "admit-named": {
        "none": Becomes("pending", "-", "registered", "none", "none", "implicit"),
        f"{PENDING} {ACTIVE} {INACTIVE} {REVOKED} {DELETED}": SAME,
    },
    "redeem": {
        "none": NOT_FOUND,
        "pending-issued": Becomes("pending", "delivered", "delivered"),
        "pending-overdue pending-expired revoked-expired": Refuses("expired"),
        "pending-delivered active inactive": Refuses("already_redeemed"),
        "revoked revoked-running deleted deleted-running": Refuses("revoked"),
        f"pending-config {SELF_MADE} active-config active-unheard active-implicit": Refuses("token_unknown"),
        "inactive-implicit revoked-implicit": Refuses("token_unknown"),
    },
    "renew": {
        "none": NOT_FOUND,
        "pending-delivered": Becomes("pending", "delivered", "renewed"),
        "active": Becomes("active", "activated", "renewed"),
        "inactive": Becomes("inactive", "activated", "renewed"),
        "pending-issued pending-overdue pending-expired pending-config": UNPROVEN,
        f"{SELF_MADE} active-config active-unheard active-implicit inactive-implicit": UNPROVEN,
        "revoked deleted": Refuses("revoked"),
        "revoked-expired revoked-running revoked-implicit deleted-running": UNPROVEN,
    },
    "reseal": {
        "none": NOT_FOUND,
        "pending-delivered": Becomes("pending", "delivered", "resealed"),
        "pending-issued pending-overdue pending-expired pending-config": SAME,
        f"{SELF_MADE} {ACTIVE} {INACTIVE} {REVOKED} {DELETED}": SAME,
    },
    "heartbeat": {
        "none": Refuses("unknown_service"),
        "pending-issued pending-overdue pending-expired": Refuses("not_delivered"),
        "pending-delivered": Becomes("active", "activated", "activated"),
        "pending-config pending-named pending-granted": Becomes("active", "-", "activated"),
        "pending-required": Refuses("approval_required"),
        "pending-rejected": Refuses("rejected"),
        HEARD: SAME,
        "active-unheard": Becomes("active", "-", "first_heard"),
        "inactive": Becomes("active", "activated", "reactivated"),
        "inactive-implicit": Becomes("active", "-", "reactivated"),
        REVOKED: Refuses("revoked"),
        DELETED: Refuses("deleted"),
    },
    "deactivate": {
        "none": NOT_FOUND,
        "active": Becomes("inactive", "activated", "deactivated"),
        "active-config active-unheard active-implicit": Becomes("inactive", "-", "deactivated"),
        f"{PENDING} {INACTIVE} {REVOKED} {DELETED}": ILLEGAL,
    },
    "expire-package": {
        "none": NOT_FOUND,
        "pending-overdue": Becomes("pending", "expired", "expired"),
        "pending-issued pending-delivered pending-expired pending-config": SAME,
        f"{SELF_MADE} {ACTIVE} {INACTIVE} {REVOKED} {DELETED}": SAME,
    },
    "expire-pending": {
        "none": NOT_FOUND,
        WITH_PACKAGE: Becomes("revoked", "expired", "pending_expired", cascade="running"),
        f"pending-config {SELF_MADE}": Becomes("revoked", "-", "pending_expired", cascade="running"),
        f"{ACTIVE} {INACTIVE} {REVOKED} {DELETED}": ILLEGAL,
    },
    "archive": {
        "none": NOT_FOUND,
        "inactive": Becomes("revoked", "revoked", "archived", cascade="running"),
        "inactive-implicit": Becomes("revoked", "-", "archived", cascade="running"),
        f"{PENDING} {ACTIVE} {REVOKED} {DELETED}": ILLEGAL,
    },
    "revoke": {
        "none": NOT_FOUND,
        **_ended("revoked", "revoked"),
        "active inactive": Becomes("revoked", "revoked", "revoked", cascade="running"),
        "active-config active-unheard active-implicit inactive-implicit": Becomes(
            "revoked", "-", "revoked", cascade="running"
        ),
        REVOKED: SAME,
        DELETED: ILLEGAL,
    },
    "revoke-alone": {
        "none": NOT_FOUND,
        f"{PENDING} {ACTIVE} {INACTIVE}": CHILDREN_LIVE,
        REVOKED: SAME,
        DELETED: ILLEGAL,
    },
    "finish-cascade": {
        "none": NOT_FOUND,
        "revoked-running": Becomes("revoked", "revoked", "cascade_completed", cascade="none"),
        "deleted-running": Becomes("deleted", "revoked", "cascade_completed", cascade="none"),
        "revoked revoked-expired revoked-implicit deleted": SAME,
        f"{PENDING} {ACTIVE} {INACTIVE}": ILLEGAL,
    },
    "close": {
        "none": NOT_FOUND,
        f"{REVOKED} {DELETED}": ILLEGAL,
        "pending-issued pending-overdue": Becomes(
            "pending", "issued", "closed_to_children", cascade="closing"
        ),
        "pending-delivered": Becomes("pending", "delivered", "closed_to_children", cascade="closing"),
        "pending-expired": Becomes("pending", "expired", "closed_to_children", cascade="closing"),
        f"pending-config {SELF_MADE}": Becomes("pending", "-", "closed_to_children", cascade="closing"),
        "active": Becomes("active", "activated", "closed_to_children", cascade="closing"),
        "active-config active-unheard active-implicit": Becomes(
            "active", "-", "closed_to_children", cascade="closing"
        ),
        "inactive": Becomes("inactive", "activated", "closed_to_children", cascade="closing"),
        "inactive-implicit": Becomes("inactive", "-", "closed_to_children", cascade="closing"),
    },
    "reopen": {
        "none": NOT_FOUND,
        f"{PENDING} {ACTIVE} {INACTIVE} {REVOKED} {DELETED}": SAME,
    },
    "reissue": {
        "none": NOT_FOUND,
        f"{WITH_PACKAGE} inactive revoked revoked-expired": Becomes("pending", "issued", "reissued issued"),
        "pending-config": Becomes("pending", "issued", "reissued issued", "none", source="config"),
        "pending-named inactive-implicit revoked-implicit": Becomes(
            "pending", "issued", "reissued issued", "none", source="edge_onboarding"
        ),
        "pending-required pending-granted pending-rejected": Becomes(
            "pending", "issued", "reissued issued", "granted", source="edge_onboarding"
        ),
        f"revoked-running {ACTIVE} {DELETED}": ILLEGAL,
    },
    "approve": {
        "none": NOT_FOUND,
        "pending-required pending-rejected": Becomes("pending", "-", "approved", "granted"),
        "pending-granted": SAME,
        f"{WITH_PACKAGE} pending-config pending-named {ACTIVE} {INACTIVE} {REVOKED} {DELETED}": ILLEGAL,
    },
    "reject": {
        "none": NOT_FOUND,
        "pending-required": Becomes("pending", "-", "rejected", "rejected"),
        "pending-rejected": SAME,
        f"{WITH_PACKAGE} pending-config pending-named pending-granted": ILLEGAL,
        f"{ACTIVE} {INACTIVE} {REVOKED} {DELETED}": ILLEGAL,
    },
    "override-pending": {
        "none": NOT_FOUND,
        PENDING: SAME,
        f"{ACTIVE} {INACTIVE} {REVOKED} {DELETED}": ILLEGAL,
    },
    "override-active": {
        "none": NOT_FOUND,
        "pending-issued pending-overdue pending-expired": ILLEGAL,
        "pending-delivered inactive": Becomes("active", "activated", "status_override"),
        "pending-config pending-named inactive-implicit": Becomes("active", "-", "status_override", "none"),
        "pending-required pending-granted pending-rejected": Becomes(
            "active", "-", "status_override", "granted"
        ),
        ACTIVE: SAME,
        f"{REVOKED} {DELETED}": ILLEGAL,
    },
    "override-inactive": {
        "none": NOT_FOUND,
        "active": Becomes("inactive", "activated", "status_override"),
        "active-config active-unheard active-implicit": Becomes("inactive", "-", "status_override"),
        INACTIVE: SAME,
        f"{PENDING} {REVOKED} {DELETED}": ILLEGAL,
    },
    "override-revoked": {
        "none": NOT_FOUND,
        **_ended("revoked", "status_override revoked"),
        "active inactive": Becomes("revoked", "revoked", "status_override revoked", cascade="running"),
        "active-config active-unheard active-implicit inactive-implicit": Becomes(
            "revoked", "-", "status_override revoked", cascade="running"
        ),
        REVOKED: SAME,
        DELETED: ILLEGAL,
    },
    "override-revoked-alone": {
        "none": NOT_FOUND,
        f"{PENDING} {ACTIVE} {INACTIVE}": CHILDREN_LIVE,
        REVOKED: SAME,
        DELETED: ILLEGAL,
    },
    "override-deleted": {
        "none": NOT_FOUND,
        f"{PENDING} {ACTIVE} {INACTIVE} {REVOKED} {DELETED}": ILLEGAL,
    },
    "delete": {
        "none": NOT_FOUND,
        "inactive revoked revoked-running": Becomes("deleted", "revoked", "deleted", cascade="running"),
        "revoked-expired": Becomes("deleted", "expired", "deleted", cascade="running"),
        "inactive-implicit revoked-implicit": Becomes("deleted", "-", "deleted", cascade="running"),
        f"{PENDING} {ACTIVE} {DELETED}": ILLEGAL,
    },
    "delete-alone": {
        "none": NOT_FOUND,
        f"{INACTIVE} {REVOKED}": CHILDREN_LIVE,
        f"{PENDING} {ACTIVE} {DELETED}": ILLEGAL,
    },
    "delete-package": {
        "none": NOT_FOUND,
        "pending-expired": Becomes("pending", "expired", "package_deleted"),
        "revoked": Becomes("revoked", "revoked", "package_deleted"),
        "revoked-expired": Becomes("revoked", "expired", "package_deleted"),
        "revoked-running": Becomes("revoked", "revoked", "package_deleted", cascade="running"),
        "deleted": Becomes("deleted", "revoked", "package_deleted"),
        "deleted-running": Becomes("deleted", "revoked", "package_deleted", cascade="running"),
        "pending-issued pending-overdue pending-delivered active inactive": ILLEGAL,
        f"pending-config {SELF_MADE} active-config active-unheard active-implicit": NOT_FOUND,
        "inactive-implicit revoked-implicit": NOT_FOUND,
    },
    "withdraw": {
        "none": NOT_FOUND,
        **_ended("deleted", "withdrawn"),
        f"{ACTIVE} {INACTIVE} {REVOKED} {DELETED}": ILLEGAL,
    },
}

CASES = [
    pytest.param(command, state, expected, id=f"{command}/{state}")
    for command, outcomes in MATRIX.items()
    for states, expected in outcomes.items()
    for state in states.split()
]


def test_every_command_says_what_it_does_in_every_state_once() -> None:
    assert set(MATRIX) == set(COMMANDS)
    for command, outcomes in MATRIX.items():
        stated = [state for states in outcomes for state in states.split()]
        assert sorted(stated) == sorted(STATES), command


def test_every_kind_of_command_and_every_status_stands_in_the_matrix() -> None:
    assert {type(command) for command in COMMANDS.values()} == set(c.Command.__args__)
    assert {start.status if start else None for start in STATES.values()} == {None, *ServiceStatus}


@pytest.mark.parametrize(("command", "state", "expected"), CASES)
def test_the_outcome_is_the_contracts(command: str, state: str, expected: Expected) -> None:
    start = STATES[state]
    before = replace(start) if start else None
    outcome = step(start, COMMANDS[command], context())
    assert start == before, "a decision changes nothing in place"
    if isinstance(expected, Refuses):
        assert isinstance(outcome, Refused)
        assert outcome.code.value == expected.code
        assert outcome.why
    elif isinstance(expected, Same):
        assert outcome is start
    else:
        assert isinstance(outcome, ServiceRecord)
        _is(outcome, expected, start)


def _is(outcome: ServiceRecord, expected: Becomes, start: ServiceRecord | None) -> None:
    assert outcome.status == expected.status
    assert (outcome.package.status.value if outcome.package else "-") == expected.package
    assert " ".join(outcome.transition.events) == expected.events
    if expected.approval is not None:
        assert outcome.approval == expected.approval
    elif start and "adopted" not in expected.events:
        assert outcome.approval is start.approval
    if expected.source is not None:
        assert outcome.registration_source == expected.source
    elif start:
        assert outcome.registration_source is start.registration_source
    assert outcome.cascade == (expected.cascade or "none")


CHANGES = [case for case in CASES if isinstance(case.values[2], Becomes)]


@pytest.mark.parametrize(("command", "state", "expected"), CHANGES)
def test_every_change_counts_and_says_who_when_why_and_from_where(
    command: str, state: str, expected: Becomes
) -> None:
    start, given = STATES[state], COMMANDS[command]
    later = NOW + timedelta(microseconds=1999)
    ctx = context(later, epoch=EPOCH + 1, transition_id=uid(42))
    outcome = step(start, given, ctx)
    assert isinstance(outcome, ServiceRecord)
    assert outcome.revision == (start.revision + 1 if start else 1)
    assert outcome.epoch == EPOCH + 1
    made = outcome.transition
    assert (made.transition_id, made.actor, made.source_ip, made.request_id) == (
        uid(42),
        "alice",
        "192.0.2.9",
        "req-1",
    )
    assert made.at == NOW + timedelta(milliseconds=1), "times are cut to whole milliseconds"
    assert made.from_status == (start.status if start else None)
    assert made.to_status == outcome.status == expected.status
    if hasattr(given, "reason"):
        assert made.reason == WHY
    assert made.package_id == (outcome.package.package_id if outcome.package else "")


ENDS = [
    ("revoke", S.ACTIVE),
    ("override-revoked", S.PENDING),
    ("delete", S.REVOKED),
    ("archive", S.INACTIVE),
    ("expire-pending", S.PENDING),
    ("withdraw", S.PENDING),
]


@pytest.mark.parametrize(("command", "status"), ENDS)
@pytest.mark.parametrize(
    ("kind", "cascade"), [("poller", Cascade.RUNNING), ("agent", Cascade.RUNNING), ("checker", Cascade.NONE)]
)
def test_whatever_can_have_children_ends_with_a_cascade(
    command: str, status: ServiceStatus, kind: str, cascade: Cascade
) -> None:
    outcome = step(record(ServiceType(kind), status), COMMANDS[command], context())
    assert isinstance(outcome, ServiceRecord)
    assert outcome.cascade is cascade
