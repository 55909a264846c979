"""POST /api/edge/renew: a host whose credentials ran out while it was off comes back without a visit."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from jetway.core.ids import Lineage, ServiceType
from jetway.core.renewal import make_request
from support.authorities import sign
from support.http_world import Answer, World, http_world

SITE = Lineage(ServiceType.POLLER, "site-a")


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with http_world(tmp_path, failures_per_minute=3) as served:
        served.nats_authority.issues = True
        token = (await served.create("poller", "site-a"))["token"]
        answer = await served.redeem(token, nats_public_key="U-mine", csr_pem="csr mine")
        assert answer.json["nats"]["authentication"] == "jwt"
        yield served


async def renew(world: World, *, key: str = "U-mine", signer: str = "U-mine", **changes: Any) -> Answer:
    data = make_request(
        SITE,
        nats_public_key=key,
        now=world.clock.now(),
        sign=lambda message: sign(signer, message),
        csr_pem="csr mine",
    )
    body = json.loads(data) | changes
    return await world.call("POST", "/api/edge/renew", body, role=None)


async def test_after_a_month_in_the_dark_the_key_opens(world: World) -> None:
    world.clock.advance(timedelta(days=31))
    answer = await renew(world)
    assert answer.status == 200
    assert set(answer.json) == {"creds", "certificate_pem", "ca_pem", "expires_at"}
    assert answer.json["creds"].startswith("-----BEGIN NATS USER JWT-----")
    assert "SEED" not in answer.json["creds"]


async def test_refusals_have_their_status(world: World) -> None:
    assert (await renew(world, signer="U-other")).code == "proof_invalid"
    assert (await renew(world, timestamp="2020-01-01T00:00:00Z")).status == 401
    malformed = await renew(world, timestamp="yesterday")
    assert (malformed.status, malformed.fields) == (400, ["timestamp"])
    no_request = await renew(world, csr_pem="a certificate")
    assert no_request.status == 401, "what was not signed is not looked at"
    world.clock.advance(60)
    assert (await renew(world, signature="")).status == 422


async def test_a_revoked_service_stays_out(world: World) -> None:
    revoked = await world.call(
        "POST", "/api/admin/services/pollers/site-a/status", {"status": "revoked", "reason": "stolen"}
    )
    assert sorted(revoked.json["reached"]) == ["crl", "document", "nats", "row", "status"]
    assert revoked.json["left"] == []
    answer = await renew(world)
    assert (answer.status, answer.code) == (410, "revoked")


async def test_a_stranger_is_slowed_and_the_holder_of_the_key_is_not(world: World) -> None:
    for _ in range(4):
        stranger = await renew(world, signer="U-other")
    assert stranger.status == 429
    assert (await renew(world)).status == 200


async def test_the_package_says_who_made_the_key_and_that_it_may_watch(world: World) -> None:
    made = await world.create("poller", "site-b", watch=True)
    assert (made["package"]["watch"], made["package"]["server_made"]) == (True, False)
    answer = await world.redeem(made["token"])
    assert "BEGIN USER NKEY SEED" in answer.json["nats"]["creds"]
    path = f"/api/admin/edge-packages/{made['package']['package_id']}"
    shown = await world.call("GET", path)
    assert shown.json["server_made"] is True
    assert "SEED" not in shown.body.decode()


async def test_a_malformed_key_is_a_400_that_names_its_field_and_consumes_nothing(world: World) -> None:
    made = await world.create("poller", "site-b")
    for sent, field in (({"nats_public_key": "no key"}, "nats_public_key"), ({"csr_pem": "no"}, "csr_pem")):
        refused = await world.redeem(made["token"], **sent)
        assert (refused.status, refused.fields) == (400, [field])
    assert (await world.redeem(made["token"])).status == 200


async def test_refused_renewals_are_in_the_trail(world: World) -> None:
    for _ in range(3):
        assert (await renew(world, signer="U-other")).code == "proof_invalid"
    assert (await renew(world, signer="U-other")).status == 429
    await world.doors.refusals.tell(all_of_it=True)
    told = [event for event in world.database.events.values() if event.event_type == "api_refused"]
    assert [(event.actor, event.metadata["code"], event.metadata["count"]) for event in told] == [
        ("stranger", "proof_invalid", 1),
        ("stranger", "too_many_failures", 1),
        ("stranger", "proof_invalid", 2),
    ]
    assert told[0].metadata["call"] == "renew poller.site-a"
    assert told[0].source_ip == "127.0.0.1"
