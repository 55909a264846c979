"""Who may call what: every route that is served, with and without a token, from here and through a proxy."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from pathlib import Path

import pytest

from jetway.services.caller import Caller
from support.http_world import World, http_world

OPEN = {
    ("GET", "/docs"),
    ("GET", "/docs/{asset}"),
    ("GET", "/healthz"),
    ("GET", "/install.sh"),
    ("GET", "/openapi.json"),
    ("GET", "/readyz"),  # its detail is not: see below
    ("GET", "/api/edge/ca.pem"),
    ("GET", "/api/edge/crl.pem"),
    ("POST", "/api/edge/redeem"),  # a package token opens it
    ("POST", "/api/edge/renew"),  # a service's signature opens it
}
"""All that a stranger may ask for. A route that is to be open has to be written here."""
PAGES = {("GET", "/"), ("GET", "/ui")}
LOCAL = {("GET", "/metrics")}
"""Open to this machine alone."""
THROUGH_PROXY = {"X-Forwarded-For": "192.0.2.9"}
EVENTS = "/api/admin/events"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with http_world(tmp_path) as served:
        yield served


def routes(world: World) -> set[tuple[str, str]]:
    """(method, template) of everything that the server has, whether the description tells of it or not."""
    application = world.server.application("http://gateway.example")
    found = set()
    for route in application.router.routes():
        assert route.resource is not None
        found.add((route.method, route.resource.canonical))
    return {(method, path) for method, path in found if method != "HEAD"}


def api_routes(world: World) -> set[tuple[str, str]]:
    """Without the pages, which send a stranger to the sign-in instead."""
    return {route for route in routes(world) if route not in PAGES and not route[1].startswith("/ui/")}


def filled(path: str) -> str:
    return re.sub(r"{[^}]*}", "pollers", path)


async def ask(world: World, method: str, path: str, headers: Mapping[str, str]) -> int:
    body = b"{}" if method != "GET" else None
    return (await world.call(method, path, body, role=None, headers=dict(headers))).status


async def test_a_stranger_is_refused_by_every_route_but_the_open_ones(tmp_path: Path) -> None:
    async with http_world(tmp_path, failures_per_minute=100_000) as world:
        guarded = api_routes(world) - OPEN - LOCAL
        assert len(guarded) > 30
        assert routes(world) >= OPEN | LOCAL, "what is said to be open is there"
        for method, path in sorted(guarded):
            for headers in ({}, {"Authorization": ""}, {"Authorization": "Bearer "}, {"X-Api-Key": "x"}):
                assert await ask(world, method, filled(path), headers) == 401, (method, path, headers)


async def test_a_stranger_sees_no_page_but_the_sign_in(tmp_path: Path) -> None:
    async with http_world(tmp_path, failures_per_minute=100_000) as world:
        pages = {route for route in routes(world) if route[1].startswith("/ui/")}
        assert len(pages) > 20
        for method, path in sorted(pages):
            if path.startswith("/ui/static/") or path == "/ui/sign-in":
                continue
            url = world.server.url + filled(path.replace("{action}", "revoke").replace("{kind}", "poller"))
            async with world.session.request(method, url, allow_redirects=False) as answer:
                sent_on = answer.headers.get("Location", "").startswith("/ui/sign-in")
                assert sent_on or answer.status in (401, 403), (method, path, answer.status)


async def test_no_setting_that_is_left_out_opens_anything(tmp_path: Path) -> None:
    """Not even where no token was ever made."""
    async with http_world(tmp_path, failures_per_minute=100_000) as world:
        for token in world.doors.api_tokens.list():
            await world.doors.api_tokens.revoke(Caller("test"), token.name)
        assert world.doors.api_tokens.list() == []
        for method, path in sorted(api_routes(world) - OPEN - LOCAL):
            assert await ask(world, method, filled(path), {"Authorization": "Bearer x"}) == 401, (
                method,
                path,
            )


@pytest.mark.parametrize("trusted", [(), ("127.0.0.1",)])
async def test_detail_is_for_this_machine_and_not_for_who_comes_through_a_proxy(
    tmp_path: Path, trusted: tuple[str, ...]
) -> None:
    async with http_world(tmp_path, trusted_proxies=trusted) as world:
        assert await ask(world, "GET", "/metrics", {}) == 200
        for headers in (
            THROUGH_PROXY,
            {"X-Forwarded-For": "127.0.0.1"},
            {"Forwarded": "for=127.0.0.1"},
            {"X-Real-IP": "127.0.0.1"},
        ):
            assert await ask(world, "GET", "/metrics", headers) == 401, headers
            ready = await world.call("GET", "/readyz", role=None, headers=headers)
            assert ready.json == {"status": "ok"}
        assert (await world.call("GET", "/metrics", role="viewer", headers=THROUGH_PROXY)).status == 200


# --- what is told of those who were refused


async def told(world: World) -> list[tuple[str, object, object]]:
    await world.doors.refusals.tell(all_of_it=True)
    events = [event for event in world.database.events.values() if event.event_type == "api_refused"]
    return [(event.actor, event.metadata["code"], event.metadata["count"]) for event in events]


async def test_every_refusal_is_told_with_its_reason(tmp_path: Path) -> None:
    async with http_world(tmp_path, failures_per_minute=100_000) as world:
        text, _ = await world.doors.api_tokens.create(Caller("test"), "old", "admin", timedelta(hours=1))
        world.clock.advance(3601)
        world.tokens |= {"wrong": "jwa_wrong", "old": text}
        assert (await world.call("GET", EVENTS, role=None)).status == 401
        assert (await world.call("GET", EVENTS, role="wrong")).status == 401
        assert (await world.call("GET", EVENTS, role="old")).status == 401
        assert (await world.call("GET", "/api/admin/api-tokens", role="viewer")).status == 403
        assert (await world.call("GET", EVENTS)).status == 200
        assert await told(world) == [
            ("stranger", "no_token", 1),
            ("stranger", "unknown_token", 1),
            ("old", "expired_token", 1),
            ("viewer", "role_too_small", 1),
        ]
        listed = await world.call("GET", f"{EVENTS}?type=api_refused")
        assert listed.json["total"] == 4
        assert b"jwa_" not in listed.body


async def test_a_flood_of_refused_calls_is_no_flood_of_entries(world: World) -> None:
    world.tokens["wrong"] = "jwa_wrong"
    for _ in range(200):
        assert (await world.call("GET", EVENTS, role="wrong")).status in (401, 429)
    assert await told(world) == [
        ("stranger", "unknown_token", 1),
        ("stranger", "too_many_failures", 1),
        ("stranger", "unknown_token", 29),
        ("stranger", "too_many_failures", 169),
    ]


async def test_whom_a_trusted_proxy_names_is_told_of_and_nobody_elses_word_counts(tmp_path: Path) -> None:
    for trusted, address in ((("127.0.0.1",), "192.0.2.9"), ((), "127.0.0.1")):
        async with http_world(tmp_path / address, trusted_proxies=trusted) as world:
            await world.call("GET", EVENTS, role=None, headers=THROUGH_PROXY)
            await world.doors.refusals.tell()
            (event,) = [e for e in world.database.events.values() if e.event_type == "api_refused"]
            assert event.source_ip == address


async def test_the_last_use_of_a_token_is_shown(world: World) -> None:
    items = (await world.call("GET", "/api/admin/api-tokens")).json["items"]
    used = {item["name"]: item["last_used_at"] for item in items}
    assert used["admin"] is not None
    assert used["viewer"] is None


@pytest.mark.parametrize("host", ["gateway.example", "evil.example:8080", "", "[", "127.0.0.1.evil.example"])
async def test_who_asks_for_another_name_is_not_this_machine(world: World, host: str) -> None:
    """A proxy on this machine that says nothing of itself, or a browser that was sent here by a made-up name."""
    for path in ("/metrics", "/readyz"):
        shown = await world.call("GET", path, role=None, headers={"Host": host})
        assert shown.status in (400, 401) or shown.json == {"status": "ok"}, (path, host)
    for name in ("127.0.0.1", "localhost:8080", "[::1]:8080"):
        assert await ask(world, "GET", "/metrics", {"Host": name}) == 200


async def test_behind_a_proxy_nobody_is_this_machine(tmp_path: Path) -> None:
    async with http_world(tmp_path, public_url="https://gateway.example") as world:
        assert await ask(world, "GET", "/metrics", {}) == 401
        assert (await world.call("GET", "/readyz", role=None)).json == {"status": "ok"}
        assert (await world.call("GET", "/metrics", role="viewer")).status == 200
