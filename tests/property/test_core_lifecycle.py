"""Whatever order commands come in, what must always hold does."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from jetway.core import commands as c
from jetway.core.documents import decode_document, encode_document, has_document, render
from jetway.core.errors import Refused
from jetway.core.ids import Lineage, ServiceType
from jetway.core.lifecycle import step
from jetway.core.record import (
    EARLIER_PACKAGES_KEPT,
    LIVE,
    LIVE_PACKAGE,
    Approval,
    Cascade,
    EventType,
    PackageStatus,
    ServiceRecord,
    ServiceStatus,
    decode_record,
    encode_record,
)
from jetway.core.rows import events_of, package_rows
from support.builders import DAY, LINEAGES, NOW, context, new_package, spec, uid

AGENT = ServiceType.AGENT
S, P, E = ServiceStatus, PackageStatus, EventType

LINEAGE = st.sampled_from([LINEAGES[AGENT], LINEAGES[AGENT], LINEAGES[AGENT], Lineage(AGENT, "p2", "a1")])
REASON = st.sampled_from(["", "because"])
PACKAGES = st.integers(1, 6).map(uid)
CHILDREN = {"cascade": st.booleans(), "live_children": st.integers(0, 2)}

COMMANDS = st.one_of(
    st.builds(c.Issue, spec=st.builds(spec), package=st.builds(new_package, PACKAGES)),
    st.builds(c.Register, spec=st.builds(spec), revive=st.booleans()),
    st.builds(c.Admit, lineage=LINEAGE, approval_required=st.booleans(), heard=st.booleans()),
    st.builds(c.Redeem, package_id=PACKAGES, bound_keys=st.sampled_from(["", "k1", "k2"])),
    st.builds(c.Heartbeat, lineage=LINEAGE),
    st.builds(c.Deactivate, silent_since=st.none() | st.just(NOW)),
    st.builds(c.ExpirePackage),
    st.builds(c.ExpirePending),
    st.builds(c.Archive),
    st.builds(
        c.Revoke,
        reason=REASON,
        event=st.sampled_from([E.REVOKED, E.ARCHIVED, E.PENDING_EXPIRED]),
        **CHILDREN,
    ),
    st.builds(c.Close),
    st.builds(c.Reopen),
    st.builds(c.FinishCascade, revoked=st.integers(0, 3)),
    st.builds(c.Reissue, package=st.builds(new_package, PACKAGES), reason=REASON, revoke_now=st.booleans()),
    st.builds(c.Approve, reason=REASON),
    st.builds(c.Reject, reason=REASON),
    st.builds(c.Override, status=st.sampled_from(S), reason=REASON, **CHILDREN),
    st.builds(c.Delete, reason=REASON, **CHILDREN),
    st.builds(c.DeletePackage, package_id=PACKAGES),
    st.builds(c.Withdraw, reason=REASON),
)
STEPS = st.lists(st.tuples(COMMANDS, st.integers(0, 30)), max_size=40)

BY_HAND = (c.Issue, c.Register, c.Reissue)
"""The only ways back for what was taken out."""


def histories(
    steps: list[tuple[c.Command, int]],
) -> list[tuple[ServiceRecord | None, c.Command, ServiceRecord]]:
    """(before, command, after) of every command that changed the record."""
    made = []
    current: ServiceRecord | None = None
    now, epoch = NOW, 1
    for number, (command, hours) in enumerate(steps):
        now += timedelta(hours=hours)
        epoch += hours == 30  # now and then a restore
        ctx = context(now, transition_id=uid(1000 + number), epoch=epoch)
        outcome = step(current, command, ctx)
        if isinstance(outcome, Refused):
            assert outcome.why
            continue
        if outcome is current:
            continue
        made.append((current, command, outcome))
        current = outcome
    return made


@given(STEPS)
@settings(max_examples=400)
def test_versions_only_grow(steps: list[tuple[c.Command, int]]) -> None:
    for before, _, made in histories(steps):
        assert made.revision == (before.revision + 1 if before else 1)
        assert before is None or made.version > before.version
        assert before is None or made.incarnation - before.incarnation in (0, 1)


@given(STEPS)
@settings(max_examples=400)
def test_what_a_person_took_out_comes_back_only_by_a_persons_hand(steps: list[tuple[c.Command, int]]) -> None:
    """A heartbeat never brings a revoked or deleted service back, nor does the passing of time."""
    for before, command, made in histories(steps):
        if before and before.status not in LIVE and made.status in LIVE:
            assert isinstance(command, BY_HAND)
            assert made.status is S.PENDING
            assert before.cascade is Cascade.NONE
            assert made.incarnation == before.incarnation + (before.status is S.DELETED)


@given(STEPS)
@settings(max_examples=400)
def test_nobody_becomes_active_past_an_open_approval_or_an_unredeemed_token(
    steps: list[tuple[c.Command, int]],
) -> None:
    for before, command, made in histories(steps):
        if made.status is S.ACTIVE and (before is None or before.status is not S.ACTIVE):
            assert made.approval not in (Approval.REQUIRED, Approval.REJECTED)
            assert made.package is None or made.package.status is P.ACTIVATED
            assert isinstance(command, c.Heartbeat | c.Override | c.Admit)


@given(STEPS)
@settings(max_examples=400)
def test_the_package_fits_the_service(steps: list[tuple[c.Command, int]]) -> None:
    for _, _, made in histories(steps):
        assert len(made.earlier_packages) <= EARLIER_PACKAGES_KEPT
        assert all(p.status not in LIVE_PACKAGE for p in made.earlier_packages), "one token is alive at most"
        packages = [p for p in (made.package, *made.earlier_packages) if p]
        generations = [p.generation for p in packages]
        assert generations == sorted(set(generations), reverse=True)
        if made.status not in LIVE:
            assert made.package is None or made.package.status not in LIVE_PACKAGE
        if made.package and made.package.status is P.ACTIVATED:
            assert made.package.delivered_at is not None
        assert made.package is None or made.package.status is not P.SUPERSEDED


STATUS_SAID: dict[EventType, set[ServiceStatus]] = {
    E.REGISTERED: {S.PENDING, S.ACTIVE},
    E.ISSUED: {S.PENDING},
    E.DELIVERED: {S.PENDING},
    E.ACTIVATED: {S.ACTIVE},
    E.FIRST_HEARD: {S.ACTIVE},
    E.DEACTIVATED: {S.INACTIVE},
    E.REACTIVATED: {S.ACTIVE},
    E.REVOKED: {S.REVOKED},
    E.EXPIRED: {S.PENDING},
    E.PENDING_EXPIRED: {S.REVOKED},
    E.REISSUED: {S.PENDING},
    E.ARCHIVED: {S.REVOKED},
    E.DELETED: {S.DELETED},
    E.STATUS_OVERRIDE: {S.ACTIVE, S.INACTIVE, S.REVOKED},
    E.APPROVED: {S.PENDING},
    E.REJECTED: {S.PENDING},
    E.ADOPTED: {S.PENDING, S.ACTIVE, S.INACTIVE},
    E.WITHDRAWN: {S.DELETED},
    E.CASCADE_COMPLETED: {S.REVOKED, S.DELETED},
    E.CLOSED_TO_CHILDREN: set(LIVE),
    E.OPENED_TO_CHILDREN: set(LIVE),
    E.ANSWER_ERASED: {S.ACTIVE, S.INACTIVE},
    E.PACKAGE_DELETED: set(S),
}
CHANGE_NOTHING = {
    E.EXPIRED,
    E.DELIVERED,
    E.APPROVED,
    E.REJECTED,
    E.ADOPTED,
    E.FIRST_HEARD,
    E.CASCADE_COMPLETED,
    E.CLOSED_TO_CHILDREN,
    E.OPENED_TO_CHILDREN,
    E.ANSWER_ERASED,
    E.PACKAGE_DELETED,
}


@given(STEPS)
@settings(max_examples=400)
def test_events_explain_the_status(steps: list[tuple[c.Command, int]]) -> None:
    for before, _, made in histories(steps):
        events = made.transition.events
        assert events, "every change says what it was"
        assert all(made.status in STATUS_SAID[event] for event in events)
        assert (made.transition.from_status, made.transition.to_status) == (
            before.status if before else None,
            made.status,
        )
        if set(events) <= CHANGE_NOTHING:
            assert before is not None
            assert before.status is made.status


@given(STEPS)
@settings(max_examples=200)
def test_event_ids_never_repeat(steps: list[tuple[c.Command, int]]) -> None:
    ids = [event.event_id for _, _, made in histories(steps) for event in events_of(made)]
    assert len(ids) == len(set(ids))


@given(STEPS)
@settings(max_examples=200)
def test_first_seen_never_moves_within_an_incarnation(steps: list[tuple[c.Command, int]]) -> None:
    for before, _, made in histories(steps):
        if before and before.first_seen and before.incarnation == made.incarnation:
            assert made.first_seen == before.first_seen
            assert made.first_registered == before.first_registered


@given(STEPS)
@settings(max_examples=200)
def test_whatever_is_made_can_be_stored_and_shown(steps: list[tuple[c.Command, int]]) -> None:
    for _, _, made in histories(steps):
        assert decode_record(encode_record(made)) == made
        assert len(package_rows(made)) == len([p for p in (made.package, *made.earlier_packages) if p])
        document = render(made, [], default_interval=30)
        assert decode_document(encode_document(document)) == document
        assert has_document(made) is (made.status is not S.DELETED)


@given(STEPS, st.timedeltas(timedelta(0), DAY * 40))
@settings(max_examples=200)
def test_asking_twice_changes_once(steps: list[tuple[c.Command, int]], later: timedelta) -> None:
    """A revocation, an approval or an expiry that is repeated is no second change."""
    for _, command, made in histories(steps):
        if isinstance(
            command, c.Revoke | c.Approve | c.Reject | c.FinishCascade | c.ExpirePackage | c.Override
        ):
            assert step(made, command, context(NOW + later)) is made
