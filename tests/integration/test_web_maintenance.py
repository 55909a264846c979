"""The page of maintenance windows: what is open and to come, a new one, the end of one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from jetway.core.maintenance import MaintenanceWindow
from support.browsing import Browser, browsing
from support.http_world import World, http_world

PAGE = "/ui/maintenance"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with http_world(tmp_path) as world:
        await world.create("poller", "p1", site="A", labels={"rack": "12"})
        yield world


@pytest.fixture
async def browser(world: World) -> AsyncIterator[Browser]:
    async with browsing(world) as browser:
        await browser.sign_in("operator")
        yield browser


def window(number: int, since: datetime, until: datetime) -> MaintenanceWindow:
    return MaintenanceWindow(
        window_id=f"00000000-0000-4000-8000-{number:012}",
        site=f"s{number}",
        since=since,
        until=until,
        created_by="test",
        created_at=since,
    )


async def begin(browser: Browser, **form: str) -> tuple[int, str]:
    answer = await browser.post(PAGE, {"csrf": await browser.csrf(PAGE), "lasts": "3600", **form})
    return answer.status, answer.body.decode()


@pytest.mark.parametrize(
    ("form", "shown"),
    [
        ({"service": "poller.p1"}, "poller, with all beneath it"),
        ({"site": "A"}, "Site A"),
        ({"label": "rack=12"}, "Label <code>rack=12</code>"),
    ],
)
async def test_a_window_is_of_a_service_a_site_or_a_label(
    browser: Browser, form: dict[str, str], shown: str
) -> None:
    assert (await begin(browser, **form))[0] == 303
    body = (await browser.get(PAGE)).body.decode()
    assert shown in body and "Going on" in body and "has begun" in body
    [found] = browser.world.doors.maintenance.windows()
    assert found.until - found.since == timedelta(hours=1) and found.created_by == "operator"


async def test_one_is_planned_in_utc_and_called_off(browser: Browser) -> None:
    start = browser.world.clock.now().astimezone(UTC).replace(second=0, microsecond=0) + timedelta(days=1)
    text = start.strftime("%Y-%m-%dT%H:%M")
    assert (await begin(browser, site="A", since=text, reason="<b>cables</b>"))[0] == 303
    body = (await browser.get(PAGE)).body.decode()
    assert "is planned" in body and "Call off" in body and "&lt;b&gt;cables" in body
    [found] = browser.world.doors.maintenance.windows()
    assert (found.since, found.until) == (start, start + timedelta(hours=1))
    csrf = await browser.csrf(PAGE)
    answer = await browser.post(f"{PAGE}/{found.window_id}/end", {"csrf": csrf})
    assert answer.headers["Location"] == PAGE
    assert not browser.world.doors.maintenance.windows()


WRONG: tuple[tuple[dict[str, str], str, str], ...] = (
    ({}, "service", "give one of service, site and label"),
    ({"site": "A", "label": "a=b"}, "service", "give one of"),
    ({"service": "poller"}, "service", "must be a service as type.id"),
    ({"service": "poller.nobody"}, "service", "there is no poller"),
    ({"label": "rack"}, "label", "key=value"),
    ({"site": "A", "since": "tomorrow"}, "since", "a time in UTC"),
    ({"site": "A", "until": "2001-01-01T00:00"}, "until", "after it has begun"),
    ({"site": "A", "lasts": "1"}, "lasts", "between a minute and 366 days"),
    ({"site": "A", "lasts": "9" * 30}, "lasts", "between a minute and 366 days"),
    ({"site": "A", "since": "9999-12-31T23:59"}, "since", "calendar"),
    ({"site": "A", "reason": "x" * 201}, "reason", "200"),
)


async def test_what_is_wrong_is_named_at_its_field(browser: Browser) -> None:
    for form, field, said in WRONG:
        status, body = await begin(browser, **form)
        assert status in (404, 422) and f'id="wrong-{field}"' in body and said[1:] in body, form
    assert not browser.world.doors.maintenance.windows()


async def test_fields_suggest_what_is_in_use(browser: Browser) -> None:
    body = (await browser.get(PAGE)).body.decode()
    assert '<option value="A">' in body and '<option value="rack=12">' in body


async def test_many_windows_are_shown_in_pages(browser: Browser) -> None:
    until = browser.world.clock.now() + timedelta(days=1)
    for number in range(60):
        await browser.world.watched.windows.put(window(number, browser.world.clock.now(), until))
    await browser.world.doors.maintenance.load()
    first, second = (await browser.get(PAGE)).body, (await browser.get(PAGE + "?cursor=50")).body
    assert first.count(b"Site s") == 50 and second.count(b"Site s") == 10
    assert (await browser.get(PAGE + "?cursor=x")).body.count(b"Site s") == 50


async def test_a_viewer_looks_and_does_nothing(browser: Browser) -> None:
    await begin(browser, site="A")
    await browser.post("/ui/sign-out", {})
    await browser.sign_in("viewer")
    answer = await browser.get(PAGE)
    assert (
        b"Site A" in answer.body
        and b"<button>End now" not in answer.body
        and b'name="csrf"' not in answer.body
    )
    [found] = browser.world.doors.maintenance.windows()
    for path in (PAGE, f"{PAGE}/{found.window_id}/end"):
        assert (await browser.post(path, {"site": "A", "lasts": "60"})).status == 403


async def test_the_way_back_stays_here(browser: Browser) -> None:
    csrf = await browser.csrf(PAGE)
    form = {"csrf": csrf, "site": "A", "lasts": "60", "back": "https://evil.example/"}
    assert (await browser.post(PAGE, form)).headers["Location"] == PAGE
