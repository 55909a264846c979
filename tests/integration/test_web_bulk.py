"""Actions on many in the dashboard: whom they are for, what they would do, and what became of each."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from html import unescape
from pathlib import Path
from urllib.parse import urlencode

import pytest

from jetway.core import commands as c
from jetway.core.errors import UnavailableError
from jetway.core.ids import Lineage, ServiceKey, ServiceType
from jetway.entry.web import bulk, shelf
from jetway.services.caller import Caller
from support.browsing import Browser, browsing
from support.http_world import Answer, World, http_world

BULK = "/ui/services/bulk"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with http_world(tmp_path) as world:
        for number in (1, 2, 3):
            await world.create("poller", f"p{number}", site="A" if number < 3 else "B")
        await world.create("agent", "a1", "p1")
        await world.create("checker", "c1", "a1")
        yield world


@pytest.fixture
async def browser(world: World) -> AsyncIterator[Browser]:
    async with browsing(world) as browser:
        await browser.sign_in("operator")
        yield browser


def at(action: str, *picks: str, **filters: str) -> str:
    scope = "chosen" if picks else "all"
    pairs = [("action", action), ("scope", scope), *filters.items(), *(("pick", pick) for pick in picks)]
    return f"{BULK}?{urlencode(pairs)}"


def hidden(answer: Answer) -> dict[str, str]:
    """The fields of the form of a preview."""
    assert answer.status == 200, answer.body
    form = (
        answer.body.decode().split('<form method="post" action="/ui/services/bulk', 1)[1].split("</form>")[0]
    )
    return dict(re.findall(r'type="hidden" name="([^"]+)" value="([^"]*)"', form))


async def confirm(browser: Browser, path: str, **more: str) -> Answer:
    return await browser.post(path, {**hidden(await browser.get(path)), **more})


async def outcome(browser: Browser, done: Answer) -> str:
    assert done.status == 303, done.body
    return unescape((await browser.get(done.headers["Location"])).body.decode())


def status(world: World, kind: str, service_id: str) -> str:
    return world.doors.catalogue.get(ServiceKey(ServiceType(kind), service_id)).record.status.value


async def knock(world: World, *ids: str) -> None:
    """A service registers itself by a heartbeat."""
    lineage = Lineage((ServiceType.POLLER, ServiceType.AGENT, ServiceType.CHECKER)[len(ids) - 1], *ids)
    admit = c.Admit(lineage=lineage, approval_required=True, heard=True)
    await world.doors.administrator._recorder.apply(lineage.key, admit, Caller(f"heartbeat:{lineage.key}"))


def facts(body: bytes) -> Mapping[str, str]:
    return dict(re.findall(r"<dt>([^<]+)</dt><dd>([^<]+)</dd>", body.decode()))


async def test_a_preview_counts_names_and_touches_nobody(world: World, browser: Browser) -> None:
    answer = await browser.get(at("revoke", type="poller", site="A"))
    assert facts(answer.body) == {
        "Would be revoked": "2 pollers",
        "Revoked with them": "1 agent, 1 checker, all beneath",
    }
    body = answer.body.decode()
    assert "Revoke 4 services?" in body and "and 2 beneath it" in body
    assert ">p3<" not in body and "/p3" not in body
    assert hidden(answer)["expected-poller"] == "2"
    assert status(world, "poller", "p1") == "pending"


async def test_all_that_match_are_revoked_with_a_reason(world: World, browser: Browser) -> None:
    path = at("revoke", type="poller", site="A")
    body = await outcome(browser, await confirm(browser, path, reason="the hall burnt down"))
    assert "<dt>Revoked</dt><dd>2</dd>" in body and "<dt>Revoked with them</dt><dd>2</dd>" in body
    assert [status(world, "poller", f"p{n}") for n in (1, 2, 3)] == ["revoked", "revoked", "pending"]
    record = world.doors.catalogue.get(ServiceKey(ServiceType.POLLER, "p1")).record
    assert record.status_reason == "the hall burnt down"


async def test_those_ticked_may_be_of_several_types_and_each_counts_once(
    world: World, browser: Browser
) -> None:
    path = at("revoke", "checker.c1", "poller.p1")
    answer = await browser.get(path)
    assert facts(answer.body)["Would be revoked"] == "1 poller, 1 checker"
    assert facts(answer.body)["Revoked with them"] == "1 agent, all beneath"
    assert "So already" in await outcome(browser, await confirm(browser, path))
    assert status(world, "checker", "c1") == "revoked"


async def test_who_is_refused_is_named_with_the_reason(world: World, browser: Browser) -> None:
    path = at("activate", "poller.p1", "poller.nobody")
    body = unescape((await browser.get(path)).body.decode())
    assert "its package is issued" in body and "there is no such service" in body
    path = at("revoke", "poller.p2", "poller.nobody")
    assert b"Left out" in (await browser.get(path)).body
    body = await outcome(browser, await confirm(browser, path))
    assert "Not done" in body and "there is no poller 'nobody'" in body
    assert status(world, "poller", "p2") == "revoked"


async def test_another_number_by_now_changes_nothing(world: World, browser: Browser) -> None:
    path = at("revoke", type="poller", site="B")
    form = hidden(await browser.get(path))
    await world.create("poller", "p4", site="B")
    body = await outcome(browser, await browser.post(path, form))
    assert "2 services are selected by now, not 1" in body and "Nothing was changed" in body
    assert status(world, "poller", "p3") == "pending"


async def test_a_form_that_is_sent_twice_acts_once(world: World, browser: Browser) -> None:
    path = at("revoke", type="poller", site="B")
    form = hidden(await browser.get(path))
    first, second = [await browser.post(path, form) for _ in range(2)]
    assert first.headers["Location"] == second.headers["Location"]
    assert "<dt>Revoked</dt><dd>1</dd>" in await outcome(browser, second)


async def test_a_grave_deed_over_many_is_confirmed_with_their_number(
    world: World, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "_COUNT_AGAIN", 1)
    path = at("revoke", type="poller", site="A")
    wrong = await confirm(browser, path, count="2", reason="kept")
    assert wrong.status == 422 and b"Must be 4" in wrong.body and b'value="kept"' in wrong.body
    assert status(world, "poller", "p1") == "pending"
    assert (await confirm(browser, path, count="4")).status == 303
    assert status(world, "poller", "p1") == "revoked"


async def test_who_failed_is_named_and_may_be_tried_again(world: World, browser: Browser) -> None:
    path = at("revoke", "poller.p3")
    form = hidden(await browser.get(path))
    world.ledger.next_error = UnavailableError("NATS is away")
    body = await outcome(browser, await browser.post(path, form))
    assert "NATS is away" in body and "Look again and try again" in body
    assert "<dt>Revoked</dt><dd>1</dd>" in await outcome(browser, await confirm(browser, path))


async def test_roles(world: World, browser: Browser) -> None:
    assert (await browser.get(at("delete", "poller.p1"))).status == 403
    assert b'value="delete"' not in (await browser.get("/ui/services")).body
    await browser.sign_in("viewer")
    assert (await browser.get(at("revoke", "poller.p1"))).status == 403
    table = (await browser.get("/ui/services")).body
    assert b'name="pick"' not in table and b'id="bulk"' not in table
    await browser.sign_in("admin")
    assert b'value="delete"' in (await browser.get("/ui/services")).body
    assert (await browser.get(at("delete", "poller.p1"))).status == 200


async def test_nobody_chosen_leads_back_to_the_table(browser: Browser) -> None:
    answer = await browser.get(f"{BULK}?type=agent&site=A&scope=chosen&action=revoke")
    assert answer.headers["Location"] == "/ui/services?type=agent&site=A"
    assert b"Tick services first" in (await browser.get(answer.headers["Location"])).body
    answer = await browser.get(
        f"{BULK}?from=quarantine&type=agent&approval=required&scope=chosen&action=approve"
    )
    assert answer.headers["Location"] == "/ui/quarantine?type=agent"


@pytest.mark.parametrize(
    "query",
    ["scope=all", "scope=all&action=burn", "scope=all&action=revoke&type=cat", "action=revoke&pick=cat",
     "scope=all&action=revoke&status=cat", "action=revoke&" + "&".join(["pick=poller.p1"] * 201)],
)  # fmt: skip
async def test_what_cannot_be_meant_is_refused(browser: Browser, query: str) -> None:
    assert (await browser.get(f"{BULK}?{query}")).status == 422


async def test_a_result_is_its_session_s_own_and_kept_for_an_hour(world: World, browser: Browser) -> None:
    done = await confirm(browser, at("revoke", "poller.p3"))
    async with browsing(world) as other:
        await other.sign_in("operator")
        assert (await other.get(done.headers["Location"])).status == 404
    world.clock.advance(shelf.KEPT.total_seconds() + 1)
    assert (await browser.get(done.headers["Location"])).status == 404


async def test_the_quarantine_is_paged_by_type_and_decided_together(world: World, browser: Browser) -> None:
    await knock(world, "q1")
    await knock(world, "q2")
    await knock(world, "p1", "q3")
    page = (await browser.get("/ui/quarantine")).body.decode()
    assert page.count('name="pick"') == 3 and "3 in all" in page
    assert (await browser.get("/ui/quarantine?type=agent")).body.count(b'name="pick"') == 1
    bar = page.split('id="bulk"')[1].split("</form>")[0]
    assert 'value="revoke"' not in bar
    pairs = re.findall(r'type="hidden" name="([^"]+)" value="([^"]*)"', bar)
    path = f"{BULK}?{urlencode([*pairs, ('scope', 'all'), ('action', 'approve')])}"
    assert facts((await browser.get(path)).body)["Would be approved"] == "2 pollers, 1 agent"
    assert "<dt>Approved</dt><dd>3</dd>" in await outcome(browser, await confirm(browser, path))
    assert b"Nobody waits" in (await browser.get("/ui/quarantine")).body


async def test_services_are_filtered_by_approval(world: World, browser: Browser) -> None:
    await knock(world, "q1")
    for path, ids in (("approval=required", ["q1"]), ("approval=none&approval=granted", ["p1", "p2", "p3"])):
        listed = await world.call("GET", f"/api/admin/services/pollers?{path}", role="viewer")
        assert [item["service_id"] for item in listed.json["items"]] == ids
    table = (await browser.get("/ui/services?approval=required")).body.decode()
    assert re.findall(r'<tr id="row-poller-(\w+)"', table) == ["q1"]
    selector = {"service_type": "poller", "approval": ["required"]}
    body = {"action": "approve", "selector": selector, "dry_run": True}
    answer = await world.call("POST", "/api/admin/services/actions", body, role="operator")
    assert [each["service_id"] for each in answer.json["results"]] == ["q1"]
