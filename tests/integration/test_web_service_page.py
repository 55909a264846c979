"""The page of one service: its document and how it stands, its package, flapping, clones, maintenance."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from jetway.core.documents import config_hash, encode_document, render
from jetway.core.errors import UnavailableError
from jetway.core.ids import ServiceKey, ServiceType, document_key
from jetway.core.record import ServiceRecord
from jetway.services import document_state as module
from jetway.services.catalogue import Catalogue
from support.browsing import Browser, browsing
from support.http_world import World, http_world

AGENT = ServiceKey(ServiceType.AGENT, "a1")
CHECKER = ServiceKey(ServiceType.CHECKER, "c1")
PAGE = "/ui/services/checker/c1"
CONFIG = {"hosts": ["192.0.2.1"], "snmp_community": "hunter2", "url": "https://user:hunter2@example.net"}


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(module, "_ON_ITS_WAY_SECONDS", 0.01)
    async with http_world(tmp_path) as world:
        await world.create("poller", "p1")
        await world.create("agent", "a1", "p1", site="A")
        await world.create("checker", "c1", "a1", checker_config=CONFIG)
        for name in ("a1", "c1"):
            record = record_of(world, AGENT if name == "a1" else CHECKER)
            put(world, record, wanted(world, record))
        yield world


@pytest.fixture
async def browser(world: World) -> AsyncIterator[Browser]:
    async with browsing(world) as browser:
        await browser.sign_in("operator")
        yield browser


def record_of(world: World, key: ServiceKey) -> ServiceRecord:
    record = world.ledger.index.get(key)
    assert record
    return record


def wanted(world: World, record: ServiceRecord) -> dict[str, Any]:
    return render(record, world.ledger.index.child_keys(record.key), default_interval=30)


def put(world: World, record: ServiceRecord, document: dict[str, Any]) -> None:
    world.documents.contents[document_key(record.lineage)] = encode_document(document)


async def test_a_document_as_the_gateway_wrote_it_is_shown_without_secrets(browser: Browser) -> None:
    body = (await browser.get(PAGE)).body.decode()
    assert "It is as the gateway wrote it." in body and "192.0.2.1" in body
    assert "config/agents/a1/checkers/c1.json" in body
    assert "hunter2" not in body and "[hidden]" in body


async def test_a_viewer_does_not_see_what_a_checker_is_told(browser: Browser) -> None:
    await browser.post("/ui/sign-out", {})
    await browser.sign_in("viewer")
    body = (await browser.get(PAGE)).body.decode()
    assert "[shown to operators]" in body and "192.0.2.1" not in body
    assert "Begin maintenance" not in body


async def test_a_checker_config_that_a_person_changed_is_no_drift(browser: Browser) -> None:
    record = record_of(browser.world, CHECKER)
    put(
        browser.world, record, wanted(browser.world, record) | {"checker_config": {"hosts": ["198.51.100.7"]}}
    )
    body = (await browser.get(PAGE)).body.decode()
    assert "which a person changed. It is kept." in body and "198.51.100.7" in body
    assert "What differs" not in body


async def test_another_field_that_a_person_changed_is_named(browser: Browser) -> None:
    record = record_of(browser.world, CHECKER)
    put(browser.world, record, wanted(browser.world, record) | {"label": "Taken", "extra": 1})
    body = (await browser.get(PAGE)).body.decode()
    assert "Somebody changed it." in body
    assert "<code>label</code>, <code>extra</code>." in body


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (None, "It is not there."),
        (b"[]", "is no config document"),
        (b"\xff", "is no config document"),
    ],
)
async def test_what_is_missing_or_no_document_is_told(
    browser: Browser, data: bytes | None, sentence: str
) -> None:
    path = document_key(record_of(browser.world, CHECKER).lineage)
    browser.world.documents.contents.pop(path)
    if data is not None:
        browser.world.documents.contents[path] = data
    answer = await browser.get(PAGE)
    assert answer.status == 200 and sentence in answer.body.decode()


async def test_a_document_that_follows_its_record_within_a_moment_is_no_drift(
    browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = record_of(browser.world, CHECKER)
    path = document_key(record.lineage)
    newest = browser.world.documents.contents[path]
    old = wanted(browser.world, record) | {"revision": 0}
    put(browser.world, record, old)
    assert b"It is behind" in (await browser.get(PAGE)).body
    sleep = asyncio.sleep

    async def written_meanwhile(seconds: float) -> None:
        browser.world.documents.contents[path] = newest
        await sleep(seconds)

    monkeypatch.setattr(module.asyncio, "sleep", written_meanwhile)
    assert b"It is as the gateway wrote it." in (await browser.get(PAGE)).body


async def test_nats_that_is_away_or_stands_still_is_a_sentence(
    browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser.world.documents.next_error = UnavailableError("NATS is away")
    answer = await browser.get(PAGE)
    assert answer.status == 200 and b"NATS is away, so the document cannot be read" in answer.body
    browser.world.documents.next_error = None
    monkeypatch.setattr(module, "SECONDS", 0.01)

    async def never(_key: str) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(browser.world.documents, "read", never)
    assert b"NATS is away, so the document cannot be read" in (await browser.get(PAGE)).body


async def test_a_deleted_service_has_none_and_one_that_is_left_is_told(browser: Browser) -> None:
    world, path = browser.world, "config/agents/a1/checkers/c1.json"
    left = world.documents.contents.pop(path)
    for method, goal, body in (
        ("POST", "/api/admin/services/checkers/c1/status", {"status": "revoked"}),
        ("DELETE", "/api/admin/services/checkers/c1", None),
    ):
        assert (await world.call(method, goal, body)).status in (200, 204)
    assert b"A deleted service has none." in (await browser.get(PAGE)).body
    world.documents.contents[path] = left
    body = (await browser.get(PAGE)).body
    assert b"its document is still there" in body and b"Begin maintenance" not in body


async def test_what_stands_in_a_document_is_text(browser: Browser) -> None:
    record = record_of(browser.world, CHECKER)
    put(browser.world, record, wanted(browser.world, record) | {"label": "</pre><script>", "<b>": 1})
    body = (await browser.get(PAGE)).body
    assert b"&lt;/pre&gt;&lt;script&gt;" in body and b"</pre><script>" not in body and b"<b>" not in body


async def test_a_long_document_is_cut(browser: Browser) -> None:
    record = record_of(browser.world, CHECKER)
    config = {"hosts": [f"host-{number}.example" for number in range(9000)]}
    document = wanted(browser.world, record) | {"checker_config": config}
    put(browser.world, record, document)
    body = (await browser.get(PAGE)).body.decode()
    assert "; the beginning of it:" in body and "host-8999" not in body and len(body) < 200_000


async def test_the_gateway_s_own_hash_is_of_the_config_that_is_written(browser: Browser) -> None:
    """What the tests above take for unedited is unedited."""
    document = json.loads(browser.world.documents.contents["config/agents/a1/checkers/c1.json"])
    assert document["checker_config_generated_sha256"] == config_hash(document["checker_config"])


async def test_a_service_without_a_package_is_given_one(browser: Browser) -> None:
    body = {"service_id": "old", "label": "Old"}
    assert (await browser.world.call("POST", "/api/admin/services/pollers", body)).status == 201
    page = (await browser.get("/ui/services/poller/old")).body.decode()
    assert "Make a package…" in page and "was not onboarded with a token" in page
    path = "/ui/services/poller/old/reissue"
    asked = (await browser.get(path)).body.decode()
    assert "Make a package for “Old”?" in asked and "It came in without one." in asked
    answer = await browser.post(path, {"csrf": await browser.csrf(path), "reason": "guarded now"})
    assert answer.status == 303
    assert b"jw1." in (await browser.get(answer.headers["Location"])).body
    page = (await browser.get("/ui/services/poller/old")).body.decode()
    assert "good, ends" in page and "Reissue…" in page


async def test_the_package_is_told_whole(browser: Browser) -> None:
    issued = await browser.world.create("poller", "p2", watch=True)
    body = (await browser.get("/ui/services/poller/p2")).body.decode()
    assert "good, ends" in body and "/ui/services/poller/p2/reissue" in body
    assert "may watch its own documents" in body
    assert (await browser.world.redeem(issued["token"], host={"hostname": "edge-7"})).status == 200
    body = (await browser.get("/ui/services/poller/p2")).body.decode()
    assert "redeemed" in body and "by edge-7 (127.0.0.1)" in body
    csrf = await browser.csrf("/ui/services/poller/p2/reissue")
    await browser.post("/ui/services/poller/p2/reissue", {"csrf": csrf, "reason": "lost"})
    body = (await browser.get("/ui/services/poller/p2")).body.decode()
    assert "number 2 of this service" in body and "Packages before" in body and "Superseded" in body


async def test_flapping_and_clones_are_told(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    body = (await browser.get(PAGE)).body
    assert b"Flapping" not in body and b"Clone suspected" not in body
    monkeypatch.setattr(browser.world.watched.troubles, "is_flapping", lambda key: key == CHECKER)
    monkeypatch.setattr(browser.world.watched.troubles, "clones", lambda _key: ("<b>one", "two"))
    assert isinstance(browser.world.doors.catalogue, Catalogue)
    body = (await browser.get(PAGE)).body
    assert b"Flapping" in body and b"<code>&lt;b&gt;one</code> and <code>two</code>" in body


async def test_a_service_is_put_into_maintenance_and_out_again(browser: Browser) -> None:
    form = {
        "csrf": await browser.csrf(PAGE),
        "back": PAGE,
        "subject": "service checker.c1",
        "lasts": "3600",
        "reason": "new cables",
    }
    answer = await browser.post("/ui/maintenance", form)
    assert answer.headers["Location"] == PAGE
    body = (await browser.get(PAGE)).body.decode()
    assert (
        "In maintenance" in body and "new cables" in body and "Maintenance of checker.c1 has begun." in body
    )
    [window] = browser.world.doors.maintenance.windows()
    answer = await browser.post(f"/ui/maintenance/{window.window_id}/end", form)
    assert answer.headers["Location"] == PAGE
    assert "In maintenance" not in (await browser.get(PAGE)).body.decode()
    again = await browser.post(f"/ui/maintenance/{window.window_id}/end", form)
    assert again.status == 303
    assert "had ended already" in (await browser.get(PAGE)).body.decode()


async def test_its_site_s_maintenance_is_its_own(browser: Browser) -> None:
    csrf = await browser.csrf("/ui/services/agent/a1")
    await browser.post("/ui/maintenance", {"csrf": csrf, "subject": "site A", "lasts": "60"})
    assert b"In maintenance" in (await browser.get("/ui/services/agent/a1")).body
    assert b"In maintenance" in (await browser.get(PAGE)).body
    poller = (await browser.get("/ui/services/poller/p1")).body
    assert b"In maintenance" not in poller[: poller.index(b'id="live-strip"')]
    assert b"In maintenance" in poller[poller.index(b'id="live-children"') :]
