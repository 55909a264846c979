"""Renewing: for who holds the key, as long as the service may live, and for nobody else."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from jetway.core import commands as c
from jetway.core.creds import creds_text
from jetway.core.errors import Code, OutcomeUnknownError, PortError, RefusedError, UnavailableError
from jetway.core.ids import Lineage, ServiceType
from jetway.core.record import ServiceRecord
from jetway.core.renewal import RenewalAnswer, RenewalRequest, make_request, parse_request
from jetway.services.renew import PER_HOUR, PER_MINUTE, Renewer
from support.authorities import ROOT_PEM, sign
from support.builders import AGENT, LINEAGES, NOW, POLLER
from support.house import ALICE, House, running_house

P1 = LINEAGES[ServiceType.POLLER]
LIFETIME = timedelta(days=30)


@pytest.fixture
async def house() -> AsyncIterator[House]:
    async with running_house() as running:
        issued = await running.create()
        await running.redeem(issued.token, key="U-mine", csr="csr mine")
        await running.beat(P1)
        yield running


def request(
    house: House,
    *,
    key: str = "U-mine",
    csr: str = "",
    lineage: Lineage = P1,
    signer: str | None = None,
    at: datetime | None = None,
) -> RenewalRequest:
    data = make_request(
        lineage,
        nats_public_key=key,
        now=at or house.clock.now(),
        sign=lambda message: sign(signer or key, message),
        csr_pem=csr,
    )
    return parse_request(data)


async def renew(house: House, **asked: Any) -> RenewalAnswer:
    return await house.renewer.renew(request(house, **asked), source_ip="192.0.2.1")


async def refused(house: House, **asked: Any) -> Code:
    with pytest.raises(RefusedError) as caught:
        await renew(house, **asked)
    return caught.value.refused.code


async def test_the_key_gets_new_credentials_and_a_new_certificate(house: House) -> None:
    house.clock.advance(timedelta(days=20))
    until = NOW + timedelta(days=50)
    answer = await renew(house, csr="csr mine")
    assert answer == RenewalAnswer(
        creds=creds_text(f"jwt.U-mine.poller.p1.plain.{int(until.timestamp())}"),
        certificate_pem=f"certificate 2 of spiffe://jetway/poller/p1 until {until:%Y-%m-%dT%H:%M:%S.890Z}",
        ca_pem=ROOT_PEM,
        expires_at=until,
    )
    identity = house.record(POLLER).identity
    assert identity is not None
    assert identity.nats_expires_at == until
    assert [each.serial for each in identity.certificates] == ["2", "1"]
    await house.settle()
    assert house.trail_of(POLLER)[-1] == "renewed"
    (event,) = house.events("renewed")
    assert (event.actor, event.source_ip) == ("service:poller.p1", "192.0.2.1")


async def test_without_a_request_there_is_no_certificate(house: House) -> None:
    answer = await renew(house)
    assert (answer.certificate_pem, answer.ca_pem) == ("", "")
    assert answer.creds


async def test_who_was_dark_for_longer_than_the_credentials_live_comes_back(house: House) -> None:
    house.clock.advance(timedelta(days=31))
    assert (await renew(house, csr="csr another")).creds
    identity = house.record(POLLER).identity
    assert identity is not None
    assert [each.serial for each in identity.certificates] == ["2"]


@pytest.mark.parametrize(
    "asked",
    [
        {"signer": "U-other"},
        {"key": "U-other"},
        {"key": "U-other", "signer": "U-mine"},
        {"lineage": Lineage(ServiceType.POLLER, "p9")},
        {"lineage": LINEAGES[ServiceType.AGENT]},
        {"key": "no key"},
    ],
)
async def test_who_does_not_prove_itself_is_told_nothing(house: House, asked: dict[str, Any]) -> None:
    writes, reads = house.ledger.writes, len(house.ledger.calls)
    assert await refused(house, **asked) is Code.PROOF_INVALID
    assert (house.ledger.writes, len(house.ledger.calls)) == (writes, reads), "a stranger costs no look-up"


async def test_an_unknown_key_costs_not_even_a_signature_check(house: House) -> None:
    await refused(house, key="U-other")
    assert "verify" not in house.nats_authority.calls


async def test_another_place_in_the_tree_is_another_service(house: House) -> None:
    await house.activate(AGENT)
    elsewhere = Lineage(ServiceType.AGENT, "p2", "a1")
    assert await refused(house, key="U-made-1", lineage=elsewhere) is Code.PROOF_INVALID
    assert (await renew(house, key="U-made-1", lineage=LINEAGES[ServiceType.AGENT])).creds


@pytest.mark.parametrize("off", [timedelta(minutes=5), -timedelta(minutes=5)])
async def test_a_request_is_fresh_for_five_minutes(house: House, off: timedelta) -> None:
    now = house.clock.now()
    assert (await renew(house, at=now + off)).creds
    assert await refused(house, at=now + off * 1.01) is Code.PROOF_STALE


async def test_a_revoked_service_renews_nothing(house: House) -> None:
    await house.revoke(POLLER)
    assert await refused(house) is Code.REVOKED
    assert await refused(house, signer="U-other") is Code.PROOF_INVALID
    await house.administrator.delete(ALICE, POLLER, reason="")
    assert await refused(house) is Code.REVOKED


async def test_a_revocation_that_comes_between_wins(house: House) -> None:
    async def revoke_first(record: ServiceRecord) -> None:
        if "renewed" in record.transition.events:
            house.ledger.before_write = None
            await house.revoke(POLLER)

    house.ledger.before_write = revoke_first
    assert await refused(house) is Code.REVOKED
    assert house.record(POLLER).identity is None


async def test_after_a_reissue_only_the_new_key_renews(house: House) -> None:
    await house.recorder.apply(POLLER, c.Deactivate(), ALICE)
    package = house.record(POLLER).package
    assert package is not None
    again = await house.issuer.reissue(ALICE, package.package_id)
    assert (await renew(house)).creds, "the old identity holds until the new one is there"
    await house.redeem(again.token, key="U-new")
    assert await refused(house) is Code.REVOKED
    assert (await renew(house, key="U-new")).creds


async def test_a_certificate_request_that_is_none_is_named(house: House) -> None:
    with pytest.raises(RefusedError) as caught:
        await renew(house, csr="a certificate")
    assert (caught.value.refused.code, caught.value.refused.field) == (Code.MALFORMED, "csr_pem")


async def test_one_service_may_not_renew_all_the_time(house: House) -> None:
    for _ in range(PER_MINUTE):
        await renew(house)
    assert await refused(house) is Code.TOO_MANY_RENEWALS
    house.clock.advance(60)
    assert (await renew(house)).creds


async def test_there_is_room_for_whoever_renews_what_lives_for_minutes(house: House) -> None:
    minutes = timedelta(minutes=5)
    identities = house.identities
    terms = replace(identities._terms, credentials_lifetime=minutes, certificate_lifetime=minutes)
    identities._terms = terms
    house.renewer = Renewer(house.recorder, identities, house.renewer._nats, lambda _outcome: None)
    for _ in range(24):  # each at half of its time
        house.clock.advance(150)
        assert (await renew(house)).creds


async def test_what_the_ledger_did_not_take_does_not_count(house: House) -> None:
    for _ in range(2 * PER_HOUR):
        house.ledger.fail_next("write", UnavailableError("away"))
        with pytest.raises(UnavailableError):
            await renew(house)
    assert (await renew(house)).creds


async def test_nor_at_the_fastest_pace_for_long(house: House) -> None:
    done = 0
    for _ in range(2 * PER_HOUR // PER_MINUTE):
        for _ in range(PER_MINUTE):
            with contextlib.suppress(RefusedError):
                await renew(house)
                done += 1
        house.clock.advance(60)
    assert done <= 2 * PER_HOUR, "an hour may have ended in between"
    revision = house.record(POLLER).revision
    assert await refused(house) is Code.TOO_MANY_RENEWALS
    assert house.record(POLLER).revision == revision
    house.clock.advance(3600)
    assert (await renew(house)).creds


async def test_where_no_credentials_are_issued_the_key_still_renews_the_certificate(house: House) -> None:
    house.nats_authority.issues = False
    answer = await renew(house, csr="csr mine")
    assert (answer.creds, answer.expires_at) == ("", NOW + LIFETIME)
    assert await refused(house) is Code.INVALID


@pytest.mark.parametrize(("port", "method"), [("nats_authority", "issue"), ("certificates", "issue")])
async def test_what_cannot_be_made_changes_nothing(house: House, port: str, method: str) -> None:
    writes = house.ledger.writes
    getattr(house, port).fail_next(method, PortError("the key is away"))
    with pytest.raises(PortError):
        await renew(house, csr="csr mine")
    assert house.ledger.writes == writes


async def test_with_the_ledger_away_it_may_be_asked_again(house: House) -> None:
    house.ledger.fail_next("write", UnavailableError("away"))
    with pytest.raises(UnavailableError):
        await renew(house)
    house.ledger.fail_next("write", OutcomeUnknownError("lost"), after_effect=True)
    assert (await renew(house)).creds


async def test_outcomes_are_counted(house: House) -> None:
    await renew(house)
    await refused(house, signer="U-other")
    counted = {
        name: house.metrics.renewals.labels(name)._value.get() for name in ("renewed", "proof_invalid")
    }
    assert counted == {"renewed": 1, "proof_invalid": 1}
