"""Tokens that are not good: refused with the reason, nothing consumed, nothing changed."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from support.daemon import PACKAGES, REDEEM, Daemon, eventually, fresh, nats_key
from support.daemon_state import eventually_async, unchanged

NewDaemon = Callable[..., Daemon]


async def must_refuse(daemon: Daemon, token: object, status: int, code: str) -> str:
    """Refused with that code and nothing changed; the detail."""
    async with unchanged(daemon):
        for accept in ("application/json", "application/gzip"):
            body = {"token": token, "nats_public_key": nats_key()}
            answer = daemon.call("POST", REDEEM, body, token="", headers={"Accept": accept})
            assert (answer.status, answer.json["code"]) == (status, code), answer.body
            assert answer.headers["content-type"] == "application/problem+json"
    return str(answer.json["detail"])


def claims_of(token: str) -> dict[str, Any]:
    body = token.split(".")[1]
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    return claims


def with_claims(token: str, **changes: Any) -> str:
    """The token altered, its signature as it was."""
    prefix, _, signature = token.split(".")
    body = json.dumps({**claims_of(token), **changes}, sort_keys=True, separators=(",", ":")).encode()
    return f"{prefix}.{base64.urlsafe_b64encode(body).rstrip(b'=').decode()}.{signature}"


@pytest.mark.parametrize(
    "token",
    [
        "x",
        "jw1",
        "jw1..",
        "jw1.abc.def",
        "jw2.abc.def",
        "jw1.e30.AAAA",
        "jw1.W10.AAAA",
        "ä",
        "jw1.a.b.c",
        "\u0000",
    ],
)
async def test_a_malformed_token_is_400(daemon: Daemon, token: str) -> None:
    assert "not a Jetway token" in await must_refuse(daemon, token, 400, "token_malformed")


@pytest.mark.parametrize("token", ["", "x" * 5000, None, 7, ["jw1"], {}])
async def test_a_token_of_the_wrong_kind_is_422(daemon: Daemon, token: object) -> None:
    assert "token" in await must_refuse(daemon, token, 422, "invalid")


async def test_a_cut_or_lengthened_token_is_400_or_401_and_not_spent(daemon: Daemon) -> None:
    token = daemon.create("poller", fresh("p"))["token"]
    for wrong in (token[:-2], token + "x", token.replace(".", ",", 1), token.swapcase()):
        async with unchanged(daemon):
            assert daemon.redeem(wrong).status in (400, 401)
    assert daemon.redeem(token).status == 200


@pytest.mark.parametrize(
    "changes",
    [
        {"gateway": "http://evil.example"},
        {"expires_at": 4_000_000_000},
        {"generation": 2},
        {"service_id": "another"},
        {"package_id": "00000000-0000-4000-8000-00000000ffff"},
        {"secret": "AAAA"},
    ],
    ids=lambda changes: next(iter(changes)),
)
async def test_an_altered_token_is_unknown(daemon: Daemon, changes: dict[str, Any]) -> None:
    token = daemon.create("poller", fresh("p"))["token"]
    await must_refuse(daemon, with_claims(token, **changes), 401, "token_unknown")
    assert daemon.redeem(token).status == 200


async def test_the_signature_of_another_token_does_not_fit(daemon: Daemon) -> None:
    first, second = (daemon.create("poller", fresh("p"))["token"] for _ in range(2))
    mixed = ".".join([*first.split(".")[:2], second.split(".")[2]])
    await must_refuse(daemon, mixed, 401, "token_unknown")


async def test_a_token_of_another_gateway_is_unknown(daemon: Daemon, forgetful: Daemon) -> None:
    foreign = forgetful.create("poller", fresh("p"))["token"]
    assert "gateway" in await must_refuse(daemon, foreign, 401, "token_unknown")


def its_time_is_up(package: Any) -> None:
    assert datetime.now(UTC) > datetime.fromisoformat(package["token_expires_at"])


def expire_packages(daemon: Daemon) -> None:
    """Have the daemon do at once what it does every half minute: it changes the ledger."""
    run = daemon.call("POST", "/api/admin/jobs/expire-packages/runs", {"dry_run": False})
    assert run.status == 200, run.body


async def test_an_expired_token_is_410_and_a_reissue_is_good(forgetful: Daemon) -> None:
    created = forgetful.create("poller", fresh("p"))
    eventually(lambda: its_time_is_up(created["package"]))
    answer = forgetful.redeem(created["token"])
    assert (answer.status, answer.json["code"]) == (410, "expired")
    assert "reissue" in answer.json["detail"] or "expired before" in answer.json["detail"], "as it was swept"
    eventually(lambda: expire_packages(forgetful))
    async with unchanged(forgetful):
        answer = forgetful.redeem(created["token"])
    assert (answer.status, answer.json["code"]) == (410, "expired")
    path = f"{PACKAGES}/{created['package']['package_id']}/reissue"
    anew = forgetful.call("POST", path, {"token_ttl_seconds": 3600})
    assert forgetful.redeem(anew.json["token"]).status == 200
    again = forgetful.redeem(created["token"])
    assert again.status == 410


async def test_a_winner_may_not_ask_again_once_the_time_is_up(forgetful: Daemon) -> None:
    created, key = forgetful.create("poller", fresh("p")), nats_key()
    assert forgetful.redeem(created["token"], nats_public_key=key).status == 200
    eventually(lambda: its_time_is_up(created["package"]))
    assert forgetful.redeem(created["token"], nats_public_key=key).status == 410


async def test_a_spent_token_is_409_before_and_after_the_activation(daemon: Daemon) -> None:
    poller = fresh("p")
    token = daemon.create("poller", poller)["token"]
    answer = daemon.redeem(token, nats_public_key=nats_key(), host={"hostname": "edge-1"}).json
    assert "edge-1" in await must_refuse(daemon, token, 409, "already_redeemed")
    async with daemon.nats() as client:
        await client.publish(answer["heartbeat"]["subject"])
        await client.flush()

    async def active() -> None:
        assert daemon.service("poller", poller)["status"] == "active"

    await eventually_async(active)
    await must_refuse(daemon, token, 409, "already_redeemed")


async def test_a_revoked_token_is_410(daemon: Daemon) -> None:
    created = daemon.create("poller", fresh("p"))
    path = f"{PACKAGES}/{created['package']['package_id']}"
    assert daemon.call("POST", f"{path}/revoke", {"reason": "stolen"}).status == 200
    assert "revoked" in await must_refuse(daemon, created["token"], 410, "revoked")
    assert daemon.call("DELETE", path).status == 204
    await must_refuse(daemon, created["token"], 410, "revoked")


async def test_a_superseded_token_is_410_at_once(daemon: Daemon) -> None:
    created = daemon.create("poller", fresh("p"))
    anew = daemon.call("POST", f"{PACKAGES}/{created['package']['package_id']}/reissue", {}).json
    await must_refuse(daemon, created["token"], 410, "superseded")
    assert daemon.redeem(anew["token"]).status == 200


async def test_a_token_of_a_deleted_and_created_again_service_is_410(daemon: Daemon) -> None:
    poller = fresh("p")
    old = daemon.create("poller", poller)
    revoke = f"{PACKAGES}/{old['package']['package_id']}/revoke"
    assert daemon.call("POST", revoke, {}).status == 200
    assert daemon.call("DELETE", f"/api/admin/services/pollers/{poller}").status == 204
    new = daemon.create("poller", poller)
    assert new["service"]["incarnation"] == 2
    await must_refuse(daemon, old["token"], 410, "revoked")
    assert daemon.redeem(new["token"]).status == 200


def test_who_fails_too_often_waits_and_a_good_token_passes_all_the_same(new_daemon: NewDaemon) -> None:
    daemon = new_daemon(JETWAY_HTTP__FAILURES_PER_MINUTE="3")
    token = daemon.create("poller", "site-a")["token"]
    answers = [daemon.redeem("jw1.abc.def") for _ in range(5)]
    assert [answer.status for answer in answers] == [400, 400, 400, 429, 429]
    assert int(answers[-1].headers["retry-after"]) > 0
    assert daemon.call("GET", "/api/admin/events", token="jwa_" + "x" * 43).status == 429
    assert daemon.redeem(token).status == 200
    eventually(lambda: require_events(daemon))


def require_events(daemon: Daemon) -> None:
    assert daemon.get("/api/admin/events")["total"] > 0


def test_a_failure_limit_on_a_package_holds_for_its_holders_only(new_daemon: NewDaemon) -> None:
    daemon = new_daemon(JETWAY_HTTP__FAILURES_PER_MINUTE="3")
    spent, good = (daemon.create("poller", each)["token"] for each in ("site-a", "site-b"))
    daemon.redeem(spent, nats_public_key=nats_key())
    statuses = [daemon.redeem(spent, nats_public_key=nats_key()).status for _ in range(5)]
    assert statuses == [409, 409, 409, 429, 429]
    assert daemon.redeem(good).status == 200
