"""The installer's call over HTTP: answers, refusals, limits."""

from __future__ import annotations

import io
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from jetway.core.errors import UnavailableError
from jetway.entry.http.answers import Redeemed
from support.http_world import World, http_world

KEY = "U" + "A" * 55
GZIP = {"Accept": "application/gzip"}


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with http_world(tmp_path, failures_per_minute=3) as made:
        yield made


async def token(world: World, service_id: str = "site-a") -> str:
    return str((await world.create("poller", service_id))["token"])


async def test_the_answer_is_the_contracts(world: World) -> None:
    answer = await world.redeem(
        await token(world), host={"hostname": "edge-1", "os": "Linux", "arch": "arm64"}
    )
    assert answer.status == 200
    assert answer.headers["Cache-Control"] == "no-store"
    Redeemed.model_validate_json(answer.body)
    delivered = (await world.call("GET", "/api/admin/edge-packages")).json["items"][0]
    assert (delivered["status"], delivered["delivered_to"]) == ("delivered", "edge-1 (127.0.0.1)")


@pytest.mark.parametrize("headers", [{}, GZIP])
async def test_the_same_key_gets_the_identical_answer(world: World, headers: dict[str, str]) -> None:
    text = await token(world)
    first = await world.redeem(text, nats_public_key=KEY, headers=headers)
    second = await world.redeem(text, nats_public_key=KEY, headers=headers)
    assert (first.status, second.status) == (200, 200)
    assert first.body == second.body


async def test_anybody_else_gets_409_and_the_trail_has_both(world: World) -> None:
    text = await token(world)
    await world.redeem(text, host={"hostname": "edge-1"})
    answer = await world.redeem(text, host={"hostname": "edge-2"})
    assert (answer.status, answer.code) == (409, "already_redeemed")
    refusal = (await world.call("GET", "/api/admin/events?type=redeem_refused")).json["items"][0]
    assert refusal["source_ip"] == "127.0.0.1"
    assert refusal["metadata"]["hostname"] == "edge-2"
    assert refusal["metadata"]["delivered_to"].startswith("edge-1")


async def test_the_archive(world: World) -> None:
    answer = await world.redeem(await token(world), headers=GZIP)
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/gzip")
    with tarfile.open(fileobj=io.BytesIO(answer.body), mode="r:gz") as archive:
        assert set(archive.getnames()) == {"README.txt", "start.sh", "service.json"}


async def test_tokens_that_are_none(world: World) -> None:
    assert (await world.redeem("hello")).code == "token_malformed"
    text = await token(world)
    forged = await world.redeem(text[:-2] + ("AA" if not text.endswith("AA") else "BA"))
    assert forged.status in (400, 401)
    assert (await world.redeem(text)).status == 200


async def test_a_token_whose_time_is_up(world: World) -> None:
    text = await token(world)
    world.clock.advance(86_400)
    answer = await world.redeem(text)
    assert (answer.status, answer.code) == (410, "expired")


async def test_an_outage_consumes_nothing(world: World) -> None:
    text = await token(world)
    world.ledger.next_error = UnavailableError("away")
    assert (await world.redeem(text)).status == 503
    assert (await world.redeem(text)).status == 200


async def test_failures_run_out_and_a_site_goes_on(world: World) -> None:
    good = await token(world)
    for _ in range(3):
        assert (await world.redeem("hello")).status == 400
    blocked = await world.redeem("hello")
    assert (blocked.status, blocked.code) == (429, "too_many_failures")
    assert int(blocked.headers["Retry-After"]) <= 20
    assert (await world.redeem(good)).status == 200, "a genuine token passes"
    world.clock.advance(21)
    assert (await world.redeem("hello")).status == 400


async def test_a_request_that_cannot_be_read_is_a_failure_too(world: World) -> None:
    for _ in range(3):
        assert (await world.call("POST", "/api/edge/redeem", b"{", role=None)).status == 400
    assert (await world.call("POST", "/api/edge/redeem", b"{", role=None)).status == 429


async def test_a_packages_failures_run_out_from_any_address(world: World) -> None:
    text = await token(world)
    await world.redeem(text)
    statuses = [(await world.redeem(text)).status for _ in range(5)]
    assert statuses == [409, 409, 409, 429, 429]
    assert (await world.redeem(await token(world, "site-b"))).status == 200


async def test_whatever_a_genuine_token_is_refused_for_counts(world: World) -> None:
    text = await token(world)
    statuses = [(await world.redeem(text, csr_pem="none")).status for _ in range(5)]
    assert statuses == [400, 400, 400, 429, 429]
    refused = [event for event in world.database.events.values() if event.event_type == "redeem_refused"]
    assert len(refused) == 3
    world.clock.advance(21)
    assert (await world.redeem(text)).status == 200


async def test_a_forged_token_cannot_use_up_a_packages_failures(world: World) -> None:
    text = await token(world)
    head, claims, _ = text.split(".")
    for _ in range(5):
        assert (await world.redeem(f"{head}.{claims}.{'A' * 86}")).status in (401, 429)
    assert (await world.redeem(text)).status == 200


async def test_successes_are_not_slowed(world: World) -> None:
    for number in range(10):
        assert (await world.redeem(await token(world, f"p{number}"))).status == 200


async def test_wrong_api_tokens_run_out_and_good_ones_pass(world: World) -> None:
    world.tokens["wrong"] = "jwa_wrong"
    statuses = [(await world.call("GET", "/api/admin/events", role="wrong")).status for _ in range(5)]
    assert statuses == [401, 401, 401, 429, 429]
    assert (await world.call("GET", "/api/admin/events")).status == 200


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"{}", {"Content-Type": "text/plain"}, 415),
        (b"{}", {"Content-Type": "application/x-www-form-urlencoded"}, 415),
        (b"\x1f\x8b", {"Content-Encoding": "gzip"}, 415),
        (b"", {}, 400),
        (b"{", {}, 400),
        (b"[" * 100_000, {}, 413),
        (b"[" * 1000 + b"]" * 1000, {}, 400),
        (b"\xff\xfe", {}, 400),
        (b"[]", {}, 422),
        (b"null", {}, 422),
        (b'{"token": NaN}', {}, 422),
        (b'{"token": "x", "csr_pem": "\\ud800"}', {}, 400),
        (b'{"token": "' + b"x" * 3000 + b'"}', {}, 422),
        (b'{"token": 1}', {}, 422),
    ],
)
async def test_bodies_that_cannot_be_read(
    world: World, body: bytes, headers: dict[str, str], status: int
) -> None:
    headers = {"Content-Type": "application/json"} | headers
    answer = await world.call("POST", "/api/edge/redeem", body, role=None, headers=headers)
    assert answer.status == status
    assert answer.code


async def test_a_body_of_unsaid_length_is_counted_as_it_comes(world: World) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(40):
            yield b" " * 65_536

    headers = {"Authorization": f"Bearer {world.tokens['admin']}", "Content-Type": "application/json"}
    url = f"{world.server.url}/api/admin/edge-packages"
    async with world.session.post(url, data=chunks(), headers=headers) as response:
        assert response.status == 413


async def test_others_with_the_same_token_cannot_keep_the_answer_from_its_winner(tmp_path: Path) -> None:
    async with http_world(tmp_path, failures_per_minute=30) as world:
        text = await token(world)
        won = await world.redeem(text, nats_public_key=KEY)
        losers = [await world.redeem(text, nats_public_key="U" + "B" * 55) for _ in range(40)]
        assert [answer.status for answer in losers] == [409] * 30 + [429] * 10
        assert (await world.redeem(text)).status == 429, "without a key nobody is the winner"
        again = await world.redeem(text, nats_public_key=KEY)
        assert (again.status, again.body) == (200, won.body)


async def test_whoever_had_a_package_that_was_revoked_is_refused_no_more_often_than_others(
    tmp_path: Path,
) -> None:
    """Each refusal of a genuine token is an audit entry of its own."""
    async with http_world(tmp_path, failures_per_minute=30) as world:
        made = await world.create("poller", "site-a")
        assert (await world.redeem(made["token"], nats_public_key=KEY)).status == 200
        path = f"/api/admin/edge-packages/{made['package']['package_id']}/revoke"
        assert (await world.call("POST", path, {"reason": "stolen"})).status == 200
        answers = [await world.redeem(made["token"], nats_public_key=KEY) for _ in range(40)]
        assert [answer.status for answer in answers] == [410] * 30 + [429] * 10


async def refusals(world: World, kind: str = "redeem_refused") -> list[tuple[str, object, object]]:
    await world.doors.refusals.tell(all_of_it=True)
    events = [event for event in world.database.events.values() if event.event_type == kind]
    return [(event.actor, event.metadata["code"], event.metadata["count"]) for event in events]


async def test_forged_tokens_are_in_the_trail_and_a_flood_of_them_is_few_entries(world: World) -> None:
    head, claims, _ = (await token(world)).split(".")
    for _ in range(3):
        assert (await world.redeem(f"{head}.{claims}.{'A' * 86}")).status == 401
    for _ in range(50):
        assert (await world.redeem("hello")).status == 429
    assert await refusals(world) == [
        ("stranger", "forged_package_token", 1),
        ("stranger", "too_many_redemptions", 1),
        ("stranger", "forged_package_token", 2),
        ("stranger", "too_many_redemptions", 49),
    ]
