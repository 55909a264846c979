"""The HTTP door with the real services behind it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from jetway.core.errors import (
    OutcomeUnknownError,
    PortError,
    RejectedError,
    UnavailableError,
)
from jetway.services.health import Component
from support.http_world import World, http_world

PACKAGES = "/api/admin/edge-packages"
SERVICES = "/api/admin/services"
NO_PACKAGE = "00000000-0000-4000-8000-00000000ffff"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with http_world(tmp_path) as made:
        yield made


async def family(world: World) -> dict[str, Any]:
    """A poller, an agent and a checker; the poller's answer."""
    poller = await world.create("poller", "site-a")
    await world.create("agent", "a1", "site-a", labels={"rack": "12"})
    await world.create("checker", "c1", "a1")
    return poller


# --- creating


async def test_create_answers_with_all_that_the_contract_lists(world: World) -> None:
    answer = await world.call("POST", PACKAGES, {"component_type": "poller", "label": "Site A"})
    created = answer.json
    assert answer.status == 201
    assert answer.headers["Location"] == f"{PACKAGES}/{created['package']['package_id']}"
    assert created["service"]["service_id"] == "site-a"
    assert created["service"]["created_by"] == "admin"
    assert created["projection"] == {"document": "written", "row": "written"}
    assert created["token"] not in json.dumps(created["install"])
    assert "--dir /etc/jetway-edge/site-a" in created["install"]["shell"]
    assert f"{world.server.url}/install.sh" in created["install"]["shell"]


async def test_a_row_that_waits_is_said_to_be_queued(world: World) -> None:
    world.projections.row = "queued"
    assert (await world.create("poller", "site-a"))["projection"] == {"document": "written", "row": "queued"}


async def test_nothing_but_create_shows_the_token(world: World) -> None:
    created = await world.create("poller", "site-a")
    for path in ("", f"/{created['package']['package_id']}", f"/{created['package']['package_id']}/events"):
        assert created["token"].encode() not in (await world.call("GET", PACKAGES + path)).body


async def test_an_idempotent_retry_gets_the_same_package_and_token(world: World) -> None:
    key = {"Idempotency-Key": "k-1"}
    body = {"component_type": "poller", "label": "Site A", "metadata": {"a": 1, "b": 2}}
    first = await world.call("POST", PACKAGES, body, headers=key)
    same = {"metadata": {"b": 2, "a": 1}, "label": "Site A", "component_type": "poller", "notes": ""}
    second = await world.call("POST", PACKAGES, same, headers=key)
    assert (first.status, second.status) == (201, 201)
    assert first.json["token"] == second.json["token"]
    other = await world.call("POST", PACKAGES, body | {"notes": "x"}, headers=key)
    assert (other.status, other.code, other.fields) == (422, "idempotency_mismatch", ["Idempotency-Key"])
    stranger = await world.call("POST", PACKAGES, body, headers=key, role="operator")
    assert stranger.status == 409, "keys are kept per caller"


@pytest.mark.parametrize("key", ["", "a b", "x" * 256])
async def test_a_bad_idempotency_key_is_refused(world: World, key: str) -> None:
    body = {"component_type": "poller", "label": "x"}
    answer = await world.call("POST", PACKAGES, body, headers={"Idempotency-Key": key})
    assert (answer.status, answer.fields) == (422, ["Idempotency-Key"])


@pytest.mark.parametrize(
    ("body", "status", "code", "field"),
    [
        (
            {"component_type": "agent", "component_id": "a2", "parent_id": "nowhere"},
            422,
            "parent_missing",
            "parent_id",
        ),
        ({"component_type": "agent", "component_id": "a2"}, 422, "invalid", "parent_id"),
        ({"component_type": "poller", "component_id": "p", "parent_id": "x"}, 422, "invalid", "parent_id"),
        (
            {"component_type": "checker", "component_id": "c", "parent_id": "a1"},
            422,
            "invalid",
            "checker_kind",
        ),
        ({"component_type": "poller", "component_id": "site-a"}, 409, "taken", "component_id"),
        ({"component_type": "poller", "colour": "red"}, 422, "invalid", "colour"),
    ],
)
async def test_what_cannot_be_created(
    world: World, body: dict[str, Any], status: int, code: str, field: str
) -> None:
    await family(world)
    answer = await world.call("POST", PACKAGES, {"label": "x"} | body)
    assert (answer.status, answer.code, answer.fields) == (status, code, [field])


async def test_a_revoked_parent_is_in_the_way(world: World) -> None:
    await world.create("poller", "site-a")
    await world.call("POST", f"{SERVICES}/pollers/site-a/status", {"status": "revoked"})
    body = {"component_type": "agent", "label": "x", "parent_id": "site-a"}
    answer = await world.call("POST", PACKAGES, body)
    assert (answer.status, answer.code) == (409, "parent_not_live")


# --- lists and reads


async def test_lists_filter_and_page(world: World) -> None:
    await family(world)
    for number in range(4):
        await world.create("agent", f"b{number}", "site-a")
    first = (await world.call("GET", f"{SERVICES}/agents?limit=2")).json
    assert ([item["service_id"] for item in first["items"]], first["total"]) == (["a1", "b0"], 5)
    second = (await world.call("GET", f"{SERVICES}/agents?limit=2&cursor={first['next_cursor']}")).json
    assert [item["service_id"] for item in second["items"]] == ["b1", "b2"]
    labelled = (await world.call("GET", f"{SERVICES}/agents?label=rack=12&status=pending&status=active")).json
    assert [item["service_id"] for item in labelled["items"]] == ["a1"]
    backwards = (await world.call("GET", f"{SERVICES}/agents?sort=-service_id&limit=1")).json
    assert backwards["items"][0]["service_id"] == "b3"
    beneath = (await world.call("GET", f"{SERVICES}/pollers/site-a/agents?q=B1")).json
    assert [item["service_id"] for item in beneath["items"]] == ["b1"]
    packages = (await world.call("GET", f"{PACKAGES}?component_type=checker")).json
    assert [item["component_id"] for item in packages["items"]] == ["c1"]


@pytest.mark.parametrize(
    ("path", "field"),
    [
        (f"{SERVICES}/agents?colour=red", "colour"),
        (f"{SERVICES}/agents?limit=0", "limit"),
        (f"{SERVICES}/agents?limit=501", "limit"),
        (f"{SERVICES}/agents?limit=1&limit=2", "limit"),
        (f"{SERVICES}/agents?status=gone", "status.0"),
        (f"{SERVICES}/agents?sort=colour", "sort"),
        (f"{SERVICES}/agents?cursor=nonsense", "cursor"),
        (f"{SERVICES}/agents/a1?verbose=1", "verbose"),
        ("/api/admin/events?since=yesterday", "since"),
    ],
)
async def test_a_wrong_parameter_is_refused_by_name(world: World, path: str, field: str) -> None:
    answer = await world.call("GET", path)
    assert (answer.status, answer.fields) == (422, [field])


async def test_the_tree_and_the_counts(world: World) -> None:
    await family(world)
    tree = (await world.call("GET", f"{SERVICES}/tree")).json
    assert tree["total"] == 3
    assert tree["items"][0]["children"][0]["children"][0]["service_id"] == "c1"
    stats = (await world.call("GET", f"{SERVICES}/stats")).json
    assert (stats["total"], stats["by_type"]) == (3, {"poller": 1, "agent": 1, "checker": 1})
    poller = (await world.call("GET", f"{SERVICES}/pollers/site-a")).json
    assert (poller["agent_count"], poller["checker_count"], poller["liveness"]) == (1, 1, "never")


async def test_histories(world: World) -> None:
    poller = await family(world)
    of_service = (await world.call("GET", f"{SERVICES}/pollers/site-a/events")).json
    assert {event["event_type"] for event in of_service["items"]} == {"registered", "issued"}
    of_package = (
        await world.call("GET", f"{PACKAGES}/{poller['package']['package_id']}/events?type=issued")
    ).json
    assert [event["actor"] for event in of_package["items"]] == ["admin"]
    trail = (await world.call("GET", "/api/admin/events?service_type=agent&limit=1")).json
    assert trail["total"] == 2
    assert trail["next_cursor"]


@pytest.mark.parametrize(
    "path",
    [
        "/api/admin/nothing",
        f"{SERVICES}/gateways",
        f"{SERVICES}/pollers/nobody",
        f"{SERVICES}/pollers/UPPER",
        f"{SERVICES}/pollers/nobody/agents",
        f"{SERVICES}/pollers/nobody/events",
        f"{PACKAGES}/{NO_PACKAGE}",
        f"{PACKAGES}/{NO_PACKAGE}/events",
        f"{PACKAGES}/not-a-uuid",
        "/docs/swagger-editor.css",
        "/docs/..%2f..%2fcore.py",
    ],
)
async def test_what_is_not_there_is_a_404_problem(world: World, path: str) -> None:
    answer = await world.call("GET", path)
    assert (answer.status, answer.code) == (404, "not_found")


async def test_a_method_that_is_not_taken(world: World) -> None:
    answer = await world.call("PATCH", f"{SERVICES}/pollers/site-a")
    assert (answer.status, answer.code, answer.headers["Allow"]) == (
        405,
        "method_not_allowed",
        "DELETE,GET,HEAD",
    )
    assert (await world.call("DELETE", f"{PACKAGES}/defaults")).headers["Allow"] == "GET,HEAD"


async def test_head_is_get_without_a_body(world: World) -> None:
    answer = await world.call("HEAD", PACKAGES)
    assert (answer.status, answer.body) == (200, b"")
    assert int(answer.headers["Content-Length"]) > 0


# --- decisions


async def test_revoke_shows_first_and_then_does(world: World) -> None:
    poller = await family(world)
    path = f"{PACKAGES}/{poller['package']['package_id']}/revoke"
    preview = (await world.call("POST", path, {"dry_run": True})).json
    assert [item["service_id"] for item in preview["services"]] == ["site-a", "a1", "c1"]
    assert (await world.call("GET", f"{SERVICES}/checkers/c1")).json["status"] == "pending"
    refused = await world.call("POST", path, {"cascade": False})
    assert (refused.status, refused.code) == (409, "children_live")
    done = await world.call("POST", path)
    assert done.status == 200
    assert (done.json["complete"], done.json["package"]["status"]) == (True, "revoked")
    assert (await world.call("GET", f"{SERVICES}/checkers/c1")).json["status"] == "revoked"


async def test_reissue_makes_a_new_token_and_ends_the_old(world: World) -> None:
    poller = await world.create("poller", "site-a")
    path = f"{PACKAGES}/{poller['package']['package_id']}/reissue"
    answer = await world.call("POST", path, {"reason": "lost"})
    assert answer.status == 201
    assert answer.json["package"]["generation"] == 2
    assert (await world.redeem(poller["token"])).code == "superseded"
    assert (await world.redeem(answer.json["token"])).status == 200


async def test_delete_waits_for_a_revocation(world: World) -> None:
    poller = await world.create("poller", "site-a")
    package = f"{PACKAGES}/{poller['package']['package_id']}"
    assert (await world.call("DELETE", f"{SERVICES}/pollers/site-a")).code == "illegal_transition"
    assert (await world.call("DELETE", package)).code == "illegal_transition"
    await world.call("POST", f"{package}/revoke", {})
    preview = await world.call("DELETE", f"{SERVICES}/pollers/site-a?dry_run=true")
    assert (preview.status, preview.json["dry_run"]) == (200, True)
    gone = await world.call("DELETE", package)
    assert (gone.status, gone.body) == (204, b"")
    assert (await world.call("GET", package)).status == 404
    assert (await world.call("DELETE", f"{SERVICES}/pollers/site-a?reason=old")).status == 204
    assert (await world.call("GET", f"{SERVICES}/pollers")).json["total"] == 0


async def test_register_without_a_package(world: World) -> None:
    answer = await world.call("POST", f"{SERVICES}/pollers", {"service_id": "core"})
    assert (answer.status, answer.headers["Location"]) == (201, f"{SERVICES}/pollers/core")
    assert (answer.json["registration_source"], answer.json["label"]) == ("config", "core")
    assert (answer.json["package_id"], answer.json["status"]) == ("", "pending")


async def test_nobody_approves_who_did_not_ask(world: World) -> None:
    await world.create("poller", "site-a")
    answer = await world.call("POST", f"{SERVICES}/pollers/site-a/approve")
    assert (answer.status, answer.code) == (409, "illegal_transition")


async def test_api_tokens(world: World) -> None:
    made = await world.call("POST", "/api/admin/api-tokens", {"name": "ci", "role": "viewer"})
    assert made.status == 201
    world.tokens["ci"] = made.json["token"]
    assert (await world.call("GET", PACKAGES, role="ci")).status == 200
    listed = await world.call("GET", "/api/admin/api-tokens")
    assert made.json["token"].encode() not in listed.body
    assert "ci" in [item["name"] for item in listed.json["items"]]
    again = await world.call("POST", "/api/admin/api-tokens", {"name": "ci", "role": "viewer"})
    assert (again.status, again.code) == (409, "taken")
    assert (await world.call("DELETE", "/api/admin/api-tokens/ci")).status == 204
    assert (await world.call("GET", PACKAGES, role="ci")).status == 401
    assert (await world.call("DELETE", "/api/admin/api-tokens/ci")).status == 404


@pytest.mark.parametrize("name", ["x.", "x..y", ".x", "x" * 64])
async def test_a_tokens_name_that_could_not_be_kept_is_refused(world: World, name: str) -> None:
    answer = await world.call("POST", "/api/admin/api-tokens", {"name": name, "role": "viewer"})
    assert (answer.status, answer.fields) == (422, ["name"])


# --- who may


ROLES = [
    ("GET", PACKAGES, "viewer"),
    ("GET", "/api/admin/events", "viewer"),
    ("POST", PACKAGES, "operator"),
    ("POST", f"{SERVICES}/pollers/x/status", "operator"),
    ("DELETE", f"{SERVICES}/pollers/x", "admin"),
    ("DELETE", f"{PACKAGES}/{NO_PACKAGE}", "admin"),
    ("GET", "/api/admin/api-tokens", "admin"),
    ("POST", "/api/admin/api-tokens", "admin"),
]


@pytest.mark.parametrize(("method", "path", "needed"), ROLES)
async def test_roles(world: World, method: str, path: str, needed: str) -> None:
    order = ["viewer", "operator", "admin"]
    for role in order:
        answer = await world.call(method, path, role=role)
        if order.index(role) < order.index(needed):
            assert (answer.status, answer.code) == (403, "forbidden")
            assert needed in answer.json["detail"]
        else:
            assert answer.status not in (401, 403)
    stranger = await world.call(method, path, role=None)
    assert (stranger.status, stranger.code) == (401, "unauthorized")
    assert stranger.headers["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize("header", ["Bearer", "Bearer ", "Bearer wrong", "Basic YWRtaW46", "Bearer \u00ff"])
async def test_a_wrong_token_is_nobodys(world: World, header: str) -> None:
    answer = await world.call("GET", PACKAGES, role=None, headers={"Authorization": header})
    assert answer.status == 401


async def test_every_route_but_the_open_ones_asks_for_a_token(world: World) -> None:
    description = (await world.call("GET", "/openapi.json", role=None)).json
    for path, methods in description["paths"].items():
        for operation in methods.values():
            assert bool(operation["security"]) is path.startswith("/api/admin"), path


# --- outages and mistakes


async def test_an_outage_is_a_503_that_changed_nothing(world: World) -> None:
    world.ledger.next_error = UnavailableError("nats at 10.0.0.7 is away")
    answer = await world.call("POST", PACKAGES, {"component_type": "poller", "label": "x"})
    assert (answer.status, answer.code) == (503, "unavailable")
    assert answer.headers["Retry-After"]
    assert b"10.0.0.7" not in answer.body


async def test_an_unknown_outcome_is_said_to_be_one(world: World) -> None:
    world.ledger.next_error = OutcomeUnknownError("timeout")
    answer = await world.call("POST", PACKAGES, {"component_type": "poller", "label": "x"})
    assert (answer.status, answer.code) == (503, "outcome_unknown")


async def test_a_mistake_of_ours_tells_its_number_alone(world: World) -> None:
    world.ledger.next_error = RuntimeError("the secret cause")
    headers = {"X-Request-Id": "trace-7"}
    answer = await world.call("POST", PACKAGES, {"component_type": "poller", "label": "x"}, headers=headers)
    assert (answer.status, answer.code) == (500, "internal")
    assert answer.json["request_id"] == "trace-7"
    assert b"secret" not in answer.body


# --- health and metrics


async def test_health(world: World) -> None:
    assert (await world.call("GET", "/healthz", role=None)).json == {"status": "ok"}
    world.health.alive = False
    dead = await world.call("GET", "/healthz", role=None)
    assert (dead.status, dead.json) == (503, {"status": "unavailable"})


async def test_readiness_shows_its_parts_to_this_machine_and_to_viewers(world: World) -> None:
    world.health.ready = False
    world.health.components = {"nats": Component("down", "not connected")}
    local = await world.call("GET", "/readyz", role=None)
    assert (local.status, local.json["components"]["nats"]["state"]) == (503, "down")
    proxied = {"X-Forwarded-For": "127.0.0.1"}
    assert (await world.call("GET", "/readyz", role=None, headers=proxied)).json == {"status": "unavailable"}
    assert "components" in (await world.call("GET", "/readyz", role="viewer", headers=proxied)).json


async def test_metrics_are_not_for_everybody(world: World) -> None:
    local = await world.call("GET", "/metrics", role=None)
    assert (local.status, local.headers["Content-Type"].split(";")[0]) == (200, "text/plain")
    proxied = {"X-Forwarded-For": "127.0.0.1"}
    assert (await world.call("GET", "/metrics", role=None, headers=proxied)).status == 401
    assert (await world.call("GET", "/metrics", role="viewer", headers=proxied)).status == 200


@pytest.mark.parametrize("accept", ['text/plain; version="0.0.4"', "text/plain;version=abc", "x"])
async def test_metrics_come_whatever_is_accepted(world: World, accept: str) -> None:
    answer = await world.call("GET", "/metrics", headers={"Accept": accept})
    assert answer.status == 200
    assert b"jetway_http_requests_total" in answer.body


async def test_a_service_that_was_registered_gets_a_token(world: World) -> None:
    body = {"service_id": "old", "label": "Old", "labels": {"rack": "7"}}
    assert (await world.call("POST", f"{SERVICES}/pollers", body)).status == 201
    path = f"{SERVICES}/pollers/old/reissue"
    assert (await world.call("POST", path, {}, role="viewer")).status == 403
    answer = await world.call("POST", path, {"reason": "guarded now"})
    assert (answer.status, answer.json["package"]["generation"]) == (201, 1)
    assert answer.json["service"]["labels"] == {"rack": "7"}
    assert (await world.redeem(answer.json["token"])).status == 200
    assert (await world.call("POST", f"{SERVICES}/pollers/nobody/reissue", {})).status == 404


async def test_metrics_are_open_where_the_settings_open_them(tmp_path: Path) -> None:
    async with http_world(tmp_path, detail_for_all=True) as world:
        proxied = {"X-Forwarded-For": "192.0.2.1"}
        assert (await world.call("GET", "/metrics", role=None, headers=proxied)).status == 200


async def test_metrics_count_by_route_template(world: World) -> None:
    await world.create("poller", "site-a")
    await world.call("GET", f"{SERVICES}/pollers/site-a")
    await world.call("GET", "/made/up/by/somebody")
    text = (await world.call("GET", "/metrics")).body.decode()
    assert 'route="/api/admin/services/{plural}/{service_id}",status="200"} 1.0' in text
    assert 'route="unmatched",status="404"} 1.0' in text
    assert "somebody" not in text


async def test_a_dependency_that_refuses_is_no_mistake_of_the_daemon(world: World) -> None:
    """The log has its words, the caller has none of them."""
    body = {"component_type": "poller", "label": "Site A"}
    described = (await world.call("GET", "/openapi.json")).json["paths"][PACKAGES]["post"]["responses"]
    for error, status, code in (
        (PortError("JetStream: secret (10077)"), 503, "dependency_failed"),
        (RejectedError("secret"), 422, "not_storable"),
    ):
        world.ledger.next_error = error
        answer = await world.call("POST", PACKAGES, body)
        assert (answer.status, answer.json["code"]) == (status, code)
        assert b"secret" not in answer.body
        assert str(status) in described
    assert (await world.call("POST", PACKAGES, body)).status == 201
