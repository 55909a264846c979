"""Redeeming: one winner for one token, and nothing consumed unless the answer can be made."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest

from jetway.core.creds import creds_text
from jetway.core.errors import Code, OutcomeUnknownError, PortError, RefusedError, UnavailableError
from jetway.core.ids import ServiceType
from jetway.core.record import PackageStatus, ServiceRecord, encode_record
from jetway.core.times import rfc3339
from jetway.core.tokens import Claims
from jetway.services.identities import seed_context
from jetway.services.redeem import RedeemAnswer, RedeemRequest
from support.authorities import ROOT_PEM
from support.builders import AGENT, CHECKER, LINEAGES, NOW, POLLER, uid
from support.house import ALICE, House, running_house


@pytest.fixture
async def house() -> AsyncIterator[House]:
    async with running_house() as running:
        yield running


async def refused(work: object) -> Code:
    with pytest.raises(RefusedError) as caught:
        await work  # type: ignore[misc]
    return caught.value.refused.code


async def test_the_answer_is_the_contracts(house: House) -> None:
    await house.create()
    issued = await house.create(AGENT, spiffe_id="spiffe://td/a1", heartbeat_interval_seconds=5)
    answer = await house.redeem(issued.token, key="U-mine", csr="csr mine")
    until = NOW + timedelta(days=30)
    assert answer.document() == {
        "package_id": issued.package.package_id,
        "service": {"service_type": "agent", "service_id": "a1", "parent_id": "p1", "poller_id": "p1"},
        "heartbeat": {"subject": "edge.heartbeat.agent.p1.a1", "interval_seconds": 5},
        "gateway": {"url": "https://gw.example", "ca_pin": ""},
        "nats": {
            "urls": ["nats://gw.example:4222"],
            "creds": creds_text(f"jwt.U-mine.agent.a1.plain.{int(until.timestamp())}"),
            "ca_pem": "",
            "authentication": "jwt",
            "note": "",
        },
        "config": {
            "bucket": "config",
            "key": "config/pollers/p1/agents/a1.json",
            "watch_bucket": "config_watch",
            "watch_keys": ["config.pollers.p1.agents.a1", "config.agents.a1.checkers.*"],
            "js_api": "$JS.API",
            "live_subjects": ["edge.config.pollers.p1.agents.a1", "edge.config.agents.a1.checkers.*"],
        },
        "identity": {
            "certificate_pem": f"certificate 1 of spiffe://jetway/agent/p1/a1 until {rfc3339(until)}",
            "ca_pem": ROOT_PEM,
            "spiffe_id": "spiffe://jetway/agent/p1/a1",
        },
    }


async def test_the_onboarded_checker_heartbeats_under_its_own_id(house: House) -> None:
    """The onboarded checker's id is the one that it heartbeats with: no duplicate appears beside it."""
    for key in (POLLER, AGENT):
        await house.activate(key)
    issued = await house.create(CHECKER)
    answer = (await house.redeem(issued.token)).document()
    assert answer["heartbeat"] == {"subject": "edge.heartbeat.checker.p1.a1.c1", "interval_seconds": 30}
    assert (await house.beat(LINEAGES[ServiceType.CHECKER])).status == "active"
    assert len(house.index.records) == 3


async def test_of_a_hundred_at_once_one_wins(house: House) -> None:
    """Redeeming is one compare-and-swap: there are no two winners."""
    token = (await house.create()).token
    calls = (house.redeem(token, key=f"key-{n}", hostname=f"host-{n}") for n in range(100))
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    winners = [o for o in outcomes if isinstance(o, RedeemAnswer)]
    losers = [o.refused for o in outcomes if isinstance(o, RefusedError)]
    assert (len(winners), len(losers)) == (1, 99)
    assert {r.code for r in losers} == {Code.ALREADY_REDEEMED}
    assert all(str(winners[0].package.delivered_to) in r.why for r in losers), (
        "everybody learns who was first"
    )
    assert house.ledger.writes == 2


async def test_a_hundred_retries_with_one_key_get_the_identical_answer(house: House) -> None:
    """A lost reply does not burn a token."""
    token = (await house.create()).token
    answers = await asyncio.gather(*(house.redeem(token, key="U-mine") for _ in range(100)))
    assert len({str(answer.document()) for answer in answers}) == 1
    assert house.ledger.writes == 2


async def test_a_retry_after_a_lost_write_answer_works(house: House) -> None:
    token = (await house.create()).token
    house.ledger.fail_next("write", OutcomeUnknownError("lost"), after_effect=True)
    first = await house.redeem(token, key="U-mine")
    assert (await house.redeem(token, key="U-mine")).document() == first.document()


async def test_without_a_key_the_answer_comes_once(house: House) -> None:
    token = (await house.create()).token
    await house.redeem(token)
    assert await refused(house.redeem(token)) is Code.ALREADY_REDEEMED


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ({"nats_public_key": "U1"}, {"nats_public_key": "U1"}, True),
        ({"nats_public_key": "U1"}, {"nats_public_key": "U2"}, False),
        ({"nats_public_key": "U1"}, {"nats_public_key": "U1", "csr_pem": "csr C"}, False),
        ({"csr_pem": "csr C"}, {"csr_pem": "csr C"}, True),
        ({"csr_pem": "csr C"}, {"nats_public_key": "C"}, False),
        ({}, {}, False),
    ],
)
async def test_the_keys_decide_who_may_ask_again(
    house: House, first: dict[str, str], second: dict[str, str], same: bool
) -> None:
    token = (await house.create()).token
    await house.redeemer.redeem(RedeemRequest(token=token, **first), source_ip="192.0.2.1")
    again = house.redeemer.redeem(RedeemRequest(token=token, **second), source_ip="192.0.2.1")
    if same:
        assert (await again).package.delivered_to == "192.0.2.1"
    else:
        assert await refused(again) is Code.ALREADY_REDEEMED


async def test_an_answer_that_cannot_be_made_consumes_nothing(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The token is not spent before the answer is built."""
    token = (await house.create()).token
    with monkeypatch.context() as broken:
        broken.setattr(RedeemAnswer, "document", lambda _self: (_ for _ in ()).throw(PortError("no key")))
        with pytest.raises(PortError):
            await house.redeem(token)
    assert house.ledger.writes == 1
    assert (await house.redeem(token)).package.status == "delivered"


async def test_with_the_ledger_away_nothing_is_consumed(house: House) -> None:
    token = (await house.create()).token
    house.ledger.fail_next("write", UnavailableError("away"))
    with pytest.raises(UnavailableError):
        await house.redeem(token)
    assert (await house.redeem(token)).package.status == "delivered"


async def test_a_redemption_goes_by_the_ledger_and_not_by_the_index(house: House) -> None:
    """A revocation that the index has not heard of counts all the same."""
    issued = await house.create()
    await house.stall("index")
    package = replace(issued.package, status=PackageStatus.REVOKED)
    gone = replace(house.record(POLLER), revision=2, package=package)
    await house.ledger.write(gone, house.ledger.entries[POLLER].sequence)
    assert house.index.records[POLLER].package == issued.package
    assert await refused(house.redeem(issued.token)) is Code.REVOKED


async def test_a_refusal_is_in_the_trail_with_both_sides(house: House) -> None:
    """Already used, by whom? The refusal and the audit trail name both sides."""
    token = (await house.create()).token
    await house.redeem(token, key="a", hostname="first", ip="192.0.2.1")
    with pytest.raises(RefusedError) as caught:
        await house.redeem(token, key="b", hostname="second", ip="192.0.2.2")
    assert "first (192.0.2.1)" in str(caught.value)
    await house.settle()
    (event,) = house.events("redeem_refused")
    assert event.metadata == {
        "code": "already_redeemed",
        "hostname": "second",
        "delivered_to": "first (192.0.2.1)",
    }
    assert (event.source_ip, event.request_id, event.service_id) == ("192.0.2.2", "req-2", "p1")
    assert event.package_id in event.actor
    assert token not in str(event)


async def test_a_trail_that_is_away_does_not_turn_a_refusal_into_a_failure(house: House) -> None:
    token = (await house.create()).token
    await house.redeem(token)
    house.audit.fail_next("append", UnavailableError("away"))
    assert await refused(house.redeem(token)) is Code.ALREADY_REDEEMED


async def test_a_forged_token_is_refused_before_anything_is_looked_up(house: House) -> None:
    claims = Claims(
        gateway="http://gw.example:8080",
        package_id=uid(1),
        generation=1,
        service_type=ServiceType.POLLER,
        service_id="p1",
        expires_at=2_000_000_000,
    )
    token = house.authority.issue_token(claims)
    forged = token[:-4] + ("AAAA" if token[-4:] != "AAAA" else "BBBA")
    calls = len(house.ledger.calls)
    assert await refused(house.redeem(forged)) is Code.TOKEN_UNKNOWN
    assert await refused(house.redeem("nonsense")) is Code.TOKEN_MALFORMED
    assert len(house.ledger.calls) == calls


async def test_a_signed_token_of_a_service_that_is_gone_is_unknown(house: House) -> None:
    claims = Claims(
        gateway="http://gw.example:8080",
        package_id=uid(77),
        generation=1,
        service_type=ServiceType.POLLER,
        service_id="p1",
        expires_at=2_000_000_000,
    )
    assert await refused(house.redeem(house.authority.issue_token(claims))) is Code.TOKEN_UNKNOWN
    await house.create()
    assert await refused(house.redeem(house.authority.issue_token(claims))) is Code.TOKEN_UNKNOWN


async def test_revoked_expired_and_superseded_are_told_apart(house: House) -> None:
    first = await house.create()
    await house.issuer.reissue(ALICE, first.package.package_id)
    assert await refused(house.redeem(first.token)) is Code.SUPERSEDED
    second = await house.create(POLLER, service_id="p2")
    await house.administrator.revoke_package(
        ALICE, second.package.package_id, reason="", cascade=True, dry_run=False
    )
    assert await refused(house.redeem(second.token)) is Code.REVOKED
    third = await house.create(POLLER, service_id="p3")
    house.clock.advance(timedelta(days=1))
    assert await refused(house.redeem(third.token)) is Code.EXPIRED


async def test_a_revocation_between_rehearsal_and_write_wins(house: House) -> None:
    token = (await house.create()).token

    async def revoke_first(record: ServiceRecord) -> None:
        if "delivered" in record.transition.events:
            house.ledger.before_write = None
            await house.revoke(POLLER)

    house.ledger.before_write = revoke_first
    assert await refused(house.redeem(token)) is Code.REVOKED
    assert house.status(POLLER) == "revoked"


async def test_outcomes_are_counted(house: House) -> None:
    token = (await house.create()).token
    await house.redeem(token)
    await refused(house.redeem(token))
    await refused(house.redeem("x"))
    counted = {
        name: house.metrics.redemptions.labels(name)._value.get()
        for name in (
            "delivered",
            "already_redeemed",
            "token_malformed",
        )
    }
    assert counted == {"delivered": 1, "already_redeemed": 1, "token_malformed": 1}


async def test_a_token_does_not_show_in_a_request(house: House) -> None:
    token = (await house.create()).token
    assert token not in repr(RedeemRequest(token=token))


async def test_an_answer_that_cannot_be_packed_consumes_nothing(house: House) -> None:
    """The form in which the answer is sent is made before the token is spent, not after."""
    token = (await house.create()).token

    def broken(answer: RedeemAnswer) -> object:
        raise OSError("no room for the archive")

    with pytest.raises(OSError, match="no room"):
        await house.redeemer.redeem(RedeemRequest(token=token), source_ip="192.0.2.1", render=broken)
    assert house.ledger.writes == 1
    assert (await house.redeem(token)).package.status == "delivered"


# --- identities


async def test_the_identity_stands_in_the_record_that_says_delivered(house: House) -> None:
    token = (await house.create()).token
    await house.redeem(token, key="U-mine", csr="csr mine")
    record = house.record(POLLER)
    assert house.ledger.writes == 2
    assert record.identity is not None
    assert (record.identity.nats_public_key, record.identity.server_made) == ("U-mine", False)
    assert record.identity.nats_expires_at == NOW + timedelta(days=30)
    assert [each.serial for each in record.identity.certificates] == ["1"]
    assert record.spiffe_identity == "spiffe://jetway/poller/p1"


@pytest.mark.parametrize("csr", ["", "csr mine"])
async def test_a_host_without_a_key_gets_one_that_is_sealed_until_it_is_active(
    house: House, csr: str
) -> None:
    token = (await house.create()).token
    answer = await house.redeem(token, csr=csr)
    assert "SU-seed-1" in answer.credentials.creds
    record = house.record(POLLER)
    assert record.identity is not None
    assert record.package is not None
    assert record.identity.server_made
    assert record.package.server_made
    assert b"SU-seed-1" not in encode_record(record), "the seed stands in the ledger as it is"
    opened = house.vault.open(record.identity.sealed_seed, context=seed_context(record.package.package_id))
    assert opened == b"SU-seed-1"
    await house.beat(LINEAGES[ServiceType.POLLER])
    after = house.record(POLLER)
    assert after.identity is not None
    assert (after.identity.sealed_seed, after.identity.nats_jwt) == ("", "")
    assert after.identity.nats_public_key == "U-made-1"
    assert after.package is not None
    assert after.package.server_made, "the record still says so"


async def test_a_retry_tells_the_same_an_hour_later(house: House) -> None:
    """With a key of its own for the certificate, and one of ours for NATS."""
    token = (await house.create()).token
    first = await house.redeem(token, csr="csr mine")
    house.clock.advance(timedelta(hours=1))
    again = await house.redeem(token, csr="csr mine")
    assert again.document() == first.document()
    assert (house.nats_authority.made, len(house.certificates.issued)) == (1, 1)


async def test_who_is_refused_costs_no_signature(house: House) -> None:
    token = (await house.create()).token
    await house.redeem(token, key="U-mine", csr="csr mine")
    for _ in range(3):
        assert await refused(house.redeem(token, key="U-other", csr="csr other")) is Code.ALREADY_REDEEMED
    assert house.nats_authority.calls.count("issue") == 1
    assert house.certificates.calls.count("issue") == 1


@pytest.mark.parametrize(
    ("keys", "field"),
    [({"key": "not a key"}, "nats_public_key"), ({"key": "U-mine", "csr": "a certificate"}, "csr_pem")],
)
async def test_a_malformed_key_is_named_and_consumes_nothing(
    house: House, keys: dict[str, str], field: str
) -> None:
    token = (await house.create()).token
    with pytest.raises(RefusedError) as caught:
        await house.redeem(token, **keys)
    assert (caught.value.refused.code, caught.value.refused.field) == (Code.MALFORMED, field)
    assert house.ledger.writes == 1
    assert (await house.redeem(token)).package.status == "delivered"


@pytest.mark.parametrize(
    ("port", "method"),
    [
        ("nats_authority", "new_user"),
        ("nats_authority", "issue"),
        ("certificates", "issue"),
        ("vault", "seal"),
        ("vault", "open"),
    ],
)
async def test_an_identity_that_cannot_be_made_consumes_nothing(house: House, port: str, method: str) -> None:
    token = (await house.create()).token
    getattr(house, port).fail_next(method, PortError("the key is away"))
    with pytest.raises(PortError):
        await house.redeem(token, csr="csr mine")
    assert house.ledger.writes == 1
    assert house.record(POLLER).identity is None
    assert (await house.redeem(token, csr="csr mine")).package.status == "delivered"


async def test_where_no_credentials_are_issued_the_answer_says_why(house: House) -> None:
    """The key is kept all the same: it proves who asks, once credentials are issued."""
    house.nats_authority.issues = False
    token = (await house.create()).token
    nats = (await house.redeem(token, key="U-mine")).document()["nats"]
    assert nats == {
        "urls": ["nats://gw.example:4222"],
        "creds": "",
        "ca_pem": "",
        "authentication": "none",
        "note": "this server asks for no credentials",
    }
    identity = house.record(POLLER).identity
    assert identity is not None
    assert (identity.nats_public_key, identity.nats_expires_at) == ("U-mine", None)
    other = (await house.create(service_id="p2")).token
    await house.redeem(other)
    assert house.nats_authority.made == 0


async def test_one_key_serves_one_service(house: House) -> None:
    """Else whoever redeems a token with another's public key could have that one cut off with his own."""
    await house.redeem((await house.create()).token, key="U-mine")
    second = (await house.create(service_id="p2")).token
    assert await refused(house.redeem(second, key="U-mine")) is Code.KEY_USED_BEFORE
    await house.revoke(POLLER)
    assert await refused(house.redeem(second, key="U-mine")) is Code.KEY_USED_BEFORE
    assert (await house.redeem(second, key="U-other")).package.status == "delivered"


async def test_a_key_that_was_revoked_long_ago_is_still_its_services(house: House) -> None:
    house.nats_authority.issues = False  # so that nothing of it has to be revoked at NATS
    issued = await house.create()
    await house.redeem(issued.token, key="U-mine")
    await house.revoke(POLLER)
    second = (await house.create(service_id="p2")).token
    assert await refused(house.redeem(second, key="U-mine")) is Code.KEY_USED_BEFORE
    again = await house.issuer.reissue(ALICE, issued.package.package_id)
    assert await refused(house.redeem(again.token, key="U-mine")) is Code.KEY_USED_BEFORE


async def test_a_retry_works_though_the_old_host_was_heard(house: House) -> None:
    issued = await house.create()
    await house.redeem(issued.token, key="U-mine")
    await house.beat(LINEAGES[ServiceType.POLLER])
    house.clock.advance(timedelta(days=2))
    await house.sweeper.mark_inactive()
    again = await house.issuer.reissue(ALICE, issued.package.package_id)
    answer = await house.redeem(again.token, key="U-new")
    await house.beat(LINEAGES[ServiceType.POLLER])  # whoever it was
    assert house.status(POLLER) == "active"
    assert (await house.redeem(again.token, key="U-new")).document() == answer.document()
    house.clock.advance(timedelta(days=1))
    assert (await house.sweeper.expire_packages()).changed == 1
    identity = house.record(POLLER).identity
    assert identity is not None
    assert identity.nats_jwt == ""
    assert await refused(house.redeem(again.token, key="U-new")) is Code.ALREADY_REDEEMED


async def test_a_key_of_before_the_reissue_is_refused(house: House) -> None:
    issued = await house.create()
    await house.redeem(issued.token, key="U-mine")
    again = await house.issuer.reissue(ALICE, issued.package.package_id)
    assert await refused(house.redeem(again.token, key="U-mine")) is Code.KEY_USED_BEFORE
    assert (await house.redeem(again.token, key="U-new")).package.status == "delivered"
    (old,) = house.record(POLLER).revoked_identities
    assert old.nats_public_key == "U-mine"


@pytest.mark.parametrize("revoke_now", [True, False])
async def test_a_reissue_ends_the_old_identity_now_or_with_the_next_redemption(
    house: House, revoke_now: bool
) -> None:
    issued = await house.create()
    await house.redeem(issued.token, key="U-mine")
    again = await house.issuer.reissue(ALICE, issued.package.package_id, revoke_now=revoke_now)
    assert (house.record(POLLER).identity is None) is revoke_now
    assert bool(house.record(POLLER).revoked_identities) is revoke_now
    await house.redeem(again.token, key="U-new")
    assert [each.nats_public_key for each in house.record(POLLER).revoked_identities] == ["U-mine"]


async def test_a_watch_is_asked_for_with_the_package_and_kept_by_a_reissue(house: House) -> None:
    issued = await house.create(watch=True)
    assert ".watch." in (await house.redeem(issued.token, key="U-1")).credentials.creds
    again = await house.issuer.reissue(ALICE, issued.package.package_id)
    assert ".watch." in (await house.redeem(again.token, key="U-2")).credentials.creds
    plain = await house.create(service_id="p2")
    assert ".plain." in (await house.redeem(plain.token, key="U-3")).credentials.creds


async def test_secrets_do_not_show_in_an_answer_that_is_printed(house: House) -> None:
    answer = await house.redeem((await house.create()).token)
    assert "SU-seed" in answer.credentials.creds
    assert "SU-seed" not in repr(answer)
    assert "SU-seed" not in repr(answer.credentials)
