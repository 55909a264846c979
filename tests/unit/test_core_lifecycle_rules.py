"""What the matrix cannot say in a cell: who may redeem twice, what a reissue keeps, what is made anew."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from jetway.core import commands as c
from jetway.core.errors import Code
from jetway.core.ids import Lineage, ServiceType
from jetway.core.lifecycle import step
from jetway.core.record import (
    EARLIER_PACKAGES_KEPT,
    Approval,
    Cascade,
    EventType,
    PackageStatus,
    ServiceRecord,
    ServiceStatus,
    Source,
    decode_record,
    encode_record,
)
from support.builders import (
    DAY,
    LINEAGES,
    NEW_PACKAGE_ID,
    NOW,
    PACKAGE_ID,
    after,
    context,
    moved_to,
    new_package,
    package,
    record,
    refusal,
    spec,
    uid,
)

AGENT = ServiceType.AGENT
S, P = ServiceStatus, PackageStatus
KEYS, OTHER_KEYS = "a" * 64, "b" * 64


def issued(**changes: object) -> ServiceRecord:
    return record(AGENT, S.PENDING, package=package(P.ISSUED, **changes))


def redeem(keys: str = "", hostname: str = "edge-1", package_id: str = PACKAGE_ID) -> c.Redeem:
    return c.Redeem(package_id=package_id, bound_keys=keys, hostname=hostname)


# --- redeeming


def test_a_redemption_says_when_and_to_whom_and_binds_the_keys() -> None:
    delivered = after(issued(), redeem(KEYS), context(NOW + timedelta(microseconds=4321))).package
    assert delivered is not None
    assert delivered.status is P.DELIVERED
    assert delivered.delivered_at == NOW + timedelta(milliseconds=4)
    assert delivered.delivered_to == "edge-1 (192.0.2.9)"
    assert delivered.bound_keys == KEYS


@pytest.mark.parametrize(
    ("hostname", "address", "shown"),
    [("edge-1", "", "edge-1"), ("", "192.0.2.9", "192.0.2.9"), ("", "", "unknown")],
)
def test_a_redeemer_is_named_by_what_is_known_of_it(hostname: str, address: str, shown: str) -> None:
    delivered = after(issued(), redeem(hostname=hostname), context(source_ip=address))
    assert delivered.package is not None
    assert delivered.package.delivered_to == shown


def test_the_same_keys_may_ask_again_and_nothing_changes() -> None:
    delivered = after(issued(), redeem(KEYS))
    assert step(delivered, redeem(KEYS, hostname="renamed"), context(NOW + timedelta(hours=23))) is delivered


def test_other_keys_are_refused_and_told_who_was_first() -> None:
    delivered = after(issued(), redeem(KEYS))
    refused = refusal(delivered, redeem(OTHER_KEYS))
    assert refused.code is Code.ALREADY_REDEEMED
    assert "edge-1 (192.0.2.9)" in refused.why
    assert "2026-03-04T05:06:07" in refused.why


def test_without_keys_nobody_may_ask_again() -> None:
    """An installer without a key gets its credentials once."""
    delivered = after(issued(), redeem())
    assert refusal(delivered, redeem()).code is Code.ALREADY_REDEEMED
    assert refusal(delivered, redeem(KEYS)).code is Code.ALREADY_REDEEMED


def test_keys_cannot_be_dropped_on_the_second_time() -> None:
    assert refusal(after(issued(), redeem(KEYS)), redeem()).code is Code.ALREADY_REDEEMED


def test_a_retry_ends_with_the_tokens_time() -> None:
    delivered = after(issued(), redeem(KEYS))
    assert refusal(delivered, redeem(KEYS), context(NOW + DAY)).code is Code.EXPIRED
    assert step(delivered, redeem(KEYS), context(NOW + DAY - timedelta(milliseconds=1))) is delivered


def test_a_retry_ends_when_the_service_is_active() -> None:
    active = after(after(issued(), redeem(KEYS)), c.Heartbeat(lineage=LINEAGES[AGENT]))
    assert refusal(active, redeem(KEYS)).code is Code.ALREADY_REDEEMED


def test_a_token_is_good_until_its_last_millisecond() -> None:
    until = issued(token_expires_at=NOW)
    assert after(until, redeem(), context(NOW - timedelta(milliseconds=1))).package.status is P.DELIVERED
    assert refusal(until, redeem(), context(NOW)).code is Code.EXPIRED


def test_expiry_and_redemption_agree_to_the_millisecond() -> None:
    until, last = issued(token_expires_at=NOW), context(NOW - timedelta(milliseconds=1))
    assert step(until, c.ExpirePackage(), last) is until
    assert after(until, c.ExpirePackage(), context(NOW)).package.status is P.EXPIRED


@pytest.mark.parametrize(
    "start", [issued(), record(AGENT, S.PENDING, package=package(P.DELIVERED, bound_keys=KEYS))]
)
def test_a_reissue_kills_the_old_token_at_once(start: ServiceRecord) -> None:
    reissued = after(start, c.Reissue(package=new_package()))
    assert refusal(reissued, redeem(KEYS)).code is Code.SUPERSEDED
    assert after(reissued, redeem(KEYS, package_id=NEW_PACKAGE_ID)).package.status is P.DELIVERED


def test_a_package_of_another_service_is_unknown() -> None:
    assert refusal(issued(), redeem(package_id=uid(999))).code is Code.TOKEN_UNKNOWN


def test_a_token_spent_by_an_earlier_incarnation_stays_dead() -> None:
    """A spent token does not come alive again after its service was deleted and made anew."""
    deleted = record(AGENT, S.DELETED, package=package(P.REVOKED))
    again = after(deleted, c.Issue(spec=spec(), package=new_package()))
    assert refusal(again, redeem(KEYS)).code is Code.REVOKED


# --- being heard


@pytest.mark.parametrize(
    "lineage",
    [
        Lineage(AGENT, "p2", "a1"),
        Lineage(ServiceType.POLLER, "a1"),
        Lineage(ServiceType.CHECKER, "p1", "a0", "a1"),
    ],
)
@pytest.mark.parametrize("status", [S.PENDING, S.ACTIVE, S.INACTIVE])
def test_a_heartbeat_under_other_parents_is_refused(status: ServiceStatus, lineage: Lineage) -> None:
    assert refusal(record(AGENT, status), c.Heartbeat(lineage=lineage)).code is Code.WRONG_PARENTS


def test_first_seen_is_the_first_heartbeat_and_not_the_registration() -> None:
    """Registration does not set first_seen, and nothing moves it later."""
    created = after(None, c.Register(spec=spec()))
    assert created.first_seen is None
    heard = after(created, c.Heartbeat(lineage=LINEAGES[AGENT]), context(NOW + DAY))
    assert heard.first_seen == NOW + DAY
    silent = after(heard, c.Deactivate(), context(NOW + 2 * DAY))
    back = after(silent, c.Heartbeat(lineage=LINEAGES[AGENT]), context(NOW + 3 * DAY))
    assert (back.status, back.first_seen) == (S.ACTIVE, NOW + DAY)


def test_a_heartbeat_remembers_from_where_a_package_was_activated() -> None:
    start = record(AGENT, S.PENDING, package=package(P.DELIVERED))
    activated = after(start, c.Heartbeat(lineage=LINEAGES[AGENT]), context(source_ip="198.51.100.4")).package
    assert (activated.activated_at, activated.activated_from) == (NOW, "198.51.100.4")


def test_an_inactive_service_that_is_heard_again_is_active_without_its_reason() -> None:
    """Inactive services become active again."""
    silent = after(record(AGENT, S.ACTIVE), c.Deactivate(silent_since=NOW - DAY))
    assert silent.status_reason == "silent since 2026-03-03T05:06:07+00:00"
    assert after(silent, c.Heartbeat(lineage=LINEAGES[AGENT])).status_reason == ""


# --- being taken out


def test_the_reason_tells_an_archived_service_from_a_revoked_one() -> None:
    """Archiving is not to be taken for a security revocation."""
    archived = after(record(AGENT, S.INACTIVE), c.Archive())
    revoked = after(record(AGENT, S.INACTIVE), c.Revoke(reason="stolen"))
    expired = after(record(AGENT, S.PENDING), c.ExpirePending())
    assert [r.status_reason for r in (archived, revoked, expired)] == [
        "archived",
        "stolen",
        "pending_expired",
    ]
    assert {r.status for r in (archived, revoked, expired)} == {S.REVOKED}


def test_a_revoked_package_says_when_and_an_expired_one_does_not() -> None:
    revoked = after(issued(), c.Revoke()).package
    expired = after(issued(), c.ExpirePending()).package
    assert (revoked.revoked_at, expired.revoked_at) == (NOW, None)


def test_a_cascaded_revocation_names_the_parent_it_follows() -> None:
    taken = after(record(AGENT, S.ACTIVE), c.Revoke(because_of="poller.p1"))
    assert taken.transition.metadata == {"because_of": "poller.p1"}


def test_a_cascade_passes_by_a_service_that_was_made_anew_beneath_another_parent() -> None:
    elsewhere = moved_to(record(AGENT, S.ACTIVE), "p2")
    assert after(elsewhere, c.Revoke(because_of="poller.p1")) is elsewhere


@pytest.mark.parametrize("status", [S.PENDING, S.REVOKED])
def test_whoever_means_a_superseded_package_does_not_hit_the_new_one(status: S) -> None:
    followed = replace(after(issued(), c.Reissue(package=new_package())), status=status)
    assert refusal(followed, c.Revoke(package_id=PACKAGE_ID)).code is Code.SUPERSEDED
    assert after(followed, c.Revoke(package_id=NEW_PACKAGE_ID)).status is S.REVOKED


@pytest.mark.parametrize(
    ("kind", "count", "said"),
    [(ServiceType.POLLER, 1, "1 live agent:"), (AGENT, 2, "2 live checkers:")],
)
@pytest.mark.parametrize(
    "command",
    [c.Revoke, c.Delete, lambda **k: c.Override(status=S.REVOKED, **k)],
    ids=["revoke", "delete", "override"],
)
def test_without_cascade_live_children_forbid_it(
    command: object, kind: ServiceType, count: int, said: str
) -> None:
    start = record(kind, S.INACTIVE)
    refused = refusal(start, command(cascade=False, live_children=count))  # type: ignore[operator]
    assert refused.code is Code.CHILDREN_LIVE
    assert said in refused.why
    assert after(start, command(cascade=False, live_children=0)).cascade is Cascade.RUNNING  # type: ignore[operator]


@pytest.mark.parametrize(
    "command",
    [c.Issue(spec=spec(), package=new_package()), c.Register(spec=spec())],
    ids=["issue", "register"],
)
def test_an_id_cannot_be_used_again_while_the_cascade_beneath_it_runs(command: c.Command) -> None:
    """Else the new service would stand above children that nobody revokes any more."""
    deleted = after(record(AGENT, S.REVOKED), c.Delete())
    refused = refusal(deleted, command)
    assert refused.code is Code.ILLEGAL_TRANSITION
    assert "try again" in refused.why
    assert after(after(deleted, c.FinishCascade()), command).status is S.PENDING


def test_deleting_a_package_keeps_the_others() -> None:
    start = record(
        AGENT,
        S.REVOKED,
        package=package(P.REVOKED),
        earlier_packages=(
            package(P.EXPIRED, package_id=uid(11)),
            package(P.SUPERSEDED, package_id=uid(12)),
        ),
    )
    gone = after(start, c.DeletePackage(package_id=uid(11)))
    assert gone.earlier_packages[0].deleted_at == NOW
    assert gone.earlier_packages[1:] == start.earlier_packages[1:]
    assert gone.package == start.package
    assert gone.transition.metadata == {"deleted_package_id": uid(11)}
    assert refusal(gone, c.DeletePackage(package_id=uid(11))).code is Code.NOT_FOUND
    assert refusal(gone, c.DeletePackage(package_id=uid(12))).code is Code.ILLEGAL_TRANSITION


# --- coming back


def test_a_reissue_supersedes_the_live_package_and_counts_generations() -> None:
    first = after(None, c.Issue(spec=spec(), package=new_package(PACKAGE_ID)))
    second = after(first, c.Reissue(package=new_package(), reason="lost"))
    assert second.package is not None
    assert (first.package.generation, second.package.generation) == (1, 2)
    assert [(p.package_id, p.status) for p in second.earlier_packages] == [(PACKAGE_ID, P.SUPERSEDED)]
    assert second.status_reason == "lost"


@pytest.mark.parametrize("status", [P.REVOKED, P.EXPIRED])
def test_a_reissue_leaves_an_ended_package_as_it_was(status: PackageStatus) -> None:
    reissued = after(record(AGENT, S.REVOKED, package=package(status)), c.Reissue(package=new_package()))
    assert [p.status for p in reissued.earlier_packages] == [status]


def test_a_reissue_says_whether_the_old_identity_ends_at_once() -> None:
    reissued = after(issued(), c.Reissue(package=new_package(), revoke_now=True))
    assert reissued.transition.metadata["revoke_now"] is True


def test_a_reissued_service_is_not_active_before_the_new_token_is_redeemed() -> None:
    active = record(AGENT, S.INACTIVE, package=package(P.ACTIVATED))
    reissued = after(active, c.Reissue(package=new_package()))
    assert refusal(reissued, c.Heartbeat(lineage=LINEAGES[AGENT])).code is Code.NOT_DELIVERED


def test_a_record_keeps_a_bounded_number_of_earlier_packages_the_newest_first() -> None:
    current = after(None, c.Issue(spec=spec(), package=new_package(uid(100))))
    for number in range(101, 101 + EARLIER_PACKAGES_KEPT + 3):
        current = after(current, c.Reissue(package=new_package(uid(number))))
    ids = [p.package_id for p in current.earlier_packages]
    assert ids == [uid(number) for number in range(118, 118 - EARLIER_PACKAGES_KEPT, -1)]
    assert current.package is not None
    assert current.package.generation == EARLIER_PACKAGES_KEPT + 4


def test_a_new_incarnation_goes_on_counting_and_begins_everything_else_anew() -> None:
    old = record(
        AGENT,
        S.DELETED,
        revision=9,
        incarnation=2,
        first_seen=NOW - DAY,
        status_reason="gone",
        label="Old",
        metadata={"owner": "x"},
        package=package(P.REVOKED, generation=5),
        registration_source=Source.IMPLICIT,
        approval=Approval.REJECTED,
    )
    new = after(old, c.Issue(spec=spec(label="New"), package=new_package()))
    assert (new.revision, new.incarnation, new.label, new.metadata) == (10, 3, "New", {})
    assert (new.first_seen, new.first_registered, new.status_reason) == (None, NOW, "")
    assert (new.registration_source, new.approval) == (Source.EDGE_ONBOARDING, Approval.NONE)
    assert new.package is not None
    assert new.package.generation == 6
    assert new.find_package(PACKAGE_ID) == old.package
    assert new.transition.from_status is S.DELETED


def test_a_registration_over_a_deleted_id_keeps_earlier_packages_readable() -> None:
    new = after(record(AGENT, S.DELETED, package=package(P.REVOKED)), c.Register(spec=spec()))
    assert new.package is None
    assert new.find_package(PACKAGE_ID) is not None
    following = after(after(new, c.Revoke()), c.FinishCascade())
    assert after(following, c.Reissue(package=new_package())).package.generation == 2


def test_explicit_registration_improves_the_provenance_of_a_service_that_registered_itself() -> None:
    """Explicit registration after an implicit one is not refused."""
    lineage = LINEAGES[AGENT]
    implicit = after(None, c.Admit(lineage=lineage, approval_required=True, heard=True))
    assert implicit.first_seen == NOW
    adopted = after(implicit, c.Register(spec=spec(label="Known now", site="B", metadata={"owner": "ops"})))
    assert (adopted.registration_source, adopted.approval) == (Source.CONFIG, Approval.GRANTED)
    assert (adopted.label, adopted.site, adopted.first_seen) == ("Known now", "B", NOW)
    assert (adopted.metadata, adopted.transition.metadata) == ({"owner": "ops"}, {})
    assert adopted.transition.events == (EventType.ADOPTED,)


@pytest.mark.parametrize(
    "command",
    [
        c.Issue(spec=spec(parent_id="p2", poller_id="p2"), package=new_package()),
        c.Register(spec=spec(parent_id="p2", poller_id="p2")),
    ],
    ids=["issue", "register"],
)
def test_a_service_that_registered_itself_is_not_moved_by_adopting_it(command: c.Command) -> None:
    implicit = after(None, c.Admit(lineage=LINEAGES[AGENT], approval_required=True, heard=True))
    refused = refusal(implicit, command)
    assert (refused.code, refused.field) == (Code.TAKEN, "parent_id")


def test_an_override_to_active_needs_a_redeemed_package() -> None:
    assert refusal(issued(), c.Override(status=S.ACTIVE)).code is Code.ILLEGAL_TRANSITION
    delivered = record(AGENT, S.PENDING, package=package(P.DELIVERED))
    active = after(delivered, c.Override(status=S.ACTIVE, reason="by hand"))
    assert active.package is not None
    assert active.package.activated_at == NOW
    assert (active.first_seen, active.status_reason) == (None, "by hand")


def test_a_taken_ids_refusal_says_in_what_state_it_is() -> None:
    refused = refusal(record(AGENT, S.ACTIVE), c.Register(spec=spec()))
    assert (refused.code, refused.field) == (Code.TAKEN, "component_id")
    assert "'a1'" in refused.why
    assert "active" in refused.why


def test_times_that_come_in_are_cut_to_milliseconds_in_utc() -> None:
    created = after(
        None, c.Issue(spec=spec(), package=new_package(token_expires_at=NOW + timedelta(microseconds=7)))
    )
    assert created.package is not None
    assert created.package.token_expires_at == NOW
    assert decode_record(encode_record(created)) == created


def test_a_record_survives_its_own_encoding_in_every_field() -> None:
    full = record(
        ServiceType.CHECKER,
        S.INACTIVE,
        labels={"rack": "12"},
        metadata={"deep": {"list": [1, 2.5, None, True, "ü"]}},
        checker_config={"a": []},
        heartbeat_interval_seconds=5,
        package=package(P.ACTIVATED, notes="n"),
        earlier_packages=(package(P.SUPERSEDED, package_id=uid(3)),),
        cascade=Cascade.RUNNING,
    )
    assert decode_record(encode_record(full)) == full
    assert decode_record(encode_record(replace(full, revision=4))) != full
