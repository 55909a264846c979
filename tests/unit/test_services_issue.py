"""Issuing: one answer for one request, the parents looked up where it counts, nothing left half done."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest

from jetway.core import commands as c
from jetway.core.errors import Code, OutcomeUnknownError, RefusedError, UnavailableError
from jetway.core.ids import Lineage, ServiceKey, ServiceType, document_key
from jetway.core.record import Cascade, PackageStatus, ServiceRecord, ServiceStatus, Source
from jetway.services import issue, project
from jetway.services.caller import SYSTEM, Caller
from jetway.services.issue import NewPackageRequest
from support.builders import AGENT, CHECKER, LINEAGES, NOW, POLLER, uid
from support.house import ALICE, House, new_service, running_house

POLLER_LINEAGE, AGENT_LINEAGE, CHECKER_LINEAGE = LINEAGES.values()


@pytest.fixture
async def house() -> AsyncIterator[House]:
    async with running_house() as running:
        yield running


@pytest.fixture
def short_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers do not wait long for a stalled projector, nor a projector for its next try."""
    monkeypatch.setattr(issue, "PROJECTION_SECONDS", 0.01)
    monkeypatch.setattr(project, "_FIRST_BACKOFF", 0.0001)


async def refused(work: object) -> Code:
    with pytest.raises(RefusedError) as caught:
        await work  # type: ignore[misc]
    assert caught.value.refused.why
    return caught.value.refused.code


# --- creating


async def test_the_pending_document_and_row_are_there_before_the_answer(house: House) -> None:
    """Nothing is half created: document, row and record agree before the caller hears of it."""
    issued = await house.create()
    document, row = house.document(POLLER_LINEAGE), house.row(POLLER)
    assert document is not None
    assert row is not None
    assert (document["status"], document["revision"]) == ("pending", 1)
    assert (row.status, row.package_id) == ("pending", issued.package.package_id)
    assert house.database.packages[issued.package.package_id].status == "issued"
    assert issued.projection == {"document": "written", "row": "written"}


async def test_a_parents_document_lists_its_new_child(house: House) -> None:
    await house.create()
    await house.create(AGENT)
    document, row = house.document(POLLER_LINEAGE), house.row(POLLER)
    assert document is not None
    assert row is not None
    assert document["children"] == [{"type": "agent", "id": "a1"}]
    assert row.agent_count == 1


async def test_a_checkers_poller_counts_it_too(house: House) -> None:
    for key in (POLLER, AGENT, CHECKER):
        await house.create(key)
    row = house.row(POLLER)
    assert row is not None
    assert (row.agent_count, row.checker_count) == (1, 1)


@pytest.mark.parametrize(("stalled", "other"), [("rows", "document"), ("documents", "row")])
async def test_a_stalled_projection_is_queued_and_holds_back_neither_the_answer_nor_the_other(
    house: House, stalled: str, other: str
) -> None:
    await house.stall(stalled)
    issued = await house.create()
    mine = "row" if stalled == "rows" else "document"
    assert issued.projection == {mine: "queued", other: "written"}
    house.resume(stalled)
    await house.settle()
    assert house.row(POLLER) is not None
    assert house.document(POLLER_LINEAGE) is not None


@pytest.mark.usefixtures("short_wait")
async def test_a_database_that_is_away_is_a_lag_and_not_an_outage(house: House) -> None:
    for _ in range(5):
        house.database.fail_next("write_rows", UnavailableError("away"))
    await house.create()
    await house.settle()
    assert house.row(POLLER) is not None
    assert house.projections.rows.failing_since is None


async def test_with_the_ledger_away_nothing_is_created(house: House) -> None:
    house.ledger.fail_next("write", UnavailableError("away"))
    with pytest.raises(UnavailableError):
        await house.create()
    assert house.status(POLLER) == "-"
    assert (await house.create()).record.revision == 1


async def test_a_write_whose_answer_was_lost_is_not_made_twice(house: House) -> None:
    house.ledger.fail_next("write", OutcomeUnknownError("lost"), after_effect=True)
    issued = await house.create()
    assert issued.record.revision == 1
    assert house.ledger.writes == 1


async def test_an_agent_stands_beneath_its_poller_and_takes_its_site(house: House) -> None:
    await house.create(site="North")
    agent = (await house.create(AGENT)).record
    assert (agent.parent_id, agent.poller_id, agent.site) == ("p1", "p1", "North")
    checker = (await house.create(CHECKER, site="Roof")).record
    assert (checker.parent_id, checker.poller_id, checker.agent_id, checker.site) == (
        "a1",
        "p1",
        "a1",
        "Roof",
    )


async def test_the_id_is_a_slug_of_the_label_where_none_is_given(house: House) -> None:
    service = replace(new_service(), service_id="", label="Core switch Room")
    issued = await house.issuer.create(ALICE, NewPackageRequest(service=service), None, "")
    assert issued.record.key == ServiceKey(ServiceType.POLLER, "core-switch-room")


@pytest.mark.parametrize(
    ("label", "service_id", "field"), [("日本", "", "label"), ("x", "Not an id", "component_id")]
)
async def test_a_bad_id_is_refused_by_its_field(
    house: House, label: str, service_id: str, field: str
) -> None:
    service = replace(new_service(), service_id=service_id, label=label)
    with pytest.raises(RefusedError) as caught:
        await house.issuer.create(ALICE, NewPackageRequest(service=service), None, "")
    assert (caught.value.refused.code, caught.value.refused.field) == (Code.INVALID, field)


async def test_who_created_it_and_when_its_token_ends_is_in_the_record(house: House) -> None:
    issued = await house.create(token_ttl=timedelta(hours=2), notes="roof")
    assert (issued.record.created_by, issued.package.created_by) == ("alice", "alice")
    assert issued.package.token_expires_at == NOW + timedelta(hours=2)
    assert issued.package.notes == "roof"
    assert (await house.create(POLLER, service_id="p2")).package.token_expires_at == NOW + timedelta(days=1)


async def test_a_secret_does_not_show(house: House) -> None:
    issued = await house.create()
    assert issued.token not in repr(issued)


@pytest.mark.parametrize("status", ["pending", "active", "inactive", "revoked"])
async def test_a_taken_id_is_refused(house: House, status: str) -> None:
    await house.create() if status == "pending" else await house.activate()
    if status == "inactive":
        await house.recorder.apply(POLLER, c.Deactivate(), SYSTEM)
    if status == "revoked":
        await house.revoke(POLLER)
    writes = house.ledger.writes
    assert await refused(house.create()) is Code.TAKEN
    assert house.ledger.writes == writes


async def test_ids_are_unique_per_type_alone(house: House) -> None:
    await house.create()
    await house.create(AGENT, service_id="p1")
    assert house.status(ServiceKey(ServiceType.AGENT, "p1")) == "pending"


async def test_of_two_at_once_one_gets_the_id(house: House) -> None:
    outcomes = await asyncio.gather(house.create(), house.create(), return_exceptions=True)
    refusals = [o for o in outcomes if isinstance(o, RefusedError)]
    assert [r.refused.code for r in refusals] == [Code.TAKEN]
    assert house.ledger.writes == 1


async def test_creating_over_a_deleted_id_begins_a_new_incarnation(house: House) -> None:
    await house.activate()
    await house.revoke(POLLER)
    await house.administrator.delete(ALICE, POLLER, reason="")
    await house.settle()
    assert house.document(POLLER_LINEAGE) is None
    issued = await house.create()
    assert (issued.record.incarnation, issued.record.status) == (2, ServiceStatus.PENDING)
    document, row = house.document(POLLER_LINEAGE), house.row(POLLER)
    assert document is not None
    assert row is not None
    assert (document["status"], row.incarnation) == ("pending", 2)


async def test_a_new_incarnation_was_never_heard(house: House) -> None:
    """What its predecessor of the same id said is not shown as its own."""
    await house.activate()
    await house.revoke(POLLER)
    await house.administrator.delete(ALICE, POLLER, reason="")
    await house.create()
    view = house.catalogue.get(POLLER)
    assert (view.liveness.value, view.presence.last_seen, view.record.first_seen) == ("never", None, None)
    row = house.row(POLLER)
    assert row is not None
    assert row.last_seen is None


# --- parents


@pytest.mark.parametrize("key", [AGENT, CHECKER])
async def test_a_parent_that_does_not_exist_is_refused(house: House, key: ServiceKey) -> None:
    """Parents are checked for existence."""
    assert await refused(house.create(key)) is Code.PARENT_MISSING
    assert house.ledger.writes == 0


async def test_a_parent_of_the_wrong_type_is_missing(house: House) -> None:
    await house.create()
    assert await refused(house.create(CHECKER, parent_id="p1")) is Code.PARENT_MISSING


@pytest.mark.parametrize(("key", "parent_id"), [(POLLER, "p9"), (AGENT, ""), (CHECKER, "")])
async def test_a_parent_too_many_or_too_few_is_refused(house: House, key: ServiceKey, parent_id: str) -> None:
    assert await refused(house.create(key, parent_id=parent_id)) is Code.INVALID


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (ServiceStatus.PENDING, None),
        (ServiceStatus.ACTIVE, None),
        (ServiceStatus.INACTIVE, Code.PARENT_NOT_LIVE),
        (ServiceStatus.REVOKED, Code.PARENT_NOT_LIVE),
        (ServiceStatus.DELETED, Code.PARENT_NOT_LIVE),
    ],
)
async def test_a_parent_must_be_pending_or_active(
    house: House, status: ServiceStatus, code: Code | None
) -> None:
    await house.create()
    record = house.record(POLLER)
    await house.ledger.write(
        replace(record, status=status, revision=2), house.ledger.entries[POLLER].sequence
    )
    if code is None:
        assert (await house.create(AGENT)).record.parent_id == "p1"
    else:
        assert await refused(house.create(AGENT)) is code
        assert house.status(AGENT) == "-"


async def test_the_parent_is_looked_up_in_the_ledger_and_not_in_the_index(house: House) -> None:
    """The index may trail: a revocation that it has not heard of counts all the same."""
    await house.create()
    await house.stall("index")
    entry = house.ledger.entries[POLLER]
    revoked = replace(house.record(POLLER), status=ServiceStatus.REVOKED, revision=2)
    await house.ledger.write(revoked, entry.sequence)
    assert house.index.records[POLLER].status is ServiceStatus.PENDING
    assert await refused(house.create(AGENT)) is Code.PARENT_NOT_LIVE


@pytest.mark.parametrize("moment", ["before_write", "after_write"])
async def test_a_child_whose_parent_is_revoked_while_it_is_written_does_not_survive(
    house: House, moment: str
) -> None:
    """Children do not survive their parent's revocation, however the two cross."""
    await house.activate()

    async def revoke_the_parent(record: ServiceRecord) -> None:
        if record.key == AGENT:
            setattr(house.ledger, moment, None)
            await house.revoke(POLLER)

    setattr(house.ledger, moment, revoke_the_parent)
    assert await refused(house.create(AGENT)) is Code.PARENT_NOT_LIVE
    await house.settle()
    assert house.status(POLLER) == "revoked"
    assert house.status(AGENT) in ("-", "revoked", "deleted")
    assert house.document(AGENT_LINEAGE) is None or house.document(AGENT_LINEAGE)["status"] == "revoked"  # type: ignore[index]
    assert house.record(POLLER).cascade is Cascade.NONE


async def test_a_withdrawn_childs_id_is_free_again(house: House) -> None:
    await house.activate()

    async def revoke_the_parent(record: ServiceRecord) -> None:
        if record.key == AGENT:
            house.ledger.before_write = None
            await house.revoke(POLLER)

    house.ledger.before_write = revoke_the_parent
    assert await refused(house.create(AGENT)) is Code.PARENT_NOT_LIVE
    assert house.record(AGENT).transition.events == ("withdrawn",)
    await house.settle()
    await house.cascades.resume()
    await house.create(POLLER, service_id="p2")
    assert (await house.create(AGENT, parent_id="p2")).record.incarnation == 2


# --- checkers and their templates


async def test_a_checker_needs_a_kind_and_others_have_none(house: House) -> None:
    await house.create()
    await house.create(AGENT)
    assert await refused(house.create(CHECKER, checker_kind="")) is Code.INVALID
    assert await refused(house.create(POLLER, service_id="p2", checker_kind="snmp")) is Code.INVALID
    assert await refused(house.create(POLLER, service_id="p2", checker_config={"a": 1})) is Code.INVALID


async def test_a_checkers_config_is_its_kinds_template_filled_in(house: House) -> None:
    await house.templates.seed({"snmp": b'{"id": "{{COMPONENT_ID}}", "via": "${AGENT_ADDRESS}"}'})
    await house.create()
    await house.create(AGENT)
    assert await refused(house.create(CHECKER)) is Code.INVALID
    assert house.status(CHECKER) == "-"
    await house.create(CHECKER, metadata={"agent_address": "10.0.0.1:1"})
    document = house.document(CHECKER_LINEAGE)
    assert document is not None
    assert document["checker_config"] == {"id": "c1", "via": "10.0.0.1:1"}


async def test_an_own_config_goes_before_the_template(house: House) -> None:
    await house.templates.seed({"snmp": b'{"x": "{{NO_SUCH}}"}'})
    await house.create()
    await house.create(AGENT)
    assert (await house.create(CHECKER, checker_config={"own": True})).record.checker_config == {"own": True}


async def test_a_kind_without_a_template_has_no_config(house: House) -> None:
    await house.create()
    await house.create(AGENT)
    assert (await house.create(CHECKER, checker_kind="other")).record.checker_config is None


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b'{"a": "\\ud800"}', b"[" * 5000])
async def test_a_template_that_is_no_object_is_told(house: House, data: bytes) -> None:
    await house.create()
    await house.create(AGENT)
    await house.documents.write("templates/checkers/snmp.json", data, 0)
    assert await refused(house.create(CHECKER)) is Code.INVALID


async def test_seeding_never_overwrites_a_template_nor_brings_a_deleted_one_back(house: House) -> None:
    key = "templates/checkers/{}.json"
    await house.documents.write(key.format("mine"), b'{"mine": 1}', 0)
    await house.documents.delete(
        key.format("gone"), await house.documents.write(key.format("gone"), b"{}", 0)
    )
    await house.templates.seed({"mine": b"{}", "gone": b"{}", "new": b"{}"})
    assert (await house.documents.read(key.format("mine"))).data == b'{"mine": 1}'
    assert (await house.documents.read(key.format("gone"))).data is None
    assert (await house.documents.read(key.format("new"))).data == b"{}"


async def test_a_form_learns_the_kinds_and_what_they_need(house: House) -> None:
    await house.templates.seed({"snmp": b'{"a": "{{AGENT_ID}} ${core_address}"}'})
    await house.documents.write("templates/checkers/broken.json", b"{", 0)
    defaults = await house.templates.defaults()
    assert defaults["checker_kinds"] == [
        {
            "kind": "snmp",
            "template": {"a": "{{AGENT_ID}} ${core_address}"},
            "placeholders": ["AGENT_ID", "core_address"],
        }
    ]


# --- idempotency


async def test_a_retry_answers_with_the_same_package_and_token(house: House) -> None:
    first = await house.create(idempotency_key="k")
    again = await house.create(idempotency_key="k")
    assert (again.token, again.package) == (first.token, first.package)
    assert again.projection == {"document": "written", "row": "written"}
    assert house.ledger.writes == 1


async def test_a_retry_works_after_the_package_was_redeemed_and_the_service_revoked(house: House) -> None:
    first = await house.create(idempotency_key="k")
    await house.redeem(first.token)
    await house.revoke(POLLER)
    again = await house.create(idempotency_key="k")
    assert again.token == first.token
    assert again.package.status is PackageStatus.REVOKED


async def test_another_body_under_the_same_key_is_refused(house: House) -> None:
    await house.create(idempotency_key="k")
    assert await refused(house.create(idempotency_key="k", label="Other")) is Code.IDEMPOTENCY_MISMATCH
    assert await refused(house.create(idempotency_key="k", service_id="p2")) is Code.IDEMPOTENCY_MISMATCH
    assert house.status(ServiceKey(ServiceType.POLLER, "p2")) == "-"


async def test_keys_are_each_callers_own(house: House) -> None:
    await house.create(idempotency_key="k")
    request = NewPackageRequest(service=new_service(service_id="p2"))
    other = await house.issuer.create(Caller("bob"), request, "k", "other body")
    assert other.record.service_id == "p2"


async def test_a_key_does_not_hide_that_an_id_is_taken(house: House) -> None:
    await house.create()
    assert await refused(house.create(idempotency_key="k")) is Code.TAKEN


async def test_twins_at_once_get_one_package(house: House) -> None:
    answers = await asyncio.gather(*(house.create(idempotency_key="k") for _ in range(20)))
    assert len({answer.token for answer in answers}) == 1
    assert house.ledger.writes == 1


async def test_a_crash_between_claim_and_write_leaves_the_key_usable(house: House) -> None:
    house.ledger.fail_next("write", UnavailableError("away"))
    with pytest.raises(UnavailableError):
        await house.create(idempotency_key="k")
    await house.crash()
    await house.start()
    claimed = next(iter(house.idempotency.claims.values())).package_id
    issued = await house.create(idempotency_key="k")
    assert issued.package.package_id == claimed
    assert (await house.create(idempotency_key="k")).token == issued.token


@pytest.mark.usefixtures("short_wait")
async def test_a_crash_between_write_and_answer_loses_nothing(house: House) -> None:
    house.ledger.fail_next("write", OutcomeUnknownError("lost"))
    with pytest.raises(OutcomeUnknownError):
        await house.create(idempotency_key="k")
    first = await house.create(idempotency_key="k")
    await house.crash()
    await house.start()
    again = await house.create(idempotency_key="k")
    assert again.token == first.token
    assert house.ledger.writes == 1


@pytest.mark.usefixtures("short_wait")
async def test_a_retry_after_a_restart_knows_that_everything_was_written(house: House) -> None:
    await house.create(idempotency_key="k")
    await house.settle()
    await house.crash()
    await house.start()
    again = await house.create(idempotency_key="k")
    assert again.projection == {"document": "written", "row": "written"}


async def test_a_retry_of_a_withdrawn_creation_says_so_again(house: House) -> None:
    await house.activate()

    async def revoke_the_parent(record: ServiceRecord) -> None:
        if record.key == AGENT:
            house.ledger.before_write = None
            await house.revoke(POLLER)

    house.ledger.before_write = revoke_the_parent
    for _ in range(2):
        assert await refused(house.create(AGENT, idempotency_key="k")) is Code.PARENT_NOT_LIVE


@pytest.mark.parametrize("moment", ["cascade", "completed", "reissued"])
async def test_a_retry_of_a_creation_that_a_cascade_took_says_so_again(house: House, moment: str) -> None:
    """The cascade may come first, and its end after it; later the parent may be back."""
    parent = await house.activate()

    async def revoke_the_parent(record: ServiceRecord) -> None:
        if record.key == AGENT:
            house.ledger.after_write = None
            await house.revoke(POLLER)

    house.ledger.after_write = revoke_the_parent
    with pytest.raises(RefusedError) as caught:
        await house.create(AGENT, idempotency_key="k")
    assert caught.value.refused.code is Code.PARENT_NOT_LIVE
    assert "agent 'a1' is revoked: delete it" in caught.value.refused.why
    await house.cascades.resume()
    if moment == "completed":
        await house.administrator.delete(ALICE, AGENT, reason="")
    elif moment == "reissued":
        assert parent.package is not None
        await house.issuer.reissue(ALICE, parent.package.package_id)
    expected = Code.ILLEGAL_TRANSITION if moment == "reissued" else Code.PARENT_NOT_LIVE
    assert await refused(house.create(AGENT, idempotency_key="k")) is expected
    assert house.status(AGENT) == ("deleted" if moment == "completed" else "revoked")


async def test_a_refused_creation_says_that_its_id_is_free_where_it_is(house: House) -> None:
    await house.activate()

    async def revoke_the_parent(record: ServiceRecord) -> None:
        if record.key == AGENT:
            house.ledger.before_write = None
            await house.revoke(POLLER)

    house.ledger.before_write = revoke_the_parent
    with pytest.raises(RefusedError) as caught:
        await house.create(AGENT)
    assert "taken back, and its id can be used again" in caught.value.refused.why


async def test_a_retry_after_a_crash_looks_at_the_parent_that_the_first_call_did_not(house: House) -> None:
    await house.activate()

    async def go_away(record: ServiceRecord) -> None:
        house.ledger.fail_next("read", UnavailableError("away"))

    house.ledger.after_write = go_away
    with pytest.raises(OutcomeUnknownError):
        await house.create(AGENT, idempotency_key="k")
    house.ledger.after_write = None
    await house.stall("index")
    gone = replace(house.record(POLLER), revision=9, status=ServiceStatus.REVOKED)
    await house.ledger.write(gone, house.ledger.entries[POLLER].sequence)
    assert await refused(house.create(AGENT, idempotency_key="k")) is Code.PARENT_NOT_LIVE
    assert house.status(AGENT) == "deleted"
    house.resume_index()


async def test_a_retry_does_not_hand_out_a_package_that_was_revoked_unused(house: House) -> None:
    issued = await house.create(idempotency_key="k")
    await house.revoke(POLLER)
    assert await refused(house.create(idempotency_key="k")) is Code.ILLEGAL_TRANSITION
    await house.issuer.reissue(ALICE, issued.package.package_id)
    assert await refused(house.create(idempotency_key="k")) is Code.ILLEGAL_TRANSITION


# --- registering and reissuing


async def test_a_registered_service_has_no_package_and_is_active_at_its_first_heartbeat(house: House) -> None:
    record = await house.issuer.register(ALICE, new_service())
    assert (record.status, record.package, record.registration_source) == (
        ServiceStatus.PENDING,
        None,
        Source.CONFIG,
    )
    assert house.row(POLLER) is not None
    assert (await house.beat(POLLER_LINEAGE)).status == "active"


async def test_a_known_poller_is_registered_at_every_start_but_never_brought_back(house: House) -> None:
    """A revoked poller is not admitted again because a file names it, and neither is a deleted one."""
    await house.issuer.register_known("p1")
    await house.issuer.register_known("p1")
    assert (house.status(POLLER), house.ledger.writes) == ("pending", 1)
    await house.revoke(POLLER)
    await house.issuer.register_known("p1")
    assert house.status(POLLER) == "revoked"
    await house.administrator.delete(ALICE, POLLER, reason="")
    await house.issuer.register_known("p1")
    assert house.status(POLLER) == "deleted"


async def test_a_reissue_gives_a_new_token_and_kills_the_old_one(house: House) -> None:
    first = await house.create()
    second = await house.issuer.reissue(ALICE, first.package.package_id, reason="lost")
    assert second.token != first.token
    assert await refused(house.redeem(first.token)) is Code.SUPERSEDED
    assert (await house.redeem(second.token)).package.package_id == second.package.package_id
    assert house.database.packages[first.package.package_id].status == "superseded"


async def test_a_reissue_brings_a_revoked_service_back_to_pending(house: House) -> None:
    issued = await house.create()
    await house.revoke(POLLER)
    again = await house.issuer.reissue(ALICE, issued.package.package_id)
    assert again.record.status is ServiceStatus.PENDING
    document = house.document(POLLER_LINEAGE)
    assert document is not None
    assert document["status"] == "pending"


async def test_an_unknown_package_cannot_be_reissued(house: House) -> None:
    assert await refused(house.issuer.reissue(ALICE, uid(999))) is Code.NOT_FOUND


async def test_a_service_whose_package_was_deleted_is_no_dead_end(house: House) -> None:
    """The advice that a taken id comes with can be followed."""
    issued = await house.create()
    house.clock.advance(timedelta(days=2))
    await house.sweeper.expire_packages()
    await house.administrator.delete_package(ALICE, issued.package.package_id)
    with pytest.raises(RefusedError, match="reissue its package"):
        await house.create()
    again = await house.issuer.reissue(ALICE, issued.package.package_id)
    await house.redeem(again.token)


async def test_an_earlier_package_that_was_deleted_leads_nowhere(house: House) -> None:
    """What cannot be found cannot be acted upon either."""
    issued = await house.create()
    await house.revoke(POLLER)
    again = await house.issuer.reissue(ALICE, issued.package.package_id)
    await house.administrator.delete_package(ALICE, issued.package.package_id)
    assert await refused(house.issuer.reissue(ALICE, issued.package.package_id)) is Code.NOT_FOUND
    assert again.record.live


async def test_a_service_that_came_in_without_a_package_gets_its_first(house: House) -> None:
    registered = await house.issuer.register(ALICE, new_service(POLLER, labels={"rack": "7"}))
    with pytest.raises(RefusedError, match="reissue it for its first"):
        await house.create()
    issued = await house.issuer.reissue(ALICE, registered.key)
    assert (issued.record.status, issued.package.generation) == (ServiceStatus.PENDING, 1)
    assert issued.record.labels == {"rack": "7"}
    assert issued.record.registration_source is Source.CONFIG
    await house.redeem(issued.token)
    await house.beat(registered.lineage)
    assert house.status(POLLER) == "active"
    assert await refused(house.issuer.reissue(ALICE, registered.key)) is Code.ILLEGAL_TRANSITION
    assert await refused(house.issuer.reissue(ALICE, AGENT)) is Code.NOT_FOUND


async def test_a_child_is_not_reissued_beneath_a_revoked_parent(house: House) -> None:
    await house.create()
    child = await house.create(AGENT)
    await house.revoke(POLLER)
    writes = house.ledger.writes
    assert await refused(house.issuer.reissue(ALICE, child.package.package_id)) is Code.PARENT_NOT_LIVE
    assert house.ledger.writes == writes


async def test_a_child_whose_parent_is_revoked_while_it_is_reissued_is_revoked_too(house: House) -> None:
    await house.create()
    child = await house.create(AGENT)

    async def revoke_the_parent(record: ServiceRecord) -> None:
        if record.key == AGENT:
            house.ledger.after_write = None
            await house.revoke(POLLER)

    house.ledger.after_write = revoke_the_parent
    assert await refused(house.issuer.reissue(ALICE, child.package.package_id)) is Code.PARENT_NOT_LIVE
    assert house.status(AGENT) == "revoked"


async def test_a_packages_time_ends(house: House) -> None:
    """Expired is a state that a job sets, at the moment in which the token stops working."""
    issued = await house.create(token_ttl=timedelta(hours=1))
    house.clock.advance(timedelta(hours=1) - timedelta(milliseconds=1))
    assert (await house.sweeper.expire_packages()).changed == 0
    house.clock.advance(timedelta(milliseconds=1))
    assert (await house.sweeper.expire_packages()).changed == 1
    assert (await house.sweeper.expire_packages()).changed == 0
    await house.settle()
    assert house.database.packages[issued.package.package_id].status == "expired"
    assert house.trail_of(POLLER)[-1] == "expired"
    assert house.status(POLLER) == "pending"
    assert await refused(house.redeem(issued.token)) is Code.EXPIRED


async def test_a_package_that_was_redeemed_in_time_does_not_expire(house: House) -> None:
    issued = await house.create()
    await house.redeem(issued.token)
    house.clock.advance(timedelta(days=9))
    assert (await house.sweeper.expire_packages()).changed == 0
    assert (await house.beat(POLLER_LINEAGE)).status == "active"


@pytest.mark.usefixtures("short_wait")
async def test_a_service_made_anew_elsewhere_leaves_no_document_behind(house: House) -> None:
    """Even where the projector sees the deletion and the new creation in one go."""
    await house.create()
    await house.create(POLLER, service_id="p2")
    await house.create(AGENT)
    await house.settle()
    await house.stall("documents")
    await house.revoke(AGENT)
    await house.administrator.delete(ALICE, AGENT, reason="")
    await house.create(AGENT, parent_id="p2")
    house.resume("documents")
    await house.settle()
    elsewhere = Lineage(ServiceType.AGENT, "p2", "a1")
    assert house.document(elsewhere) is not None
    assert house.document(AGENT_LINEAGE) is None, f"{document_key(AGENT_LINEAGE)} still stands"


async def test_an_outage_after_the_write_does_not_say_that_nothing_was_changed(house: House) -> None:
    await house.activate(POLLER)

    async def go_away(record: ServiceRecord) -> None:
        house.ledger.fail_next("read", UnavailableError("away"))

    house.ledger.after_write = go_away
    with pytest.raises(OutcomeUnknownError):
        await house.create(AGENT, idempotency_key="once")
    house.ledger.after_write = None
    assert house.status(AGENT) == "pending"
    again = await house.create(AGENT, idempotency_key="once")
    assert (await house.redeem(again.token)).package.package_id == again.package.package_id


async def test_a_watch_that_the_server_cannot_grant_is_refused_before_anybody_redeems(house: House) -> None:
    house.issuer._why_no_watch = "not on this server"
    request = NewPackageRequest(service=new_service(POLLER), watch=True)
    with pytest.raises(RefusedError, match="not on this server") as caught:
        await house.issuer.create(ALICE, request, None, "")
    assert caught.value.refused.field == "watch"
    assert not house.index.records
