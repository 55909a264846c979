"""Charts of the dashboard: services over time as an image of its own, and a service's last day as a strip."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from xml.etree import ElementTree

import pytest

from jetway.core.heartbeat import EMPTY, Payload
from jetway.core.ids import ServiceKey, ServiceType
from jetway.core.rows import CountSample
from support.browsing import Browser, browsing
from support.builders import identity
from support.http_world import World, http_world

CHART = "/ui/charts/services.svg"
SVG = "http://www.w3.org/2000/svg"
P1 = ServiceKey(ServiceType.POLLER, "p1")


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with http_world(tmp_path) as made:
        made.presence.listening()
        yield made


@pytest.fixture
async def browser(world: World) -> AsyncIterator[Browser]:
    async with browsing(world) as made:
        await made.sign_in("viewer")
        yield made


async def sampled(world: World, *, hours: int = 2) -> None:
    """Samples every five minutes for the last hours, on the grid."""
    now = world.clock.now()
    newest = now.replace(minute=now.minute - now.minute % 5, second=0, microsecond=0)
    for number in range(hours * 12):
        at = newest - number * timedelta(minutes=5)
        await world.database.append_counts(
            [CountSample(at, "poller", "active", 7 + number), CountSample(at, "agent", "pending", 3)]
        )


def words(svg: bytes) -> list[str]:
    return [node.text or "" for node in ElementTree.fromstring(svg).iter(f"{{{SVG}}}text")]  # noqa: S314 - ours


async def test_the_image_holds_all_it_needs_and_may_nothing(world: World, browser: Browser) -> None:
    await sampled(world)
    answer = await browser.get(CHART + "?window=24h")
    assert (answer.status, answer.headers["Content-Type"].split(";")[0]) == (200, "image/svg+xml")
    policy = answer.headers["Content-Security-Policy"]
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; sandbox"
    assert answer.headers["Cache-Control"].startswith("private")
    text = answer.body.decode()
    assert (
        "<script" not in text
        and "<!DOCTYPE" not in text
        and "@import" not in text
        and "<?xml-style" not in text
    )
    elsewhere = set(re.findall(r"(?:https?:)?//[^\s\"'<)]+", text))
    assert elsewhere <= {SVG, "http://www.w3.org/1999/xlink"}, "names, not addresses"
    assert {"Pending", "Active", "Inactive", "Revoked"} <= set(words(answer.body))
    assert text.count("stroke-dasharray:6,4") and text.count("stroke-dasharray:2,4"), "not by colour alone"


async def test_light_and_dark_are_the_systems_or_as_chosen(world: World, browser: Browser) -> None:
    await sampled(world)
    auto, light, dark = [
        (await browser.get(f"{CHART}?theme={theme}")).body.decode() for theme in ("", "light", "dark")
    ]
    assert "prefers-color-scheme" in auto and "--paper:#fff" in auto and "--paper:#1b2126" in auto
    assert "prefers-color-scheme" not in light + dark
    assert "--paper:#fff" not in dark and "--paper:#1b2126" not in light
    await browser.post("/ui/theme", {"theme": "dark", "next": "/ui/"})
    assert b"theme=dark" in (await browser.get("/ui/")).body


async def test_the_overview_shows_it_with_a_table_that_says_the_same(world: World, browser: Browser) -> None:
    await sampled(world)
    page = (await browser.get("/ui/")).body.decode()
    image = re.search(r'<img class="chart" src="([^"]+)"', page)
    assert image and (await browser.get(image[1].replace("&amp;", "&"))).status == 200
    table = page[page.index('id="live-chart-table"') :]
    assert table.count("<tr>") - 1 == 24, "no more rows than one reads"
    newest = re.search(r"<tbody><tr>.*?</tr>", table)
    assert newest and re.findall(r'number">(\d+)<', newest[0]) == ["3", "7", "0", "0"]
    assert "alt=" in page and page.count("?window=") >= 4, "24 h, 7, 30 and 90 days"
    narrow = re.search(r'<source media="[^"]+" srcset="([^"]+)"', page)
    assert narrow
    drawn = await browser.get(narrow[1].replace("&amp;", "&"))
    assert b'viewBox="0 0 400 300"' in drawn.body, "a phone need not read it at a third of its size"


@pytest.mark.parametrize(("window", "points"), [("24h", 288), ("7d", 168), ("30d", 180), ("90d", 180)])
async def test_points_are_bounded_however_long_one_looks_back(world: World, window: str, points: int) -> None:
    now = world.clock.now().replace(minute=0, second=0, microsecond=0)
    for number in range(95 * 24):
        at = now - number * timedelta(hours=1)
        await world.database.append_counts([CountSample(at, "poller", "active", number)])
    chosen = next(each for each in world.doors.counts.windows if each.name == window)
    series = await world.doors.counts.read(chosen)
    assert len(series.points) == points
    assert series.newest is not None
    assert (series.newest.at, series.newest.counts) == (now, (0, 0, 0, 0))
    known = [point for point in series.points if point]
    assert len(known) == min(points, chosen.length // timedelta(hours=1))
    assert [point.counts[1] for point in known] == sorted((p.counts[1] for p in known), reverse=True)


async def test_a_reading_serves_everybody_for_a_minute(world: World, browser: Browser) -> None:
    await sampled(world, hours=1)
    first = (await browser.get(CHART)).body
    await sampled(world, hours=3)
    assert (await browser.get(CHART)).body == first
    world.clock.advance(61)
    assert (await browser.get(CHART)).body != first


async def test_nothing_to_draw_says_when_there_will_be(world: World, browser: Browser) -> None:
    assert b"the first point appears" in (await browser.get("/ui/")).body
    await world.create("poller", "p1")
    page = (await browser.get("/ui/")).body
    assert b"the first point appears within five minutes" in page and b"<img class=" not in page
    answer = await browser.get(CHART)
    assert answer.status == 200 and "There is no point yet." in words(answer.body)


async def test_a_database_that_is_away_is_a_sentence(world: World, browser: Browser) -> None:
    await sampled(world)
    world.database.away = True
    answer = await browser.get(CHART)
    assert answer.status == 200 and any("database is away" in each for each in words(answer.body))
    page = await browser.get("/ui/")
    assert page.status == 200 and b"The database is away, so the past cannot be read" in page.body
    world.database.away = False
    world.clock.advance(6)
    assert b"<img class=" in (await browser.get("/ui/")).body, "it comes back by itself"


async def test_who_may_and_what_is_no_window(world: World, browser: Browser) -> None:
    for path in (CHART, "/ui/"):
        answer = await browser.get(f"{path}?window=3y")
        assert answer.status == 422 and b"24h, 7d, 30d, 90d" in answer.body
    async with browsing(world) as stranger:
        assert (await stranger.get(CHART)).status == 303


# --- the strip


async def strip(browser: Browser) -> str:
    await browser.sign_in("viewer")  # a session does not outlast half a day without use
    page = (await browser.get("/ui/services/poller/p1")).body.decode()
    assert " style=" not in page, "the policy allows none"
    return page[page.index('id="live-strip"') : page.index("</details>", page.index('id="live-strip"'))]


async def test_the_strip_shows_the_last_day_and_says_the_same_in_words(
    world: World, browser: Browser
) -> None:
    await world.create("poller", "p1")
    world.presence.note(P1, EMPTY, world.clock.now())
    world.clock.advance(timedelta(hours=9))
    world.presence.note(P1, Payload(stopping=True), world.clock.now())
    world.clock.advance(timedelta(minutes=1))
    world.presence.note(P1, EMPTY, world.clock.now())
    world.clock.advance(timedelta(hours=8, minutes=59))
    world.presence.deaf()
    world.clock.advance(timedelta(hours=2))
    world.presence.listening()
    world.clock.advance(timedelta(hours=4))
    shown = await strip(browser)
    bars = re.findall(r'<rect class="strip-bar strip-(\w+)" x="(\d+)" y="\d+" width="(\d+)"', shown)
    drawn = [(state, int(x), int(width)) for state, x, width in bars if (x, width) != ("0", "14")]
    assert drawn == [
        ("online", 0, 180),
        ("offline", 180, 1),
        ("online", 181, 179),
        ("not_heard", 360, 40),
        ("online", 400, 80),
    ], "a minute of silence is seen"
    said = re.search(r'id="strip-said">([^<]+)<', shown)
    assert said and said[1] == (
        "The last 24 hours: online for 99.9 % of the time in which it could be heard; "
        "offline once, for 1 min in all; the gateway could not hear for 2 h."
    )
    assert 'aria-labelledby="strip-said"' in shown
    cells = re.findall(r'<th scope="row">([^<]+)</th>.*?<td>([^<]+)</td></tr>', shown)
    assert cells == [
        ("Online", "4 h"),
        ("The gateway did not hear", "2 h"),
        ("Online", "8 h 59 min"),
        ("Offline", "1 min"),
        ("Online", "9 h"),
    ]


async def test_a_strip_of_one_that_was_never_heard(world: World, browser: Browser) -> None:
    await world.create("poller", "p1")
    assert "It has only just come in" in await strip(browser)
    world.clock.advance(timedelta(hours=3))
    shown = await strip(browser)
    assert "it was not heard." in shown and "strip-never" in shown and "strip-online" not in shown


async def test_a_long_unrest_is_cut_in_the_table_and_whole_in_the_strip(
    world: World, browser: Browser
) -> None:
    await world.create("poller", "p1")
    for _ in range(150):
        world.clock.advance(60)
        world.presence.deaf()
        world.clock.advance(60)
        world.presence.listening()
    world.clock.advance(60)
    shown = await strip(browser)
    assert shown.count("<tr>") - 1 == 100
    assert "201 earlier ones are left out" in shown
    assert shown.count("<rect") <= 480 + 6


# --- what needs somebody


async def needs(browser: Browser) -> list[tuple[str, str]]:
    browser.world.clock.advance(1)
    page = (await browser.get("/ui/")).body.decode()
    found = re.findall(r'<li class="(?:grave)?"><a href="([^"]+)">.*?</svg>([^<]+)</a></li>', page, re.S)
    return [(text, path.replace("&amp;", "&")) for path, text in found]


async def test_the_overview_names_what_is_due_one_click_from_its_cause(
    world: World, browser: Browser
) -> None:
    await world.create("poller", "p1", token_ttl_seconds=3600)
    await world.create("poller", "p2", token_ttl_seconds=30 * 86_400)
    assert await needs(browser) == []
    world.clock.advance(50 * 60)
    assert await needs(browser) == [("1 package token ends soon, not redeemed yet", "/ui/services/poller/p1")]
    world.clock.advance(timedelta(hours=24))
    await browser.sign_in("viewer")
    assert await needs(browser) == [("2 services have been pending for long", "/ui/due#stuck")]
    answer = await browser.get("/ui/due")
    page = answer.body.decode()
    assert "unsafe" not in answer.headers["Content-Security-Policy"] and " style=" not in page
    stuck = page[page.index('id="stuck"') :]
    assert "/ui/services/poller/p1" in stuck and "/ui/services/poller/p2" in stuck
    assert page.count("None ends soon.") == 2


async def test_ended_credentials_are_grave_and_lead_to_their_names(world: World, browser: Browser) -> None:
    for name in ("p1", "p2", "p3"):
        await world.create("poller", name)
    now = world.clock.now()
    for name, left in (("p1", -1), ("p2", 30), ("p3", 300)):
        record = world.ledger.index.records[ServiceKey(ServiceType.POLLER, name)]
        held = identity(nats_expires_at=now + timedelta(hours=left), certificates=())
        world.ledger.index.apply(replace(record, revision=record.revision + 1, identity=held))
    assert await needs(browser) == [
        ("1 credential of services has ended", "/ui/due#credentials"),
        ("1 credential of services ends soon", "/ui/due#credentials"),
    ]
    page = (await browser.get("/ui/due")).body.decode()
    assert page.index("/services/poller/p1") < page.index("/services/poller/p2")
    assert "/services/poller/p3" not in page and "NATS credentials" in page


async def test_who_is_missed_is_told_by_type(world: World, browser: Browser) -> None:
    body = {"service_id": "p1", "label": "P"}
    assert (await world.call("POST", "/api/admin/services/pollers", body)).status == 201
    world.presence.note(P1, Payload(stopping=True), world.clock.now())
    assert await needs(browser) == []
    assert (
        await world.call("POST", "/api/admin/services/pollers/p1/status", {"status": "active"})
    ).status == 200
    missed = "/ui/services?type=poller&liveness=offline&status=active&status=inactive"
    assert await needs(browser) == [("1 poller offline", missed)]
