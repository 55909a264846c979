"""Many packages from a CSV file: seen before they are made, made once, their tokens handed over once."""

from __future__ import annotations

import asyncio
import csv
import io
import re
from collections.abc import AsyncIterator
from pathlib import Path
from unittest import mock

import pytest
from aiohttp import FormData, StreamReader
from aiohttp.test_utils import make_mocked_request

from jetway.core.errors import UnavailableError
from jetway.core.record import ServiceRecord
from jetway.entry.http.problems import ProblemError
from jetway.entry.web import drafts, onboard_many, shelf, upload
from support.browsing import SAME_ORIGIN, Browser, browsing
from support.http_world import Answer, World, http_world

MANY = "/ui/onboard/many"
GOOD = b"component_type,label,component_id,parent_id\r\npoller,Site A,site-a,\r\nagent,Core,core,site-a\r\n"
MIXED = GOOD + b"agent,Lost,lost,nobody\r\npoller,Again,site-a,\r\npoller,Bad,No Id,\r\n"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with http_world(tmp_path) as world:
        yield world


@pytest.fixture
async def browser(world: World) -> AsyncIterator[Browser]:
    async with browsing(world) as browser:
        await browser.sign_in("operator")
        yield browser


async def upload_file(browser: Browser, data: bytes, **more: str) -> Answer:
    return await browser.upload(MANY, {"csrf": await browser.csrf(MANY), **more}, "file", data)


async def uploaded(browser: Browser, data: bytes, **more: str) -> str:
    answer = await upload_file(browser, data, **more)
    assert answer.status == 303, answer.body
    return answer.headers["Location"]


async def press(browser: Browser, path: str, **form: str) -> Answer:
    """A button of the draft's page."""
    return await browser.post(path, {"csrf": await browser.csrf(MANY), **form})


async def press_what_is_shown(browser: Browser, path: str) -> Answer:
    """The form that the page itself has for making packages: its goal and all its fields."""
    page = (await browser.get(path)).body.decode()
    form = re.search(r'<form method="post" action="([^"]+)" class="buttons">(.*?)</form>', page, re.DOTALL)
    assert form, page
    fields = dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', form[2]))
    return await browser.post(form[1], fields)


def rows_of(page: Answer) -> list[tuple[str, str, str, str]]:
    """Row, outcome, field and reason, as the page's table has them."""
    found = re.findall(
        r'<tr id="row-(\d+)">.*?</svg>(.*?)</span></td>.*?data-label="Field">(.*?)</td>'
        r'<td data-label="Why">(.*?)</td>',
        page.body.decode(),
        re.DOTALL,
    )
    return [tuple(re.sub(r"<[^>]*>", "", part) for part in row) for row in found]  # type: ignore[misc]


async def tokens(browser: Browser, path: str) -> dict[str, str]:
    answer = await press(browser, path + "/tokens")
    if answer.status == 303:
        return {}
    assert answer.headers["Content-Type"].startswith("text/csv")
    assert answer.headers["Cache-Control"] == "no-store"
    assert "attachment" in answer.headers["Content-Disposition"]
    return {row["service_id"]: row["token"] for row in csv.DictReader(io.StringIO(answer.body.decode()))}


async def test_a_preview_names_row_and_field_and_makes_nothing(browser: Browser) -> None:
    page = await browser.get(await uploaded(browser, MIXED))
    assert rows_of(page) == [
        ("1", "To be created", "–", "–"),
        ("2", "To be created", "–", "–"),
        ("3", "Left out", "parent_id", "the parent poller &#39;nobody&#39; does not exist"),
        ("4", "Left out", "component_id", "row 1 is for the same service"),
        ("5", "Left out", "component_id", rows_of(page)[4][3]),
    ]
    assert "1 to 63 lower-case letters" in rows_of(page)[4][3]
    assert b"Create 2 packages" in page.body and b"Download" not in page.body
    assert not browser.world.ledger.index.records


async def test_packages_are_made_once_however_often_it_is_pressed(browser: Browser) -> None:
    path = await uploaded(browser, MIXED)
    assert (await press(browser, path)).headers["Location"] == path
    first = await browser.get(path)
    assert [row[1] for row in rows_of(first)] == ["Created", "Created", "Left out", "Left out", "Left out"]
    await press(browser, path)
    assert (await browser.get(path)).body == first.body
    assert len(browser.world.ledger.index.records) == 2


async def test_two_presses_at_once_make_one(browser: Browser) -> None:
    path = await uploaded(browser, GOOD)
    await asyncio.gather(press(browser, path), press(browser, path), press(browser, path))
    assert [row[1] for row in rows_of(await browser.get(path))] == ["Created", "Created"]
    events = (await browser.world.call("GET", "/api/admin/events?type=issued")).json["items"]
    assert len(events) == 2


async def test_tokens_are_handed_over_once_and_are_good(browser: Browser) -> None:
    path = await uploaded(browser, GOOD)
    assert await tokens(browser, path) == {}
    await press(browser, path)
    page = (await browser.get(path)).body
    assert b"jw1." not in page and b"Download 2 tokens" in page
    found = await tokens(browser, path)
    assert sorted(found) == ["core", "site-a"]
    assert (await browser.world.redeem(found["site-a"])).status == 200
    assert await tokens(browser, path) == {}
    assert b"They were handed over." in (await browser.get(path)).body
    assert b"jw1." not in (await browser.get(path)).body


async def test_few_tokens_can_be_shown_on_a_page_instead(browser: Browser) -> None:
    path = await uploaded(browser, GOOD)
    await press(browser, path)
    shown = await press(browser, path + "/tokens", **{"as": "page"})
    assert shown.body.count(b"jw1.") == 2 and shown.headers["Cache-Control"] == "no-store"
    assert await tokens(browser, path) == {}


async def test_the_same_file_and_key_bring_lost_tokens_back(browser: Browser) -> None:
    path = await uploaded(browser, GOOD, key="my-key")
    await press(browser, path)
    before = await tokens(browser, path)
    again = await uploaded(browser, GOOD, key="my-key")
    assert again != path
    assert [row[1] for row in rows_of(await browser.get(again))] == ["Left out"] * 2  # they are there
    page = (await browser.get(again)).body
    assert b"Create or get the packages of this key" in page and b"No row can be made" not in page
    assert (await press_what_is_shown(browser, again)).status == 303
    assert await tokens(browser, again) == before


async def test_without_a_key_of_an_earlier_upload_nothing_is_offered_where_nothing_can_be_made(
    browser: Browser,
) -> None:
    await press(browser, await uploaded(browser, GOOD))
    page = (await browser.get(await uploaded(browser, GOOD))).body
    assert b"No row can be made" in page and b'class="main"' not in page


async def test_what_failed_is_tried_again_without_tokens_given_twice(
    browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = await uploaded(browser, GOOD + b"poller,Site B,site-b,\r\n")
    write = browser.world.ledger.write

    async def broken(record: ServiceRecord, expected: int) -> int:
        if record.service_id == "site-b":
            raise UnavailableError("NATS is away")
        return await write(record, expected)

    monkeypatch.setattr(browser.world.ledger, "write", broken)
    await press(browser, path)
    page = await browser.get(path)
    assert rows_of(page)[2] == ("3", "Failed for now", "–", "NATS is away") and b"Try again" in page.body
    assert sorted(await tokens(browser, path)) == ["core", "site-a"]
    monkeypatch.setattr(browser.world.ledger, "write", write)
    await press(browser, path)
    assert b"Try again" not in (await browser.get(path)).body
    assert sorted(await tokens(browser, path)) == ["site-b"]


async def test_long_work_goes_on_while_the_page_comes_again(
    browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = await uploaded(browser, GOOD)
    monkeypatch.setattr(onboard_many, "_WAIT_SECONDS", 0.01)
    write, may_go_on = browser.world.ledger.write, asyncio.Event()

    async def slow(record: ServiceRecord, expected: int) -> int:
        await may_go_on.wait()
        return await write(record, expected)

    monkeypatch.setattr(browser.world.ledger, "write", slow)
    await press(browser, path)
    page = await browser.get(path)
    assert page.headers["Refresh"] == "2" and b"2 rows are being made into packages" in page.body
    assert await tokens(browser, path) == {}
    may_go_on.set()
    while "Refresh" in (page := await browser.get(path)).headers:  # noqa: ASYNC110 - it has no event to wait for
        await asyncio.sleep(0.01)
    assert [row[1] for row in rows_of(page)] == ["Created", "Created"]


async def test_a_mistake_of_ours_is_a_sentence_and_can_be_tried_again(
    browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = await uploaded(browser, GOOD)
    report_of = onboard_many.report_of

    def broken(*_rows: object, **_more: object) -> None:
        raise RuntimeError("no")

    monkeypatch.setattr(onboard_many, "report_of", broken)
    await press(browser, path)
    assert b"A mistake of ours stopped it" in (await browser.get(path)).body
    monkeypatch.setattr(onboard_many, "report_of", report_of)
    await press(browser, path)
    assert sorted(await tokens(browser, path)) == ["core", "site-a"]


async def test_the_sample_is_good_as_it_is(browser: Browser) -> None:
    sample = await browser.get(MANY + "/sample.csv")
    page = await browser.get(await uploaded(browser, sample.body))
    assert [row[1] for row in rows_of(page)] == ["To be created"] * 3


async def test_text_can_be_pasted(browser: Browser) -> None:
    answer = await upload_file(browser, b"", text=GOOD.decode())
    assert rows_of(await browser.get(answer.headers["Location"]))[0][1] == "To be created"


BAD: tuple[tuple[bytes, dict[str, str], int, str], ...] = (
    (b"", {}, 422, "choose a file"),
    (GOOD, {"text": "x"}, 422, "not both"),
    (b"label\nA\n", {}, 422, "component_type: this column is required"),
    (b"component_type,label,<b>\n", {}, 422, "&lt;b&gt;: there is no such column"),
    (b"component_type,label\npoller\n", {}, 400, "line 2 has 1 cells"),
    (b"component_type,label\npoller,\xff\n", {}, 400, "not UTF-8"),
    (b"component_type,label\n", {}, 422, "between 1 and 10000 rows"),
    (b"component_type,label\n" + b"poller,A\n" * 10_001, {}, 422, "between 1 and 10000 rows"),
    (GOOD, {"key": "with a space"}, 422, "visible ASCII"),
)


async def test_a_bad_file_is_refused_with_what_is_wrong(browser: Browser) -> None:
    for data, more, status, said in BAD:
        answer = await upload_file(browser, data, **more)
        # A sentence begins with a capital letter.
        assert (answer.status, said[1:] in answer.body.decode()) == (status, True), said


async def test_a_form_that_is_too_large_or_broken_is_a_page(
    browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    csrf = await browser.csrf(MANY)
    broken = {**SAME_ORIGIN, "Content-Type": "multipart/form-data; boundary=x"}
    for body in (
        b"",
        b"no boundary",
        b"--x\r\n\r\nhalf",
        b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n',
    ):
        answer = await browser.send("POST", MANY, headers=broken, data=body)
        assert answer.status == 400, body
    for kind, status in (("text/csv", 415), ("multipart/form-data", 400)):
        headers = {**SAME_ORIGIN, "Content-Type": kind}
        assert (await browser.send("POST", MANY, headers=headers, data=GOOD)).status == status
    many = FormData({f"f{number}": "x" for number in range(40)} | {"csrf": csrf})
    assert (
        await browser.send(
            "POST",
            MANY,
            headers=SAME_ORIGIN,
            data=many(),
        )
    ).status in (400, 415)
    monkeypatch.setattr(upload, "_AT_ONCE", 0)
    assert (await upload_file(browser, GOOD)).status == 503


@pytest.mark.parametrize("announced", [{}, {"Content-Length": "1001"}])
@pytest.mark.parametrize(("size", "fits"), [(1000, True), (1001, False)])
async def test_more_bytes_than_are_taken_are_refused(
    size: int, fits: bool, announced: dict[str, str]
) -> None:
    body = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n%b\r\n--x--\r\n'
    payload = StreamReader(mock.Mock(_reading_paused=False), 2**16, loop=asyncio.get_running_loop())
    payload.feed_data(body % (b"y" * size))
    payload.feed_eof()
    headers = {"Content-Type": "multipart/form-data; boundary=x"} | announced
    request = make_mocked_request("POST", MANY, headers=headers, payload=payload)
    uploads = upload.Uploads()
    if fits and not announced:
        assert (await uploads.read(request, 1000)).file == b"y" * size
        return
    with pytest.raises(ProblemError) as refused:
        await uploads.read(request, 1000)
    assert refused.value.status == 413


async def test_a_draft_is_of_one_session_for_an_hour(browser: Browser) -> None:
    path = await uploaded(browser, GOOD)
    async with browsing(browser.world) as other:
        await other.sign_in("operator")
        assert (await other.get(path)).status == 404
        csrf = await other.csrf(MANY)
        for goal in (path, path + "/tokens"):
            assert (await other.post(goal, {"csrf": csrf})).status == 404
    browser.world.clock.advance(shelf.KEPT.total_seconds() - 1)
    assert (await browser.get(path)).status == 200
    browser.world.clock.advance(shelf.KEPT.total_seconds() + 1)
    answer = await browser.get(path)
    assert answer.status == 404 and b"upload the file again" in answer.body


@pytest.mark.parametrize("bound", [("_MOST", 2), ("_MOST_ROWS", 5), ("_MOST_BYTES", 2 * len(GOOD) + 1)])
async def test_the_oldest_drafts_make_room(
    browser: Browser, monkeypatch: pytest.MonkeyPatch, bound: tuple[str, int]
) -> None:
    monkeypatch.setattr(drafts, *bound)
    first, second = await uploaded(browser, GOOD), await uploaded(browser, GOOD)
    assert (await browser.get(first)).status == 200  # used last
    await uploaded(browser, GOOD)
    assert [(await browser.get(path)).status for path in (first, second)] == [200, 404]


async def test_many_rows_are_shown_in_pages(browser: Browser) -> None:
    lines = [f"poller,Site {number},s{number},\r\n".encode() for number in range(150)]
    path = await uploaded(browser, GOOD + b"".join(lines))
    assert len(rows_of(await browser.get(path))) == 100
    assert len(rows_of(await browser.get(path + "?cursor=100&outcome=planned"))) == 52
    assert rows_of(await browser.get(path + "?outcome=refused")) == []


async def test_it_needs_an_operator_the_session_s_word_and_a_page_of_ours(browser: Browser) -> None:
    assert (await browser.upload(MANY, {}, "file", GOOD)).status == 403
    async with browsing(browser.world) as viewer:
        await viewer.sign_in("viewer")
        assert (await viewer.get(MANY)).status == 403
        assert (await viewer.upload(MANY, {}, "file", GOOD)).status == 403
    form = FormData()
    form.add_field("csrf", await browser.csrf(MANY))
    form.add_field("file", GOOD, filename="a.csv")
    answer = await browser.send("POST", MANY, headers={"Sec-Fetch-Site": "cross-site"}, data=form)
    assert answer.status == 403


async def test_no_token_reaches_the_log(browser: Browser, capsys: pytest.CaptureFixture[str]) -> None:
    path = await uploaded(browser, GOOD)
    await press(browser, path)
    found = await tokens(browser, path)
    printed = capsys.readouterr()
    assert found and not any(token in printed.out + printed.err for token in found.values())
