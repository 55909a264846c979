"""Identities: part of the record, ended with it, and never believed again."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from jetway.core import commands as c
from jetway.core.identity import (
    FORMER_KEYS_KEPT,
    Identity,
    erase_answer,
    must_be_kept,
    revoke_identity,
    revoked_certificates,
    revoked_nats_keys,
    spiffe_id,
)
from jetway.core.ids import ServiceType
from jetway.core.lifecycle import step
from jetway.core.record import (
    Approval,
    EventType,
    PackageStatus,
    ServiceRecord,
    ServiceStatus,
    Source,
    decode_record,
    encode_record,
)
from jetway.core.transitions.renewing import CERTIFICATES_AT_ONCE
from support.builders import (
    DAY,
    LINEAGES,
    NATS_KEY,
    NEW_PACKAGE_ID,
    NOW,
    PACKAGE_ID,
    after,
    certificate,
    context,
    identity,
    new_package,
    package,
    record,
    refusal,
    spec,
    uid,
)

AGENT, S, P = ServiceType.AGENT, ServiceStatus, PackageStatus
OTHER_KEY = "UCNIPHKRUC4GYNMXXUW7WEULFBPM4OYKEKZUJ4DPPBPPQRAVH6JKSH3Q"


def issued(**changes: object) -> ServiceRecord:
    return record(AGENT, S.PENDING, package=package(P.ISSUED), **changes)


def delivered(**changes: object) -> ServiceRecord:
    return record(AGENT, S.PENDING, **({"package": package(P.DELIVERED), "identity": identity()} | changes))


def active(**changes: object) -> ServiceRecord:
    return after(delivered(**changes), c.Heartbeat(lineage=LINEAGES[AGENT]))


def redeem(**changes: object) -> c.Redeem:
    return c.Redeem(package_id=PACKAGE_ID, hostname="edge-1", identity=identity(**changes))


def test_a_redemption_stores_the_identity_with_what_spends_the_token() -> None:
    made = after(issued(), redeem(server_made=True))
    assert made.identity == identity(server_made=True)
    assert made.package is not None
    assert (made.package.status, made.package.server_made) == (P.DELIVERED, True)
    assert made.spiffe_identity == "spiffe://jetway/agent/p1/a1"
    assert made.transition.metadata == {
        "hostname": "edge-1",
        "nats_public_key": NATS_KEY,
        "server_made": True,
        "certificate_serial": certificate().serial,
        "certificate_sha256": certificate().sha256,
    }


def test_a_name_that_a_person_gave_stays() -> None:
    assert after(issued(spiffe_identity="spiffe://own/x"), redeem()).spiffe_identity == "spiffe://own/x"


def test_records_of_before_decode_and_new_ones_come_back_as_they_were() -> None:
    made = after(issued(), redeem())
    assert decode_record(encode_record(made)) == made
    old = encode_record(record()).replace(b'"identity":null,"revoked_identities":[],', b"")
    assert b"identities" not in old
    assert decode_record(old) == record()


@pytest.mark.parametrize(
    "command", [c.Heartbeat(lineage=LINEAGES[AGENT]), c.Override(status=S.ACTIVE, reason="by hand")]
)
def test_an_activation_erases_what_was_kept_for_a_retry(command: c.Command) -> None:
    kept = after(delivered(), command).identity
    assert kept == erase_answer(identity())
    assert kept is not None
    assert (kept.nats_jwt, kept.certificate_pem, kept.sealed_seed) == ("", "", "")
    assert (kept.nats_public_key, kept.certificates) == (NATS_KEY, (certificate(),))


def test_a_reissue_erases_it_too_as_nobody_may_retry() -> None:
    assert after(delivered(), c.Reissue(package=new_package())).identity == erase_answer(identity())


ENDS = {
    "revoke": (active(), c.Revoke(reason="stolen")),
    "override": (active(), c.Override(status=S.REVOKED, reason="stolen")),
    "delete": (after(active(), c.Deactivate()), c.Delete(reason="old")),
    "archive": (after(active(), c.Deactivate()), c.Archive()),
    "expire": (delivered(), c.ExpirePending()),
    "withdraw": (delivered(), c.Withdraw(reason="no parent")),
    "reissue now": (after(active(), c.Deactivate()), c.Reissue(package=new_package(), revoke_now=True)),
    "reject": (
        delivered(approval=Approval.REQUIRED, registration_source=Source.IMPLICIT),
        c.Reject(reason="who is it"),
    ),
}


@pytest.mark.parametrize("end", ENDS)
def test_whatever_takes_the_service_out_ends_its_identity(end: str) -> None:
    start, command = ENDS[end]
    later = NOW + timedelta(minutes=1)
    ended = after(start, command, context(later))
    assert ended.identity is None
    assert ended.revoked_identities == (revoke_identity(identity(), later),)
    assert revoked_nats_keys([ended], later) == {NATS_KEY: later}
    assert [each.serial for each in revoked_certificates([ended], later)] == [certificate().serial]
    assert must_be_kept(ended, later)


def test_a_reissue_leaves_the_identity_until_the_new_package_is_redeemed() -> None:
    reissued = after(after(active(), c.Deactivate()), c.Reissue(package=new_package()))
    assert reissued.identity is not None
    assert revoked_nats_keys([reissued], NOW) == {}
    new = identity(package_id=NEW_PACKAGE_ID, nats_public_key=OTHER_KEY, certificates=(certificate(2),))
    redeemed = after(reissued, c.Redeem(package_id=NEW_PACKAGE_ID, identity=new))
    assert redeemed.identity == new
    assert [each.nats_public_key for each in redeemed.revoked_identities] == [NATS_KEY]


@pytest.mark.parametrize(
    ("mine", "field"),
    [
        ({"nats_public_key": NATS_KEY, "certificates": ()}, "nats_public_key"),
        ({"nats_public_key": OTHER_KEY, "certificates": (certificate(1, serial="ab"),)}, "csr_pem"),
    ],
)
@pytest.mark.parametrize("now", [True, False])
def test_a_key_of_an_earlier_identity_is_refused(mine: dict[str, object], field: str, now: bool) -> None:
    """Its credentials were revoked by the key: the new ones would be as dead, or the old ones as alive."""
    start = after(after(active(), c.Deactivate()), c.Reissue(package=new_package(), revoke_now=now))
    command = c.Redeem(package_id=NEW_PACKAGE_ID, identity=identity(package_id=NEW_PACKAGE_ID, **mine))
    refused = refusal(start, command)
    assert (refused.code, refused.field) == ("key_used_before", field)


def test_what_has_expired_by_itself_is_forgotten_with_the_next_revision() -> None:
    revoked = after(active(), c.Revoke(reason="stolen"))
    later = NOW + 31 * DAY
    assert not must_be_kept(revoked, later)
    assert revoked_nats_keys([revoked], later) == {}
    assert revoked_certificates([revoked], later) == []
    assert after(revoked, c.FinishCascade(), context(NOW)).revoked_identities == revoked.revoked_identities
    assert after(revoked, c.FinishCascade(), context(later)).revoked_identities == ()


def test_of_a_renewed_identity_everything_is_revoked_that_has_not_expired() -> None:
    renewal = c.Renew(
        nats_public_key=NATS_KEY,
        nats_expires_at=NOW + 50 * DAY,
        certificate=certificate(2, expires_at=NOW + 50 * DAY),
    )
    renewed = after(active(), renewal, context(NOW + 20 * DAY))
    revoked = after(renewed, c.Revoke(), context(NOW + 21 * DAY))
    assert len(revoked_certificates([revoked], NOW + 21 * DAY)) == 2
    assert len(revoked_certificates([revoked], NOW + 31 * DAY)) == 1
    assert revoked_nats_keys([revoked], NOW + 49 * DAY) == {NATS_KEY: NOW + 21 * DAY}


def test_a_new_incarnation_remembers_what_was_revoked() -> None:
    deleted = after(after(after(active(), c.Revoke()), c.FinishCascade()), c.Delete())
    anew = after(after(deleted, c.FinishCascade()), c.Issue(spec=spec(), package=new_package()))
    assert (anew.incarnation, anew.identity) == (2, None)
    assert revoked_nats_keys([anew], NOW) == {NATS_KEY: NOW}
    again = c.Redeem(package_id=NEW_PACKAGE_ID, identity=identity(package_id=NEW_PACKAGE_ID))
    assert refusal(anew, again).code == "key_used_before"


def test_without_anything_that_could_be_used_nothing_has_to_be_remembered() -> None:
    bare = identity(nats_expires_at=None, certificates=())
    assert after(delivered(identity=bare), c.Revoke()).revoked_identities == ()


# --- renewing


def test_a_renewal_changes_dates_and_keeps_who_it_is() -> None:
    later = NOW + 20 * DAY
    renewed = after(
        active(), c.Renew(nats_public_key=NATS_KEY, nats_expires_at=later + 30 * DAY), context(later)
    )
    before = active().identity
    assert before is not None
    assert renewed.identity == replace(before, nats_expires_at=later + 30 * DAY, proven=True)
    assert renewed.transition.events == (EventType.RENEWED,)
    assert renewed.revoked_identities == ()


def test_a_credential_that_outlives_its_renewal_stays_revoked_until_it_has_ended() -> None:
    """The lifetime was made shorter, or the clock was set back: the earlier one is good for longer."""
    long = active().identity
    assert long is not None and long.nats_expires_at is not None
    shorter = c.Renew(nats_public_key=NATS_KEY, nats_expires_at=NOW + DAY)
    revoked = after(after(active(), shorter), c.Revoke())
    last = long.nats_expires_at - DAY / 2
    assert last > NOW + 2 * DAY
    assert set(revoked_nats_keys([revoked], last)) == {NATS_KEY}
    assert must_be_kept(revoked, last)


def test_a_renewed_certificate_stands_before_those_that_are_still_good() -> None:
    renewal = c.Renew(nats_public_key=NATS_KEY, certificate=certificate(2, expires_at=NOW + 60 * DAY))
    both = after(active(), renewal, context(NOW + 29 * DAY)).identity
    assert both is not None
    assert [each.serial for each in both.certificates] == [certificate(2).serial, certificate().serial]
    one = after(active(), renewal, context(NOW + 30 * DAY)).identity
    assert one is not None
    assert [each.serial for each in one.certificates] == [certificate(2).serial]


def test_certificates_at_once_are_bounded() -> None:
    held = tuple(certificate(n) for n in range(1, CERTIFICATES_AT_ONCE + 1))
    start = delivered(identity=identity(certificates=held))
    more = c.Renew(nats_public_key=NATS_KEY, certificate=certificate(99))
    assert refusal(start, more).code == "too_many_renewals"
    assert after(start, more, context(NOW + 30 * DAY)).identity is not None


@pytest.mark.parametrize("key", ["", OTHER_KEY])
def test_only_the_current_key_renews(key: str) -> None:
    assert refusal(active(), c.Renew(nats_public_key=key)).code == "proof_invalid"
    assert refusal(record(AGENT, S.ACTIVE), c.Renew(nats_public_key=key)).code == "proof_invalid"


def test_a_replaced_key_does_not_renew_the_one_that_replaced_it() -> None:
    start = after(after(active(), c.Deactivate()), c.Reissue(package=new_package(), revoke_now=True))
    assert refusal(start, c.Renew(nats_public_key=NATS_KEY)).code == "revoked"
    assert refusal(start, c.Renew(nats_public_key=OTHER_KEY)).code == "proof_invalid"
    reused = c.Renew(nats_public_key=OTHER_KEY, certificate=certificate())
    new = replace(start, identity=identity(nats_public_key=OTHER_KEY, certificates=()))
    assert refusal(new, reused).code == "key_used_before"


def test_a_secret_is_sealed_anew_only_where_it_is_the_one_that_was_meant() -> None:
    start = delivered()
    resealed = after(start, c.Reseal(sealed_before="v1.key.sealed", sealed_after="v2"))
    assert resealed.identity == identity(sealed_seed="v2")
    assert after(start, c.Reseal(sealed_before="another", sealed_after="v2")) is start


def test_names_of_services() -> None:
    names = [spiffe_id("td.example", lineage) for lineage in LINEAGES.values()]
    assert names == [
        "spiffe://td.example/poller/p1",
        "spiffe://td.example/agent/p1/a1",
        "spiffe://td.example/checker/p1/a1/c1",
    ]


# --- keys of before


def bare_identity(**changes: object) -> Identity:
    """Nothing was issued for its keys, as on an open server."""
    return identity(nats_expires_at=None, certificates=(), **changes)


@pytest.mark.parametrize("days", [0, 40])
@pytest.mark.parametrize("start", [identity(), bare_identity()], ids=["issued", "bare"])
def test_a_revoked_key_is_never_taken_again(start: Identity, days: int) -> None:
    """Not when its credentials have expired, nor where none were issued, nor by a new incarnation."""
    later = context(NOW + days * DAY)
    revoked = after(delivered(identity=start), c.Revoke(reason="stolen"))
    ended = after(revoked, c.FinishCascade(), later)
    package = new_package(token_expires_at=NOW + 90 * DAY)
    for anew in (
        after(ended, c.Reissue(package=package), later),
        after(
            after(after(ended, c.Delete(), later), c.FinishCascade(), later),
            c.Issue(spec=spec(), package=package),
            later,
        ),
    ):
        command = c.Redeem(package_id=NEW_PACKAGE_ID, identity=identity(package_id=NEW_PACKAGE_ID))
        assert refusal(anew, command, later).field == "nats_public_key"


def test_a_revoked_certificates_key_is_never_taken_again() -> None:
    later = context(NOW + 40 * DAY)
    ended = after(after(active(), c.Revoke(), context()), c.FinishCascade(), later)
    anew = after(ended, c.Reissue(package=new_package(token_expires_at=NOW + 90 * DAY)), later)
    mine = identity(
        package_id=NEW_PACKAGE_ID, nats_public_key=OTHER_KEY, certificates=(certificate(1, serial="ab"),)
    )
    assert refusal(anew, c.Redeem(package_id=NEW_PACKAGE_ID, identity=mine), later).field == "csr_pem"
    other = replace(mine, certificates=(certificate(7),))
    renewed = after(anew, c.Redeem(package_id=NEW_PACKAGE_ID, identity=other), later)
    command = c.Renew(nats_public_key=OTHER_KEY, certificate=certificate(1, serial="cd"))
    assert refusal(renewed, command, later).code == "key_used_before"


def test_former_keys_are_bounded_and_the_newest_stay() -> None:
    current = issued()
    for number in range(FORMER_KEYS_KEPT + 5):
        mine = identity(nats_public_key=f"U{number}", certificates=(), nats_expires_at=None)
        current = after(current, c.Redeem(package_id=current.package.package_id, identity=mine))  # type: ignore[union-attr]
        current = after(current, c.Reissue(package=new_package(uid(5000 + number)), revoke_now=True))
    assert len(current.former_keys) == FORMER_KEYS_KEPT
    assert current.former_keys[0] == f"U{FORMER_KEYS_KEPT + 4}"
    assert decode_record(encode_record(current)) == current


# --- the host of before


def redeemed_anew(**changes: object) -> ServiceRecord:
    """Another host redeems the package that was issued after the first one's."""
    start = after(after(active(), c.Deactivate()), c.Reissue(package=new_package()))
    mine = identity(package_id=NEW_PACKAGE_ID, nats_public_key=OTHER_KEY, certificates=(certificate(7),))
    return after(
        start, c.Redeem(package_id=NEW_PACKAGE_ID, bound_keys="new", identity=replace(mine, **changes))
    )  # type: ignore[arg-type]


RETRY = c.Redeem(package_id=NEW_PACKAGE_ID, bound_keys="new")


def test_a_heartbeat_of_the_old_host_does_not_keep_the_new_one_from_asking_again() -> None:
    heard = after(redeemed_anew(), c.Heartbeat(lineage=LINEAGES[AGENT]))
    assert heard.status is S.ACTIVE
    assert step(heard, RETRY, context()) is heard
    assert heard.identity == redeemed_anew().identity, "the answer is kept"
    others = replace(RETRY, bound_keys="other")
    assert refusal(heard, others).code == "already_redeemed"
    assert refusal(heard, replace(RETRY, bound_keys="")).code == "already_redeemed"


def test_who_has_renewed_needs_no_retry() -> None:
    heard = after(redeemed_anew(), c.Heartbeat(lineage=LINEAGES[AGENT]))
    renewed = after(heard, c.Renew(nats_public_key=OTHER_KEY, nats_expires_at=NOW + 50 * DAY))
    assert renewed.identity == erase_answer(renewed.identity)
    assert refusal(renewed, RETRY).code == "already_redeemed"


def test_with_the_tokens_time_the_answer_goes() -> None:
    later = context(NOW + 2 * DAY)
    heard = after(redeemed_anew(), c.Heartbeat(lineage=LINEAGES[AGENT]))
    assert refusal(heard, RETRY, later).code == "already_redeemed"
    assert step(heard, c.ExpirePackage(), context()) is heard
    erased = after(heard, c.ExpirePackage(), later)
    assert erased.transition.events == (EventType.ANSWER_ERASED,)
    assert erased.identity == erase_answer(heard.identity)
    assert step(erased, c.ExpirePackage(), later) is erased


def test_what_was_erased_before_is_not_told_by_halves() -> None:
    heard = after(redeemed_anew(), c.Heartbeat(lineage=LINEAGES[AGENT]))
    erased = replace(heard, identity=erase_answer(heard.identity))
    assert refusal(erased, RETRY).code == "already_redeemed"
