"""Versions in headers: what has not changed is not sent again, and nobody overwrites what he has not seen."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from jetway.core.heartbeat import EMPTY
from jetway.core.ids import ServiceKey, ServiceType
from support.http_world import Answer, World, http_world

SERVICE = "/api/admin/services/pollers/p1"
PACKAGES = "/api/admin/edge-packages"
P1 = ServiceKey(ServiceType.POLLER, "p1")


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with http_world(tmp_path) as made:
        yield made


async def read(world: World, path: str, tag: str = "") -> Answer:
    return await world.call("GET", path, headers={"If-None-Match": tag} if tag else {})


async def set_status(world: World, tag: str, status: str = "revoked", **more: Any) -> Answer:
    return await world.call(
        "POST", f"{SERVICE}/status", {"status": status, **more}, headers={"If-Match": tag}
    )


async def test_what_has_not_changed_is_not_sent_again(world: World) -> None:
    package = f"{PACKAGES}/{(await world.create('poller', 'p1'))['package']['package_id']}"
    for path, weak in ((SERVICE, True), (package, False)):
        first = await read(world, path)
        tag = first.headers["ETag"]
        assert tag.startswith("W/") is weak
        for given in (tag, f'"other", {tag}', "*", tag.removeprefix("W/")):
            again = await read(world, path, given)
            assert (again.status, again.body, again.headers["ETag"]) == (304, b"", tag)
        assert (await read(world, path, '"other"')).json == first.json
    before = (await read(world, package)).headers["ETag"]
    await world.call("POST", f"{SERVICE}/status", {"status": "revoked"})
    for path in (SERVICE, package):
        assert (await read(world, path, before)).status == 200


async def test_a_heartbeat_is_news_but_no_other_version(world: World) -> None:
    await world.create("poller", "p1")
    before = (await read(world, SERVICE)).headers["ETag"]
    world.doors.catalogue._presence.note(P1, EMPTY, world.clock.now())
    heard = await read(world, SERVICE, before)
    assert heard.json["last_seen"]
    assert heard.headers["ETag"] != before
    assert (await set_status(world, before)).status == 200


async def test_a_change_of_another_version_is_refused(world: World) -> None:
    created = await world.create("poller", "p1")
    package = f"{PACKAGES}/{created['package']['package_id']}"
    service_tag = (await read(world, SERVICE)).headers["ETag"]
    package_tag = (await read(world, package)).headers["ETag"]
    await world.redeem(created["token"])
    for dry_run in (True, False):
        answer = await set_status(world, service_tag, dry_run=dry_run)
        assert (answer.status, answer.code, answer.fields) == (412, "version_differs", ["If-Match"])
    for method, path in (
        ("POST", f"{package}/revoke"),
        ("POST", f"{package}/reissue"),
        ("DELETE", package),
        ("DELETE", SERVICE),
        ("POST", f"{SERVICE}/approve"),
        ("POST", f"{SERVICE}/reject"),
    ):
        body = {} if method == "POST" else None
        stale = await world.call(method, path, body, headers={"If-Match": package_tag})
        assert (stale.status, stale.code) == (412, "version_differs"), path
    assert (await read(world, SERVICE)).json["revision"] == 2
    now = (await read(world, package)).headers["ETag"]
    done = await world.call("POST", f"{package}/revoke", {}, headers={"If-Match": f"{package_tag}, {now}"})
    assert done.status == 200


async def test_the_fields_of_an_answer_make_a_version(world: World) -> None:
    shown = (await world.create("poller", "p1"))["service"]
    assert (await set_status(world, f'"{shown["epoch"]}-{shown["revision"]}"')).status == 200
    assert (await set_status(world, f'"{shown["epoch"]}-{shown["revision"]}"')).status == 412
    assert (await set_status(world, "*")).status == 200
    assert (await set_status(world, '"nothing-of-ours"')).status == 412


@pytest.mark.parametrize("tag", ["1-1", '"1-1', "", '"a" "b"'])
async def test_what_is_no_tag_is_refused(world: World, tag: str) -> None:
    await world.create("poller", "p1")
    answer = await set_status(world, tag)
    assert (answer.status, answer.fields) == (422, ["If-Match"])


async def test_what_is_not_there_is_not_found(world: World) -> None:
    assert (await set_status(world, "*")).status == 404
    assert (await set_status(world, '"1-1"')).status == 404
